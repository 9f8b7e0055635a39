"""Bytes of a recorded COLO session that is sent again, as it was or changed.

The last complete checkpoint is repeated for as long as checkpoints are asked for. A stamp goes into
pages that the guest has left zero, so that each repetition differs from the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE
from colobench.wire.format import BE64, RAMFlag, counted_string
from colobench.wire.messages import Message, encode_message
from colobench.wire.session_places import RAMSectionPlace, RecordedBytes, SessionPart, SessionPlaces

#: Pages that are stamped in each repetition.
STAMPED_PAGES: Final = 16
#: What a stamped page begins with, before the number of the repetition as a be64.
STAMP: Final = b"colobench repetition"

#: Messages of a primary that may be left out.
LEFT_OUT = (Message.CHECKPOINT_REQUEST, Message.VMSTATE_SEND, Message.VMSTATE_SIZE)


@dataclass(frozen=True, slots=True)
class EditedPage:
    """A page that has other bytes in each checkpoint.

    Attributes
    ----------
    block, page
        Name of its block, and its number in it.
    data
        Its `PAGE_SIZE` bytes.
    """

    block: str
    page: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Tear:
    """The end of the connection in the middle of a checkpoint.

    Attributes
    ----------
    checkpoint
        Number of the checkpoint, from 1.
    length
        Bytes of it that are sent behind CHECKPOINT_REQUEST; None is half of them.
    """

    checkpoint: int
    length: int | None = None


@dataclass(frozen=True, slots=True)
class LeftOutMessage:
    """A message that is not sent in one checkpoint, whose number counts from 1."""

    message: Message
    checkpoint: int = 1


@dataclass(frozen=True, slots=True)
class SessionChanges:
    """What is changed in a session that is sent again.

    Attributes
    ----------
    pages
        Edited pages.
    tear
        Where the connection ends, or None.
    messages
        Messages that are left out.
    devices
        Names of devices whose sections are left out everywhere.
    """

    pages: tuple[EditedPage, ...] = ()
    tear: Tear | None = None
    messages: tuple[LeftOutMessage, ...] = ()
    devices: tuple[str, ...] = ()


#: Bytes to be sent one after another; most are parts of the recording.
Pieces = list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class ReplayedCheckpoint:
    """Bytes of a checkpoint.

    Attributes
    ----------
    number
        Its number, from 1.
    repeated
        Number of the repetition; 0 for a recorded checkpoint.
    request
        CHECKPOINT_REQUEST, or nothing.
    body
        What follows REPLY: VMSTATE_SEND, RAM, VMSTATE_SIZE, the device buffer.
    pages, device_bytes
        Number of page records, and length of the device buffer.
    torn
        True if `body` is not all of it.
    """

    number: int
    repeated: int
    request: bytes
    body: Pieces
    pages: int
    device_bytes: int
    torn: bool = False


class ReplayedSession:
    """Maker of a session's bytes, in the order in which they are sent.

    Parameters
    ----------
    data, places
        The recording, and the places in it.
    changes
        What is changed.

    Raises
    ------
    LocalError
        If something is to be changed that the session does not have.
    """

    def __init__(
        self, data: memoryview, places: SessionPlaces, changes: SessionChanges | None = None
    ) -> None:
        self.places, self.changes = places, changes or SessionChanges()
        self._data = data
        self._block: str | None = None
        self._stamped = places.unused_pages(STAMPED_PAGES)
        self._check_changes()

    @property
    def recorded(self) -> int:
        """Number of complete checkpoints in the recording."""
        return len(self.places.checkpoints)

    @property
    def stamped_pages(self) -> tuple[str, list[int]]:
        """The block and the pages in it that repetitions stamp."""
        return self.places.main_block.name, self._stamped

    def _check_changes(self) -> None:
        for edited in self.changes.pages:
            block = self.places.blocks.get(edited.block)
            if block is None or block.length is None:
                blocks = self.places.blocks.values()
                names = ", ".join(each.name for each in blocks if each.length is not None)
                raise LocalError(f"RAM block: expected one of {names}, found {edited.block!r}")
            if not 0 <= edited.page < block.pages:
                raise LocalError(
                    f"page of {edited.block}: expected 0 to {block.pages - 1}, found {edited.page}"
                )
            if len(edited.data) != PAGE_SIZE:
                raise LocalError(
                    f"page {edited.page} of {edited.block}: expected {PAGE_SIZE} bytes, found "
                    f"{len(edited.data)}"
                )
        known = {device.idstr for device in self.places.migration.devices}
        for name in self.changes.devices:
            if name not in known:
                raise LocalError(f"device: expected one of {sorted(known)}, found {name!r}")
        for left_out in self.changes.messages:
            if left_out.message not in LEFT_OUT:
                names = ", ".join(each.name for each in LEFT_OUT)
                raise LocalError(f"message: expected one of {names}, found {left_out.message.name}")

    def migration(self) -> Pieces:
        """Make the migration; RAM's sections are those of the recording."""
        part = self.places.migration
        if part.ram:
            self._block = part.ram[-1].after
        return self._without_devices(part, part.extent)

    def checkpoint(self, number: int) -> ReplayedCheckpoint:
        """Make a checkpoint; they are made in order, because each names its block by the last.

        Parameters
        ----------
        number
            Its number, from 1; beyond the recorded ones the last of these is repeated.
        """
        part = self.places.checkpoints[min(number, self.recorded) - 1]
        repeated = max(0, number - self.recorded)
        assert part.buffer is not None
        extra = list(self.changes.pages)
        if repeated:
            block, pages = self.stamped_pages
            stamp = (STAMP + BE64.pack(repeated)).ljust(PAGE_SIZE, b"\0")
            extra = [EditedPage(block, page, stamp) for page in pages] + extra
        ram = self._ram(part, extra)
        buffer = self._without_devices(part, part.buffer)
        size = sum(map(len, buffer))
        left_out = {each.message for each in self.changes.messages if each.checkpoint == number}
        body: Pieces = []
        if Message.VMSTATE_SEND not in left_out:
            body.append(encode_message(Message.VMSTATE_SEND))
        body += ram
        if Message.VMSTATE_SIZE not in left_out:
            body.append(encode_message(Message.VMSTATE_SIZE, size))
        body += buffer
        request = encode_message(Message.CHECKPOINT_REQUEST)
        if Message.CHECKPOINT_REQUEST in left_out:
            request = b""
        torn = self.changes.tear is not None and self.changes.tear.checkpoint == number
        if torn:
            body = self._torn(body)
        pages_sent = part.pages + len(extra)
        return ReplayedCheckpoint(number, repeated, request, body, pages_sent, size, torn)

    def _torn(self, body: Pieces) -> Pieces:
        assert self.changes.tear is not None
        whole = sum(map(len, body))
        left = self.changes.tear.length
        left = whole // 2 if left is None else left
        if not 0 <= left < whole:
            raise LocalError(
                f"tear of checkpoint {self.changes.tear.checkpoint}: expected 0 to {whole - 1} "
                f"bytes, found {left}"
            )
        pieces: Pieces = []
        for piece in body:
            pieces.append(piece[: max(0, left)])
            left -= len(piece)
        return pieces

    def _ram(self, part: SessionPart, extra: Sequence[EditedPage]) -> Pieces:
        """Make the sections of RAM up to EOF; the last one has some more pages."""
        pieces: Pieces = []
        size = part.messages[Message.VMSTATE_SIZE.name]
        at = part.messages[Message.VMSTATE_SEND.name].end
        for section in part.ram:
            pieces.append(self._bytes(RecordedBytes(at, section.records.begin)))
            pieces += self._records(section)
            if section is part.ram[-1]:
                pieces += [self._page_record(page) for page in extra]
            at = section.records.end
        return [*pieces, self._bytes(RecordedBytes(at, size.begin))]

    def _records(self, section: RAMSectionPlace) -> Pieces:
        """Give a section's records, the first of which names its block if it has to."""
        data = self._bytes(section.records)
        if not data:
            return []
        before, self._block = self._block, section.after
        (word,) = BE64.unpack(data[: BE64.size])
        if not word & RAMFlag.CONTINUE or before == section.before or section.before is None:
            return [data]
        head = BE64.pack(word & ~RAMFlag.CONTINUE) + counted_string(section.before)
        return [head, data[BE64.size :]]

    def _page_record(self, page: EditedPage) -> bytes:
        word = page.page * PAGE_SIZE | RAMFlag.PAGE
        if page.block == self._block:
            return BE64.pack(word | RAMFlag.CONTINUE) + page.data
        self._block = page.block
        return BE64.pack(word) + counted_string(page.block) + page.data

    def _without_devices(self, part: SessionPart, extent: RecordedBytes) -> Pieces:
        """Give a range of the recording without the sections of devices that are left out."""
        pieces: Pieces = []
        at = extent.begin
        for device in part.devices:
            if device.idstr in self.changes.devices:
                pieces.append(self._bytes(RecordedBytes(at, device.extent.begin)))
                at = device.extent.end
        return [*pieces, self._bytes(RecordedBytes(at, extent.end))]

    def _bytes(self, extent: RecordedBytes) -> memoryview:
        return self._data[extent.begin : extent.end]
