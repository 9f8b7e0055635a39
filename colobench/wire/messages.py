"""COLO's messages: a be32 number, and for VMSTATE_SIZE a be64 value.

MIGRATE_RAM_BACKGROUND is an extension: QEMU has no RAM section outside of a checkpoint. Only nodes
that have agreed on the capture ``gap-precopy`` send and accept it (`colobench.wire.agreement`).
So are PAGE_HASHES and DIVERGENT_PAGES, of the encoding ``divergent``, see
`colobench.wire.page_hashes`.
CHECKPOINT_PASSIVE is one, too; only a primary with the trigger ``hybrid`` sends it.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from colobench.errors import LocalError
from colobench.wire.buffer import StreamBuffer
from colobench.wire.errors import InvalidMessage
from colobench.wire.format import BE32, BE64
from colobench.wire.steps import BytesParser

#: Default limit of the device buffer that a secondary accepts, bytes.
SIZE_LIMIT: Final = 16 * 1024 * 1024


class Message(IntEnum):
    """Messages between primary and secondary, with QEMU's numbers where QEMU has the message."""

    CHECKPOINT_READY = 0
    CHECKPOINT_REQUEST = 1
    CHECKPOINT_REPLY = 2
    VMSTATE_SEND = 3
    VMSTATE_SIZE = 4
    VMSTATE_RECEIVED = 5
    VMSTATE_LOADED = 6
    #: Only in the COLO authors' v12; QEMU 7.2 has no such message.
    GUEST_SHUTDOWN = 7
    #: A part of a pass of gap pre-copy follows; the number is far above QEMU's.
    MIGRATE_RAM_BACKGROUND = 256
    #: Numbers and hashes of dirty pages follow.
    PAGE_HASHES = 257
    #: A bit for each of these pages follows.
    DIVERGENT_PAGES = 258
    #: The secondary's guest is to stand still after the requested checkpoint.
    CHECKPOINT_PASSIVE = 259


_MESSAGES = {message.value: message for message in Message}
#: The numbers, for errors.
NUMBERS: Final = "0 to 7, or 256 to 259"
#: What follows PAGE_HASHES: number of pages, and seed of their hashes; then of each page the
#: number (be32) and the hash.
PAGE_HASHES_HEAD: Final = struct.Struct(">Iq")
HASH_BYTES: Final = 16
HASHED_PAGE_BYTES: Final = BE32.size + HASH_BYTES


def encode_message(message: Message, value: int | None = None) -> bytes:
    """Encode a message; VMSTATE_SIZE takes the size as its value, the others take none.

    Raises
    ------
    LocalError
        If VMSTATE_SIZE has no value, or another message has one.
    """
    if (value is None) == (message is Message.VMSTATE_SIZE):
        wanted = "a value" if value is None else "no value"
        raise LocalError(f"message {message.name}: expected {wanted}, found {value}")
    encoded = BE32.pack(message)
    return encoded if value is None else encoded + BE64.pack(value)


def message(
    at: StreamBuffer, *, size_limit: int = SIZE_LIMIT
) -> BytesParser[tuple[Message, int | None]]:
    """Parse one message; the value is VMSTATE_SIZE's size in bytes, None for other messages.

    Raises
    ------
    InvalidMessage
        If the number is not in `Message`, or the size is greater than `size_limit`.
    """
    offset = at.offset
    number = BE32.unpack((yield 4))[0]
    found = _MESSAGES.get(number)
    if found is None:
        raise InvalidMessage("COLO message", expected=NUMBERS, found=number, offset=offset)
    if found is not Message.VMSTATE_SIZE:
        return found, None
    value = BE64.unpack((yield 8))[0]
    if value > size_limit:
        raise InvalidMessage(
            "VMSTATE_SIZE", expected=f"at most {size_limit}", found=value, offset=offset + 4
        )
    return found, value
