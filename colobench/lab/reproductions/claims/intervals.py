"""Claims on the time between checkpoints, from pairs whose interval is changed while they run."""

from __future__ import annotations

import time
from collections.abc import Sequence

from colobench.lab.bench.case import at_least, at_most
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.reproductions.points import Point, median, medians, rising_share
from colobench.lab.reproductions.reproduction import Drawn, Gate, Laboratory, Reproduction, Rounds
from colobench.lab.reproductions.windows import set_trigger, wait, watch
from colobench.lab.session.serving import serving_settings
from colobench.lab.session.session import Session

# -- Remus: latency and cost over the rate of checkpoints ----------------------------------------

#: Milliseconds between checkpoints.
RATES = (25, 50, 100, 200, 400)
#: The one at which latency is compared with what follows from the interval.
PREDICTED = 200


def measure_rates(laboratory: Laboratory) -> Rounds:
    """Measure output latency and the guest's loss of time at each interval."""
    settings = serving_settings(delay=RATES[0], verify=False)
    laboratory.settings["colo_v12"] = settings
    with Session(settings) as session:
        for number in laboratory.rounds():
            points = []
            for interval in RATES if number % 2 else reversed(RATES):
                set_trigger(session, f"fixed:ms={interval}")
                window = watch(session, interval, every_ms=5)
                points += [
                    Point("colo_v12", "latency_ms", interval, each.latency_ms, number)
                    for each in window.answers
                ]
                points += [
                    Point("colo_v12", name, interval, value, number)
                    for each in window.records
                    for name, value in (
                        ("loaded_ms", each.loaded_ms),
                        ("stopped_share", each.pause_ms / interval),
                    )
                ]
            yield points


def judge_rates(points: Sequence[Point]) -> dict[str, float]:
    """Compute the growth of latency, that of the loss, and latency over its prediction."""
    latency = medians(points, "latency_ms", "colo_v12")
    lost = medians(points, "stopped_share", "colo_v12")
    predicted = PREDICTED / 2 + median(points, "loaded_ms", x=PREDICTED)
    ratio = latency[PREDICTED] / predicted
    return {
        "latency": latency[RATES[-1]] / latency[RATES[0]],
        "lost": lost[RATES[0]] / lost[RATES[-1]],
        "rising": rising_share(list(latency.values())),
        "above": ratio,
        "below": ratio,
    }


RATE = Reproduction(
    name="rate",
    claim="More checkpoints a second cost more of the guest's time, and output waits less",
    kind="shape",
    source="Cully and others, Remus, NSDI 2008, figure 6",
    here=(
        "One pair that serves a store takes checkpoints every 25 to 400 ms, while an open loop of "
        "clients asks it."
    ),
    gates=(
        Gate("latency", "latency p50, every 400 ms / every 25 ms", at_least(4)),
        Gate("lost", "pause p50 / interval, every 25 ms / every 400 ms", at_least(2)),
        Gate("rising", "steps of the interval at which latency rises, of 1", at_least(1)),
        Gate("above", "latency p50 at 200 ms / (half of the interval + checkpoint)", at_least(0.8)),
        Gate("below", "the same, from above", at_most(1.25)),
    ),
    measure=measure_rates,
    figures=judge_rates,
    drawn=(
        Drawn("latency_ms", "interval (ms)", "output latency (ms)", logarithmic=True),
        Drawn("stopped_share", "interval (ms)", "pause / interval", logarithmic=True),
    ),
)


# -- Ten requests a second -----------------------------------------------------------------------

EPOCH_MS = 100
#: Seconds of a round in which one client asks, answer by answer.
CLIENT_SECONDS = 1.5


def measure_client(laboratory: Laboratory) -> Rounds:
    """Count the answers to one client that asks again at each answer."""
    settings = serving_settings(delay=EPOCH_MS, verify=False)
    laboratory.settings["one client"] = settings
    with Session(settings) as session, StoreConnection(session.address()) as client:
        client.ask(b"PING")
        for number in laboratory.rounds():
            begin, answers = time.monotonic(), 0
            while time.monotonic() < begin + CLIENT_SECONDS:
                client.ask(b"INCR", b"counter")
                answers += 1
            rate = answers / (time.monotonic() - begin)
            yield [Point("one client", "answers_per_s", number, rate, number)]


def judge_client(points: Sequence[Point]) -> dict[str, float]:
    """Give the rate, for both of its bounds."""
    rate = median(points, "answers_per_s")
    return {"least": rate, "most": rate}


TEN = Reproduction(
    name="ten_requests",
    claim="With checkpoints every 100 ms, a client that waits for each answer gets ten a second",
    kind="value",
    source="MIT 6.824, lecture notes on Remus, 2015",
    here="A pair that buffers output for 100 ms serves a client that asks again at each answer.",
    gates=(
        Gate("least", "answers a second", at_least(8), "10"),
        Gate("most", "the same, from above", at_most(11), "10"),
    ),
    measure=measure_client,
    figures=judge_client,
    drawn=(Drawn("answers_per_s", "round", "answers a second"),),
)


# -- V-Recover: pages and downtime over the interval ---------------------------------------------

#: Milliseconds between checkpoints.
SPANS = (5, 10, 20, 50, 100)


def measure_spans(laboratory: Laboratory) -> Rounds:
    """Measure pages of a checkpoint and of all, and the time lost, at each interval."""
    session = Session(guest="hotcold", ram="64M", writes_per_tick=200, delay=SPANS[0], verify=False)
    laboratory.settings["colo_v12"] = session.settings
    with session:
        wait(session, 0.5)
        for number in laboratory.rounds():
            points = []
            for interval in SPANS if number % 2 else reversed(SPANS):
                set_trigger(session, f"fixed:ms={interval}")
                window = watch(session, interval)
                points += [
                    Point("colo_v12", "pages", interval, each.pages, number)
                    for each in window.records
                ]
                points += [
                    Point("colo_v12", name, interval, value, number)
                    for name, value in (
                        ("pages_per_s", window.pages_per_s),
                        ("stopped_share", window.stopped_share),
                    )
                ]
            yield points


def judge_spans(points: Sequence[Point]) -> dict[str, float]:
    """Compute what grows with the interval, and what shrinks."""
    pages = medians(points, "pages", "colo_v12")
    total, lost = (medians(points, each, "colo_v12") for each in ("pages_per_s", "stopped_share"))
    return {
        "rising": rising_share(list(pages.values())),
        "total": total[SPANS[0]] / total[SPANS[-1]],
        "lost": lost[SPANS[0]] / lost[SPANS[-1]],
    }


SPAN = Reproduction(
    name="interval",
    claim="Longer intervals make larger checkpoints, but fewer pages in all and less downtime",
    kind="shape",
    source="V-Recover, figures 12(b) and 16",
    here="One pair, whose guest writes hot and cold pages, takes checkpoints every 5 to 100 ms.",
    gates=(
        Gate("rising", "steps of the interval at which its pages rise, of 1", at_least(1)),
        Gate("total", "pages sent a second, every 5 ms / every 100 ms", at_least(1.3)),
        Gate("lost", "share of time that the guest stands still, the same", at_least(1.3)),
    ),
    measure=measure_spans,
    figures=judge_spans,
    drawn=(
        Drawn("pages", "interval (ms)", "pages of a checkpoint", logarithmic=True),
        Drawn("pages_per_s", "interval (ms)", "pages sent a second", logarithmic=True),
    ),
)

CLAIMS = (RATE, TEN, SPAN)
