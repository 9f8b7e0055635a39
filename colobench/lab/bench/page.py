"""The benchmark as one HTML file that opens offline: a plot for each subject, table, machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from bokeh.embed import components
from bokeh.models import ColumnDataSource, CustomJSTickFormatter, FixedTicker, HoverTool, Range1d
from bokeh.models.annotations import Span
from bokeh.resources import Resources

from colobench.lab.bench.case import SUBJECTS, Row
from colobench.lab.bench.text import HEADINGS, cells, number, summary
from colobench.lab.output_file import write_output_file
from colobench.lab.report.html import NEUTRAL_COLOUR, _card, _figure, _legend_above, _row

MET_COLOUR = "#3fa7a0"
MISSED_COLOUR = "#d4606a"
TARGET_COLOUR = "#cba135"
_WORDS = {True: "target met", False: "target missed", None: "not judged"}
_COLOURS = {True: MET_COLOUR, False: MISSED_COLOUR, None: NEUTRAL_COLOUR}
_DURATIONS = {"µs", "ms", "s"}
_KINDS = {True: "yes", False: "no", None: ""}
#: Up to so many bars, two plots have room beside each other.
FEW = 2
#: Pixels of a bar with the gap below it, and of a plot's axis and legend.
_BAR, _FRAME = 26, 96
#: Ticks of a logarithmic axis: 1, 2, 5 in each of these decades.
_TICKS = [digit * 10.0**decade for decade in range(-4, 5) for digit in (1, 2, 5)]
_FINE_TICKS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5]


def write_page(path: str | Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> Path:
    """Write the page of a run.

    Parameters
    ----------
    path
        The file to write; an old one is replaced.
    machine
        What `describe_everything` gives.
    rows
        Of the run, in order; there may be none.

    Returns
    -------
    Path
        The file written.
    """
    script, cards = _plots(rows)
    cards.append(_card("All figures", "", _table(rows), wide=True))
    cards.append(_card("Machine", "What all this was measured on.", _facts(machine), wide=True))
    missed = any(row.met is False for row in rows)
    judged = any(row.met is not None for row in rows)
    report = files("colobench.lab.report").joinpath("report.html").read_text("utf-8")
    template = files("colobench.lab.bench").joinpath("page.html").read_text("utf-8")
    page = Template(template).substitute(
        style=_part(report, "<style>", "</style>"),
        paint=_part(report, "<script>", "</script>"),
        bokeh=Resources(mode="inline", components=["bokeh"]).render(),
        script=script,
        cards="\n".join(cards),
        state="bad" if missed else "good" if judged else "open",
        verdict=escape(summary(rows)),
    )
    return write_output_file(path, page)


def _part(page: str, begin: str, end: str) -> str:
    """Take the one element from the report of a run whose page looks and paints as this one."""
    start = page.index(begin)
    return page[start : page.index(end, start) + len(end)]


# -- The table ---------------------------------------------------------------------------------


def _table(rows: Sequence[Row]) -> str:
    lines = [_row(*HEADINGS, kind="heading")]
    for name, of_name in groupby(rows, key=lambda row: row.name):
        title = f'<th colspan="{len(HEADINGS)}">{escape(name)}</th>'
        lines.append(f'<tr class="heading">{title}</tr>')
        lines += [_line(row) for row in of_name]
    return f'<div class="scroll"><table class="results">{"".join(lines)}</table></div>'


def _line(row: Row) -> str:
    values = dict(zip(HEADINGS, map(escape, cells(row)), strict=True))
    for column, spread in (("ours", row.ours_spread), ("reference", row.reference_spread)):
        if spread is not None:
            values[column] += f"<span>{number(spread[0])} … {number(spread[1])}</span>"
    kinds = {"case": "case", "unit": "words", "note": "note", "met": _KINDS[row.met]}
    tagged = (
        f'<td class="{kinds.get(column, "")}">{value}</td>' for column, value in values.items()
    )
    return f"<tr>{''.join(tagged)}</tr>"


def _facts(machine: Mapping[str, Any]) -> str:
    rows = (_row(escape(name.replace("_", " ")), escape(_fact(v))) for name, v in machine.items())
    return f'<table class="facts">{"".join(rows)}</table>'


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return "–" if value is None else str(value)


# -- The plots ---------------------------------------------------------------------------------


def _plots(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """Draw a plot for each subject and unit with ratios: Bokeh's script, and a card for each."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.ratio:
            groups.setdefault((row.name, row.unit), []).append(row)
    if not groups:
        return "", []
    script, contents = components(tuple(plot_ratios(each) for each in groups.values()))
    return script, [
        _card(escape(f"{name} ({unit})"), escape(_words(name)), content, wide=len(each) > FEW)
        for ((name, unit), each), content in zip(groups.items(), contents, strict=True)
    ]


def _words(name: str) -> str:
    return SUBJECTS[name].words if name in SUBJECTS else ""


def plot_ratios(rows: Sequence[Row]) -> Any:
    """Draw a bar for each ratio, from 1 on a logarithmic axis, and a line where its bound is."""
    cases = [row.case for row in rows][::-1]
    bounds = [(row.case, bound) for row in rows if (bound := _ratio_bound(row)) is not None]
    values = [row.ratio or 1 for row in rows] + [bound for _, bound in bounds] + [1]
    better = "less" if rows[0].unit in _DURATIONS else "more"
    plot = _figure(
        f"ours / reference ({better} is better)",
        "",
        x_axis_type="log",
        x_range=Range1d(start=min(values) / 1.25, end=max(values) * 1.25),
        y_range=cases,
    )
    plot.height = _BAR * len(cases) + _FRAME
    plot.ygrid.grid_line_color = None
    # Where the axis spans little it needs more ticks.
    fine = max(values) < 8 * min(values)
    plot.xaxis.ticker = FixedTicker(ticks=_FINE_TICKS if fine else _TICKS)
    plot.xaxis.formatter = CustomJSTickFormatter(code="return String(+tick.toPrecision(3))")
    for met, of_met in _by_verdict(rows):
        bars = plot.hbar(
            "case",
            left=1,
            right="ratio",
            height=0.6,
            source=_source(of_met),
            color=_COLOURS[met],
            legend_label=_WORDS[met],
        )
        tooltips = [(column, f"@{column}") for column in ("ours", "reference", "ratio", "target")]
        plot.add_tools(HoverTool(renderers=[bars], tooltips=tooltips))
    if bounds:
        plot.scatter(
            [bound for _, bound in bounds],
            [case for case, _ in bounds],
            marker="dash",
            angle=1.5708,
            size=20,
            line_width=2,
            color=TARGET_COLOUR,
            legend_label="target",
        )
    equal = Span(location=1, dimension="height", line_color=NEUTRAL_COLOUR, level="underlay")
    plot.add_layout(equal)
    _legend_above(plot)
    return plot


def _ratio_bound(row: Row) -> float | None:
    """Give the bound of the ratio; a bound of ours alone has a unit."""
    match row.target.split():
        case [_, bound]:
            return float(bound)
    return None


def _by_verdict(rows: Sequence[Row]) -> Iterator[tuple[bool | None, list[Row]]]:
    for met in _WORDS:
        of_met = [row for row in rows if row.met is met]
        if of_met:
            yield met, of_met


def _source(rows: Sequence[Row]) -> ColumnDataSource:
    return ColumnDataSource(
        {
            "case": [row.case for row in rows],
            "ratio": [row.ratio for row in rows],
            "ours": [f"{number(row.ours)} {row.unit}" for row in rows],
            "reference": [f"{number(row.reference)} {row.unit}" for row in rows],
            "target": [row.target or "none" for row in rows],
        }
    )
