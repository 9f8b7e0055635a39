"""Claim on copy-on-write: a guest that goes on at once loses least of its work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from colobench.lab.bench.case import at_least
from colobench.lab.reproductions.points import Point, median
from colobench.lab.reproductions.reproduction import Drawn, Gate, Laboratory, Reproduction, Rounds
from colobench.lab.reproductions.windows import set_trigger, watch
from colobench.lab.session.session import Session
from colobench.settings.settings import Settings

#: Captures, from the one with the longest pause to the one with the shortest.
CAPTURES = ("stop-and-send", "copy-then-send", "copy-on-write")
#: Milliseconds between checkpoints, and those of a guest that is hardly ever stopped.
INTERVAL_MS, RARELY_MS = 50, 2000
#: Words that the guest writes at random in a millisecond: some 5,000 pages in an interval.
RATE = 120


def measure_overhead(laboratory: Laboratory) -> Rounds:
    """Measure each guest's work with checkpoints, and in the same round nearly without."""
    with ExitStack() as stack:
        sessions = {}
        for capture in CAPTURES:
            settings = laboratory.settings[capture] = Settings().override(
                guest="uniform",
                ram="64M",
                writes_per_tick=laboratory.context.size(RATE, 20),
                tracker="marked",
                capture=capture,
                delay=RARELY_MS,
                verify=False,
            )
            sessions[capture] = stack.enter_context(Session(settings))
        for number in laboratory.rounds():
            points = []
            for capture in CAPTURES if number % 2 else reversed(CAPTURES):
                session = sessions[capture]
                alone = watch(session, INTERVAL_MS)
                set_trigger(session, f"fixed:ms={INTERVAL_MS}")
                window = watch(session, INTERVAL_MS)
                set_trigger(session, f"fixed:ms={RARELY_MS}")
                lost = 1 - window.work_per_s / alone.work_per_s
                points += [Point(capture, "lost_percent", INTERVAL_MS, 100 * lost, number)]
                points += [
                    Point(capture, "pause_ms", INTERVAL_MS, each.pause_ms, number)
                    for each in window.records
                ]
            yield points


def judge_overhead(points: Sequence[Point]) -> dict[str, float]:
    """Compute how many times as much work the captures with longer pauses lose.

    A loss of less than 0.1 % counts as 0.1 %, since it is not told from none.
    """
    sent, copied, frozen = (max(0.1, median(points, "lost_percent", each)) for each in CAPTURES)
    return {"sent": sent / frozen, "copied": sent / copied}


OVERHEAD = Reproduction(
    name="overhead",
    claim="A program loses least of its work if pages are copied on write, after it goes on",
    kind="shape",
    source="Plank and others, libckpt, USENIX 1995, and its data of memory exclusion, 1996",
    here=(
        "A pair for each capture has the same guest, which writes pages at random, with a "
        "checkpoint every 50 ms. Its work is compared with that at a checkpoint every 2 s."
    ),
    gates=(
        Gate("sent", "work lost, stop-and-send / copy-on-write", at_least(1.3), "1.4 to 7.7"),
        Gate("copied", "work lost, stop-and-send / copy-then-send", at_least(1.1)),
    ),
    measure=measure_overhead,
    figures=judge_overhead,
    drawn=(
        Drawn("lost_percent", "interval (ms)", "work lost (%)"),
        Drawn("pause_ms", "interval (ms)", "pause (ms)", logarithmic=True),
    ),
)

CLAIMS = (OVERHEAD,)
