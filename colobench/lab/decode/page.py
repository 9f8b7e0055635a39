"""A decoded stream as HTML: a tree that opens, with the bytes beside it, and maps of the pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colobench.lab.decode.source import read_places
from colobench.lab.output_file import write_output_file
from colobench.lab.report.page import page_environment
from colobench.lab.report.palette import (
    BAD_COLOUR,
    COLD_COLOUR,
    MUTED_COLOUR,
    SERIES_COLOURS,
)
from colobench.wire.decoded import DecodedStream, page_map
from colobench.wire.ram_reader import ReadBlock
from colobench.wire.recorded import RECORD_KINDS

#: Bytes of a part, fields of a device, and parts with bytes, that are shown.
HEAD_BYTES: Final = 16
FIELD_LIMIT: Final = 400
HEADS_LIMIT: Final = 20_000
#: Cells in a row of a page map.
MAP_WIDTH: Final = 128
COLOURS: Final = dict(zip(RECORD_KINDS, SERIES_COLOURS, strict=False))


@dataclass(frozen=True, slots=True)
class BlockMap:
    """A page map as paths: one for each kind of record, in cells."""

    name: str
    words: str
    width: int
    height: int
    paths: list[tuple[str, str]]


def render_fragment(stream: DecodedStream) -> str:
    """Write it as HTML for a notebook."""
    return _rendered("decoded.html", stream)


def write_decoded_page(path: Path, stream: DecodedStream) -> Path:
    """Write it as a page that opens offline."""
    return write_output_file(path, _rendered("page.html", stream))


def _rendered(template: str, stream: DecodedStream) -> str:
    offsets = sorted({part.offset for part in stream.tree.walk() if part.length})
    values: dict[str, Any] = {
        "stream": stream,
        "heads": read_places(stream.name, offsets[:HEADS_LIMIT], HEAD_BYTES),
        "maps": [_map(block) for block in stream.blocks if len(block.seen)],
        "colours": COLOURS,
        "cold": COLD_COLOUR,
        "muted": MUTED_COLOUR,
        "bad": BAD_COLOUR,
        "field_limit": FIELD_LIMIT,
    }
    text: str = page_environment().get_template(f"decode/templates/{template}").render(values)
    return text


def _map(block: ReadBlock) -> BlockMap:
    found = page_map(block)
    paths: dict[str, list[str]] = {}
    rows = [
        found.kinds[begin : begin + MAP_WIDTH] for begin in range(0, len(found.kinds), MAP_WIDTH)
    ]
    for y, row in enumerate(rows):
        begin = 0
        for x in range(1, len(row) + 1):
            if x == len(row) or row[x] != row[begin]:
                if row[begin]:
                    run = f"M{begin} {y}h{x - begin}v1h{begin - x}z"
                    paths.setdefault(row[begin], []).append(run)
                begin = x
    pages = "a page" if found.pages == 1 else f"{found.pages} pages"
    words = f"{block.counts}; a cell is {pages}"
    drawn = [(COLOURS[kind], "".join(runs)) for kind, runs in paths.items()]
    return BlockMap(block.name, words, min(MAP_WIDTH, len(found.kinds)), len(rows), drawn)
