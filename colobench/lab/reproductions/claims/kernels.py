"""Claims on parts of a checkpoint, measured with kernels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from colobench.kernels import bitmap_walks, xbzrle
from colobench.kernels.jit import Bytes, Words
from colobench.lab.bench.case import at_least, at_most
from colobench.lab.bench.timing import Sampler, timed
from colobench.lab.reproductions.points import Point, least
from colobench.lab.reproductions.reproduction import Drawn, Gate, Laboratory, Reproduction, Rounds

PAGE_SIZE = 4096
#: Samples of a round, of which the shortest counts.
REPEATED = 3

# -- The flush by runs ---------------------------------------------------------------------------

#: Dirty pages of the publication, and the lengths of their runs, which it does not name.
DIRTY_PAGES = 3_190_000
RUN_LENGTHS = (1, 64, 4096)
WALKS = {
    "page by page": bitmap_walks.walk_pages,
    "found by runs": bitmap_walks.walk_runs,
    "found and cleared by runs": bitmap_walks.walk_and_clear_runs,
}


def bitmap_of_runs(pages: int, length: int) -> Words:
    """Make a bitmap with so many pages, in runs of a length with gaps of one page between them."""
    runs = -(-pages // length)
    bits = np.tile(np.arange(length + 1) < length, runs)
    padded = np.zeros(-(-len(bits) // 64) * 64, dtype=np.bool_)
    padded[: len(bits)] = bits
    return np.packbits(padded, bitorder="little").view(np.uint64)


def _walker(walk: Callable[[Words], int], whole: Words) -> Sampler:
    """Make a sampler of a walk through a bitmap, which is filled again before each sample."""
    left = whole.copy()
    return timed(lambda: walk(left), lambda: np.copyto(left, whole))


def measure_walks(laboratory: Laboratory) -> Rounds:
    """Time the three walks, for each length of runs in turn."""
    pages = laboratory.context.size(DIRTY_PAGES, max(RUN_LENGTHS))
    made = {length: bitmap_of_runs(pages, length) for length in RUN_LENGTHS}
    for number in laboratory.rounds():
        points = []
        for length, whole in made.items():
            samplers = {name: _walker(walk, whole) for name, walk in WALKS.items()}
            for _ in range(REPEATED):
                points += [
                    Point(name, "walk_ms", length, 1000 * sampler(), number)
                    for name, sampler in samplers.items()
                ]
        yield points


def judge_walks(points: Sequence[Point]) -> dict[str, float]:
    """Compute ratios for the longest runs, and the part of the work that each step saves."""
    longest = max(each.x for each in points)
    by_page, found, cleared = (least(points, "walk_ms", name, longest) for name in WALKS)
    return {"ratio": by_page / cleared, "clearing": found / cleared}


FLUSH_RUNS = Reproduction(
    name="flush_runs",
    claim="A flush that finds and clears dirty bits by runs of pages is an order quicker",
    kind="shape",
    source="Lei Rao, series on COLO's flush (qemu-devel, 2021): 3.19 million dirty pages",
    here=(
        "Three kernels walk a bitmap with as many dirty pages, in runs of different lengths. The "
        "pages are not copied, because 13 GB cannot be copied in the published times."
    ),
    gates=(
        Gate(
            "ratio",
            "time page by page / found and cleared by runs, runs of 4,096 pages",
            at_least(5),
            "12 to 14 (105–112 ms / 8.3–8.6 ms)",
        ),
        Gate("clearing", "time found by runs / found and cleared by runs", at_least(1.5)),
    ),
    measure=measure_walks,
    figures=judge_walks,
    drawn=(Drawn("walk_ms", "pages in a run", "walk (ms)", logarithmic=True),),
)


# -- XBZRLE's example ----------------------------------------------------------------------------


#: The changed bytes of the example, old and new, and the zeros before them.
_OLD = bytes.fromhex("0506 0708 090a 0b0c 0d0e 0f10 1112 1368 0000 6b00 6d")
_NEW = bytes.fromhex("0102 0304 0506 0708 090a 0b0c 0d0e 0f68 0000 6700 69")
_BEFORE = 1001
#: Its encoding.
EXAMPLE = bytes.fromhex("e907 0f01 0203 0405 0607 0809 0a0b 0c0d 0e0f 0301 6701 0169")
#: Pages that are encoded at once, to measure the speed.
ENCODED_PAGES = 2048


def example_pages() -> tuple[Bytes, Bytes]:
    """Make the old and the new page of the example."""
    pages = [np.zeros(PAGE_SIZE, dtype=np.uint8) for _ in range(2)]
    for page, changed in zip(pages, (_OLD, _NEW), strict=True):
        page[_BEFORE : _BEFORE + len(changed)] = np.frombuffer(changed, dtype=np.uint8)
    return pages[0], pages[1]


def measure_example(laboratory: Laboratory) -> Rounds:
    """Encode the example once, compare it, and then encode many such pages."""
    count = laboratory.context.size(ENCODED_PAGES)
    old, new = (np.tile(page, count) for page in example_pages())
    out = np.zeros(count * PAGE_SIZE + xbzrle.SLACK, dtype=np.uint8)
    pages, lengths = np.arange(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    encode = timed(lambda: xbzrle.encode_pages(old, new, pages, count, out, lengths))
    for number in laboratory.rounds():
        seconds = min(encode() for _ in range(REPEATED))
        length = int(lengths[0])
        equal = out[:length].tobytes() == EXAMPLE
        yield [
            Point("XBZRLE", "bytes", 0, length, number),
            Point("XBZRLE", "equal", 0, float(equal), number),
            Point("XBZRLE", "gb_per_s", number, count * PAGE_SIZE / seconds / 1e9, number),
        ]


def judge_example(points: Sequence[Point]) -> dict[str, float]:
    """Give length, agreement and speed."""
    return {name: least(points, name) for name in ("bytes", "equal", "gb_per_s")}


XBZRLE = Reproduction(
    name="xbzrle",
    claim="The example page of XBZRLE's description encodes to its 24 bytes, at 2 GB/s or more",
    kind="value",
    source="QEMU, docs/xbzrle.txt",
    here="The kernel of the nodes encodes the example, and then 2,048 copies of it.",
    gates=(
        Gate("bytes", "bytes of the encoding", at_most(24), "24", counted=True),
        Gate(
            "equal", "encodings that are equal byte by byte, of 1", at_least(1), "1", counted=True
        ),
        Gate("gb_per_s", "pages encoded, GB/s", at_least(2), "2 to 2.5"),
    ),
    measure=measure_example,
    figures=judge_example,
    drawn=(Drawn("gb_per_s", "round", "pages encoded (GB/s)"),),
)

CLAIMS = (FLUSH_RUNS, XBZRLE)
