"""Plots of a reproduction in a notebook."""

from __future__ import annotations

import ipywidgets
from bokeh.layouts import row

from colobench.lab.reproductions.plots import plot_quantity
from colobench.lab.reproductions.reproduction import Reproduced
from colobench.ui.base.figure import FigureData, LiveFigure


class ReproductionPlot(ipywidgets.VBox):  # type: ignore[misc]
    """Shows each quantity of a reproduction that was measured.

    Parameters
    ----------
    found
        Reproduction with at least one point.
    """

    def __init__(self, found: Reproduced) -> None:
        self.name = found.reproduction.name
        plots = [plot_quantity(found, drawn) for drawn in found.reproduction.drawn]
        self.figure = LiveFigure(row(plots, sizing_mode="stretch_width"))
        self.figure.show(self.name, lambda: FigureData({}))
        super().__init__([self.figure])

    def __repr__(self) -> str:
        return f"<plots of {self.name}>"

    def close(self) -> None:
        """Close the figure."""
        self.figure.close()
        super().close()
