"""Scores of one student: the best answer to exercises, the first prediction."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from colobench.lab.course.feedback import Feedback, Grade

EXERCISE, PREDICTION = "exercise", "prediction"


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """Score of one exercise or prediction.

    An exercise counts with its best answer. A prediction counts with its first: the second was made
    by somebody who had seen the run.

    Attributes
    ----------
    kind
        ``exercise`` or ``prediction``.
    number
        Its number, such as ``03.2``; the part before the dot is the notebook's.
    points
        Points, from 0 to 1.
    tries
        Number of answers.
    """

    kind: str
    number: str
    points: float
    tries: int

    @property
    def notebook(self) -> str:
        """Number of the notebook."""
        return self.number.partition(".")[0]

    def after(self, points: float, tries: int) -> ScoredAnswer:
        """Give the score after more answers to the same question, which earned so many points."""
        best = max(self.points, points) if self.kind == EXERCISE else self.points
        return replace(self, points=best, tries=self.tries + tries)


class ScoreBook:
    """Scores of all answers of this process."""

    def __init__(self) -> None:
        self._scores: dict[tuple[str, str], ScoredAnswer] = {}
        self._lock = threading.Lock()

    def note(self, kind: str, number: str, feedback: Feedback) -> None:
        """Note how an answer was judged; no answer changes nothing."""
        if feedback.grade is Grade.NONE:
            return
        with self._lock:
            old = self._scores.get((kind, number))
            if old is None:
                score = ScoredAnswer(kind, number, feedback.points, 1)
            else:
                score = old.after(feedback.points, 1)
            self._scores[kind, number] = score

    def all(self) -> tuple[ScoredAnswer, ...]:
        """Give all scores, in the order of their numbers."""
        with self._lock:
            return tuple(self._scores[key] for key in sorted(self._scores))

    def forget(self) -> None:
        """Forget all scores."""
        with self._lock:
            self._scores.clear()


book = ScoreBook()
