"""Values of a decoded stream: its tree, its blocks, its devices and its checkpoints.

Their size does not depend on that of the stream: records are summed up, and of many sections or
checkpoints the first and the last ones are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from colobench.wire.device_fields import FieldValue, read_fields
from colobench.wire.errors import StreamError
from colobench.wire.format import SectionType
from colobench.wire.grammar import SectionIdentity
from colobench.wire.messages import Message
from colobench.wire.page_counts import PageCounts
from colobench.wire.ram_reader import ReadBlock
from colobench.wire.reader import UNEXPLAINED
from colobench.wire.recorded import RECORD_KINDS, Item, RecordRun

#: Parts of a part that are kept at its beginning and at its end; those between are summed up.
FIRST_KEPT, LAST_KEPT = 200, 50
#: Bytes of devices' payloads that are kept.
PAYLOADS_LIMIT: Final = 64 * 1024 * 1024
#: Problems and checkpoints of which each is kept.
PROBLEMS_LIMIT: Final = 1000
CHECKPOINTS_LIMIT: Final = 100_000


class StreamPart:
    """A part of a stream, with the parts that it consists of.

    Attributes
    ----------
    kind, title, detail
        As those of an `Item`; also ``section``, ``checkpoint``, ``records``.
    offset, length
        Place in the stream, bytes. Page records of a block within one section are one part: it
        begins at the first, and has the length of all.
    parts
        What it consists of, if it was divided further.
    """

    # No dataclass, as in `colobench.wire.page_counts`.
    __slots__ = ("detail", "kind", "length", "offset", "parts", "title")

    def __init__(
        self, kind: str, title: str, detail: str = "", offset: int = 0, length: int = 0
    ) -> None:
        self.kind, self.title, self.detail = kind, title, detail
        self.offset, self.length = offset, length
        self.parts: list[StreamPart] = []

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON's values."""
        values = {name: getattr(self, name) for name in ("kind", "title", "offset", "length")}
        if self.detail:
            values["detail"] = self.detail
        if self.parts:
            values["parts"] = [part.as_json() for part in self.parts]
        return values

    def walk(self) -> Iterator[StreamPart]:
        """Give it and all of its parts."""
        yield self
        for part in self.parts:
            yield from part.walk()


class DeviceState(NamedTuple):
    """State of a device, as bytes.

    Attributes
    ----------
    identity
        Its name, instance, version and section.
    offset
        Place in the stream of the payload.
    payload
        Its bytes; None if there were too many to keep.
    description
        Its entry in the vmdescription, or None.
    """

    identity: SectionIdentity
    offset: int
    length: int
    payload: bytes | None
    description: dict[str, Any] | None = None

    @property
    def fields(self) -> list[FieldValue]:
        """Its fields; none if it is not described, or the description does not fit."""
        if self.payload is None or self.description is None:
            return []
        try:
            return read_fields(self.description, self.payload)
        except StreamError:
            return []


class CheckpointSizes(NamedTuple):
    """Sizes of a checkpoint.

    Attributes
    ----------
    number
        Its number, from 1.
    offset, length
        Place in the stream, bytes, with its messages.
    counts
        Its page records.
    ram_bytes, device_bytes
        Bytes of RAM's section, and of the device buffer.
    devices
        Number of devices.
    complete
        False if the stream ended in it, or something in it could not be read.
    """

    number: int
    offset: int
    length: int
    counts: PageCounts
    ram_bytes: int
    device_bytes: int
    devices: int
    complete: bool


class TreeSink:
    """Sink that makes a tree of a stream, and sums up what would make it too large."""

    def __init__(self) -> None:
        self.root = StreamPart("stream", "")
        self._open = [self.root]
        self._tails: dict[int, deque[StreamPart]] = {}
        #: Records of the parts that are open, by block.
        self._records: list[dict[str, _RecordsPart]] = [{}]
        self._payload_bytes = 0
        #: Devices of the migration, and of the last checkpoint that had any.
        self.devices: list[DeviceState] = []
        self.last_devices: list[DeviceState] = []
        self.checkpoints: list[CheckpointSizes] = []
        self.problems: list[StreamPart] = []
        #: All that could not be read: its bytes, and the number of its parts.
        self.unexplained_bytes = self.unexplained_parts = 0
        self.commands: list[str] = []
        self._checkpoint = _UnderWay()

    def item(self, item: Item) -> None:
        """Take an item."""
        kind, title = item.kind, item.title
        if kind == "message" and title == Message.CHECKPOINT_REQUEST.name:
            self._begin_checkpoint(item.offset)
        part = StreamPart(kind, title, item.detail, item.offset, item.length)
        self._add(part)
        if kind == UNEXPLAINED:
            self._checkpoint.complete = False
            self.unexplained_bytes += part.length
            self.unexplained_parts += 1
            if len(self.problems) < PROBLEMS_LIMIT:
                self.problems.append(part)
        elif kind == SectionType.COMMAND.name and len(self.commands) < PROBLEMS_LIMIT:
            self.commands.append(title)
        elif kind in (SectionType.START.name, SectionType.PART.name, SectionType.END.name):
            self._open[-1].title += f" {title}"
        elif kind == SectionType.FULL.name:
            self._open[-1].title = title

    def records(self, records: RecordRun) -> None:
        """Add records to those of the same block in the section."""
        self._checkpoint.counts.add(records.counts)
        self._grow(records.offset, records.length)
        part = self._records[-1].get(records.block)
        if part is None:
            part = self._records[-1][records.block] = _RecordsPart(records.block, records.offset)
            self._place(self._open[-1], part)
        part.take(records)

    def payload(self, identity: SectionIdentity, data: bytes, item: Item) -> None:
        """Keep a device's payload."""
        self.item(item)
        kept = len(data) if self._payload_bytes + len(data) <= PAYLOADS_LIMIT else None
        self._payload_bytes += kept or 0
        device = DeviceState(identity, item.offset, item.length, None if kept is None else data)
        (self.last_devices if self._checkpoint.number else self.devices).append(device)
        self._checkpoint.devices += 1

    def enter(self, kind: str, title: str) -> None:
        """Begin a part."""
        self._push(StreamPart(kind, title, offset=-1))

    def leave(self) -> None:
        """End a part."""
        part = self._pop()
        if part.offset < 0:
            # Nothing of it was read.
            return
        if part.kind == "sized buffer":
            self._checkpoint.device_bytes += part.length
        elif part.title.endswith(" ram"):
            self._checkpoint.ram_bytes += part.length
        self._place(self._open[-1], part)

    def end(self) -> None:
        """End the stream."""
        self._end_checkpoint()
        for part in self.root.walk():
            self._settle(part)

    def _begin_checkpoint(self, offset: int) -> None:
        number = self._checkpoint.number
        self._end_checkpoint()
        self._checkpoint = _UnderWay(number + 1)
        for device in self.last_devices:
            self._payload_bytes -= len(device.payload or b"")
        self.last_devices = []
        self._push(StreamPart("checkpoint", str(number + 1), offset=offset))

    def _end_checkpoint(self) -> None:
        if not self._checkpoint.number:
            return
        part, now = self._pop(), self._checkpoint
        sizes = CheckpointSizes(
            now.number,
            part.offset,
            part.length,
            now.counts,
            now.ram_bytes,
            now.device_bytes,
            now.devices,
            now.complete and now.device_bytes > 0,
        )
        if len(self.checkpoints) < CHECKPOINTS_LIMIT:
            self.checkpoints.append(sizes)
        part.detail = f"RAM {now.ram_bytes:,} bytes, devices {now.device_bytes:,} bytes"
        self._place(self._open[-1], part)

    def _push(self, part: StreamPart) -> None:
        self._open.append(part)
        self._records.append({})

    def _pop(self) -> StreamPart:
        self._records.pop()
        return self._open.pop()

    def _add(self, part: StreamPart) -> None:
        self._grow(part.offset, part.length)
        self._place(self._open[-1], part)

    def _grow(self, offset: int, length: int) -> None:
        for part in self._open:
            if part.offset < 0:
                part.offset = offset
            part.length = offset + length - part.offset

    def _place(self, parent: StreamPart, part: StreamPart) -> None:
        """Add a part; if there are many, the last ones wait, and older ones are summed up.

        Those of records stay, because records may still be added to them.
        """
        if len(parent.parts) < FIRST_KEPT:
            parent.parts.append(part)
            return
        tail = self._tails.setdefault(id(parent), deque())
        tail.append(part)
        if len(tail) <= LAST_KEPT:
            return
        oldest = tail.popleft()
        if isinstance(oldest, _RecordsPart):
            parent.parts.append(oldest)
            return
        between = parent.parts[FIRST_KEPT] if len(parent.parts) > FIRST_KEPT else None
        if not isinstance(between, _Sum):
            between = _Sum(oldest.offset)
            parent.parts.insert(FIRST_KEPT, between)
        between.take(oldest)
        for each in oldest.walk():
            self._tails.pop(id(each), None)

    def _settle(self, part: StreamPart) -> None:
        part.parts += self._tails.pop(id(part), ())


class _UnderWay:
    """Sums of the checkpoint that is being read; number 0 is the migration before the first."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.ram_bytes = self.device_bytes = self.devices = 0
        self.complete = True
        self.counts = PageCounts()


class _RecordsPart(StreamPart):
    """Page records of one block in one section."""

    __slots__ = ("counts",)

    def __init__(self, block: str, offset: int) -> None:
        super().__init__("records", block, offset=offset)
        self.counts = PageCounts()

    def take(self, records: RecordRun) -> None:
        self.counts.add(records.counts)
        self.length += records.length
        self.detail = str(self.counts)


class _Sum(StreamPart):
    """Parts that are summed up."""

    __slots__ = ("count",)

    def __init__(self, offset: int) -> None:
        super().__init__("further", "", offset=offset)
        self.count = 0

    def take(self, part: StreamPart) -> None:
        self.count += 1
        self.length += part.length
        self.title = f"{self.count:,} further parts"


class DecodedStream(NamedTuple):
    """A decoded stream.

    Attributes
    ----------
    name
        Where it came from.
    kind
        ``migration``, ``COLO session`` or ``multifd channel``.
    length
        Its bytes.
    machine
        The machine type, or None.
    tree
        Its parts.
    blocks
        The RAM blocks.
    devices
        Devices of the migration, and those of the last checkpoint.
    checkpoints
        Sizes of the checkpoints.
    problems
        What could not be read, the first `PROBLEMS_LIMIT` parts: the error is the title.
    unexplained_bytes, unexplained_parts
        Bytes and parts of all that could not be read.
    """

    name: str
    kind: str
    length: int
    machine: str | None
    tree: StreamPart
    blocks: tuple[ReadBlock, ...] = ()
    devices: tuple[DeviceState, ...] = ()
    last_devices: tuple[DeviceState, ...] = ()
    checkpoints: tuple[CheckpointSizes, ...] = ()
    problems: tuple[StreamPart, ...] = ()
    unexplained_bytes: int = 0
    unexplained_parts: int = 0

    @property
    def counts(self) -> PageCounts:
        """Page records of all blocks."""
        total = PageCounts()
        for block in self.blocks:
            total.add(block.counts)
        return total

    def as_json(self, *, devices: bool = False) -> dict[str, Any]:
        """Return it as JSON's values; with `devices`, the values of their fields as well."""
        return {
            "name": self.name,
            "kind": self.kind,
            "length": self.length,
            "machine": self.machine,
            "ram": self.counts.as_json(),
            "blocks": [
                {"name": block.name, "length": block.length, "address": block.address}
                | block.counts.as_json()
                for block in self.blocks
            ],
            "devices": [_device_json(device, devices) for device in self.devices],
            "last_devices": [_device_json(device, devices) for device in self.last_devices],
            "checkpoints": [
                {name: getattr(each, name) for name in CheckpointSizes._fields if name != "counts"}
                | each.counts.as_json()
                for each in self.checkpoints
            ],
            "problems": [problem.as_json() for problem in self.problems],
            "unexplained_bytes": self.unexplained_bytes,
            "unexplained_parts": self.unexplained_parts,
            "tree": self.tree.as_json(),
        }


def _device_json(device: DeviceState, with_fields: bool) -> dict[str, Any]:
    values: dict[str, Any] = device.identity._asdict()
    values |= {"offset": device.offset, "length": device.length}
    if with_fields:
        values["fields"] = [value._asdict() for value in device.fields]
    return values


class CellMap(NamedTuple):
    """A block's pages in cells.

    Attributes
    ----------
    pages
        Pages of a cell, a power of two.
    kinds
        For each cell the most telling kind in `RECORD_KINDS` of its pages' last records, or an
        empty string if none came.
    """

    pages: int
    kinds: list[str]


def page_map(block: ReadBlock, cells: int = 4096) -> CellMap:
    """Divide a block into at most that many cells."""
    seen, size = block.seen, 1
    while len(seen) > cells * size:
        size *= 2
    kinds = []
    for begin in range(0, len(seen), size):
        marks = bytes(seen[begin : begin + size])
        kinds.append(next((name for mark, name in _TELLING if mark in marks), ""))
    return CellMap(size, kinds)


#: Kinds by their marks in `ReadBlock.seen`, the most telling one first.
_TELLING: Final = tuple(
    (1 + RECORD_KINDS.index(name), name) for name in ("XBZRLE", "COMPRESS_PAGE", "PAGE", "ZERO")
)
