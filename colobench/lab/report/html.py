"""A run as one HTML file that opens offline: the verdict, plots and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from bokeh.embed import components
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    FactorRange,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.models.annotations import Label, Span
from bokeh.plotting import figure
from bokeh.resources import Resources

from colobench.lab.output_file import write_output_file
from colobench.lab.report.run_summary import ACTIVITIES, figures, megabytes, milliseconds

if TYPE_CHECKING:
    from colobench.lab.session.record import CheckpointRecord

Columns = dict[str, npt.NDArray[np.float64]]

#: Neighbours in a stack differ enough for every kind of colour blindness.
PHASE_COLOURS = {
    "request": "#a3adba",
    "stop": "#334477",
    "collect": "#eeaa22",
    "ram": "#3377ee",
    "devices": "#882233",
    "received": "#aabbaa",
    "flush": "#bb5500",
    "load": "#77bbdd",
    "resume": "#667777",
    "verify": "#b9c0ca",
}
#: The guest still runs while the request is answered: the pause begins after it.
PAUSE_PHASES = tuple(phase for phase in ACTIVITIES if phase != "request")
PRIMARY_COLOUR = "#3377ee"
SECONDARY_COLOUR = "#eeaa22"
TAKEOVER_COLOUR = "#882233"
NEUTRAL_COLOUR = "#8b95a3"
#: Bars that a plot has room for; more checkpoints than that share them.
BARS = 200
#: Up to this many checkpoints, lines also show a dot for each.
DOTS = 30
FIELDS = (
    "number",
    "time",
    "pages",
    "zero_pages",
    "flushed_pages",
    "primary_buffer_bytes",
    "secondary_buffer_bytes",
    "pause_ms",
    *(f"{phase}_ms" for phase in ACTIVITIES),
)


def write_report(
    path: str | Path, records: Sequence[CheckpointRecord], summary: Mapping[str, Any]
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    path
        The file to write; an old one is replaced.
    records
        The committed checkpoints, in order; there may be none. All figures about checkpoints are
        computed from them.
    summary
        What the records do not tell; every key may be missing:

        * ``verified``: True, False, or None if nothing was compared
        * ``takeover_ms``, ``takeover_checkpoint``, ``digest_equal``, ``work_at_takeover``,
          ``work_after``: of the takeover
        * ``proofs``: what had to hold, with words joined by ``_`` → whether it held
        * ``timeline``: seconds since COLO began at which the primary was ``killed``, the secondary
          was ``told`` of the lost heartbeat and ``took_over``, and the guest's work was
          ``observed`` to move
        * ``parameters`` and ``machine``: names and values, listed as they are

    Returns
    -------
    Path
        The file written.
    """
    columns = {
        name: np.array([getattr(record, name) for record in records], dtype=np.float64)
        for name in FIELDS
    }
    script, cards = _draw_cards(columns, summary)
    cards.append(_card("Figures", "Over all committed checkpoints.", _figures(records, summary)))
    cards.append(_card("Run and machine", "What was run, and where.", _facts(summary)))
    state, verdict, reasons = judge(records, summary)
    template = Template(files("colobench.lab.report").joinpath("report.html").read_text("utf-8"))
    page = template.substitute(
        bokeh=Resources(mode="inline", components=["bokeh"]).render(),
        script=script,
        cards="\n".join(cards),
        state=state,
        verdict=escape(verdict),
        reasons=escape(" ".join(reasons)),
    )
    return write_output_file(path, page)


# -- Words and figures -------------------------------------------------------------------------


def judge(
    records: Sequence[CheckpointRecord], summary: Mapping[str, Any]
) -> tuple[str, str, list[str]]:
    """Put into words whether the run was verified.

    Returns
    -------
    state, verdict, reasons
        ``good``, ``bad`` or ``open``; the verdict in a few words; sentences that explain it.
    """
    unequal = [f"{record.number}" for record in records if record.verified is False]
    compared = sum(record.verified is not None for record in records)
    reasons = []
    if unequal:
        reasons.append(f"RAM or devices differed after checkpoint {', '.join(unequal)}.")
    elif compared:
        count = f"each of {compared:,} checkpoints" if compared > 1 else "the one checkpoint"
        reasons.append(f"RAM and devices were equal on both sides after {count}.")
    elif records:
        reasons.append("The checkpoints were not compared one by one.")
    reasons += _takeover_sentences(summary)
    broken = [name for name, holds in summary.get("proofs", {}).items() if not holds]
    reasons += [f"Not so: {name.replace('_', ' ')}." for name in broken]
    if unequal or summary.get("verified") is False:
        return "bad", "Not verified", reasons or ["The run ended before anything was compared."]
    if summary.get("verified"):
        return "good", "Verified", reasons
    return "open", "Not verified: the run was not meant to be, or ended early", reasons


def _takeover_sentences(summary: Mapping[str, Any]) -> Iterator[str]:
    checkpoint = summary.get("takeover_checkpoint")
    if checkpoint is not None:
        duration = milliseconds(summary.get("takeover_ms"))
        yield f"The secondary took over from checkpoint {checkpoint:,} in {duration}."
    match summary.get("digest_equal"):
        case True:
            yield "Its guest was in that checkpoint's state."
        case False:
            yield "Its guest was not in that checkpoint's state."
    before, after = summary.get("work_at_takeover"), summary.get("work_after")
    if before is not None and after is not None:
        if after > before:
            yield f"The guest worked on, from {before:,} to {after:,}."
        else:
            yield f"The guest did not work on: its counter stood at {before:,}."


def _row(*cells: str, kind: str = "") -> str:
    first, *others = cells
    return (
        f'<tr class="{kind}"><th>{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
    )


def _figures(records: Sequence[CheckpointRecord], summary: Mapping[str, Any]) -> str:
    computed = figures(records)
    phases = computed["phases_ms"]
    pause = computed["pause_ms_p50"], computed["pause_ms_p99"]
    rows = [
        _row("checkpoints", "", f"{computed['checkpoints']:,}"),
        _row("pages", "", f"{computed['pages']:,}"),
        _row("of them zero", "", f"{computed['zero_pages']:,}", kind="part"),
        _row("pages flushed", "", f"{computed['flushed_pages']:,}"),
        _row("sent", "", megabytes(computed["bytes"])),
        _row("", "p50", "p99", kind="heading"),
        _phase_row("request", phases),
        _row("pause", *map(milliseconds, pause), kind="total"),
        *(_phase_row(phase, phases) for phase in PAUSE_PHASES if phase in phases),
        _row("takeover", "", milliseconds(summary.get("takeover_ms")), kind="total"),
    ]
    return f"<table>{''.join(rows)}</table>"


def _phase_row(phase: str, phases: Mapping[str, Mapping[str, float | None]]) -> str:
    swatch = f'<span class="swatch" style="background:{PHASE_COLOURS[phase]}"></span>'
    note = " (the guest runs)" if phase == "request" else ""
    durations = map(milliseconds, phases[phase].values())
    return _row(f"{swatch}{phase}{note}", *durations, kind="part")


def _facts(summary: Mapping[str, Any]) -> str:
    facts = {**summary.get("parameters", {}), **summary.get("machine", {})}
    rows = (
        _row(escape(str(name).replace("_", " ")), escape(str(value)))
        for name, value in facts.items()
    )
    return f'<table class="facts">{"".join(rows)}</table>' if facts else "<p>Not recorded.</p>"


# -- Plots -------------------------------------------------------------------------------------


def _card(title: str, text: str, content: str, *, wide: bool = False) -> str:
    kind = "card wide" if wide else "card"
    return f'<section class="{kind}"><h2>{title}</h2><p>{text}</p>{content}</section>'


def _draw_cards(columns: Columns, summary: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Draw the plots that there are figures for: Bokeh's script, and a card for each plot."""
    plots = {}
    if len(columns["number"]):
        grouped = group(columns)
        first, last = columns["number"][[0, -1]]
        numbers = Range1d(start=first - 0.5, end=last + 0.5, bounds=(first - 0.5, last + 0.5))
        plots = {
            "pause": plot_pause(grouped, numbers),
            "distribution": plot_distribution(columns["pause_ms"]),
            "pages": plot_pages(grouped, numbers),
            "memory": plot_memory(grouped, numbers),
        }
    if {"killed", "took_over"} <= summary.get("timeline", {}).keys():
        plots["takeover"] = plot_takeover(columns["time"], summary["timeline"])
    script, contents = components(plots) if plots else ("", {})
    return script, [
        _card(title, text, contents.get(name, f"<p>{missing}</p>"), wide=name == "pause")
        for name, title, text, missing in CARDS
    ]


NO_CHECKPOINT = "No checkpoint was committed."
CARDS = (
    (
        "pause",
        "Pause of each checkpoint",
        "Time for which the guest stood still, by phase.",
        NO_CHECKPOINT,
    ),
    (
        "distribution",
        "Distribution of the pause",
        "Share of checkpoints whose pause was at most so long.",
        NO_CHECKPOINT,
    ),
    (
        "pages",
        "Pages of each checkpoint",
        "Of 4 KiB: sent by the primary, flushed into RAM by the secondary.",
        NO_CHECKPOINT,
    ),
    (
        "memory",
        "Extra memory",
        "Held for each checkpoint beside RAM and RAM cache.",
        NO_CHECKPOINT,
    ),
    (
        "takeover",
        "Takeover",
        "Lines are the last checkpoints, × is the death of the primary.",
        "The primary was not killed in this run.",
    ),
)


def _figure(x_label: str, y_label: str, **options: Any) -> Any:
    """Make an empty plot in the report's style."""
    plot = figure(
        height=270,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,reset,save",
        x_axis_label=x_label,
        y_axis_label=y_label,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **options,
    )
    plot.toolbar.autohide = True
    plot.toolbar.logo = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = "12px"
    plot.axis.minor_tick_line_color = None
    plot.xgrid.grid_line_color = None
    return plot


def _number_axis(plot: Any) -> None:
    plot.xaxis.ticker = BasicTicker(min_interval=1)
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")


def _legend_above(plot: Any) -> None:
    legend = plot.legend[0]
    legend.update(
        orientation="horizontal",
        background_fill_alpha=0,
        border_line_color=None,
        label_text_font_size="12px",
        padding=0,
        margin=0,
        spacing=14,
        glyph_width=14,
        glyph_height=14,
        label_standoff=4,
    )
    plot.add_layout(legend, "above")


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
    """Stack the phases of each pause; a few outliers do not make all others invisible."""
    longest, size = grouped["longest"], int(np.max(grouped["size"]))
    highest, usual = float(np.max(longest)), float(np.percentile(longest, 90))
    limit = 1.3 * usual if highest > 3 * usual else highest
    fits = longest <= limit
    phases = [phase for phase in PAUSE_PHASES if phase != "verify" or grouped["verify_ms"].any()]
    # What is left for the last phase may be a little less than nothing, which does not stack.
    heights = {f"{phase}_ms": np.maximum(grouped[f"{phase}_ms"], 0) for phase in phases}
    source = ColumnDataSource({**grouped, **heights, "width": 0.86 * grouped["size"]})
    y_range = _room_above(np.minimum(longest, limit))
    plot = _figure("checkpoint", "pause (ms)", x_range=numbers, y_range=y_range)
    stack = plot.vbar_stack(
        list(heights),
        x="number",
        width="width",
        source=source,
        color=[PHASE_COLOURS[phase] for phase in phases],
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
    _legend_above(plot)
    return plot


def plot_distribution(pause: npt.NDArray[np.float64]) -> Any:
    """Plot the cumulative distribution of the pause, with its median and 99th percentile."""
    ordered = np.maximum(np.sort(pause), 1e-3)
    low, high = ordered[[0, -1]]
    wide = high > 5 * low
    plot = _figure(
        "pause (ms, logarithmic)" if wide else "pause (ms)",
        "share of checkpoints",
        x_axis_type="log" if wide else "linear",
        x_range=Range1d(start=low / 1.3, end=high * 1.3),
        y_range=Range1d(start=0, end=1.04),
    )
    if wide:
        decades = 10.0 ** np.arange(-3, 6)
        plot.xaxis.ticker = FixedTicker(ticks=np.outer(decades, [1, 2, 5]).ravel().tolist())
        plot.xaxis.formatter = CustomJSTickFormatter(code="return String(+tick.toPrecision(3))")
    plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    shares = np.arange(len(ordered) + 1) / len(ordered)
    stairs = np.insert(ordered, 0, low)
    plot.step(stairs, shares, mode="after", line_width=2, color=PRIMARY_COLOUR)
    for share, height in ((50, 0.16), (99, 0.04)):
        _mark(plot, float(np.percentile(ordered, share)), height, f"p{share}")
    return plot


def _mark(plot: Any, value: float, height: float, name: str) -> None:
    """Mark a duration in milliseconds by a dashed line with its name."""
    plot.add_layout(
        Span(location=value, dimension="height", line_dash="dashed", line_color=NEUTRAL_COLOUR)
    )
    _write(plot, f"{name} {milliseconds(value)}", value, height, x_offset=4)


def _write(plot: Any, text: str, x: float, y: float, **placing: Any) -> None:
    """Write into a plot, in the colour of the page's text."""
    plot.add_layout(Label(text=text, x=x, y=y, text_font_size="12px", tags=["ink"], **placing))


def _lines(plot: Any, numbers: npt.NDArray[np.float64], *lines: tuple[Any, ...]) -> None:
    """Draw lines of (values, name, colour, width) over the checkpoints' numbers."""
    for values, name, colour, width in lines:
        style = {"color": colour, "legend_label": name}
        plot.line(numbers, values, line_width=width, **style)
        if len(numbers) <= DOTS:
            plot.scatter(numbers, values, size=2.5 + width, **style)
    _number_axis(plot)
    _legend_above(plot)


def plot_pages(grouped: Columns, numbers: Range1d) -> Any:
    """Plot how many pages were sent, how many of them were zero, how many were flushed."""
    sent, zero, flushed = (grouped[name] for name in ("pages", "zero_pages", "flushed_pages"))
    y_range = _room_above(sent, flushed)
    plot = _figure("checkpoint", "pages", x_range=numbers, y_range=y_range)
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
    plot = _figure("checkpoint", f"memory ({unit})", x_range=numbers, y_range=y_range)
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
    plot = _figure("time since SIGKILL (ms)", "", x_range=x_range, y_range=sides)
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
    _legend_above(plot)
    return plot
