"""Plots of a real VM's checkpoints beside those of our own guest."""

from __future__ import annotations

import ipywidgets
import numpy as np
import numpy.typing as npt
from bokeh.layouts import row
from bokeh.models import ColumnDataSource, LayoutDOM, Range1d

from colobench.lab.report.palette import PRIMARY_COLOUR, SECONDARY_COLOUR
from colobench.lab.session.record import Records
from colobench.lab.studies.real_vm import RealVM
from colobench.ui.base.abstract import AbstractWidget
from colobench.ui.base.figure import Columns, FigureData, LiveFigure
from colobench.ui.base.pump import frames
from colobench.ui.views.plots import legend_above, make_plot

#: Whose checkpoints are drawn, and their colours.
SERIES = {"real VM": PRIMARY_COLOUR, "our guest": SECONDARY_COLOUR}
#: What is drawn of each, and the label of its axis.
QUANTITIES = {"pause": "pause (ms), shown up to 1.2 × p95", "pages": "pages sent"}


class RealVMPlot(ipywidgets.VBox, metaclass=AbstractWidget):  # type: ignore[misc]
    """Shows pause and pages of each checkpoint of a real VM, and of our guest.

    Parameters
    ----------
    vm
        The real VM; its pauses are those that its receiver sees.
    records
        Records of our guest.
    """

    def __init__(self, vm: RealVM, records: Records) -> None:
        self.vm, self.records = vm, records
        self.figure = LiveFigure(_draw())
        super().__init__([self.figure])
        frames.add(self)

    def __repr__(self) -> str:
        counts = f"{len(self.vm.checkpoints)} and {len(self.records)} checkpoints"
        return f"<RealVMPlot of {counts}>"

    def refresh(self) -> None:
        """Show the checkpoints that came since the last time."""
        key = len(self.vm.checkpoints), len(self.records)
        self.figure.show(key, self.figure_data)

    def figure_data(self) -> FigureData:
        """Give the points of both, and the ranges of the axes."""
        found, records = self.vm.checkpoints, self.records[:]
        tables = {
            "real VM": _columns(
                np.array([each.number for each in found], dtype=float),
                np.array([each.milliseconds for each in found], dtype=float),
                np.array([each.pages for each in found], dtype=float),
            ),
            "our guest": _columns(
                records.column("number"), records.column("pause_ms"), records.column("pages")
            ),
        }
        most = max(float(table["number"].max(initial=1)) for table in tables.values())
        ranges = {"numbers": (0.0, most + 1)}
        for name in QUANTITIES:
            highest = [
                np.percentile(table[name], 95) for table in tables.values() if len(table[name])
            ]
            ranges[name] = (0.0, 1.2 * max(highest, default=1.0) or 1.0)
        return FigureData(tables, ranges)

    def close(self) -> None:
        """Close the figure."""
        frames.remove(self)
        self.figure.close()
        super().close()


def _columns(
    number: npt.NDArray[np.float64], pause: npt.NDArray[np.float64], pages: npt.NDArray[np.float64]
) -> Columns:
    return {"number": number, "pause": pause, "pages": pages}


def _draw() -> LayoutDOM:
    """Draw pause and pages against the number of the checkpoint; still empty."""
    numbers = Range1d(name="numbers")
    sources = {
        name: ColumnDataSource({each: [] for each in ("number", *QUANTITIES)}, name=name)
        for name in SERIES
    }
    plots = []
    for quantity, label in QUANTITIES.items():
        plot = make_plot("checkpoint", label, x_range=numbers, y_range=Range1d(name=quantity))
        for name, colour in SERIES.items():
            plot.scatter(
                x="number",
                y=quantity,
                source=sources[name],
                color=colour,
                size=6,
                alpha=0.8,
                legend_label=name,
            )
        legend_above(plot)
        plots.append(plot)
    return row(*plots, sizing_mode="stretch_width")
