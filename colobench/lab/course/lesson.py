"""A lesson: the exercises and predictions that belong to one notebook, found by its number."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any

from colobench.errors import LocalError
from colobench.lab.course import lessons
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback
from colobench.lab.course.prediction import PredictedExperiment
from colobench.lab.course.score_book import EXERCISE, PREDICTION

PREFIX = "lesson_"


@dataclass(frozen=True, slots=True)
class Lesson:
    """The exercises and predictions of a notebook.

    Attributes
    ----------
    notebook
        Number of the notebook, such as ``03`` or ``07b``.
    exercises, predictions
        Its exercises, and its predicted experiments.
    scored_elsewhere
        Numbers of predictions that a panel of the notebook scores itself.
    """

    notebook: str
    exercises: tuple[Exercise, ...]
    predictions: tuple[PredictedExperiment, ...] = ()
    scored_elsewhere: tuple[str, ...] = ()

    def numbers(self) -> list[tuple[str, str]]:
        """Give kind and number of all that can be scored."""
        predicted = sorted({*self.scored_elsewhere, *(each.number for each in self.predictions)})
        return [
            *((EXERCISE, each.number) for each in self.exercises),
            *((PREDICTION, number) for number in predicted),
        ]


def lesson_numbers() -> list[str]:
    """List the numbers of the notebooks that have a lesson."""
    names = (each.name for each in pkgutil.iter_modules(lessons.__path__))
    return sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))


def lesson(notebook: str) -> Lesson:
    """Find a notebook's lesson.

    Raises
    ------
    LocalError
        If the notebook has none.
    """
    known = lesson_numbers()
    if notebook not in known:
        raise LocalError(f"notebook: expected one of {', '.join(known)}, found {notebook!r}")
    found: Lesson = importlib.import_module(f"{lessons.__name__}.{PREFIX}{notebook}").LESSON
    return found


def exercise(number: str) -> Exercise:
    """Find an exercise by its number, such as ``03.2``.

    Raises
    ------
    LocalError
        If there is none with that number.
    """
    exercises = lesson(str(number).partition(".")[0]).exercises
    for each in exercises:
        if each.number == number:
            return each
    known = ", ".join(each.number for each in exercises)
    raise LocalError(f"exercise: expected one of {known or 'none'}, found {number!r}")


def predicted_experiment(number: str) -> PredictedExperiment:
    """Find a predicted experiment by its number, such as ``04.1``.

    Raises
    ------
    LocalError
        If there is none with that number.
    """
    predictions = lesson(str(number).partition(".")[0]).predictions
    for each in predictions:
        if each.number == number:
            return each
    known = ", ".join(each.number for each in predictions)
    raise LocalError(f"prediction: expected one of {known or 'none'}, found {number!r}")


def predict(number: str, answer: Any = None) -> Feedback:
    """Commit to an answer, run the experiment, and be told how good the answer was.

    Parameters
    ----------
    number
        Number of the prediction, such as ``04.1``.
    answer
        A number, one of the options or its place from 1, or a list of numbers, as the question
        asks. Without an answer nothing runs.

    Returns
    -------
    Feedback
        Right, near or wrong, and why. The first answer counts.
    """
    return predicted_experiment(number).commit(answer)
