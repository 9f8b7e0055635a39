"""Aligned columns of text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

GAP = "  "


def align(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Write rows as lines whose columns begin, or end, at the same place.

    Parameters
    ----------
    rows
        Cells, of each row as many. A cell with nothing but empty cells behind it may be longer than
        its column, unless that is the last one.
    right
        Numbers of the columns whose cells end at the same place; the others begin there.

    Returns
    -------
    list of str
        A line for each row, without blanks at its end.
    """
    widths = [
        max((len(row[column]) for row in rows if not _sticks_out(row, column)), default=0)
        for column in range(max(map(len, rows), default=0))
    ]
    return [
        GAP.join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _sticks_out(row: Sequence[str], column: int) -> bool:
    return column + 1 < len(row) and not any(row[column + 1 :])
