"""The coloured line of a panel that says how things stand."""

from __future__ import annotations

from html import escape

NOTHING, RUNS, WELL, BROKEN = "#8b95a3", "#4a86d8", "#62a964", "#d4606a"

_LINE = "padding: 6px 10px; border-left: 4px solid {colour}; font-size: 14px; line-height: 1.5"


def status_line(colour: str, text: str) -> str:
    """Write a sentence as HTML, with a colour at its side."""
    return f'<div style="{_LINE.format(colour=colour)}">{escape(text)}</div>'
