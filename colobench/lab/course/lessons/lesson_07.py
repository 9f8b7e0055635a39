"""Notebook 07: strategies."""

from __future__ import annotations

from typing import Any

from colobench.errors import LocalError
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    UnfitAnswerError,
    as_instance,
    right,
    shown,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.session.record import Records
from colobench.lab.session.session import Session

WANTED = "colo_v12,transport=memfd,capture=copy-then-send,delay=20"
THRESHOLD = 100
MORE, AS_MANY, FEWER = "more", "about as many", "fewer"


def _judge_text(answer: Any) -> Feedback:
    if not isinstance(answer, str):
        raise UnfitAnswerError(f"answer: expected a text, found {shown(answer)}")
    wanted = Session(strategy=WANTED).settings.checkpoint
    try:
        found = Session(strategy=answer).settings.checkpoint
    except LocalError as error:
        return wrong(f"The session refuses it: {error}.")
    for axis, hint in (
        ("transport", "The pages are to travel in shared memory: `transport=memfd`."),
        ("capture", "The guest is to stand still only for a copy: `capture=copy-then-send`."),
        ("delay", "Checkpoints are to come each 20 ms: `delay=20`."),
    ):
        if getattr(found, axis) != getattr(wanted, axis):
            return wrong(hint)
    if found != wanted:
        return wrong("Another axis differs, too. Begin with `colo_v12`, and change three axes.")
    return right("Each axis was changed by itself.")


def _judge_causes(answer: Any) -> Feedback:
    records = as_instance(answer, Records, "a session's `records`")
    later = list(records)[1:]
    if len(later) < 5:
        return wrong(f"Take at least 6 checkpoints; it has {len(records)}.")
    causes = {record.cause for record in later}
    if causes != {"dirty"}:
        return wrong(
            f"Their causes are {', '.join(sorted(causes))}. The trigger is to look at dirty pages, "
            "not at the clock."
        )
    least = min(record.pages for record in later)
    if least < THRESHOLD:
        return wrong(f"One sent {least:,} pages: that trigger asks for fewer than {THRESHOLD}.")
    if sorted(record.pages for record in later)[len(later) // 2] > 3 * THRESHOLD:
        return wrong(f"They send many more than {THRESHOLD} pages: the trigger asks for more.")
    return right("Each came as soon as so many pages were dirty, give or take a millisecond.")


def _pages_a_second(delay_ms: int) -> float:
    settings: dict[str, Any] = {"guest": "hotcold", "writes_per_tick": 64, "verify": False}
    with Session(ram="16M", delay=delay_ms, **settings) as session:
        session.run(2)
        records = session.run(max(8, 600 // delay_ms))
    pages, times = records.column("pages"), records.column("time")
    return float(sum(pages[1:]) / (times[-1] - times[0]))


def _traffic() -> str:
    ratio = _pages_a_second(20) / _pages_a_second(100)
    return MORE if ratio > 1.1 else FEWER if ratio < 0.9 else AS_MANY


def _judge_traffic(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right("A page that is written all the time is sent once in every checkpoint.")
    if answer == FEWER:
        return wrong("Each checkpoint sends fewer pages, but there are more checkpoints.")
    return wrong(
        "The same pages are written all the time. What is written twice between two rare "
        "checkpoints is sent once; with frequent ones it is sent twice."
    )


LESSON = Lesson(
    "07",
    exercises=(
        Exercise(
            "07.1",
            "Write a strategy as one text: the preset `colo_v12`, but pages travel in shared "
            "memory (`memfd`), the guest stands still only for a copy (`copy-then-send`), and a "
            "checkpoint comes each 20 ms.",
            "a text",
            f'cb.exercise("07.1").check("{WANTED}")',
            _judge_text,
            "Each axis is a name and a value, behind the preset.",
        ),
        Exercise(
            "07.2",
            f"Take six checkpoints or more, each of which comes as soon as {THRESHOLD} pages are "
            "dirty.",
            "the session's `records`",
            f"""text = "dirty_volume,trigger=dirty:pages={THRESHOLD}"
with cb.Session(strategy=text, guest="hotcold", ram="16M", verify=False) as session:
    session.run(6)
cb.exercise("07.2").check(session.records)""",
            _judge_causes,
            "The trigger is asked again and again, and counts the dirty pages each time.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "07.1",
            "The guest `hotcold` writes a few pages often and many seldom. Checkpoints come each "
            "20 ms instead of each 100 ms. How many pages are sent in a second, "
            "compared with before?",
            ChoiceAnswer((FEWER, AS_MANY, MORE)),
            _traffic,
            _judge_traffic,
        ),
    ),
)
