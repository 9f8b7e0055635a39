"""A sequence diagram of checkpoints: two lifelines, and arrows that open into decoded bytes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from colobench.errors import LocalError
from colobench.lab.report.palette import (
    MUTED_COLOUR,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    TAKEOVER_COLOUR,
)
from colobench.lab.session.relay import Chunk
from colobench.lab.studies.transcript import WireMessage, read_messages
from colobench.ui.views.deeds import Deeds, deeds_of, is_torn
from colobench.wire.dissect import Item
from colobench.wire.format import BE32, MAGIC

#: Bytes of an item that are shown.
HEX_BYTES = 16

_CELL = "padding: 5px 10px; vertical-align: top; background: none; border: 0; font-size: 13px"
#: Wide enough for a word of a deed, and for a message's name in its arrow: the diagram fits into a
#: page of 900 pixels.
_DEED = f"{_CELL}; min-width: 120px"
_GREY = f"color: {MUTED_COLOUR}"
_MONO = "font: 11px/1.5 monospace; padding: 0 10px 0 0; background: none; border: 0; text-align: "


class SequenceDiagram:
    """Sequence diagram of checkpoints; each arrow can be opened to see its bytes and their meaning.

    Parameters
    ----------
    chunks
        Bytes of whole checkpoints, captured by a session's relay; the last one may be torn.

    Raises
    ------
    LocalError
        If the bytes of the migration are among them.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        forward = b"".join(each.data for each in chunks if each.direction == "P→S")
        if forward.startswith(BE32.pack(MAGIC)):
            raise LocalError(
                "chunks: expected whole checkpoints, found the migration before them; "
                "call relay.forget() before the checkpoint"
            )
        self.messages = read_messages(chunks)
        self._deeds = deeds_of(self.messages)

    def __repr__(self) -> str:
        """Draw it with characters."""
        width = 1 + max([len("primary"), *(len(primary) for primary, _ in self._deeds)])
        lines = [f"{'ms':>7}  {'primary':<{width}}{'':<36}secondary"]
        for message, (primary, secondary) in zip(self.messages, self._deeds, strict=True):
            arrow = _arrow(message).center(34, "─")
            arrow = f"{arrow}▶" if message.direction == "P→S" else f"◀{arrow}"
            lines.append(f"{1e3 * message.time:7.2f}  {primary:<{width}}{arrow:<36}{secondary}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th style="{_CELL}; text-align: {align}; color: {colour}">{text}</th>'
            for text, align, colour in (
                ("ms", "right", "inherit"),
                ("primary", "right", PRIMARY_COLOUR),
                ("", "center", "inherit"),
                ("secondary", "left", SECONDARY_COLOUR),
            )
        )
        rows = "".join(map(_row, self.messages, self._deeds))
        table = f'<table style="border-collapse: collapse"><tr>{head}</tr>{rows}</table>'
        # On a narrow page the diagram scrolls, and can be scrolled by keyboard.
        return (
            '<div style="overflow-x: auto" tabindex="0" role="region" '
            f'aria-label="sequence diagram">{table}</div>'
        )


def _arrow(message: WireMessage) -> str:
    return f" {message.name}, {len(message.data):,} bytes "


def _row(message: WireMessage, deeds: Deeds) -> str:
    primary, secondary = map(escape, deeds)
    return (
        f'<tr style="background: none"><td style="{_CELL}; {_GREY}; text-align: right">'
        f"{1e3 * message.time:.2f}</td>"
        f'<td style="{_DEED}; border-right: 3px solid {PRIMARY_COLOUR}; text-align: right">'
        f"{primary}</td>"
        f'<td style="{_CELL}; min-width: 300px; padding: 5px 0">{_opening_arrow(message)}</td>'
        f'<td style="{_DEED}; border-left: 3px solid {SECONDARY_COLOUR}; text-align: left">'
        f"{secondary}</td></tr>"
    )


def _opening_arrow(message: WireMessage) -> str:
    forward = message.direction == "P→S"
    colour = PRIMARY_COLOUR if forward else SECONDARY_COLOUR
    if is_torn(message):
        colour = TAKEOVER_COLOUR
    side, head = ("right", "▶") if forward else ("left", "◀")
    line = (
        f'<div style="position: relative; height: 9px; border-bottom: 2px solid {colour}">'
        f'<span style="position: absolute; {side}: -3px; bottom: -9px; color: {colour}; '
        f'font-size: 13px; line-height: 16px">{head}</span></div>'
    )
    return (
        f'<details><summary style="text-align: center; cursor: pointer; list-style-position: '
        f'inside"><b>{escape(message.name)}</b> <span style="{_GREY}">'
        f"{len(message.data):,} bytes</span>{line}</summary>"
        f"{bytes_table(message.items, message.data)}</details>"
    )


def bytes_table(items: Sequence[Item], data: bytes, *, wrap: bool = False) -> str:
    """Write decoded bytes as a table: the length, the first bytes and the meaning of each item.

    With `wrap`, bytes take several lines where there is little room.
    """
    begin = items[0].offset if items else 0
    rows = "".join(_bytes_row(item, data[item.offset - begin :], wrap) for item in items)
    heads = "".join(
        f'<th scope="col" style="{_MONO}left">{name}</th>'
        for name in ("length", "bytes", "meaning")
    )
    return f'<table style="margin: 12px 8px 4px"><tr>{heads}</tr>{rows}</table>'


def _bytes_row(item: Item, data: bytes, wrap: bool) -> str:
    space = "normal; vertical-align: top" if wrap else "nowrap"
    more = " …" if item.length > HEX_BYTES else ""
    shown = data[: min(item.length, HEX_BYTES)].hex(" ") + more
    meaning = " ".join(filter(None, (item.kind, item.title, item.detail)))
    return (
        f'<tr style="background: none"><td style="{_MONO}right">{item.length:,}</td>'
        f'<td style="{_MONO}left; white-space: {space}">{shown}</td>'
        f'<td style="{_MONO}left">{escape(meaning)}</td></tr>'
    )
