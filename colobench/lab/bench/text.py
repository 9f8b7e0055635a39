"""Table of rows for the terminal, with a block for each subject."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from colobench.lab.bench.case import Row
from colobench.text_table import align

HEADINGS = ("case", "ours", "reference", "unit", "ratio", "target", "met", "note")
_LEFT = {"case", "unit", "note"}
#: Signs for `met`.
SIGNS = {True: "✓", False: "✗", None: "–"}


def number(value: float | None) -> str:
    """Write a figure with three digits, or a dash for None."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def cells(row: Row) -> tuple[str, ...]:
    """Give the cells of a row under `HEADINGS`."""
    note = row.note
    if row.two_threads is not None:
        beside = f"two threads' memcpy: {row.two_threads:.2f} × one's"
        note = f"{note}; {beside}" if note else beside
    return (
        row.case,
        number(row.ours),
        number(row.reference),
        row.unit,
        number(row.ratio),
        row.target,
        SIGNS[row.met],
        note,
    )


def render(rows: Sequence[Row]) -> str:
    """Write all rows as one aligned table of plain text."""
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    right = [column for column, heading in enumerate(HEADINGS) if heading not in _LEFT]
    heading, *lines = align([HEADINGS, *map(cells, rows)], right)
    yield f"  {heading}"
    shown = iter(lines)
    for name, of_name in groupby(rows, key=lambda row: row.name):
        yield name
        for _ in of_name:
            yield f"  {next(shown)}"
    yield ""
    yield summary(rows)


def summary(rows: Sequence[Row]) -> str:
    """Give the numbers of targets that were judged and met, in words."""
    judged = [row.met for row in rows if row.met is not None]
    open_targets = sum(row.met is None and bool(row.target) for row in rows)
    unjudged = f", {open_targets} more could not be judged" if open_targets else ""
    return f"{sum(judged)} of {len(judged)} targets met{unjudged}; {len(rows)} rows"
