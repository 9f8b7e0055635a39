"""The page of a bench: a plot for each subject, a table, and the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from bokeh.models import ColumnDataSource, CustomJSTickFormatter, FixedTicker, HoverTool, Range1d
from bokeh.models.annotations import Span

from colobench.lab.bench.case import SUBJECTS, Row
from colobench.lab.bench.text import HEADINGS, cells, number, summary
from colobench.lab.report.page import PlotCard, write_page
from colobench.lab.report.palette import BAD_COLOUR, MET_COLOUR, NEUTRAL_COLOUR, TARGET_COLOUR
from colobench.lab.report.plot import legend_above, make_plot
from colobench.settings.file import KEY

_WORDS = {True: "target met", False: "target missed", None: "not judged"}
_COLOURS = {True: MET_COLOUR, False: BAD_COLOUR, None: NEUTRAL_COLOUR}
_DURATIONS = {"µs", "ms", "s"}
#: Columns whose text is at the left, and their classes in the style sheet.
_LEFT = {"case": "case", "unit": "words", "note": "note"}
_KINDS = {True: "yes", False: "no", None: ""}
#: Number of bars up to which two plots have room side by side.
FEW = 2
#: Pixels of a bar with the gap below it, and of a plot's axis and legend.
_BAR, _FRAME = 26, 96
#: Ticks of a logarithmic axis: 1, 2, 5 in each of these decades.
_TICKS = [digit * 10.0**decade for decade in range(-4, 5) for digit in (1, 2, 5)]
_FINE_TICKS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5]


def write_bench_page(path: str | Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> Path:
    """Write the page of a run.

    Parameters
    ----------
    path
        The file to write; an old one is replaced.
    machine
        Description of the machine, from `describe_everything`.
    rows
        Rows of the run, in order; there may be none.

    Returns
    -------
    Path
        The file written.
    """
    missed = any(row.met is False for row in rows)
    judged = any(row.met is not None for row in rows)
    values = {
        "state": "bad" if missed else "good" if judged else "open",
        "verdict": summary(rows),
        "headings": [TableCell(name, "", _LEFT.get(name, "")) for name in HEADINGS],
        "subjects": [
            (name, [_table_cells(row) for row in of_name])
            for name, of_name in groupby(rows, key=lambda row: row.name)
        ],
        "machine": {name: _fact(value) for name, value in machine.items()},
        "written": [{"name": r.name, "case": r.case, KEY: r.settings} for r in rows],
    }
    return write_page(path, "bench/templates/bench.html", _plots(rows), values)


# -- The table ---------------------------------------------------------------------------------


class TableCell(NamedTuple):
    """A cell of the table.

    Attributes
    ----------
    text, spread
        Text, and the quartiles below it or nothing.
    kind
        Class in the style sheet, or empty.
    """

    text: str
    spread: str
    kind: str


def _table_cells(row: Row) -> list[TableCell]:
    kinds = {**_LEFT, "met": _KINDS[row.met]}
    spreads = {"ours": row.ours_spread, "reference": row.reference_spread}
    return [
        TableCell(text, _spread(spreads.get(heading)), kinds.get(heading, ""))
        for heading, text in zip(HEADINGS, cells(row), strict=True)
    ]


def _spread(quartiles: tuple[float, float] | None) -> str:
    return "" if quartiles is None else f"{number(quartiles[0])} … {number(quartiles[1])}"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return "–" if value is None else str(value)


# -- The plots ---------------------------------------------------------------------------------


def _plots(rows: Sequence[Row]) -> list[PlotCard]:
    """Draw a card with a plot for each subject and unit that has ratios."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.ratio:
            groups.setdefault((row.name, row.unit), []).append(row)
    return [
        PlotCard(f"{name} ({unit})", _words(name), plot_ratios(group), wide=len(group) > FEW)
        for (name, unit), group in groups.items()
    ]


def _words(name: str) -> str:
    return SUBJECTS[name].words if name in SUBJECTS else ""


def plot_ratios(rows: Sequence[Row]) -> Any:
    """Draw a bar for each ratio, from 1 on a logarithmic axis, and a line where its bound is."""
    cases = [row.case for row in rows][::-1]
    bounds = [(row.case, bound) for row in rows if (bound := _ratio_bound(row)) is not None]
    values = [row.ratio or 1 for row in rows] + [bound for _, bound in bounds] + [1]
    better = "less" if rows[0].unit in _DURATIONS else "more"
    plot = make_plot(
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
    legend_above(plot)
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
