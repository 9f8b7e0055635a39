"""Notebook 00: the door."""

from __future__ import annotations

from functools import cache
from typing import Any

from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback, as_instance, judge_number, right, wrong
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.session.session import Session
from colobench.lab.session.takeover import TakeoverRecord

CHECKPOINTS = 7
GOES_ON = "it goes on from the last whole checkpoint"
STARTS_ANEW = "it starts anew, as after a reset"
NOTHING_LOST = "it goes on from the very instruction at which the primary died"


@cache
def _takeover() -> tuple[TakeoverRecord, int, int]:
    """Kill a primary with half of a checkpoint sent; also its work then, and at its last one."""
    with Session(ram="16M", delay=None) as session:
        session.run(CHECKPOINTS)
        session.wait_for_ticks(20)
        session.hold("primary", "ram")
        died = int(session.nodes["primary"].execute("x-query-guest")["work"])
        session.kill("primary")
        return session.failover(), died, session.records[-1].guest_work


def _outcome() -> str:
    takeover, died, committed = _takeover()
    if takeover.work_at_takeover == committed < died:
        return GOES_ON
    return NOTHING_LOST if takeover.work_at_takeover == died else STARTS_ANEW


def _judge_outcome(answer: str, outcome: str) -> Feedback:
    takeover, died, committed = _takeover()
    why = (
        f"At the last whole checkpoint the guest had done {committed:,} steps, when the primary "
        f"died {died:,}; the secondary's guest went on from {takeover.work_at_takeover:,}."
    )
    if answer == outcome:
        return right(why)
    if answer == STARTS_ANEW:
        return wrong(f"A reset is what a protected guest is spared. {why}")
    return wrong(
        f"Nobody has the work since the last checkpoint any more. Output that depends on it was "
        f"held back, so nobody has seen it either. {why}"
    )


def _judge_survivor(answer: Any) -> Feedback:
    takeover = as_instance(answer, TakeoverRecord, "what `session.failover()` returns")
    if takeover.role == "secondary":
        return wrong("There the primary was killed: the secondary went on. Kill the other one.")
    if takeover.work_after <= takeover.work_at_takeover:
        return wrong("Its guest does not work. Ask for the failover of a session that runs.")
    return right("The primary goes on by itself, with the state that it has: nothing is set back.")


def _judge_checkpoint(answer: Any) -> Feedback:
    takeover, *_ = _takeover()
    return judge_number(
        answer,
        takeover.checkpoint,
        why="That was the last one that had arrived whole.",
        hints={
            CHECKPOINTS + 1: "That one was on its way, and half of it is missing.",
            0: "That would be the state from migration: checkpoints have been committed since.",
            CHECKPOINTS - 1: "A newer one has arrived whole.",
        },
        otherwise="Count the checkpoints that had arrived whole.",
    )


LESSON = Lesson(
    "00",
    exercises=(
        Exercise(
            "00.1",
            "In the cell above the primary is killed. Kill the secondary instead, let the session "
            "fail over, and look at the result: which side goes on?",
            "what `session.failover()` returns",
            """with cb.Session(ram="16M", delay=50) as session:
    session.run(3)
    session.kill("secondary")
    takeover = session.failover()
cb.exercise("00.1").check(takeover)""",
            _judge_survivor,
            "A pair survives the death of either host.",
        ),
        Exercise(
            "00.2",
            f"A session takes {CHECKPOINTS} checkpoints, and its primary is killed with half of "
            "the next one sent (`delay=None`: no checkpoint comes by itself). From which "
            "checkpoint does the secondary go on?",
            "the checkpoint's number",
            f"""with cb.Session(ram="16M", delay=None) as session:
    session.run({CHECKPOINTS})
    session.kill("primary", at="ram")
    takeover = session.failover()
cb.exercise("00.2").check(takeover.checkpoint)""",
            _judge_checkpoint,
            "A checkpoint counts as a whole or not at all.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "00.1",
            "A primary gets SIGKILL while half of a checkpoint is on its way. What does the guest "
            "on the secondary do?",
            ChoiceAnswer((NOTHING_LOST, GOES_ON, STARTS_ANEW)),
            _outcome,
            _judge_outcome,
        ),
    ),
)
