"""Items of a stream: each byte that was read is in exactly one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from colobench.wire.buffer import StreamBuffer
from colobench.wire.grammar import SectionIdentity
from colobench.wire.page_counts import KINDS, PageCounts


class Item(NamedTuple):
    """A range of a stream's bytes with a description; `offset` and `length` are in bytes."""

    offset: int
    length: int
    kind: str
    title: str
    detail: str


class RecordRun(NamedTuple):
    """Consecutive page records of one block.

    Attributes
    ----------
    offset, length
        Place of the records in the stream.
    block
        Name of the block.
    counts
        Numbers of the records.
    first, last
        Pages of the first and of the last record.
    """

    offset: int
    length: int
    block: str
    counts: PageCounts
    first: int
    last: int


class Sink(Protocol):
    """Receiver of a reader's items, in the order of the stream."""

    def item(self, item: Item) -> None:
        """Take an item."""

    def records(self, records: RecordRun) -> None:
        """Take page records, which are an item as well."""

    def payload(self, identity: SectionIdentity, data: bytes, item: Item) -> None:
        """Take a device's payload with its bytes; `item` is its item."""

    def enter(self, kind: str, title: str) -> None:
        """Take the begin of a part: the items up to its `leave` belong to it."""

    def leave(self) -> None:
        """Take the end of a part."""


class Log:
    """Maker of items out of what a parser has read since the last one.

    Parameters
    ----------
    at
        The buffer whose offset is the parser's place.
    sink
        Receiver of the items.
    """

    def __init__(self, at: StreamBuffer, sink: Sink) -> None:
        self._at, self._sink = at, sink
        #: Offset up to which the items reach.
        self.done = at.offset

    def add(self, kind: str, title: str, detail: str = "") -> None:
        """Make an item of the bytes read since the last item."""
        self._sink.item(self._next(kind, title, detail))

    def add_payload(self, identity: SectionIdentity, data: bytes, detail: str) -> None:
        """Make an item of a device's payload."""
        self._sink.payload(identity, data, self._next("payload", identity.idstr, detail))

    def add_records(self, block: str, counts: PageCounts, first: int, last: int) -> None:
        """Make an item of page records."""
        end = self._at.offset
        self._sink.records(RecordRun(self.done, end - self.done, block, counts, first, last))
        self.done = end

    def _next(self, kind: str, title: str, detail: str) -> Item:
        begin, self.done = self.done, self._at.offset
        return Item(begin, self.done - begin, kind, title, detail)


#: Names of the kinds of page records, in the order of their marks.
RECORD_KINDS = tuple(kind.name for kind in KINDS)


class _PageRun(NamedTuple):
    """Consecutive page records of one kind and one block."""

    offset: int
    length: int
    kind: str
    block: str
    first_page: int
    last_page: int
    pages: int

    def item(self) -> Item:
        span = f"{self.first_page} to {self.last_page}"
        if self.pages == 1:
            detail = f"page {self.first_page}"
        elif self.last_page - self.first_page == self.pages - 1:
            detail = f"{self.pages} pages, {span}"
        else:
            detail = f"{self.pages} pages among {span}"
        return Item(self.offset, self.length, self.kind, self.block, detail)


class ItemList:
    """Sink that keeps all items; page records of one kind and block share one."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._run: _PageRun | None = None

    def item(self, item: Item) -> None:
        """Append an item."""
        self._close_run()
        self._items.append(item)

    def records(self, records: RecordRun) -> None:
        """Append records, which are of one kind, or add them to the last ones."""
        counts = records.counts
        numbers = (counts.pages, counts.zero, counts.xbzrle, counts.compressed)
        kind, pages = next(each for each in zip(RECORD_KINDS, numbers, strict=True) if each[1])
        run, last = self._run, records.last
        if run is not None and (run.kind, run.block) == (kind, records.block):
            length, pages = run.length + records.length, run.pages + pages
            self._run = run._replace(length=length, last_page=last, pages=pages)
            return
        self._close_run()
        self._run = _PageRun(
            records.offset, records.length, kind, records.block, records.first, last, pages
        )

    def payload(self, identity: SectionIdentity, data: bytes, item: Item) -> None:
        """Append the item."""
        self.item(item)

    def enter(self, kind: str, title: str) -> None:
        """Items are not nested here."""

    def leave(self) -> None:
        """Items are not nested here."""

    def items(self) -> list[Item]:
        """Return the items made so far."""
        self._close_run()
        return self._items

    def _close_run(self) -> None:
        if self._run is not None:
            self._items.append(self._run.item())
            self._run = None


def format_items(items: Iterable[Item]) -> str:
    """Format items as a plain-text table: a heading, then one line for each item."""
    lines = [f"{'offset':>10} {'length':>10}  {'kind':<13} {'what':<28} detail"]
    lines += [
        f"{offset:>10} {length:>10}  {kind:<13} {title:<28} {detail}".rstrip()
        for offset, length, kind, title, detail in items
    ]
    return "\n".join(lines)
