"""Claim on an interval that adapts itself: it costs about as little as the best fixed one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from colobench.lab.bench.case import at_least, at_most
from colobench.lab.reproductions.points import Point, median
from colobench.lab.reproductions.reproduction import Drawn, Gate, Laboratory, Reproduction, Rounds
from colobench.lab.reproductions.windows import WatchedTime, set_trigger, watch
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.serving import serving_settings
from colobench.lab.session.session import Session
from colobench.settings.settings import Settings

#: Price of a waiting frame or request, in guests that stand still.
PRICE = 0.01
#: Fixed intervals, milliseconds.
FIXED = (4, 12, 40, 120, 400)
#: x at which the adaptive trigger is drawn.
ADAPTIVE_X = 1.0
#: Windows last as long as those of an interval of so many milliseconds, at least.
WINDOW_MS = 300.0


class AdaptiveLoad(NamedTuple):
    """A load on which triggers are compared.

    Attributes
    ----------
    name
        Name.
    settings
        Function that gives the settings of its pair.
    every_ms
        Milliseconds between two requests of clients; None: the guest sends frames by itself.
    """

    name: str
    settings: Callable[[], Settings]
    every_ms: float | None


def _serving() -> Settings:
    return serving_settings(delay=FIXED[1], verify=False)


def _writing() -> Settings:
    # A frame each 256 steps, so one in 6.4 ms, and 40 new pages a millisecond.
    return Settings().override(
        guest="sequential", ram="64M", writes_per_tick=40, delay=FIXED[1], verify=False
    )


#: Few pages and much output, few pages and little output, many pages: each has another best
#: interval, so no fixed one is good for all.
LOADS = (
    AdaptiveLoad("frequent requests", _serving, 2.0),
    AdaptiveLoad("rare requests", _serving, 40.0),
    AdaptiveLoad("many pages", _writing, None),
)


def cost_of(stopped_share: float, waiting: float) -> float:
    """Give the cost of a strategy: what `PriceOfWaiting` makes least.

    Parameters
    ----------
    stopped_share
        Share of the time for which the guest stood still.
    waiting
        Number of frames or requests that waited, averaged over time.
    """
    return stopped_share + PRICE * waiting


def waiting_in(window: WatchedTime) -> float:
    """Give the number of requests or frames that waited, averaged over a window.

    By Little's law it is the sum of their waits, divided by the time. A request waits from when it
    was sent. Where nobody asks, a frame waits from when the guest sent it until its release; the
    guest sends them at a steady rate while it runs, so their mean is half of the run and the rest.
    """
    if window.answers:
        return sum(each.latency_ms for each in window.answers) / 1000 / window.seconds
    waits = itertools.starmap(_frames_waited_ms, itertools.pairwise(window.records))
    return sum(waits) / 1000 / window.seconds


def _frames_waited_ms(before: CheckpointRecord, record: CheckpointRecord) -> float:
    marks = dict(record.primary_marks)
    run = (marks["stop"] - dict(before.primary_marks)["resume"]) / 1e6
    release = (marks["received"] - marks["stop"]) / 1e6
    return record.frames * (run / 2 + release)


def measure_adaptive(laboratory: Laboratory) -> Rounds:
    """Measure each fixed interval and the adaptive trigger on each load, in turn."""
    triggers = [(float(ms), f"fixed:ms={ms}") for ms in FIXED]
    triggers.append((ADAPTIVE_X, f"price:waiting={PRICE}"))
    with ExitStack() as stack:
        sessions = {}
        for load in LOADS:
            settings = laboratory.settings[load.name] = load.settings()
            sessions[load.name] = stack.enter_context(Session(settings))
        for number in laboratory.rounds():
            points = []
            for load in LOADS:
                session = sessions[load.name]
                for x, trigger in triggers if number % 2 else reversed(triggers):
                    set_trigger(session, trigger)
                    window = watch(session, max(x, WINDOW_MS), load.every_ms)
                    points += _points(load.name, x, window, number)
                # Nothing is asked of it until its next turn.
                set_trigger(session, "fixed:ms=1000")
            yield points


def _points(load: str, x: float, window: WatchedTime, number: int) -> list[Point]:
    waiting = waiting_in(window)
    interval = 1000 * window.seconds / max(1, len(window.records))
    return [
        Point(load, name, x, y, number)
        for name, y in (
            ("cost", cost_of(window.stopped_share, waiting)),
            ("waiting", waiting),
            ("stopped_share", window.stopped_share),
            ("interval_ms", interval),
        )
    ]


def judge_adaptive(points: Sequence[Point]) -> dict[str, float]:
    """Compute, for the load on which it is worst, the adaptive cost over that of the best fixed.

    ``worst`` is the cost of the worst fixed interval over that of the best one, on the load where
    that matters least.
    """
    adaptive, worst = [], []
    for load in LOADS:
        fixed = [median(points, "cost", load.name, float(ms)) for ms in FIXED]
        adaptive.append(median(points, "cost", load.name, ADAPTIVE_X) / min(fixed))
        worst.append(max(fixed) / min(fixed))
    return {"adaptive": max(adaptive), "worst": min(worst)}


ADAPTIVE_INTERVAL = Reproduction(
    name="adaptive",
    claim="An interval that follows the price of waiting costs no more than the best fixed one",
    kind="shape",
    source="Young, CACM 1974, with waiting output in place of failures",
    here=(
        "Three pairs, with frequent requests, rare ones, and a guest that writes 40 pages a "
        "millisecond, take checkpoints at five fixed intervals, and as the trigger price says. The "
        "cost is the share of the time for which the guest stands still, and 0.01 for each frame "
        "or request that waits, averaged over time."
    ),
    gates=(
        Gate("adaptive", "cost, adaptive / best fixed, on its worst load", at_most(1.15)),
        Gate("worst", "cost, worst fixed / best fixed, on the load with the least", at_least(2)),
    ),
    measure=measure_adaptive,
    figures=judge_adaptive,
    drawn=(
        Drawn("cost", "interval (ms); 1: adaptive", "cost", logarithmic=True),
        Drawn("interval_ms", "interval (ms); 1: adaptive", "interval (ms)", logarithmic=True),
    ),
)

CLAIMS = (ADAPTIVE_INTERVAL,)
