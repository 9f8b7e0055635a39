"""Experiments whose outcome is predicted: nothing runs before there is an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from colobench.lab.course.feedback import (
    Feedback,
    Grade,
    UnfitAnswerError,
    as_choice,
    as_number,
    shown,
)
from colobench.lab.course.score_book import PREDICTION, book

NOT_COMMITTED = "Commit to an answer first"


@dataclass(frozen=True, slots=True)
class NumberAnswer:
    """Form of an answer that is a number.

    Attributes
    ----------
    unit
        Its unit.
    """

    unit: str

    def read(self, answer: Any) -> float:
        """Take an answer of this form."""
        return as_number(answer)


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """Form of an answer that is one of some sentences.

    Attributes
    ----------
    options
        The sentences.
    """

    options: tuple[str, ...]

    def read(self, answer: Any) -> str:
        """Take an answer of this form; a number counts the options from 1."""
        if isinstance(answer, int | np.integer) and not isinstance(answer, bool):
            if 1 <= answer <= len(self.options):
                return self.options[int(answer) - 1]
            raise UnfitAnswerError(
                f"answer: expected a number from 1 to {len(self.options)}, found {shown(answer)}"
            )
        return as_choice(answer, self.options)


@dataclass(frozen=True, slots=True)
class CurveAnswer:
    """Form of an answer that is a curve over given places.

    Attributes
    ----------
    x
        The places at which the curve has a value, ascending.
    x_name, y_name
        Names of the axes, with units.
    y_most
        Upper end of the vertical axis, which begins at 0.
    """

    x: tuple[float, ...]
    x_name: str
    y_name: str
    y_most: float

    def read(self, answer: Any) -> tuple[float, ...]:
        """Take an answer of this form: a value for each place."""
        if isinstance(answer, np.ndarray):
            answer = answer.tolist()
        if isinstance(answer, str) or not isinstance(answer, Sequence):
            raise UnfitAnswerError(f"answer: expected {len(self.x)} numbers, found {shown(answer)}")
        if len(answer) != len(self.x):
            raise UnfitAnswerError(
                f"answer: expected {len(self.x)} numbers, one for each of {self.x}, "
                f"found {len(answer)}"
            )
        return tuple(map(as_number, answer))


AnswerForm: TypeAlias = NumberAnswer | ChoiceAnswer | CurveAnswer


@dataclass(frozen=True, slots=True)
class PredictedExperiment:
    """An experiment, and the question that is answered before it runs.

    Attributes
    ----------
    number
        Its number, such as ``04.1``.
    question
        The question, in plain text.
    form
        Form of the answer.
    run
        Function that runs the experiment and gives its outcome: a number, an option, or a tuple of
        numbers, as the form says. It takes some seconds, and starts processes if it needs any.
    judge
        Function that judges an answer by the outcome.
    """

    number: str
    question: str
    form: AnswerForm
    run: Callable[[], Any] = field(repr=False)
    judge: Callable[[Any, Any], Feedback] = field(repr=False)

    def commit(self, answer: Any = None) -> Feedback:
        """Run the experiment with an answer committed, and score the answer.

        Parameters
        ----------
        answer
            The answer. Without one, the experiment does not run.
        """
        try:
            if answer is None:
                raise UnfitAnswerError(f'cb.predict("{self.number}", …). {self.question}')
            committed = self.form.read(answer)
        except UnfitAnswerError as unfit:
            return Feedback(Grade.NONE, f"{NOT_COMMITTED}: {unfit}")
        feedback, _ = self.settle(committed)
        return feedback

    def settle(self, committed: Any) -> tuple[Feedback, Any]:
        """Run the experiment, score an answer of the right form, and give the outcome, too."""
        outcome = self.run()
        feedback = self.judge(committed, outcome)
        book.note(PREDICTION, self.number, feedback)
        return feedback, outcome
