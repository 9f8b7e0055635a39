"""Claims on the pause and its memory, from pairs that are frozen between their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from colobench.lab.bench.case import at_least, at_most
from colobench.lab.bench.subjects.checkpoints import Pair
from colobench.lab.reproductions.points import Point, least, median, medians, r_squared
from colobench.lab.reproductions.reproduction import Drawn, Gate, Laboratory, Reproduction, Rounds
from colobench.lab.studies.sweep import fit_line

#: Numbers of dirty pages that are asked for.
FEW, MANY = 500, 8_000
SIZES = (500, 1_000, 2_000, 4_000, 8_000, 12_000)
#: Checkpoints at a point in a round. The shortest pause counts, which other work on the machine has
#: lengthened least.
REPEATED = 9
#: Pages that a guest writes in a millisecond, few enough that their number can be chosen.
RATE = 500
RAM_MIB = 128


class Pairs(ExitStack):
    """Pairs that differ in a few settings, of which one runs at a time.

    Parameters
    ----------
    laboratory
        Surroundings, which note the settings.
    series
        For each name the settings in which its pair differs.
    """

    def __init__(self, laboratory: Laboratory, series: dict[str, dict[str, object]]) -> None:
        super().__init__()
        context = laboratory.context
        ram = context.size(RAM_MIB, 16)
        self._pairs: dict[str, Pair] = {}
        try:
            for name, settings in series.items():
                usual = {"transport": "stream", "writes_per_tick": context.size(RATE, 50)}
                of_pair = usual | {"working_set": 0, "guest": "sequential"} | settings
                transport = str(of_pair.pop("transport"))
                pages = context.size(FEW)
                pair = self.enter_context(Pair(context, pages, transport, ram, **of_pair))
                self._pairs[name] = pair
                laboratory.settings[name] = pair.session.settings
        except BaseException:
            self.close()
            raise

    def measure(self, sizes: Sequence[int], number: int) -> list[Point]:
        """Take checkpoints of each pair in turn, every other round in the opposite order.

        Parameters
        ----------
        sizes
            Dirty pages, which are the x of the points.
        number
            Number of the round.
        """
        order = list(self._pairs.items())
        points = []
        for size in sizes:
            for name, pair in order if number % 2 else reversed(order):
                for record in pair.records(size, REPEATED):
                    points += [
                        Point(name, quantity, size, y, number)
                        for quantity, y in (
                            ("pages", record.pages),
                            ("pause_ms", record.pause_ms),
                            ("page_us", 1000 * record.pause_ms / max(record.pages, 1)),
                            ("secondary_bytes", record.secondary_buffer_bytes),
                        )
                    ]
        return points


def _sizes(laboratory: Laboratory, sizes: Sequence[int]) -> list[int]:
    return [laboratory.context.size(each) for each in sizes]


def _measure(
    laboratory: Laboratory, series: dict[str, dict[str, object]], sizes: Sequence[int]
) -> Rounds:
    scaled = _sizes(laboratory, sizes)
    with Pairs(laboratory, series) as pairs:
        for number in laboratory.rounds():
            yield pairs.measure(scaled, number)


# -- Patch 31: RAM and devices separated ---------------------------------------------------------


def measure_layouts(laboratory: Laboratory) -> Rounds:
    """Measure both layouts at a few numbers of pages."""
    series: dict[str, dict[str, object]] = {
        each: {"layout": each} for each in ("buffered", "separated")
    }
    return _measure(laboratory, series, (FEW, MANY // 4, MANY))


def judge_layouts(points: Sequence[Point]) -> dict[str, float]:
    """Compute how the secondary's memory grows by a page, and the ratio of the pauses."""
    found = {}
    for series in ("buffered", "separated"):
        sizes = medians(points, "secondary_bytes", series)
        pages = medians(points, "pages", series)
        found[series] = fit_line(list(pages.values()), list(sizes.values())).slope
    largest = max(each.x for each in points)
    pause = [least(points, "page_us", each, largest) for each in ("buffered", "separated")]
    return {**found, "pause": pause[0] / pause[1]}


SEPARATED = Reproduction(
    name="separated",
    claim="RAM that is not buffered with the devices takes no extra memory, and a shorter pause",
    kind="shape",
    source="Zhang Hailiang, COLO-Frame v12, patch 31 (qemu-devel, 2015)",
    here=(
        "A pair in each layout has the same guest, which writes 500, 2,000 and 8,000 pages between "
        "checkpoints."
    ),
    gates=(
        Gate(
            "buffered",
            "buffered: bytes of the secondary's buffer for each page",
            at_least(4096),
            counted=True,
        ),
        Gate("separated", "separated: the same", at_most(1), counted=True),
        Gate("pause", "pause for a page at 8,000 pages, buffered / separated", at_least(1)),
    ),
    measure=measure_layouts,
    figures=judge_layouts,
    drawn=(
        Drawn("secondary_bytes", "dirty pages", "secondary's buffer (bytes)"),
        Drawn("pause_ms", "dirty pages", "pause (ms)"),
    ),
)


# -- Remus: a pause linear in the pages ----------------------------------------------------------


def measure_linear(laboratory: Laboratory) -> Rounds:
    """Measure one pair at many numbers of pages."""
    return _measure(laboratory, {"colo_v12": {}}, SIZES)


def judge_linear(points: Sequence[Point]) -> dict[str, float]:
    """Compute R² of a line through the shortest pauses."""
    sizes = sorted({each.x for each in points})
    pause = [least(points, "pause_ms", "colo_v12", x) for x in sizes]
    pages = medians(points, "pages", "colo_v12")
    return {"r_squared": r_squared(list(pages.values()), pause)}


LINEAR = Reproduction(
    name="linear_pause",
    claim="The pause grows with the dirty pages in a straight line",
    kind="shape",
    source="Cully and others, Remus, NSDI 2008",
    here="One pair takes checkpoints of 500 to 12,000 pages; the shortest pauses are fitted.",
    gates=(Gate("r_squared", "R² of the line", at_least(0.98)),),
    measure=measure_linear,
    figures=judge_linear,
    drawn=(Drawn("pause_ms", "dirty pages", "pause (ms)"),),
)


# -- Remus: copied, then sent --------------------------------------------------------------------


def measure_captures(laboratory: Laboratory) -> Rounds:
    """Measure Remus' capture and stop-and-send with as many pages."""
    captures = ("stop-and-send", "copy-then-send")
    return _measure(laboratory, {each: {"capture": each} for each in captures}, (FEW, MANY))


def judge_captures(points: Sequence[Point]) -> dict[str, float]:
    """Compute the ratio of the pauses with many pages."""
    largest = max(each.x for each in points)
    copied, sent = (
        least(points, "page_us", each, largest) for each in ("copy-then-send", "stop-and-send")
    )
    return {"pause": copied / sent}


COPIED = Reproduction(
    name="copied",
    claim="Copying the dirty pages takes much less time than sending them, so Remus copies first",
    kind="shape",
    source="Cully and others, Remus, NSDI 2008",
    here="A pair for each capture has the same guest, which writes 500 and 8,000 pages.",
    gates=(
        Gate(
            "pause", "pause for a page at 8,000 pages, copy-then-send / stop-and-send", at_most(0.7)
        ),
    ),
    measure=measure_captures,
    figures=judge_captures,
    drawn=(Drawn("pause_ms", "dirty pages", "pause (ms)"),),
)


# -- Gap pre-copy --------------------------------------------------------------------------------

#: Words that a guest of hot and cold pages writes between checkpoints, some 100 ms of work.
WRITES = 30_000


def measure_gap(laboratory: Laboratory) -> Rounds:
    """Measure gap pre-copy and stop-and-send with a guest that has hot and cold pages."""
    guest = {"guest": "hotcold", "writes_per_tick": laboratory.context.size(300, 10)}
    captures: dict[str, dict[str, object]] = {
        "stop-and-send": guest,
        "gap-precopy": guest | {"capture": "gap-precopy", "pass_period": 5},
    }
    return _measure(laboratory, captures, (WRITES,))


def judge_gap(points: Sequence[Point]) -> dict[str, float]:
    """Compute the ratio of the medians of the pauses."""
    gap, sent = (median(points, "pause_ms", each) for each in ("gap-precopy", "stop-and-send"))
    return {"pause": gap / sent}


GAP = Reproduction(
    name="gap_precopy",
    claim="Dirty pages that are sent between checkpoints shorten the pause",
    kind="shape",
    source="Derek Su, gap pre-copy for COLO (qemu-devel, 2020): about 40 % less downtime",
    here=(
        "A pair for each capture has the same guest of hot and cold pages, which writes 30,000 "
        "words between checkpoints, with a pass every 5 ms."
    ),
    gates=(Gate("pause", "pause p50, gap-precopy / stop-and-send", at_most(0.85), "0.6"),),
    measure=measure_gap,
    figures=judge_gap,
    drawn=(Drawn("pause_ms", "words written between checkpoints", "pause (ms)"),),
)


# -- Several streams -----------------------------------------------------------------------------


def measure_streams(laboratory: Laboratory) -> Rounds:
    """Measure one stream and four channels, without load and with it."""
    series: dict[str, dict[str, object]] = {
        "stream": {"transport": "stream+tcp"},
        "multifd": {"transport": "multifd+tcp", "multifd_channels": 4},
    }
    return _measure(laboratory, series, (IDLE, MANY))


def judge_streams(points: Sequence[Point]) -> dict[str, float]:
    """Compute the ratio of the pauses under load, and how much worse it is without."""
    idle, loaded = (
        least(points, "page_us", "multifd", x) / least(points, "page_us", "stream", x)
        for x in sorted({each.x for each in points})
    )
    return {"loaded": loaded, "idle": idle / loaded}


#: Dirty pages of a guest that hardly does anything.
IDLE = 50

MULTIFD = Reproduction(
    name="multifd",
    claim="Several streams shorten the checkpoints of a loaded guest, not those of an idle one",
    kind="shape",
    source="QEMU, commit dd67c149e2 (2026): COLO over multifd, 10 GbE, checkpoints every 600 ms",
    here="A pair with one stream and a pair with four channels write 50 and 8,000 pages.",
    gates=(
        Gate(
            "loaded",
            "pause for a page at 8,000 pages, four channels / one stream",
            at_most(0.95),
            "0.58 (mean)",
        ),
        Gate(
            "idle",
            "that ratio at 50 pages, divided by the one at 8,000",
            at_least(1.1),
            "2.5 (means)",
        ),
    ),
    measure=measure_streams,
    figures=judge_streams,
    drawn=(Drawn("pause_ms", "dirty pages", "pause (ms)", logarithmic=True),),
)

CLAIMS = (SEPARATED, LINEAR, COPIED, GAP, MULTIFD)
