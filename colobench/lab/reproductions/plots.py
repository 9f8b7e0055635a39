"""Plots of reproductions: each quantity against what was varied, with a line of medians."""

from __future__ import annotations

from typing import Any

from bokeh.models import CustomJSTickFormatter

from colobench.lab.report.page import PlotCard
from colobench.lab.report.palette import SERIES_COLOURS
from colobench.lab.report.plot import legend_above, make_plot
from colobench.lab.reproductions.points import medians, select
from colobench.lab.reproductions.reproduction import Drawn, Reproduced

_SHORT_NUMBER = CustomJSTickFormatter(code="return String(+tick.toPrecision(3))").code


def plots_of(found: Reproduced) -> list[PlotCard]:
    """Draw the quantities of a reproduction."""
    claim = found.reproduction
    return [
        PlotCard(
            f"{claim.name}: {drawn.y_label}",
            f"{claim.claim}. Dots are measurements, lines join their medians.",
            plot_quantity(found, drawn) if select(found.points, drawn.quantity) else None,
            "Nothing was measured.",
        )
        for drawn in claim.drawn
    ]


def plot_quantity(found: Reproduced, drawn: Drawn) -> Any:
    """Draw a quantity of each series."""
    kind = "log" if drawn.logarithmic else "linear"
    plot = make_plot(drawn.x_label, drawn.y_label, x_axis_type=kind, y_axis_type=kind)
    if drawn.logarithmic:
        plot.axis.formatter = CustomJSTickFormatter(code=_SHORT_NUMBER)
    points = select(found.points, drawn.quantity)
    for number, series in enumerate(dict.fromkeys(each.series for each in points)):
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        of_series = select(points, drawn.quantity, series)
        x, y = [each.x for each in of_series], [each.y for each in of_series]
        plot.scatter(x, y, size=5, alpha=0.4, color=colour)
        line = medians(points, drawn.quantity, series)
        style = {"color": colour, "line_width": 2, "legend_label": series}
        plot.line(list(line), list(line.values()), **style)
    legend_above(plot)
    return plot
