"""Live plots of strategies side by side: pause, traffic, degradation and latency, as they grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, CustomJSTickFormatter, LayoutDOM, Range1d

from colobench.lab.compare.growth import Growth
from colobench.lab.compare.metrics import BYTES, DEGRADATION, LATENCY, PAUSE
from colobench.lab.compare.plots import colour_of
from colobench.lab.report.palette import SERIES_MARKERS
from colobench.lab.report.plot import LEAST_MS, logarithmic_range
from colobench.ui.base.figure import Columns, FigureData, LiveFigure
from colobench.ui.views.plots import make_plot

#: Shapes of dots, of as many strategies as are drawn at most.
MARKERS = SERIES_MARKERS
#: Most checkpoints of a strategy that are drawn; of more, every second, third, … is.
POINTS = 600
PERCENTS = np.arange(0.0, 101.0)
#: Protected seconds before which a degradation says too little to set the axis.
EARLY_SECONDS = 0.3
HEIGHT = 250
#: Label of a logarithmic axis, which has no place for 0.
_LOGARITHMIC = f"{{}} (ms, logarithmic from {LEAST_MS:g})"

#: What is drawn of each strategy: columns of its checkpoints, and of its predicted lines.
COLUMNS = ("seconds", "pause", "megabytes", "degradation")
LINES = (*COLUMNS, "share", "pause_at", "latency_at")
_SHORT_NUMBER = CustomJSTickFormatter(code="return String(+tick.toPrecision(3))").code

#: Figures that a model predicts, by the names of metrics.
Predicted = Mapping[str, float]


class ComparisonPlots(ipywidgets.VBox):  # type: ignore[misc]
    """Shows the growth of up to four strategies, each in its colour; dashed lines are predicted."""

    def __init__(self) -> None:
        self.figure = LiveFigure(_draw())
        self.latencies = LiveFigure(_draw_latencies())
        # A model of ipywidgets' own: a view's layout is constant.
        self._below = ipywidgets.VBox([self.latencies])
        super().__init__([self.figure, self._below])
        self.show_latencies(False)

    def show_latencies(self, visible: bool) -> None:
        """Show the plot of latencies, or hide it: only clients have latencies."""
        self._below.layout.display = None if visible else "none"

    def repeat(self) -> None:
        """Send again what is not in a feed."""
        self._below.layout.send_state("display")

    def show(
        self, version: object, growths: Sequence[Growth], predicted: Sequence[Predicted]
    ) -> None:
        """Show figures, unless they are shown already.

        Parameters
        ----------
        version
            Value that differs from the last one if there is something new.
        growths
            Growth of each strategy, at most as many as there are `MARKERS`.
        predicted
            Predictions for each strategy; a metric without one has no line.
        """
        self.figure.show(version, lambda: _figure_data(growths, predicted))
        self.latencies.show(version, lambda: _latency_data(growths, predicted))

    def close(self) -> None:
        """Close the plots."""
        self.figure.close()
        self.latencies.close()
        super().close()


def _figure_data(growths: Sequence[Growth], predicted: Sequence[Predicted]) -> FigureData:
    end = max((float(each.seconds.max(initial=0.0)) for each in growths), default=0.0) or 1.0
    tables: dict[str, Columns] = {}
    for number in range(len(MARKERS)):
        known = number < len(growths)
        tables[f"checkpoints {number}"] = _points(growths[number] if known else None)
        tables[f"lines {number}"] = _lines(predicted[number] if known else {}, end)
    pauses = [np.maximum(each.pause_ms, LEAST_MS) for each in growths]
    tables["shares"] = _shares("pause", pauses)
    at = [each.get(PAUSE.name, np.nan) * PAUSE.factor for each in predicted]
    # All that was sent, and all that the models let one expect.
    sent = [BYTES.factor * float(each.bytes.max(initial=0.0)) for each in growths]
    sent += [end * BYTES.factor * each.get(BYTES.name, 0.0) for each in predicted]
    ranges = {
        "seconds": (0.0, 1.02 * end),
        "megabytes": (0.0, 1.05 * max(sent, default=0.0) or 1.0),
        "degradation": _range(growths),
        "pause": logarithmic_range(np.concatenate([*pauses, at])),
    }
    return FigureData(tables, ranges)


def _latency_data(growths: Sequence[Growth], predicted: Sequence[Predicted]) -> FigureData:
    latencies = [np.maximum(each.latencies_ms, LEAST_MS) for each in growths]
    tables: dict[str, Columns] = {"shares": _shares("latency", latencies)}
    for number in range(len(MARKERS)):
        lines = _lines(predicted[number] if number < len(predicted) else {}, 1.0)
        tables[f"lines {number}"] = lines
    at = [each.get(LATENCY.name, np.nan) * LATENCY.factor for each in predicted]
    return FigureData(tables, {"latency": logarithmic_range(np.concatenate([*latencies, at]))})


def _points(growth: Growth | None) -> Columns:
    """Give a strategy's checkpoints, thinned out evenly."""
    if growth is None:
        return {name: np.empty(0) for name in COLUMNS}
    step = -(-len(growth.seconds) // POINTS) or 1
    return {
        "seconds": growth.seconds[::step],
        "pause": np.maximum(growth.pause_ms[::step], LEAST_MS),
        "megabytes": growth.bytes[::step] * BYTES.factor,
        "degradation": growth.degradation[::step] * DEGRADATION.factor,
    }


def _lines(predicted: Predicted, end: float) -> Columns:
    """Give both ends of a strategy's predicted lines; NaN where nothing is predicted."""
    at = {
        name: predicted.get(metric.name, np.nan) * metric.factor
        for name, metric in (
            ("pause", PAUSE),
            ("megabytes", BYTES),
            ("degradation", DEGRADATION),
            ("latency", LATENCY),
        )
    }
    both = np.ones(2)
    return {
        "seconds": np.array([0.0, end]),
        "pause": at["pause"] * both,
        "megabytes": np.array([0.0, end * at["megabytes"]]),
        "degradation": at["degradation"] * both,
        "share": np.array([0.0, 100.0]),
        "pause_at": at["pause"] * both,
        "latency_at": at["latency"] * both,
    }


def _shares(name: str, values: Sequence[np.ndarray[Any, Any]]) -> Columns:
    """Give the value at each of `PERCENTS` for each strategy; NaN without values."""
    columns = {"percent": PERCENTS}
    for number in range(len(MARKERS)):
        found = values[number] if number < len(values) else np.empty(0)
        none = np.full(len(PERCENTS), np.nan)
        columns[f"{name} {number}"] = np.percentile(found, PERCENTS) if len(found) else none
    return columns


def _range(growths: Sequence[Growth]) -> tuple[float, float]:
    """Give the ends of the axis of degradation, percent; its first values do not count."""
    late = [
        DEGRADATION.factor * each.degradation[each.seconds >= EARLY_SECONDS] for each in growths
    ]
    found = np.concatenate([*late, np.zeros(1)])
    low, high = np.percentile(found[np.isfinite(found)], [1, 99])
    room = 0.15 * (high - low) or 1.0
    return float(low - room), float(high + room)


def _sources() -> tuple[list[ColumnDataSource], list[ColumnDataSource]]:
    """Make the empty sources of all strategies' checkpoints and predicted lines."""
    numbers = range(len(MARKERS))
    checkpoints = [
        ColumnDataSource({name: [] for name in COLUMNS}, name=f"checkpoints {number}")
        for number in numbers
    ]
    lines = [
        ColumnDataSource({name: [] for name in LINES}, name=f"lines {number}") for number in numbers
    ]
    return checkpoints, lines


def _draw() -> LayoutDOM:
    """Draw pause over time, its distribution, traffic and degradation; still empty."""
    time: dict[str, Any] = {"height": HEIGHT, "x_range": Range1d(start=0, end=1, name="seconds")}
    label = "protected time (s)"
    # One range for both plots of the pause: empty plots know none by themselves.
    pauses = Range1d(start=0.1, end=100, name="pause")
    pause = make_plot(
        label, _LOGARITHMIC.format("pause"), y_axis_type="log", y_range=pauses, **time
    )
    pause.yaxis.formatter = CustomJSTickFormatter(code=_SHORT_NUMBER)
    traffic = Range1d(start=0, end=1, name="megabytes")
    sent = make_plot(label, "sent so far (MB)", y_range=traffic, **time)
    limits = Range1d(start=0, end=10, name="degradation")
    lost = make_plot(label, "degradation so far (%)", y_range=limits, **time)
    checkpoints, lines = _sources()
    for number, marker in enumerate(MARKERS):
        style = {"color": colour_of(number), "source": checkpoints[number]}
        pause.scatter("seconds", "pause", size=5, alpha=0.6, marker=marker, **style)
        sent.line("seconds", "megabytes", line_width=2, **style)
        lost.line("seconds", "degradation", line_width=2, **style)
        for plot, name in ((pause, "pause"), (sent, "megabytes"), (lost, "degradation")):
            plot.line("seconds", name, **_predicted(number, lines))
    shares = _draw_shares("pause", lines, pauses)
    above, below = (
        row(*each, sizing_mode="stretch_width") for each in ((pause, shares), (sent, lost))
    )
    return column(above, below, sizing_mode="stretch_width")


def _draw_latencies() -> Any:
    """Draw the distribution of the latency; still empty."""
    _, lines = _sources()
    return _draw_shares("latency", lines, Range1d(start=0.1, end=100, name="latency"))


def _draw_shares(name: str, lines: Sequence[ColumnDataSource], shown: Range1d) -> Any:
    """Draw the share of checkpoints or answers up to a time, for each strategy."""
    things = {"pause": "checkpoints", "latency": "answers"}[name]
    plot = make_plot(
        _LOGARITHMIC.format(name),
        f"{things} up to it (%)",
        height=HEIGHT,
        x_axis_type="log",
        x_range=shown,
        y_range=Range1d(start=0, end=102),
    )
    plot.xaxis.formatter = CustomJSTickFormatter(code=_SHORT_NUMBER)
    numbers = range(len(MARKERS))
    columns = ["percent", *(f"{name} {number}" for number in numbers)]
    shares = ColumnDataSource({column: [] for column in columns}, name="shares")
    for number in numbers:
        style = {"color": colour_of(number), "line_width": 2, "source": shares}
        plot.line(f"{name} {number}", "percent", **style)
        plot.line(f"{name}_at", "share", **_predicted(number, lines))
    return plot


def _predicted(number: int, lines: Sequence[ColumnDataSource]) -> dict[str, Any]:
    return {"source": lines[number], "color": colour_of(number), "line_dash": "dashed"}
