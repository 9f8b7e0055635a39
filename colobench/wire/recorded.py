"""Reader of recorded bytes, which puts each of them into exactly one item."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from colobench.wire.errors import StreamEnded, TrailingBytes


class Item(NamedTuple):
    """A range of a stream's bytes with a description; `offset` and `length` are in bytes."""

    offset: int
    length: int
    kind: str
    title: str
    detail: str


class _PageRun(NamedTuple):
    """Consecutive page records of one kind and one block."""

    offset: int
    kind: str
    block: str
    first_page: int
    last_page: int
    pages: int

    def item(self, end: int) -> Item:
        span = f"{self.first_page} to {self.last_page}"
        if self.pages == 1:
            detail = f"page {self.first_page}"
        elif self.last_page - self.first_page == self.pages - 1:
            detail = f"{self.pages} pages, {span}"
        else:
            detail = f"{self.pages} pages among {span}"
        return Item(self.offset, end - self.offset, self.kind, self.block, detail)


class Recorded:
    """A position in recorded bytes, and the items made of the bytes before it.

    Attributes
    ----------
    data
        All recorded bytes.
    at
        Offset of the first byte that is not read yet.
    stop
        Offset up to which bytes may be read: the end of the data, or of a sized buffer.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stop = len(data)
        self._items: list[Item] = []
        # Offset up to which the items and the run of pages reach.
        self._done = 0
        self._run: _PageRun | None = None

    def __len__(self) -> int:
        """Number of bytes before `stop` that are not read yet."""
        return self.stop - self.at

    def take(self, size: int) -> bytes:
        """Read `size` bytes.

        Raises
        ------
        StreamEnded
            If fewer are left before `stop`.
        """
        if size > len(self):
            raise StreamEnded(
                "stream", expected=f"{size} bytes", found=f"{len(self)} bytes", offset=self.at
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def take_name(self) -> str:
        """Read a name that is preceded by its length, u8."""
        return self.take(self.take(1)[0]).decode(errors="backslashreplace")

    def next_is(self, byte: int) -> bool:
        """Say whether the next byte is `byte`."""
        return len(self) > 0 and self.data[self.at] == byte

    def expect_end(self, subject: str) -> None:
        """Check that all bytes before `stop` are read.

        Raises
        ------
        TrailingBytes
            If some are left; `subject` names what should have ended.
        """
        if len(self):
            raise TrailingBytes(
                subject, expected="its end", found=f"{len(self)} more bytes", offset=self.at
            )

    def add(self, kind: str, title: str, detail: str = "") -> None:
        """Make an item of the bytes read since the last item."""
        self._close_run()
        self._items.append(Item(self._done, self.at - self._done, kind, title, detail))
        self._done = self.at

    def add_page(self, kind: str, block: str, page: int) -> None:
        """Add a page record; consecutive records of one kind and block share an item."""
        run = self._run
        if run is not None and (run.kind, run.block) == (kind, block):
            self._run = run._replace(last_page=page, pages=run.pages + 1)
        else:
            self._close_run()
            self._run = _PageRun(self._done, kind, block, page, page, 1)
        self._done = self.at

    def items(self) -> list[Item]:
        """Return the items made so far."""
        self._close_run()
        return self._items

    def _close_run(self) -> None:
        if self._run is not None:
            self._items.append(self._run.item(self._done))
            self._run = None


def format_items(items: Iterable[Item]) -> str:
    """Format items as a plain-text table: a heading, then one line for each item."""
    lines = [f"{'offset':>10} {'length':>10}  {'kind':<13} {'what':<28} detail"]
    lines += [
        f"{offset:>10} {length:>10}  {kind:<13} {title:<28} {detail}".rstrip()
        for offset, length, kind, title, detail in items
    ]
    return "\n".join(lines)
