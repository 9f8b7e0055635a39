"""Notebook 05: output commit."""

from __future__ import annotations

from functools import cache
from typing import Any

from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    as_choice,
    as_instance,
    judge_number,
    right,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import NumberAnswer, PredictedExperiment
from colobench.lab.session.record import Records
from colobench.lab.session.session import Session
from colobench.lab.studies.checkpoint_causes import CauseTable
from colobench.lab.studies.console import ask
from colobench.lab.studies.latency import measure_latency

#: Resolution of a guest's clock, µs, that hides most differences of two guests.
COARSE_US = 1_000_000
INTERVAL_MS = 60
WAITERS = ("SET", "SET and INCR", "all of them", "none of them")
REQUESTS = {"SET": "SET greeting hello", "INCR": "INCR visitors", "GET": "GET greeting"}
SLOW_MS = 250


@cache
def _who_waits() -> str:
    """Ask a pair that buffers, and find the requests whose answers wait for a checkpoint."""
    with Session(
        guest="kv", ram="16M", delay=SLOW_MS, hostfwd="tcp:127.0.0.1:0-:6379", verify=False
    ) as session:
        # The first answer of a connection also waits for the guest's side of it.
        _, *answers = ask(session, "PING", *REQUESTS.values())
    waited = [each.milliseconds > SLOW_MS / 3 for each in answers]
    if not any(waited):
        return WAITERS[3]
    if all(waited):
        return WAITERS[2]
    return WAITERS[1] if waited[1] else WAITERS[0]


def _judge_waiters(answer: Any) -> Feedback:
    choice, truth = as_choice(answer, WAITERS), _who_waits()
    if choice == truth:
        return right(
            "Each answer depends on a state that is not safe yet: a GET shows what a SET before it "
            "has written."
        )
    if choice == "none of them":
        return wrong("Then a client could know what the secondary does not have.")
    if choice == "SET":
        return wrong("INCR changes the store, too, and that is not all.")
    return wrong(
        "GET changes nothing, but it tells: it may show a write that is lost if the primary dies."
    )


def _judge_miscompares(answer: Any) -> Feedback:
    records = as_instance(answer, Records, "what `cb.provoke_miscompares` returns")
    table = CauseTable(records)
    if not len(records):
        return wrong("There is no checkpoint in it. Let clients ask for longer.")
    clocks = {each.settings.guest.nondeterminism.clock_us for each in records if each.settings}
    if min(clocks, default=0) < COARSE_US:
        return wrong(
            "The clock of that guest is fine, so its answers to TIME may be what differed. Set "
            f"`clock_us` to {COARSE_US:,}."
        )
    shuffles = {each.settings.guest.nondeterminism.shuffle for each in records if each.settings}
    if not table.miscompares and max(shuffles, default=0):
        return wrong(
            f"The setting is the right one, and no two answers differed: {table.counted()}. Raise "
            "it, or let the clients ask for longer."
        )
    if not table.miscompares:
        return wrong(
            f"No two answers differed: {table.counted()}. Which setting changes the order in which "
            "clients are served?"
        )
    return right(f"{table.counted()}. Two clients' INCR changed places.")


def _median_latency() -> float:
    found = measure_latency(seconds=1.0, delay_ms=INTERVAL_MS)
    return found.percentile("buffer", 50)


def _judge_latency(answer: float, outcome: float) -> Feedback:
    why = (
        f"The median was {outcome:.0f} ms: half of the {INTERVAL_MS} ms on average, and the "
        "checkpoint itself."
    )
    return judge_number(
        answer,
        outcome,
        why=why,
        hints={
            INTERVAL_MS: f"Only a request just after a checkpoint waits for all of it. {why}",
            0: f"An answer waits for the next checkpoint. {why}",
        },
        otherwise=why,
        exact=0.35,
        close=0.7,
    )


LESSON = Lesson(
    "05",
    exercises=(
        Exercise(
            "05.1",
            "A pair buffers output, and a client sends SET, INCR and GET, one after the other. "
            "Whose answers wait for a checkpoint? "
            + ", ".join(f"`{each}`" for each in WAITERS)
            + ".",
            "one of the four",
            """settings = {"guest": "kv", "hostfwd": "tcp:127.0.0.1:0-:6379"}
with cb.Session(ram="16M", delay=250, **settings) as session:
    print(cb.ask(session, "PING", "SET greeting hello", "INCR visitors", "GET greeting"))
cb.exercise("05.1").check("all of them")""",
            _judge_waiters,
            "Output commit asks for the state that an answer *depends* on, not for the state "
            "that it changes.",
        ),
        Exercise(
            "05.2",
            "`cb.provoke_miscompares(cb.NondeterminismSettings(clock_us=…, jitter_us=…, "
            "shuffle=…))` does what the panel's button does, and returns the records. Provoke a "
            "miscompare that is not the clock's: with a clock step of 1 s.",
            "what `cb.provoke_miscompares` returns",
            """dials = cb.NondeterminismSettings(clock_us=1_000_000, shuffle=1000)
cb.exercise("05.2").check(cb.provoke_miscompares(dials, seconds=4))""",
            _judge_miscompares,
            "With `shuffle`, two guests serve connections in different orders.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "05.1",
            f"A pair buffers output and takes a checkpoint each {INTERVAL_MS} ms. Requests arrive "
            "at any time. After how many milliseconds does the median answer come?",
            NumberAnswer("ms"),
            _median_latency,
            _judge_latency,
        ),
    ),
)
