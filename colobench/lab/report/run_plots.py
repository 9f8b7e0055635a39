"""Plots of a run: pause, pages and memory of each checkpoint, and the takeover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    FactorRange,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.models.annotations import Label, Span

from colobench.lab.report.palette import (
    HATCH_COLOUR,
    NEUTRAL_COLOUR,
    PHASE_COLOURS,
    PHASE_HATCHES,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    SERIES_DASHES,
    SERIES_MARKERS,
    TAKEOVER_COLOUR,
)
from colobench.lab.report.plot import LEAST_MS, decade_ticker, legend_above, logarithmic, make_plot
from colobench.lab.report.run_summary import PAUSE_PHASES, milliseconds

Columns = dict[str, npt.NDArray[np.float64]]

#: Bars that a plot has room for; more checkpoints than that share them.
BARS = 200
#: Up to this many checkpoints, lines also show a dot for each.
DOTS = 30


def _number_axis(plot: Any) -> None:
    plot.xaxis.ticker = BasicTicker(min_interval=1)
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")


def _room_above(*series: npt.NDArray[np.float64]) -> Range1d:
    """Give a range from zero to a little above the largest value."""
    largest = max(float(np.max(values)) for values in series)
    return Range1d(start=0, end=1.05 * largest or 1)


def group(columns: Columns) -> Columns:
    """Average neighbouring checkpoints, so that no more than `BARS` are left.

    Returns
    -------
    dict
        The columns' means, and ``size`` (checkpoints averaged), ``first`` (number of the first of
        them) and ``longest`` (pause of the longest, milliseconds).
    """
    count = len(columns["number"])
    starts = np.arange(0, count, -(-count // BARS))
    sizes = np.diff(np.append(starts, count))
    means = {name: np.add.reduceat(values, starts) / sizes for name, values in columns.items()}
    longest = np.maximum.reduceat(columns["pause_ms"], starts)
    return {**means, "size": sizes, "first": columns["number"][starts], "longest": longest}


def plot_pause(grouped: Columns, numbers: Range1d) -> Any:
    """Stack the phases of each pause; a few outliers do not make all others invisible.

    Verification is not among them: the pauses are to be without it.
    """
    longest, size = grouped["longest"], int(np.max(grouped["size"]))
    highest, usual = float(np.max(longest)), float(np.percentile(longest, 90))
    limit = 1.3 * usual if highest > 3 * usual else highest
    fits = longest <= limit
    # Phases that only some strategies have do not fill the legend of the others.
    phases = [
        phase
        for phase in PAUSE_PHASES
        if phase != "verify" and (phase not in PHASE_HATCHES or grouped[f"{phase}_ms"].any())
    ]
    # The rest for the last phase may be a little less than nothing, which does not stack.
    heights = {f"{phase}_ms": np.maximum(grouped[f"{phase}_ms"], 0) for phase in phases}
    source = ColumnDataSource({**grouped, **heights, "width": 0.86 * grouped["size"]})
    y_range = _room_above(np.minimum(longest, limit))
    plot = make_plot("checkpoint", "pause (ms)", x_range=numbers, y_range=y_range)
    stack = plot.vbar_stack(
        list(heights),
        x="number",
        width="width",
        source=source,
        color=[PHASE_COLOURS[phase] for phase in phases],
        hatch_pattern=[PHASE_HATCHES.get(phase, " ") for phase in phases],
        hatch_color=HATCH_COLOUR,
        hatch_scale=6,
        legend_label=phases,
    )
    dots = {"color": NEUTRAL_COLOUR, "size": 4}
    if size > 1:
        label = f"longest of {size} (bars: mean)"
        plot.scatter(grouped["number"][fits], longest[fits], legend_label=label, **dots)
    if not fits.all():
        beyond = grouped["number"][~fits]
        label = "longer than shown"
        top = np.full(len(beyond), limit)
        plot.scatter(beyond, top, legend_label=label, marker="triangle", **{**dots, "size": 7})
    tooltips = [("checkpoint", "@first{0,0}"), ("pause", "@pause_ms{0.00} ms")]
    tooltips += [(phase, f"@{phase}_ms{{0.000}} ms") for phase in phases]
    plot.add_tools(HoverTool(renderers=[stack[0]], mode="vline", tooltips=tooltips))
    _number_axis(plot)
    # Two lines, so that a narrow page has room for all of them.
    legend_above(plot).ncols = -(-len(plot.legend[0].items) // 2)
    return plot


def plot_distribution(pause: npt.NDArray[np.float64]) -> Any:
    """Plot the cumulative distribution of the pause, with its median and 99th percentile."""
    ordered = np.maximum(np.sort(pause), LEAST_MS)
    low, high = ordered[[0, -1]]
    wide = high > 5 * low
    plot = make_plot(
        logarithmic("pause", pause) if wide else "pause (ms)",
        "share of checkpoints",
        x_axis_type="log" if wide else "linear",
        x_range=Range1d(start=low / 1.3, end=high * 1.3),
        y_range=Range1d(start=0, end=1.04),
    )
    if wide:
        plot.xaxis.ticker = decade_ticker()
        plot.xaxis.formatter = CustomJSTickFormatter(code="return String(+tick.toPrecision(3))")
    plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    shares = np.arange(len(ordered) + 1) / len(ordered)
    stairs = np.insert(ordered, 0, low)
    plot.step(stairs, shares, mode="after", line_width=2, color=PRIMARY_COLOUR)
    # The second one is near the right end, so its name is at its left.
    for share, height, side in ((50, 0.16, "left"), (99, 0.04, "right")):
        _mark(plot, float(np.percentile(ordered, share)), height, f"p{share}", side)
    return plot


def _mark(plot: Any, value: float, height: float, name: str, side: str) -> None:
    """Mark a duration in milliseconds by a dashed line with its name, aligned to that side."""
    plot.add_layout(
        Span(location=value, dimension="height", line_dash="dashed", line_color=NEUTRAL_COLOUR)
    )
    offset = 4 if side == "left" else -4
    words = f"{name} {milliseconds(value)}"
    _write(plot, words, value, height, x_offset=offset, text_align=side)


def _write(plot: Any, text: str, x: float, y: float, **placing: Any) -> None:
    """Write into a plot, in the colour of the page's text."""
    plot.add_layout(Label(text=text, x=x, y=y, text_font_size="12px", tags=["ink"], **placing))


def _lines(plot: Any, numbers: npt.NDArray[np.float64], *lines: tuple[Any, ...]) -> None:
    """Draw lines of (values, name, colour, width) over the checkpoints' numbers."""
    for number, (values, name, colour, width) in enumerate(lines):
        style = {"color": colour, "legend_label": name}
        plot.line(numbers, values, line_width=width, line_dash=SERIES_DASHES[number], **style)
        if len(numbers) <= DOTS:
            plot.scatter(numbers, values, size=2.5 + width, marker=SERIES_MARKERS[number], **style)
    _number_axis(plot)
    legend_above(plot)


def plot_pages(grouped: Columns, numbers: Range1d) -> Any:
    """Plot how many pages were sent, how many of them were zero, how many were flushed."""
    sent, zero, flushed = (grouped[name] for name in ("pages", "zero_pages", "flushed_pages"))
    y_range = _room_above(sent, flushed)
    plot = make_plot("checkpoint", "pages", x_range=numbers, y_range=y_range)
    # Often equal: the thin line is seen on the thick one.
    _lines(
        plot,
        grouped["number"],
        (flushed, "flushed", SECONDARY_COLOUR, 4),
        (sent, "sent", PRIMARY_COLOUR, 1.5),
        (zero, "sent as zero", NEUTRAL_COLOUR, 1.5),
    )
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    return plot


def plot_memory(grouped: Columns, numbers: Range1d) -> Any:
    """Plot the memory that each side held for a checkpoint."""
    held = [grouped["primary_buffer_bytes"], grouped["secondary_buffer_bytes"]]
    unit, size = ("MiB", 2**20) if max(map(np.max, held)) >= 2**20 else ("KiB", 2**10)
    primary, secondary = (values / size for values in held)
    y_range = _room_above(primary, secondary)
    plot = make_plot("checkpoint", f"memory ({unit})", x_range=numbers, y_range=y_range)
    _lines(
        plot,
        grouped["number"],
        (primary, "primary", PRIMARY_COLOUR, 4),
        (secondary, "secondary", SECONDARY_COLOUR, 1.5),
    )
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0[.]0")
    return plot


def plot_takeover(times: npt.NDArray[np.float64], timeline: Mapping[str, float]) -> Any:
    """Plot what ran when around the primary's death, with the last checkpoints before it."""
    killed, took_over = timeline["killed"], timeline["took_over"]
    checkpoints = 1e3 * (times[times <= killed] - killed)
    running = 1e3 * (took_over - killed)
    end = 1.3 * max(1e3 * (timeline.get("observed", took_over) - killed), running)
    begin = min([*checkpoints[-1:], -2 * end]) - 0.2 * end
    last = checkpoints[checkpoints > begin]
    sides = FactorRange(factors=["secondary", "primary"])
    x_range = Range1d(start=begin, end=end)
    plot = make_plot("time since SIGKILL (ms)", "", x_range=x_range, y_range=sides)
    plot.ygrid.grid_line_color = None
    for side, left, right, colour, name in (
        ("primary", begin, 0, PRIMARY_COLOUR, "guest runs"),
        ("secondary", begin, 0, NEUTRAL_COLOUR, "follows"),
        ("secondary", 0, running, TAKEOVER_COLOUR, "takes over"),
        ("secondary", running, end, SECONDARY_COLOUR, "guest runs on"),
    ):
        plot.hbar([side], left=left, right=right, height=0.34, color=colour, legend_label=name)
    primary, secondary = ["primary"] * len(last), ["secondary"] * len(last)
    plot.segment(last, primary, last, secondary, color=NEUTRAL_COLOUR, line_width=1.5)
    plot.scatter([0], ["primary"], marker="x", size=16, line_width=3, color=TAKEOVER_COLOUR)
    _write(plot, milliseconds(running), running / 2, 0.5, y_offset=40, text_align="center")
    legend_above(plot)
    return plot
