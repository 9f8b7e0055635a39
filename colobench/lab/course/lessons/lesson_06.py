"""Notebook 06: failover."""

from __future__ import annotations

from functools import cache
from typing import Any

from colobench.lab.checker.verdict import check_linearizability
from colobench.lab.clients.history import History, Operation
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback, as_choice, as_instance, right, wrong
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.torture.story import CLIENTS, FailoverStory, serving_pair

#: Commands, with their argument, the answer that a client has, and what GET answers afterwards if
#: the command was executed twice.
TWICE: dict[str, tuple[tuple[bytes, ...], object, bytes | None]] = {
    "SET": ((b"1",), "OK", b"1"),
    "INCR": ((), 1, b"2"),
    "DEL": ((), 0, None),
    "GET": ((), None, None),
}
LOST = ("none", "those with a request under way", "all")


@cache
def _shown_by_clients(command: str) -> bool:
    """Let the checker judge a client's history in which a command was executed twice."""
    arguments, answer, left = TWICE[command]
    first = Operation(0, b"key", command, arguments, 1, 2, answer)  # type: ignore[arg-type]
    then = Operation(0, b"key", "GET", (), 3, 4, left)
    return check_linearizability(History([first, then])).linearizable is False


def _judge_twice(answer: Any) -> Feedback:
    command = as_choice(answer, tuple(TWICE))
    if _shown_by_clients(command):
        return right("The client was told 1, and the store says 2: no order of them explains that.")
    hints = {
        "SET": "Executed twice, it leaves the same value. Nobody can tell.",
        "DEL": "The second finds nothing to delete, and the client has the first one's answer.",
        "GET": "It changes nothing, however often it is executed.",
    }
    return wrong(hints[command])


def _judge_story(answer: Any) -> Feedback:
    story = as_instance(answer, FailoverStory, "a `cb.FailoverStory` that has run")
    if story.takeover is None or story.verdict is None:
        return wrong("That story has not run to its end: call its method `run`.")
    if story.takeover.role != "primary":
        return wrong('There the primary died. `victim="secondary"` kills the other one.')
    if story.compares:
        return wrong('That pair compares output. `cb.serving_pair("buffer")` buffers it.')
    if story.history is None or story.history.lost or story.verdict.linearizable is False:
        return wrong("A client has seen an error. Look at the story.")
    if story.verdict.linearizable is None:
        return wrong(
            f"Its verdict is {story.verdict.in_words}: the checker found no error, and cannot say "
            "that there is none. Run another story."
        )
    return right(
        "Clients wait even so: output is held for a checkpoint that can never be committed, until "
        "the primary is sure to be alone, and releases it."
    )


def _lost_connections() -> str:
    with serving_pair("buffer") as session:
        story = FailoverStory(session, "primary", "ram").run()
    assert story.history is not None
    lost = {each.client for each in story.history.lost}
    if not lost:
        return LOST[0]
    return LOST[2] if len(lost) == CLIENTS else LOST[1]


def _judge_lost(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right(
            "The connections are part of the guest: its TCP goes on in the survivor, and the "
            "switch sends again what has not been acknowledged."
        )
    return wrong(
        "The guest's TCP is part of its state, and goes on in the survivor. No connection broke; "
        "clients saw slow answers."
    )


LESSON = Lesson(
    "06",
    exercises=(
        Exercise(
            "06.1",
            "Kill the *secondary* of a pair that buffers output, while clients ask. Why do clients "
            "wait, although the primary lives?",
            "a `cb.FailoverStory` that has run",
            """with cb.serving_pair("buffer") as session:
    story = cb.FailoverStory(session, victim="secondary").run()
print(story)
cb.exercise("06.1").check(story)""",
            _judge_story,
            "The primary cannot know whether its peer is dead or cut off, so it asks the arbiter "
            "before it answers anything.",
        ),
        Exercise(
            "06.2",
            "The bug `double-execution` executes a client's request twice. Which command shows it "
            "to a client: `SET`, `INCR`, `DEL` of a key that was never there, or `GET`? The check "
            "gives the checker a history of each.",
            "the command's name",
            'cb.exercise("06.2").check("INCR")',
            _judge_twice,
            "The others are idempotent: done twice, they leave the same state.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "06.1",
            "Eight clients ask without a pause. The primary gets SIGKILL in the middle of a "
            "checkpoint. How many of the clients' connections break?",
            ChoiceAnswer(LOST),
            _lost_connections,
            _judge_lost,
        ),
    ),
)
