"""View of a curve that a reader draws, and of the measured one beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import traitlets

from colobench.lab.course.prediction import CurveAnswer
from colobench.lab.report.palette import PRIMARY_COLOUR, SECONDARY_COLOUR
from colobench.ui.base.feed import CoreModel, LiveView, read_module


class DrawnCurve(CoreModel):
    """Values that a reader has drawn, one for each place of the curve; None where none is yet."""

    values: Any = traitlets.List().tag(sync=True)


class CurveInput(LiveView):
    """Plot in which a curve is drawn: with the mouse, or point by point with the arrow keys.

    Parameters
    ----------
    form
        Places and axes of the curve.

    Attributes
    ----------
    drawn
        Model of the values, set by the page.
    """

    _esm = read_module("curve.js")
    _drawn: Any = traitlets.Instance(DrawnCurve).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(self, form: CurveAnswer) -> None:
        self._form = form
        self.drawn = DrawnCurve()
        super().__init__(_drawn=self.drawn)
        self.show(None, ended=False)

    def __repr__(self) -> str:
        return f"<CurveInput of {self._form.y_name}>"

    def value(self) -> tuple[float, ...] | None:
        """Give the drawn values; None until there is one for each place."""
        values = self.drawn.values
        if len(values) != len(self._form.x) or None in values:
            return None
        return tuple(map(float, values))

    def show(self, measured: Sequence[float] | None, *, ended: bool) -> None:
        """Show measured values, if there are any, and say whether drawing has ended."""
        # What was measured is drawn where it is, also above the end that the question proposed.
        most = max([self._form.y_most, *(measured or ())])
        frame = {
            "x": self._form.x,
            "x_name": self._form.x_name,
            "y_name": self._form.y_name,
            "y_most": most,
            "guess_colour": SECONDARY_COLOUR,
            "measured_colour": PRIMARY_COLOUR,
            "measured": None if measured is None else list(measured),
            "ended": ended,
        }
        self.feed.put(frame)

    def forget(self) -> None:
        """Forget what was drawn and measured."""
        self.drawn.values = []
        self.show(None, ended=False)

    def close(self) -> None:
        """Close the view and its model."""
        self.drawn.close()
        super().close()
