"""Notebook 11: the protocol's tables, walked, and the explorer."""

from __future__ import annotations

from functools import cache
from typing import Any

from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback, as_choice, judge_number, right, wrong
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.session.session import Session
from colobench.lab.studies.broken_rules import explore_protocol
from colobench.lab.studies.protocol_tables import protocol_table

_EARLY_ANSWER = "the arbiter answers before it writes"
_OUTCOMES = (
    "nothing: the node that was granted serves, the other one ends",
    "both nodes serve alone",
    "neither node serves",
)


def _answer_before_writing() -> str:
    return _OUTCOMES[1 if explore_protocol(_EARLY_ANSWER).wrong else 0]


def _judge_early_answer(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right(
            "An arbiter that dies between the answer and the disk has forgotten the grant, and "
            "grants the pair a second time."
        )
    if answer == _OUTCOMES[2]:
        return wrong("That happens, too, and is safe. Look for something that is not.")
    return wrong("The explorer found a way to two machines. Where is the grant when it dies?")


def _judge_steps(answer: Any) -> Feedback:
    return judge_number(
        answer,
        len(explore_protocol("the arbiter forgets").way),
        why="Of all ways to two machines none is shorter, because worlds are visited by distance.",
        hints={
            0: "No steps is the way of a protocol that is sound. Which rule did you take away?",
            len(explore_protocol(_EARLY_ANSWER).way): (
                "That is the arbiter that answers before it writes. One that forgets writes first."
            ),
        },
        otherwise="Count the entries of `way` of the exploration.",
    )


@cache
def _states_at_received() -> dict[str, str]:
    with Session(ram="16M", delay=None) as session:
        session.hold("primary", "received")
        states: dict[str, str] = session.nodes["primary"].execute("x-query-states")
        session.go_on("primary")
    return states


_STATES = ("MIGRATING", "RUNNING", "REQUESTED", "SENDING", "SENT", "LOADING", "ENDED")


def _judge_state(answer: Any) -> Feedback:
    found, truth = as_choice(answer, _STATES), _states_at_received()["conversation"]
    if found == truth:
        return right("It has heard VMSTATE_RECEIVED, and waits for VMSTATE_LOADED.")
    hints = {
        "SENT": "In SENT it waits for VMSTATE_RECEIVED. Here that message has come.",
        "RUNNING": "It is in RUNNING again when VMSTATE_LOADED has come.",
        "SENDING": "In SENDING not all of the checkpoint has left.",
    }
    return wrong(hints.get(found, "Find the row of the table with the event VMSTATE_RECEIVED."))


_EVENTS = ("LOST_HEARTBEAT", "BEGIN", "LOADING", "LOADED", "TAKEN_OVER")


def _judge_relaunch(answer: Any) -> Feedback:
    machine = protocol_table("failover")
    [row] = [row for state, row in machine.table.items() if state.name == "RELAUNCH"]
    [truth] = [event.name for event in row]
    found = as_choice(answer, _EVENTS)
    if found == truth:
        return right("A committed checkpoint is loaded to its end, and then the request repeated.")
    hints = {
        "LOADING": "That event leads into RELAUNCH.",
        "LOST_HEARTBEAT": "The request is repeated later, by the node itself. What comes first?",
        "TAKEN_OVER": "Nobody has taken over yet: the load is not finished.",
    }
    return wrong(hints.get(found, "In RELAUNCH a committed checkpoint is being loaded."))


LESSON = Lesson(
    "11",
    exercises=(
        Exercise(
            "11.1",
            "How many steps has the shortest way to two serving machines if the arbiter forgets "
            "what it had on disk?",
            "a number",
            'found = cb.explore_protocol("the arbiter forgets")\n'
            'cb.exercise("11.1").check(len(found.way))',
            _judge_steps,
            "The steps of one such way are printed with the exploration.",
        ),
        Exercise(
            "11.2",
            "A primary is held at the point `received`. In which state is its conversation?",
            "the name of a state",
            'with cb.Session(ram="16M", delay=None) as session:\n'
            '    session.hold("primary", "received")\n'
            '    states = session.nodes["primary"].execute("x-query-states")\n'
            '    session.go_on("primary")\n'
            'cb.exercise("11.2").check(states["conversation"])',
            _judge_state,
            "The event VMSTATE_RECEIVED leads from SENT to LOADING.",
        ),
        Exercise(
            "11.3",
            "A failover was requested while a committed checkpoint was being loaded, so its state "
            "is RELAUNCH. Which event leads on?",
            "the name of an event",
            'cb.protocol_table("failover")\ncb.exercise("11.3").check("LOADED")',
            _judge_relaunch,
            "The table has one event in that state.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "11.1",
            "An arbiter answers a node first, and writes the grant to disk afterwards. It may die "
            "in between, and start again. What is the worst that can come of it?",
            ChoiceAnswer(_OUTCOMES),
            _answer_before_writing,
            _judge_early_answer,
        ),
    ),
)
