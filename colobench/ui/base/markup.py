"""HTML snippets of panels and views: a status line, a verdict, a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

from colobench.lab.report.palette import SHADE_COLOUR

_LINE = "padding: 6px 10px; border-left: 4px solid {colour}; font-size: 14px; line-height: 1.5"
_TEXT = f"font: 12px/1.5 monospace; padding: 8px 10px; background: {SHADE_COLOUR}; overflow-x: auto"
_CELL = "padding: 1px {gap}px 1px 0; line-height: 1.5; text-align: {side}"
#: A table that is too wide for the page scrolls in itself.
_SCROLLED = "overflow-x: auto; width: 0; min-width: 100%"


def status_line(colour: str, text: str) -> str:
    """Write a sentence with a bar of a colour at its left, which screen readers read anew."""
    return f'<div role="status" style="{_LINE.format(colour=colour)}">{escape(text)}</div>'


def verdict_text(text: str) -> str:
    """Write a verdict: sentences are wrapped, lines of a drawing are not."""
    lines = "".join(
        f'<div style="white-space: {"pre" if "|" in line else "pre-wrap"}">{escape(line)}</div>'
        for line in text.splitlines()
    )
    return f'<div style="{_TEXT}">{lines}</div>' if lines else ""


def preformatted(text: str) -> str:
    """Write text as a program prints it; long lines are wrapped."""
    wrapped = "margin: 2px 0; white-space: pre-wrap; overflow-wrap: anywhere"
    return f'<pre style="{_TEXT}; {wrapped}">{escape(text)}</pre>'


def consoles(texts: Mapping[str, str], lines: int) -> str:
    """Write the last lines of guests' serial consoles, by the roles of their nodes."""
    shown = (
        "\n".join([f"serial console, {role}", *text.splitlines()[-lines:]])
        for role, text in texts.items()
    )
    boxes = "".join(
        f'<div style="flex: 1 1 340px; min-width: 0">{preformatted(each)}</div>' for each in shown
    )
    return f'<div style="display: flex; flex-wrap: wrap; gap: 0 8px">{boxes}</div>'


def table(
    rows: Sequence[Sequence[str]],
    heads: Sequence[str] = (),
    right: Collection[int] = (),
    gap: int = 18,
) -> str:
    """Write a table of text.

    Parameters
    ----------
    rows
        Cells, of each row as many. A cell with nothing but empty cells behind it spans them.
    heads
        Heads of the columns; none is a table without.
    right
        Numbers of the columns whose cells are at the right.
    gap
        Distance of the columns, pixels.
    """
    head = f"<thead>{_row('th', heads, right, gap)}</thead>" if heads else ""
    body = "".join(_row("td", row, right, gap) for row in rows)
    written = f"<table>{head}<tbody>{body}</tbody></table>"
    return f'<div style="{_SCROLLED}">{written}</div>'


def _row(tag: str, cells: Sequence[str], right: Collection[int], gap: int) -> str:
    last = max((column for column, cell in enumerate(cells) if cell), default=0)
    written = []
    for column, cell in enumerate(cells[: last + 1]):
        span = len(cells) - last if column == last else 1
        spanning = f' colspan="{span}"' if span > 1 else ""
        style = _CELL.format(gap=gap, side="right" if column in right else "left")
        written.append(f'<{tag} style="{style}"{spanning}>{escape(cell)}</{tag}>')
    return f"<tr>{''.join(written)}</tr>"
