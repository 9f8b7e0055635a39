"""Plots of a comparison: pause over time, its distribution, and what is paid for waiting less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.models import CustomJSTickFormatter, HoverTool, NumeralTickFormatter, Range1d

from colobench.lab.compare.findings import Findings, Group, Predictions
from colobench.lab.compare.measurement import Measurement
from colobench.lab.compare.metrics import DEGRADATION, PAUSE
from colobench.lab.compare.sentences import waited_for
from colobench.lab.compare.statistics import Estimate
from colobench.lab.report.page import PlotCard
from colobench.lab.report.palette import SERIES_COLOURS, SERIES_DASHES, SERIES_MARKERS
from colobench.lab.report.plot import LEAST_MS, decade_ticker, legend_above, logarithmic, make_plot

#: Most dots of a strategy in a plot: a browser is to stay quick.
DOTS = 2000
#: Characters of a legend's line that a narrow page has room for.
_LEGEND_WIDTH = 44
#: Lines of a legend for which every plot has room; pixels between more than these, and of each.
_LEGEND_LINES, _LEGEND_SPACING, _LEGEND_LINE_HEIGHT = 2, 3, 18
_SHORT_NUMBER = CustomJSTickFormatter(code="return String(+tick.toPrecision(3))").code


def colour_of(number: int) -> str:
    """Give the colour of the strategy with a number, from 0."""
    return SERIES_COLOURS[number % len(SERIES_COLOURS)]


def marker_of(number: int) -> str:
    """Give the shape of the dots of the strategy with a number; no other has colour and shape."""
    return SERIES_MARKERS[(number + number // len(SERIES_COLOURS)) % len(SERIES_MARKERS)]


def dash_of(number: int) -> str:
    """Give the dashes of the lines of the strategy with a number, as `marker_of`."""
    return SERIES_DASHES[(number + number // len(SERIES_COLOURS)) % len(SERIES_DASHES)]


def comparison_plots(comparison: Findings, predictions: Predictions) -> list[PlotCard]:
    """Draw three plots for each guest and link.

    Parameters
    ----------
    comparison
        Results that are drawn; there may be none.
    predictions
        Values that a model predicts, drawn hollow beside those measured.
    """
    cards = []
    for group in comparison.groups():
        cards += _plots(group, predictions)
    return cards


def _plots(group: Group, predictions: Predictions) -> list[PlotCard]:
    missing = "No checkpoint was measured."
    pauses = {name: _pauses(group.of_strategy(name)) for name in group.strategies}
    some = any(len(each) for each in pauses.values())
    metric = waited_for(group)
    return [
        PlotCard(
            f"{group.name}: {metric.heading} against degradation",
            "Down and to the left is better. The crosses are intervals of the medians over rounds; "
            "hollow diamonds are predicted.",
            _plot_price(group, predictions),
            "Nothing was measured.",
            wide=True,
        ),
        PlotCard(
            f"{group.name}: pause over time",
            "Pause of each checkpoint, by the time since its measurement began; all rounds. "
            "Dashed: the predicted median.",
            _plot_times(group, predictions) if some else None,
            missing,
        ),
        PlotCard(
            f"{group.name}: distribution of the pause",
            "Share of the checkpoints of all rounds whose pause was at most so long.",
            _plot_distribution(group, pauses) if some else None,
            missing,
        ),
    ]


def _column(measurements: Sequence[Measurement], name: str) -> npt.NDArray[np.float64]:
    values = [np.asarray(each.checkpoints[name], dtype=np.float64) for each in measurements]
    return np.concatenate([*values, np.empty(0)])


def _pauses(measurements: Sequence[Measurement]) -> npt.NDArray[np.float64]:
    return np.sort(_column(measurements, "pause_ms"))


def _plot_times(group: Group, predictions: Predictions) -> Any:
    every = np.concatenate([_pauses(group.of_strategy(name)) for name in group.strategies])
    plot = make_plot("time (s)", logarithmic("pause", every), y_axis_type="log")
    plot.yaxis.formatter = CustomJSTickFormatter(code=_SHORT_NUMBER)
    for number, name in enumerate(group.strategies):
        measurements = group.of_strategy(name)
        times, pauses = _column(measurements, "stopped_s"), _column(measurements, "pause_ms")
        step = -(-len(times) // DOTS) or 1
        plot.scatter(
            times[::step],
            np.maximum(pauses[::step], LEAST_MS),
            size=4,
            alpha=0.6,
            marker=marker_of(number),
            color=colour_of(number),
            legend_label=name,
        )
        predicted = predictions.get(group.cells[number].key, {}).get(PAUSE.name)
        if predicted is not None:
            ends, height = [0.0, float(max(times, default=1.0))], max(predicted, LEAST_MS)
            plot.line(ends, [height] * 2, color=colour_of(number), line_dash="dashed")
    return _with_legend(plot, group)


def _plot_distribution(group: Group, pauses: dict[str, npt.NDArray[np.float64]]) -> Any:
    plot = make_plot(
        logarithmic("pause", np.concatenate(list(pauses.values()))),
        "share of checkpoints",
        x_axis_type="log",
        y_range=Range1d(start=0, end=1.04),
    )
    plot.xaxis.ticker = decade_ticker()
    plot.xaxis.formatter = CustomJSTickFormatter(code=_SHORT_NUMBER)
    plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    for number, (name, values) in enumerate(pauses.items()):
        if not len(values):
            continue
        at = np.unique(np.linspace(0, len(values) - 1, min(len(values), DOTS)).astype(int))
        plot.step(
            np.maximum(np.insert(values[at], 0, values[0]), LEAST_MS),
            np.insert((at + 1) / len(values), 0, 0.0),
            mode="after",
            line_width=2,
            line_dash=dash_of(number),
            color=colour_of(number),
            legend_label=name,
        )
    return _with_legend(plot, group)


def _plot_price(group: Group, predictions: Predictions) -> Any:
    """Plot the wait against the degradation, with intervals; predictions are hollow diamonds."""
    wait = waited_for(group)
    x_label = f"{DEGRADATION.heading} (% of the work of the unprotected guest)"
    plot = make_plot(x_label, f"{wait.heading} (ms, logarithmic)", y_axis_type="log")
    plot.yaxis.formatter = CustomJSTickFormatter(code=_SHORT_NUMBER)
    drawn = []
    for number, cell in enumerate(group.cells):
        x = group.estimate(cell.strategy, DEGRADATION)
        y = group.estimate(cell.strategy, wait)
        style = {"color": colour_of(number), "legend_label": cell.strategy}
        if x is not None and y is not None:
            drawn.append(_cross(plot, cell.strategy, x, y, style, number))
        predicted = predictions.get(cell.key, {})
        if DEGRADATION.name in predicted and wait.name in predicted:
            at = 100 * predicted[DEGRADATION.name], predicted[wait.name]
            hollow = {"fill_color": None, "line_width": 2, "size": 13, "marker": "diamond"}
            plot.scatter([at[0]], [at[1]], **hollow, line_color=style["color"])
    if not drawn:
        return None
    shown = [("strategy", "@name"), ("degradation", "@x{0.00} %"), (wait.heading, "@y{0.000} ms")]
    plot.add_tools(HoverTool(renderers=drawn, tooltips=shown))
    return _with_legend(plot, group)


def _cross(
    plot: Any, name: str, x: Estimate, y: Estimate, style: dict[str, Any], number: int
) -> Any:
    """Draw the medians as a dot, and their intervals as a cross."""
    across, up = 100 * x.median, y.median
    if x.low is not None and x.high is not None:
        plot.segment([100 * x.low], [up], [100 * x.high], [up], color=style["color"])
    if y.low is not None and y.high is not None:
        plot.segment([across], [y.low], [across], [y.high], color=style["color"])
    marker = marker_of(number)
    data = {"x": [across], "y": [up], "name": [name]}
    return plot.scatter("x", "y", source=data, size=10, marker=marker, **style)


def _with_legend(plot: Any, group: Group) -> Any:
    """Put the legend above, in as many columns as fit."""
    if plot.legend:
        longest = max(map(len, group.strategies)) + 5
        legend, columns = legend_above(plot), max(1, _LEGEND_WIDTH // longest)
        legend.ncols = columns
        # The legend of many strategies takes none of the plot's own room.
        lines = -(-len(legend.items) // columns)
        if lines > _LEGEND_LINES:
            legend.update(spacing=_LEGEND_SPACING, glyph_height=15, label_height=15)
            plot.height += _LEGEND_LINE_HEIGHT * (lines - _LEGEND_LINES)
    return plot
