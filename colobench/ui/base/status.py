"""What panels say in words: how things stand, on a coloured line, and what a checker has found."""

from __future__ import annotations

from html import escape

NOTHING, RUNS, WELL, BROKEN = "#8b95a3", "#4a86d8", "#62a964", "#d4606a"

_LINE = "padding: 6px 10px; border-left: 4px solid {colour}; font-size: 14px; line-height: 1.5"

_TEXT = "font: 12px/1.5 monospace; padding: 8px 10px; background: #8882; overflow-x: auto"


def status_line(colour: str, text: str) -> str:
    """Write a sentence as HTML, with a colour at its side."""
    return f'<div style="{_LINE.format(colour=colour)}">{escape(text)}</div>'


def verdict_text(text: str) -> str:
    """Write a verdict as HTML: sentences are wrapped, lines of a drawing are not."""
    lines = "".join(
        f'<div style="white-space: {"pre" if "|" in line else "pre-wrap"}">{escape(line)}</div>'
        for line in text.splitlines()
    )
    return f'<div style="{_TEXT}">{lines}</div>' if lines else ""
