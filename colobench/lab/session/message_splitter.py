"""Division of a conversation's bytes, as they arrive, into its messages and what follows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from colobench.settings.checkpoint import Layout
from colobench.wire.dissect import UNEXPLAINED, Item, dissect_checkpoint
from colobench.wire.format import BE32, BE64, SECTION, SectionType
from colobench.wire.messages import Message, encode_message
from colobench.wire.savevm import RAM_SECTION_ID
from colobench.wire.vmstate import Device

#: Names of what is no message: the bytes that follow one.
RAM_SECTION, BUFFER = "RAM section", "sized buffer"
#: Name of bytes that are none of COLO's.
UNKNOWN: Final = "unknown bytes"
#: The last bytes of a RAM section in a checkpoint: its footer, and EOF.
_SECTION_END: Final = SECTION.pack(SectionType.FOOTER, RAM_SECTION_ID) + bytes([SectionType.EOF])
_FOLLOWED = (Message.PAGE_HASHES, Message.DIVERGENT_PAGES)


@dataclass(frozen=True, slots=True)
class MessagePart:
    """A message, a RAM section or a sized buffer.

    Attributes
    ----------
    name
        A message's name, `RAM_SECTION`, `BUFFER` or `UNKNOWN`.
    data
        Its bytes.
    items
        The same, decoded; offsets count from its first byte.
    """

    name: str
    data: bytes
    items: tuple[Item, ...]


class MessageSplitter:
    """Splits one direction of a conversation, from the first message on.

    Parameters
    ----------
    layout
        Layout of the checkpoints, which the bytes do not tell.
    devices
        Devices whose states are decoded.

    Attributes
    ----------
    rest
        Bytes of a part that has not arrived whole.
    """

    def __init__(self, layout: Layout, devices: tuple[Device, ...] = ()) -> None:
        self._ram_follows = {Message.MIGRATE_RAM_BACKGROUND}
        if layout is Layout.SEPARATED:
            self._ram_follows.add(Message.VMSTATE_SEND)
        self._devices = devices
        self.rest = b""
        #: What the rest is the beginning of, and the size of a sized buffer.
        self._expected, self._size = "", 0
        #: Bytes of the rest in which no section ends.
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[MessagePart]:
        """Take bytes in, and give the parts that are whole now."""
        self.rest += data
        while self.rest:
            part = self._take()
            if part is None:
                return
            yield part

    @property
    def expected(self) -> str:
        """Name of the part that the rest is the beginning of, if that is known."""
        return self._expected or "message"

    def _take(self) -> MessagePart | None:
        if self._expected == RAM_SECTION:
            return self._section()
        if self._expected == BUFFER:
            return self._buffer()
        return self._message()

    def _cut(self, name: str, length: int, items: list[Item]) -> MessagePart:
        part = MessagePart(name, self.rest[:length], tuple(items))
        self.rest = self.rest[length:]
        self._expected, self._searched = "", 0
        return part

    def _message(self) -> MessagePart | None:
        if len(self.rest) < BE32.size:
            return None
        (number,) = BE32.unpack(self.rest[: BE32.size])
        try:
            message = Message(number)
        except ValueError:
            items = dissect_checkpoint(self.rest)
            return self._cut(UNKNOWN, len(self.rest), items)
        length = BE32.size
        if message is Message.VMSTATE_SIZE:
            length += BE64.size
        elif message in _FOLLOWED:
            first = dissect_checkpoint(self.rest)[0]
            if first.kind == UNEXPLAINED:
                return None
            length = first.length
        if len(self.rest) < length:
            return None
        items = dissect_checkpoint(self.rest[:length])
        if message is Message.VMSTATE_SIZE:
            # Its buffer is missing, which makes an item of its own.
            items = items[:1]
            (self._size,) = BE64.unpack(self.rest[BE32.size : length])
        part = self._cut(message.name, length, items)
        if message is Message.VMSTATE_SIZE:
            self._expected = BUFFER
        elif message in self._ram_follows:
            self._expected = RAM_SECTION
        return part

    def _section(self) -> MessagePart | None:
        # A footer's bytes may be those of a page, so the section is read; but not at each packet.
        begin = max(0, self._searched - len(_SECTION_END) + 1)
        if _SECTION_END not in self.rest[begin:]:
            self._searched = len(self.rest)
            return None
        items = dissect_checkpoint(self.rest)
        for count, item in enumerate(items, 1):
            if item.kind == SectionType.EOF.name:
                return self._cut(RAM_SECTION, item.offset + item.length, items[:count])
        self._searched = len(self.rest)
        return None

    def _buffer(self) -> MessagePart | None:
        size = self._size
        if len(self.rest) < size:
            return None
        head = encode_message(Message.VMSTATE_SIZE, size)
        found = dissect_checkpoint(head + self.rest[:size], devices=self._devices)[1:]
        items = [item._replace(offset=item.offset - len(head)) for item in found]
        return self._cut(BUFFER, size, items)
