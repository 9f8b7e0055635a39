"""A live plot of latencies: over time, and as a cumulative distribution."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
from bokeh.layouts import row
from bokeh.models import ColumnDataSource, LayoutDOM, Range1d

from colobench.lab.report.palette import (
    NEUTRAL_COLOUR,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    SERIES_DASHES,
    SERIES_MARKERS,
    TAKEOVER_COLOUR,
)
from colobench.lab.report.plot import logarithmic_range
from colobench.lab.studies.latency import STATES, Latencies, TimedAnswer
from colobench.ui.base.figure import Columns, FigureData, LiveFigure
from colobench.ui.base.pump import frames
from colobench.ui.views.plots import legend_above, make_plot

COLOURS = dict(zip(STATES, (SECONDARY_COLOUR, PRIMARY_COLOUR, TAKEOVER_COLOUR), strict=True))
#: Seconds that are seen at first: few enough that the teeth of a saw can be told apart.
WINDOW_SECONDS = 1.0
PERCENTS = np.arange(1.0, 100.0)


class LatencyPlot(ipywidgets.VBox):  # type: ignore[misc]
    """Shows latencies while they are measured.

    Parameters
    ----------
    latencies
        Measurements to follow; any thread may append to them.

    Examples
    --------
    >>> latencies = cb.Latencies()
    >>> display(ui.LatencyPlot(latencies))
    >>> cb.measure_latency(into=latencies)
    """

    def __init__(self, latencies: Latencies) -> None:
        self.latencies = latencies
        self.figure = LiveFigure(_draw())
        super().__init__([self.figure])
        frames.add(self)

    def __repr__(self) -> str:
        return f"<LatencyPlot of {len(self.latencies.answers)} answers>"

    def refresh(self) -> None:
        """Show the answers that came since the last time."""
        answers = self.latencies.answers[:]
        marks = [seconds for state, seconds in self.latencies.checkpoints[:] if state == "buffer"]
        self.figure.show((len(answers), len(marks)), lambda: _figure_data(answers, marks))

    def close(self) -> None:
        """Close the plot."""
        frames.remove(self)
        self.figure.close()
        super().close()


def _figure_data(answers: list[TimedAnswer], marks: list[float]) -> FigureData:
    tables: dict[str, Columns] = {
        state: _points([each for each in answers if each.state == state]) for state in STATES
    }
    tables["checkpoints"] = {"seconds": np.array(marks, dtype=np.float64)}
    tables["percentiles"] = {"percent": PERCENTS, **_percentiles(answers)}
    slow = [each.latency_ms for each in answers if each.asked_s < WINDOW_SECONDS]
    drawn = np.concatenate([tables["percentiles"][state] for state in STATES])
    ranges = {
        "latencies": (0.0, 1.05 * max(slow, default=1.0)),
        "answers": logarithmic_range(drawn),
    }
    return FigureData(tables, ranges)


def _points(answers: list[TimedAnswer]) -> Columns:
    return {
        "seconds": np.array([each.asked_s for each in answers]),
        "latency": np.array([each.latency_ms for each in answers]),
    }


def _percentiles(answers: list[TimedAnswer]) -> Columns:
    """Give the latency at each of `PERCENTS` for each state; NaN without answers."""
    columns = {}
    for state in STATES:
        found = [each.latency_ms for each in answers if each.state == state]
        none = np.full(len(PERCENTS), np.nan)
        columns[state] = np.percentile(found, PERCENTS) if found else none
    return columns


def _draw() -> LayoutDOM:
    """Draw latency over time, and the share of answers below a latency; still empty."""
    over_time = make_plot(
        "asked (s after the beginning)",
        "latency (ms)",
        height=300,
        x_range=Range1d(start=0, end=WINDOW_SECONDS, name="seconds"),
        y_range=Range1d(start=0, end=110, name="latencies"),
    )
    marks = ColumnDataSource({"seconds": []}, name="checkpoints")
    over_time.vspan("seconds", source=marks, line_color=NEUTRAL_COLOUR, line_dash="dashed")
    share = make_plot(
        "latency (ms, logarithmic)",
        "answers that are that quick (%)",
        height=300,
        x_axis_type="log",
        x_range=Range1d(start=0.1, end=100, name="answers"),
        y_range=Range1d(start=0, end=100),
    )
    percentiles = ColumnDataSource({name: [] for name in ("percent", *STATES)}, name="percentiles")
    for number, (state, colour) in enumerate(COLOURS.items()):
        answers = ColumnDataSource({"seconds": [], "latency": []}, name=state)
        named: dict[str, Any] = {"color": colour, "legend_label": state}
        over_time.scatter(
            "seconds", "latency", source=answers, size=5, marker=SERIES_MARKERS[number], **named
        )
        share.line(
            *(state, "percent"),
            source=percentiles,
            line_width=2,
            line_dash=SERIES_DASHES[number],
            **named,
        )
    for each in (over_time, share):
        legend_above(each)
    return row(over_time, share, sizing_mode="stretch_width")
