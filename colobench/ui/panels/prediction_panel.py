"""Panel of a predicted experiment: commit to an answer, then it runs, then you are told."""

from __future__ import annotations

import atexit
import time
from html import escape
from typing import Any, ClassVar

import ipywidgets

from colobench.lab.course.feedback import Feedback, Grade, UnfitAnswerError, as_typed_number
from colobench.lab.course.lesson import predicted_experiment
from colobench.lab.course.prediction import (
    NOT_COMMITTED,
    ChoiceAnswer,
    CurveAnswer,
    NumberAnswer,
)
from colobench.lab.report.palette import BAD_COLOUR, BUSY_COLOUR, GOOD_COLOUR, IDLE_COLOUR
from colobench.ui.base.markup import status_line
from colobench.ui.base.panel import Panel, button, turn
from colobench.ui.base.pump import frames
from colobench.ui.base.sentences import begin_sentence
from colobench.ui.views.curve_input import CurveInput

GRADE_COLOURS = {
    Grade.RIGHT: GOOD_COLOUR,
    Grade.NEAR: BUSY_COLOUR,
    Grade.WRONG: BAD_COLOUR,
    Grade.NONE: IDLE_COLOUR,
}
HOW_TO_DRAW = (
    "Draw with the mouse, from the left to the right. Or choose a point with Tab, and move it with "
    "the arrow keys. Dashed: yours. Solid: measured."
)


class PredictionPanel(Panel):
    """Asks for an answer, runs the experiment only when one is committed, and scores it.

    Parameters
    ----------
    number
        Number of the prediction, such as ``04.1``.

    Attributes
    ----------
    answer
        Control that has the answer.
    feedback
        Score of the last answer; None before the first.
    outcome
        Outcome of the last run.

    Examples
    --------
    >>> ui.PredictionPanel("04.1")
    """

    #: Panels by number: each question has one, and several stand in a notebook.
    _open: ClassVar[dict[str, PredictionPanel]] = {}
    _current: ClassVar[Panel | None] = None

    def __init__(self, number: str) -> None:
        self._asked = predicted_experiment(number)
        before = self._open.pop(number, None)
        if before is not None:
            before.close()
        super().__init__()
        # The base class closes the panel before a new one; here only one with the same number is.
        PredictionPanel._current = None
        self._open[number] = self
        self.answer = _control(self._asked.form)
        self.feedback: Feedback | None = None
        self.outcome: Any = None
        self._refused = ""
        self._given_up = False
        #: When the experiment began that runs now.
        self._began: float | None = None
        self.commit_button = button("Commit and run", self.commit, "primary", "check")
        self.reset_button = self.make_reset(
            [] if isinstance(self.answer, CurveInput) else [self.answer]
        )
        self.status = ipywidgets.HTML()
        words = f"<b>{number}</b> {escape(self._asked.question)}"
        question = f'<div style="max-width: 70em; line-height: 1.5">{words}</div>'
        self.children = (ipywidgets.HTML(question), *self._parts(), self.status)
        self.update()

    def _parts(self) -> tuple[Any, ...]:
        form = self._asked.form
        if isinstance(form, CurveAnswer):
            how = ipywidgets.HTML(f'<div style="line-height: 1.5">{HOW_TO_DRAW}</div>')
            return (self.answer, how, ipywidgets.HBox([self.commit_button, self.reset_button]))
        if isinstance(form, NumberAnswer):
            unit = ipywidgets.HTML(escape(form.unit))
            line = (self.answer, unit, self.commit_button, self.reset_button)
            return (ipywidgets.HBox(line, layout=ipywidgets.Layout(flex_flow="row wrap")),)
        return (self.answer, ipywidgets.HBox([self.commit_button, self.reset_button]))

    def __repr__(self) -> str:
        return f"<PredictionPanel {self._asked.number}>"

    def commit(self) -> None:
        """Commit to the present answer, and run the experiment."""
        if self.background.doing is not None:
            return
        try:
            committed = self._committed()
        except UnfitAnswerError as unfit:
            self._refused = f"{NOT_COMMITTED}: {unfit}."
            self.update()
            return
        self._refused, self._given_up = "", False
        self._began = time.monotonic()
        self.background.do("running the experiment", lambda: self._run(committed))

    def _committed(self) -> Any:
        """Give the present answer.

        Raises
        ------
        UnfitAnswerError
            If there is none, or none of the form that the question asks for.
        """
        form = self._asked.form
        value: Any = self.answer.value
        if isinstance(self.answer, CurveInput):
            value = self.answer.value()
        if value is None or value == "":
            raise UnfitAnswerError("the experiment runs when there is one")
        if isinstance(form, NumberAnswer):
            value = as_typed_number(value, form.unit)
        return form.read(value)

    def halt(self) -> None:
        """Wait no more for another panel's pair; an experiment that runs goes on to its end."""
        self._given_up = True

    def forget(self) -> None:
        """Forget the answer and its score here; the score that counts is the first one."""
        self.feedback = self.outcome = None
        self._refused = ""
        if isinstance(self.answer, CurveInput):
            self.answer.forget()

    def _run(self, committed: Any) -> None:
        frames.add(self)
        try:
            with turn.taken(lambda: not self._given_up) as mine:
                if not mine:
                    return
                self.feedback, self.outcome = self._asked.settle(committed)
        finally:
            frames.remove(self)
            self._began = None
        if isinstance(self.answer, CurveInput):
            self.answer.show(self.outcome, ended=False)

    def refresh(self) -> None:
        """Show for how long the experiment has run; called by the pump."""
        self.update()

    def update(self) -> None:
        """Show the present state."""
        doing = self.background.doing is not None
        self.commit_button.disabled = doing
        self.status.value = status_line(*self._words())

    def _words(self) -> tuple[str, str]:
        if self.background.error:
            return BAD_COLOUR, f"It failed: {self.background.error}"
        if self.background.doing:
            began = self._began
            since = "" if began is None else f", {time.monotonic() - began:.0f} s"
            return BUSY_COLOUR, f"{begin_sentence(self.background.doing)}{since} …"
        if self._refused:
            return IDLE_COLOUR, self._refused
        if self.feedback is None:
            return IDLE_COLOUR, f"{NOT_COMMITTED}; then the experiment runs, and you are told."
        return GRADE_COLOURS[self.feedback.grade], str(self.feedback)

    def end(self) -> None:
        """Wait no more for another panel's pair; an experiment ends its processes itself."""
        self._given_up = True

    def close(self) -> None:
        """Wait for the experiment, and close the panel."""
        self._open.pop(self._asked.number, None)
        super().close()


def _control(form: NumberAnswer | ChoiceAnswer | CurveAnswer) -> Any:
    if isinstance(form, CurveAnswer):
        return CurveInput(form)
    if isinstance(form, NumberAnswer):
        # Empty, so that a number that nobody chose is no answer.
        return ipywidgets.Text(
            description="my answer",
            placeholder="a number",
            layout=ipywidgets.Layout(width="220px"),
        )
    return ipywidgets.RadioButtons(
        options=form.options, value=None, layout=ipywidgets.Layout(width="auto")
    )


@atexit.register
def _close_open_panels() -> None:
    for panel in list(PredictionPanel._open.values()):
        panel.close()
