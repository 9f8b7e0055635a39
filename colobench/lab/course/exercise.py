"""Exercises: a question, the check of an answer, and a solution that is itself run by a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from colobench.lab.course.feedback import Feedback, Grade, UnfitAnswerError
from colobench.lab.course.score_book import EXERCISE, book


@dataclass(frozen=True, slots=True)
class Exercise:
    """An exercise of a notebook.

    Attributes
    ----------
    number
        Its number, such as ``03.2``.
    question
        The question, as Markdown.
    answer
        Object that `check` takes, in a few words: ``a number``, ``a list of names``.
    solution
        Python code that solves it with what the notebook explains, and gives it to `check`.
    judge
        Function that judges an answer. What is right depends on the running system, so it
        measures.
    because
        Words behind the solution: why it is right. They name no number that a run can contradict.
    """

    number: str
    question: str
    answer: str
    solution: str = field(repr=False)
    judge: Callable[[Any], Feedback] = field(repr=False)
    because: str = ""

    def check(self, answer: Any = None) -> Feedback:
        """Judge an answer, and note its score.

        Parameters
        ----------
        answer
            The answer; None is no answer.

        Returns
        -------
        Feedback
            Right, near or wrong, with a hint that fits the answer.
        """
        try:
            if answer is None:
                raise UnfitAnswerError("no answer was given")
            feedback = self.judge(answer)
        except UnfitAnswerError as unfit:
            words = f"The check takes {self.answer}: {unfit}."
            return Feedback(Grade.NONE, words)
        book.note(EXERCISE, self.number, feedback)
        return feedback

    def __repr__(self) -> str:
        return (
            f"Exercise {self.number}: {self.question}\n"
            f'cb.exercise("{self.number}").check(…) takes {self.answer}.'
        )
