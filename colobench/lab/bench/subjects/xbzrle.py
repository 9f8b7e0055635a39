"""XBZRLE: pages of which a part has changed, encoded and decoded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numba
import numpy as np

from colobench.kernels import xbzrle
from colobench.kernels.jit import Bytes, Pages
from colobench.lab.bench.case import Case, at_least, subject
from colobench.lab.bench.context import PAGE_SIZE, BenchContext, as_rates
from colobench.lab.bench.measured import Measured
from colobench.lab.bench.timing import timed

PAGES = 2048
#: Percentages of changed bytes, and sizes of the clusters in which they lie.
CHANGES = (
    (0, 1),
    (1, 1),
    (10, 1),
    (50, 1),
    (1, 16),
    (10, 16),
    (50, 16),
    (1, 64),
    (10, 64),
    (50, 64),
)
UNIT = "GB/s"
#: Instruction sets for which the encoder in C is written.
_VECTORS = ("avx512", "avx2", "neon")


def change(old: Bytes, percent: float, cluster: int) -> Bytes:
    """Change a percentage of the bytes of each page, in aligned clusters.

    Parameters
    ----------
    old
        uint8, whole pages.
    percent, cluster
        Percentage of the bytes, rounded to whole clusters, and bytes of an aligned cluster.
    """
    chance = np.random.default_rng(0)
    clusters = PAGE_SIZE // cluster
    order = chance.random((len(old) // PAGE_SIZE, clusters)).argsort(axis=1)
    chosen = (order < round(clusters * percent / 100)).repeat(cluster, axis=1).ravel()
    return old ^ (chosen * chance.integers(1, 256, len(old), dtype=np.uint8))


@numba.njit(nogil=True)
def decode_pages(memory: Bytes, pages: Pages, count: int, data: Bytes, lengths: Pages) -> int:
    """Decode many pages in one call, as the C reference does.

    Parameters
    ----------
    memory
        uint8, whole pages of 4096 bytes, which are changed.
    pages, count, data, lengths
        Results of `xbzrle.encode_pages`: int32, the encodings as uint8, int32.

    Returns
    -------
    int
        The bytes decoded.
    """
    # The type of the kernel's signature: for another type it would be compiled again.
    begin = np.int64(0)
    for i in range(count):
        length = np.int64(lengths[i])
        if length > 0:
            xbzrle.decode(memory, pages[i] * PAGE_SIZE, data, begin, length)
            begin += length
    return int(begin)


class _Work:
    """The pages before and after, and room for both sides' results."""

    def __init__(self, context: BenchContext, percent: float, cluster: int) -> None:
        self.count = context.size(PAGES)
        self.size = self.count * PAGE_SIZE
        self.old = np.random.default_rng(1).integers(0, 256, self.size, dtype=np.uint8)
        self.new = change(self.old, percent, cluster)
        self.numbers = np.arange(self.count, dtype=np.int32)
        room = self.size + xbzrle.SLACK
        self.out = np.zeros(room, dtype=np.uint8)
        self.lengths = np.zeros_like(self.numbers)

    def encode(self) -> int:
        count: int = xbzrle.encode_pages(
            self.old, self.new, self.numbers, self.count, self.out, self.lengths
        )
        return count


def _encode(context: BenchContext, percent: float, cluster: int) -> Measured:
    work = _Work(context, percent, cluster)
    reference = context.references.function(
        f"xbzrle.xbzrle_encode_pages_{context.references.best(*_VECTORS).name}",
        *(work.old, work.new, work.numbers, work.count, work.out, work.lengths),
    )
    return as_rates(context.compare(timed(work.encode), timed(reference)), work.size)


def _decode(context: BenchContext, percent: float, cluster: int) -> Measured:
    work = _Work(context, percent, cluster)
    encoded = work.out[: work.encode()]
    memory = work.old.copy()
    reference = context.references.function(
        "xbzrle.xbzrle_decode_pages", memory, work.numbers, work.count, encoded, work.lengths
    )
    samples = context.compare(
        timed(lambda: decode_pages(memory, work.numbers, work.count, encoded, work.lengths)),
        timed(reference),
    )
    return as_rates(samples, work.size)


@subject("xbzrle", "XBZRLE of changed pages, encoding and decoding: against C with vectors")
def deltas(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    for verb, measure, against in (
        ("encode", _encode, context.references.best(*_VECTORS).words),
        ("decode", _decode, context.references.best().words),
    ):
        for percent, cluster in CHANGES:
            how = f"changed in clusters of {cluster} B" if cluster > 1 else "changed, scattered"
            strict = (percent, cluster) == (10, 1)
            bound = at_least(1.8 if strict else 1.0) if verb == "encode" else None
            yield Case(
                f"{verb}, {percent} % {how}, {against}",
                UNIT,
                partial(measure, context, percent, cluster),
                bound,
            )
