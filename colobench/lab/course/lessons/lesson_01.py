"""Notebook 01: one checkpoint, message by message."""

from __future__ import annotations

from functools import cache
from typing import Any

from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback, as_choice, judge_number, right, wrong
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session
from colobench.lab.studies.transcript import read_messages


@cache
def _ahead() -> int:
    """Kill a primary whose secondary has just committed, and count the checkpoints gained."""
    with Session(ram="16M", delay=None) as session:
        session.run(2)
        killed = session.kill("primary", at="received", held="secondary")
        return session.failover().checkpoint - killed.committed


def _judge_ahead(answer: Any) -> Feedback:
    return judge_number(
        answer,
        _ahead(),
        why=(
            "The secondary has said VMSTATE_RECEIVED, so the checkpoint is committed, although the "
            "primary died before it could report it."
        ),
        hints={
            0: (
                "That is so if the secondary is held before the commit point, or if the primary "
                'itself is held. Hold the secondary: `held="secondary"`.'
            ),
            -1: "A takeover never goes back behind a committed checkpoint.",
        },
        otherwise="Subtract `killed.committed` from `takeover.checkpoint`.",
    )


@cache
def _messages(layout: str) -> tuple[str, ...]:
    with Session(ram="16M", delay=None, layout=layout, keep_stream=True) as session:
        session.run(1)
        assert session.relay is not None
        session.relay.forget()
        session.checkpoint()
        return tuple(message.name for message in read_messages(session.relay.chunks))


def _judge_missing(answer: Any) -> Feedback:
    separated, buffered = _messages("separated"), _messages("buffered")
    name = as_choice(answer, separated)
    if name not in buffered:
        return right("The pages travel in the sized buffer, in front of the devices.")
    if name == "sized buffer":
        return wrong("It is there, and larger than before. What does it have now?")
    return wrong(f"{name} is in both conversations. Look at what lies between the messages.")


@cache
def _smallest() -> CheckpointRecord:
    with Session(ram="16M", delay=None, guest="idle") as session:
        session.run(3)
        return min(session.records, key=lambda record: record.bytes)


def _judge_smallest(answer: Any) -> Feedback:
    record = _smallest()
    return judge_number(
        answer,
        record.bytes,
        why="Most of them are the devices, which are sent whole in every checkpoint.",
        hints={
            0: "Even if no page is dirty, messages and devices are sent.",
            record.device_bytes: "Those are the devices alone. Messages are bytes, too.",
        },
        otherwise="Look at `bytes` of a record of a guest that does not write.",
        exact=0.01,
        close=0.1,
    )


GOES_ON = (
    "it goes on from where it stopped for this checkpoint",
    "it goes back to the last checkpoint that both sides have",
    "it stands still until another secondary joins",
)
TICKS = 20


def _where_the_primary_goes_on() -> str:
    """Kill a secondary that has half of a checkpoint, and see what the primary's guest does."""
    with Session(ram="16M", delay=None, guest="uniform") as session:
        session.run(2)
        committed = session.records[-1].guest_work
        session.wait_for_ticks(TICKS)
        session.kill("secondary", at="ram", held="primary")
        taken = session.failover()
    if taken.work_after <= taken.work_at_takeover:
        return GOES_ON[2]
    return GOES_ON[0] if taken.work_at_takeover > committed else GOES_ON[1]


def _judge_survivor(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right(
            "Its work counter was beyond that of the last checkpoint: the newest state is its own, "
            "and is whole. Only a secondary has to go back."
        )
    if answer == GOES_ON[1]:
        return wrong(
            "That is what a secondary does. The primary has the newest state itself, and nobody "
            "has seen an older one that it would have to agree with."
        )
    return wrong(
        "Then the loss of a spare would stop the service. It goes on unprotected, from where it "
        "stopped."
    )


LESSON = Lesson(
    "01",
    exercises=(
        Exercise(
            "01.1",
            "Kill the primary while the *secondary* is held at `received`: `session.kill` takes "
            '`held="secondary"` beside `at`. By how many checkpoints is `takeover.checkpoint` '
            "ahead of `killed.committed`, the last one that both sides had reported?",
            "a number of checkpoints",
            """with cb.Session(ram="16M", delay=None) as session:
    session.run(2)
    killed = session.kill("primary", at="received", held="secondary")
    takeover = session.failover()
cb.exercise("01.1").check(takeover.checkpoint - killed.committed)""",
            _judge_ahead,
            "`received` is the commit point: from there on the checkpoint is the secondary's.",
        ),
        Exercise(
            "01.2",
            'Draw the messages of a checkpoint with `layout="buffered"`. Which arrow of the '
            "diagram above is missing?",
            "the arrow's name, as the diagram writes it",
            """settings = {"layout": "buffered", "keep_stream": True}
with cb.Session(ram="16M", delay=None, **settings) as session:
    session.run(1)
    session.relay.forget()
    session.checkpoint()
    diagram = ui.SequenceDiagram(session.relay.chunks)
print(diagram)
cb.exercise("01.2").check("RAM section")""",
            _judge_missing,
            "Before patch 31, RAM was in the buffer.",
        ),
        Exercise(
            "01.3",
            'With `guest="idle"`, how many bytes does the smallest checkpoint have?',
            "a number of bytes",
            """with cb.Session(ram="16M", delay=None, guest="idle") as session:
    session.run(3)
cb.exercise("01.3").check(min(record.bytes for record in session.records))""",
            _judge_smallest,
            "No page is dirty; devices and messages are sent all the same.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "01.1",
            "The secondary gets SIGKILL with half of a checkpoint's pages sent. The primary's "
            "guest stands still at that moment. What does it do after the failover?",
            ChoiceAnswer(GOES_ON),
            _where_the_primary_goes_on,
            _judge_survivor,
        ),
    ),
)
