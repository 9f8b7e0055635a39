"""Judgements of answers: right, near or wrong, with a reason that fits the answer."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import show


class Grade(StrEnum):
    """Grade of an answer."""

    RIGHT = "right"
    NEAR = "near"
    WRONG = "wrong"
    #: There is no answer yet, or none of the kind that the question asks for.
    NONE = "no answer"


POINTS = {Grade.RIGHT: 1.0, Grade.NEAR: 0.5, Grade.WRONG: 0.0}
OPENINGS = {
    Grade.RIGHT: "Right.",
    Grade.NEAR: "Near.",
    Grade.WRONG: "Not right.",
    Grade.NONE: "No answer yet.",
}


#: A number whose commas stand between thousands; elsewhere a comma may stand for a point.
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")


class UnfitAnswerError(LocalError):
    """An answer of another kind than the question asks for; it is not counted as a try."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback of one answer.

    Attributes
    ----------
    grade
        How good the answer is.
    words
        Reason, or hint.
    """

    grade: Grade
    words: str

    def __repr__(self) -> str:
        return f"{OPENINGS[self.grade]} {self.words}".rstrip()

    __str__ = __repr__

    @property
    def points(self) -> float:
        """Points for the answer, from 0 to 1."""
        return POINTS.get(self.grade, 0.0)


def right(words: str = "") -> Feedback:
    """Judge an answer as right."""
    return Feedback(Grade.RIGHT, words)


def near(words: str) -> Feedback:
    """Judge an answer as near."""
    return Feedback(Grade.NEAR, words)


def wrong(hint: str) -> Feedback:
    """Judge an answer as wrong, with a hint that fits it."""
    return Feedback(Grade.WRONG, hint)


def as_number(answer: Any) -> float:
    """Take an answer as a finite number.

    Raises
    ------
    UnfitAnswerError
        If it is none.
    """
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        raise UnfitAnswerError(f"answer: expected a number, found {shown(answer)}")
    try:
        found = float(answer)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise UnfitAnswerError(f"answer: expected a finite number, found {shown(answer)}")
    return found


def as_typed_number(text: str, unit: str = "") -> float:
    """Take an answer that was typed as a finite number; its unit may be typed, too.

    Raises
    ------
    UnfitAnswerError
        If it is none, or has a comma that does not stand between thousands.
    """
    plain = text.strip().removesuffix(unit).strip()
    if _THOUSANDS.fullmatch(plain):
        plain = plain.replace(",", "")
    try:
        return as_number(float(plain))
    except ValueError:
        like = f"a number of {unit}" if unit else "a number"
        raise UnfitAnswerError(f"expected {like}, such as 1,234.5, found {shown(text)}") from None


def as_choice(answer: Any, options: tuple[str, ...]) -> str:
    """Take an answer as one of some words, whatever its case.

    Raises
    ------
    UnfitAnswerError
        If it is none of them.
    """
    found = answer.strip().casefold() if isinstance(answer, str) else None
    for option in options:
        if option.casefold() == found:
            return option
    raise UnfitAnswerError(
        f"answer: expected one of {', '.join(map(repr, options))}, found {shown(answer)}"
    )


def as_instance(answer: Any, kind: type, what: str) -> Any:
    """Take an answer as an object of a class.

    Raises
    ------
    UnfitAnswerError
        If it is of another class; the text describes the expected object with `what`.
    """
    if not isinstance(answer, kind):
        raise UnfitAnswerError(f"answer: expected {what}, found {shown(answer)}")
    return answer


def judge_number(
    answer: Any,
    truth: float,
    *,
    why: str,
    hints: Mapping[float, str] | None = None,
    otherwise: str,
    exact: float = 0.0,
    close: float = 0.0,
) -> Feedback:
    """Judge a number.

    Parameters
    ----------
    answer
        The answer.
    truth
        The right number.
    why
        Reason, for an answer that is right.
    hints
        Hints by typical wrong numbers, which are met as exactly as the right one, and within 1 % at
        most: a guess that may be far off must not meet a hint from far off, too.
    otherwise
        Hint for all other numbers.
    exact, close
        Greatest relative errors of an answer that is right, and of one that is near.
    """
    found = as_number(answer)
    error = abs(found - truth) / abs(truth) if truth else float(found != truth)
    hint_error = min(max(exact, 1e-9), 0.01)
    if error <= exact:
        return right(why)
    for typical, hint in (hints or {}).items():
        if math.isclose(found, typical, rel_tol=hint_error, abs_tol=1e-9):
            return wrong(hint)
    if error <= close:
        return near(f"It is {truth:,.4g}. {why}")
    return wrong(otherwise)


def shown(answer: Any) -> str:
    """Write an answer for a sentence about it: shortened, with its type unless that is plain."""
    text = show(answer)
    return text if isinstance(answer, str | int | float) else f"{type(answer).__name__} {text}"
