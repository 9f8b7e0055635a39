"""Places in a recorded COLO session: its migration, and the parts of each checkpoint.

A `PlaceSink` is given to `colobench.wire.reader`, which finds the parts; nothing of them is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.wire.format import RAM_IDSTR, RAMFlag, SectionType
from colobench.wire.grammar import SectionIdentity
from colobench.wire.lookahead import Driver
from colobench.wire.messages import Message
from colobench.wire.page_counts import KINDS
from colobench.wire.ram_reader import ReadBlock
from colobench.wire.reader import UNEXPLAINED, Enclosure, StreamReader
from colobench.wire.reading import StreamBuffer
from colobench.wire.recorded import Item, RecordRun

#: Mark of a page in `ReadBlock.seen` whose last record was ZERO.
_WAS_ZERO: Final = 1 + KINDS.index(RAMFlag.ZERO)
_RAM_STARTS: Final = (SectionType.START.name, SectionType.PART.name, SectionType.END.name)


class RecordedBytes(NamedTuple):
    """Range of bytes of a recording."""

    begin: int
    end: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class RAMSectionPlace:
    """Place of a section of RAM.

    Attributes
    ----------
    extent
        The whole section, with its footer.
    records
        Its page records; empty between header and EOS if there are none.
    before, after
        Block to which a record with CONTINUE belongs at the section's begin, and at its end.
    """

    extent: RecordedBytes
    records: RecordedBytes
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class DevicePlace:
    """Place of a device's section, with its footer."""

    idstr: str
    extent: RecordedBytes


@dataclass(slots=True)
class SessionPart:
    """The migration, or one checkpoint.

    Attributes
    ----------
    extent
        All of it.
    messages
        Its messages by name; a migration has none.
    buffer
        A checkpoint's device buffer; None if the recording ends before it is complete.
    ram, devices
        Its sections, in order.
    pages
        Number of its page records.
    """

    extent: RecordedBytes
    messages: dict[str, RecordedBytes] = field(default_factory=dict)
    buffer: RecordedBytes | None = None
    ram: list[RAMSectionPlace] = field(default_factory=list)
    devices: list[DevicePlace] = field(default_factory=list)
    pages: int = 0

    def is_complete(self) -> bool:
        """Say whether a checkpoint has all that is sent of it."""
        sent = {Message.VMSTATE_SEND.name, Message.VMSTATE_SIZE.name}
        return self.buffer is not None and sent <= self.messages.keys()


@dataclass(frozen=True, slots=True)
class SessionPlaces:
    """Places in a recorded session.

    Attributes
    ----------
    machine
        Its machine type.
    blocks
        RAM blocks by name, in the order of the stream.
    migration
        The migration before the checkpoints.
    checkpoints
        The complete checkpoints, up to the first that is not.
    """

    machine: str | None
    blocks: Mapping[str, ReadBlock]
    migration: SessionPart
    checkpoints: tuple[SessionPart, ...]

    @property
    def main_block(self) -> ReadBlock:
        """The largest RAM block."""
        return max(self.blocks.values(), key=lambda block: block.length or 0)

    def unused_pages(self, count: int) -> list[int]:
        """Give the last pages of the largest block that the guest has left zero.

        Parameters
        ----------
        count
            Number of pages at most.
        """
        seen = np.frombuffer(self.main_block.seen, np.uint8)
        zero: npt.NDArray[np.intp] = np.flatnonzero(seen == _WAS_ZERO)
        return [int(page) for page in zero[-count:]]


def find_places(data: memoryview) -> SessionPlaces:
    """Find the places in a recorded session.

    Raises
    ------
    LocalError
        If it is no COLO session, or lacks its migration, RAM or a complete checkpoint.
    """
    at, sink = StreamBuffer(), PlaceSink()
    reader = StreamReader(at, sink)
    Driver(at, _Source(data).read_into).run(reader.session())
    sink.end()
    if reader.machine is None and not reader.ram.blocks:
        raise LocalError(f"session: expected a migration at its begin, found: {sink.reason()}")
    if not reader.colo:
        raise LocalError(
            "session: expected a COLO session, which has the command ENABLE_COLO, found an "
            "ordinary migration"
        )
    if not any(block.length for block in reader.ram.blocks.values()):
        raise LocalError("session: expected RAM in its migration, found no block of it")
    # What follows an incomplete one would lack its pages.
    complete = list(takewhile(SessionPart.is_complete, sink.parts[1:]))
    if not complete:
        raise LocalError(f"session: expected a complete checkpoint, found none: {sink.reason()}")
    return SessionPlaces(reader.machine, reader.ram.blocks, sink.parts[0], tuple(complete))


class PlaceSink:
    """Sink that notes the places of a session's parts.

    Attributes
    ----------
    parts
        The migration, then the checkpoints.
    """

    def __init__(self) -> None:
        self.parts = [SessionPart(RecordedBytes(0, 0))]
        self._problem = ""
        self._end = self._buffer_bytes = 0
        self._block: str | None = None
        self._opened: list[tuple[str, int]] = []
        self._section = _OpenSection()

    def item(self, item: Item) -> None:
        """Take an item."""
        kind, title, end = item.kind, item.title, item.offset + item.length
        if kind == "message":
            if title == Message.CHECKPOINT_REQUEST.name:
                self._close_part(item.offset)
                self.parts.append(SessionPart(RecordedBytes(item.offset, end)))
            self.parts[-1].messages[title] = RecordedBytes(item.offset, end)
        elif kind == UNEXPLAINED:
            self._problem = self._problem or title
        elif kind in _RAM_STARTS and title == RAM_IDSTR:
            self._section = _OpenSection(RAM_IDSTR, end, end, self._block)
        elif kind == SectionType.FULL.name:
            self._section = _OpenSection(title)
        elif kind == RAMFlag.MEM_SIZE.name:
            self._section.first = self._section.last = end
        self._end = end

    def records(self, records: RecordRun) -> None:
        """Take page records."""
        self._end = self._section.last = records.offset + records.length
        self._block = records.block
        self.parts[-1].pages += records.counts.records

    def payload(self, identity: SectionIdentity, data: bytes, item: Item) -> None:
        """Take a device's payload."""
        self._end = item.offset + item.length

    def enter(self, kind: str, title: str) -> None:
        """Begin a section or the device buffer."""
        if kind == Enclosure.BUFFER.value:
            # The title is the size that VMSTATE_SIZE has announced.
            self._buffer_bytes = int(title.split()[0])
        self._opened.append((kind, self._end))

    def leave(self) -> None:
        """End it."""
        kind, begin = self._opened.pop()
        part, extent = self.parts[-1], RecordedBytes(begin, self._end)
        if kind == Enclosure.BUFFER.value:
            # What in it cannot be read can be sent all the same.
            if extent.length == self._buffer_bytes:
                part.buffer = extent
            return
        found, self._section = self._section, _OpenSection()
        if found.idstr == RAM_IDSTR:
            records = RecordedBytes(found.first, found.last)
            part.ram.append(RAMSectionPlace(extent, records, found.before, self._block))
        elif found.idstr:
            part.devices.append(DevicePlace(found.idstr, extent))

    def end(self) -> None:
        """End the stream."""
        self._close_part(self._end)

    def reason(self) -> str:
        """Say why the recording has no more."""
        return self._problem or "the recording ends there"

    def _close_part(self, end: int) -> None:
        part = self.parts[-1]
        part.extent = RecordedBytes(part.extent.begin, end)


@dataclass(slots=True)
class _OpenSection:
    """The section that is being read; one of RAM has records from `first` to `last`."""

    idstr: str = ""
    first: int = 0
    last: int = 0
    before: str | None = None


class _Source:
    """Bytes that a driver reads piece by piece."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def read_into(self, place: memoryview) -> int:
        piece = self._data[self._at : self._at + len(place)]
        place[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
