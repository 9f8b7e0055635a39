"""Format of the migration stream: its constants and its layout.

Source: QEMU's ``docs/devel/migration`` and the output of QEMU 7.2. All integers are big-endian and
nothing is aligned. A migration sends this to its destination::

    magic "QEVM" | version 3 | 07 CONFIGURATION: be32 length, machine type
    08 COMMAND: be16 command, be16 length, data                          (any number)
    01 START  | section header | payload | footer                        (once for RAM)
    02 PART   | be32 section   | payload | footer                        (while the guest runs)
    03 END    | be32 section   | payload | footer                        (guest stopped)
    04 FULL   | section header | payload | footer                        (once for each device)
    00 EOF
    06 VMDESCRIPTION: be32 length, JSON                                  (sizes of all fields)

    section header = be32 section id | u8 length, idstr | be32 instance id | be32 version id
    footer         = 7e | be32 section id

A payload has no length field: its reader has to know its fields. RAM's payload is a sequence of
records. Each begins with a be64: the upper 52 bits are the page's offset inside its block, the
lower 12 bits are flags. The last record is EOS::

    MEM_SIZE  total length | (u8 length, block name | be64 block length) ...  until they add up
    PAGE      [u8 length, block name] | 4096 bytes
    ZERO      [u8 length, block name] | u8 fill (0)
    EOS

The flag CONTINUE replaces the block name: the page is in the same block as the previous page, which
may have been sent in an earlier section or an earlier checkpoint.

Under COLO the same connection then carries checkpoints. Messages are bare be32, and nothing frames
the sections between them::

    be32 VMSTATE_SEND
    03 END of RAM | 00 EOF                                               (pages into the RAM cache)
    be32 VMSTATE_SIZE | be64 n | n bytes: 04 FULL ... 00 EOF             (the device buffer)
"""

from __future__ import annotations

import functools
import struct
from enum import IntEnum
from typing import Final

MAGIC: Final = 0x5145564D
VERSION: Final = 3

#: Identity of RAM's section.
RAM_IDSTR: Final = "ram"
RAM_INSTANCE_ID: Final = 0
RAM_VERSION_ID: Final = 4

PAGE_FLAGS_MASK: Final = 0xFFF
#: Bytes of a page: a record's flags are in the low bits of its offset.
TARGET_PAGE_SIZE: Final = PAGE_FLAGS_MASK + 1

#: Limit of the number of RAM blocks that are learnt from a stream.
BLOCKS_LIMIT: Final = 4096

#: Begin of a multifd channel and of each of its packets; bytes of a block's name in them.
MULTIFD_MAGIC: Final = 0x11223344
MULTIFD_VERSION: Final = 1
MULTIFD_NAME_BYTES: Final = 256
#: Flag of the packet that ends a section's pages on a channel.
MULTIFD_SYNC: Final = 1

#: Flag of our compressed records, beyond all of QEMU's; see `colobench.wire.compressed_records`.
COMPRESSED_RECORDS: Final = 0x800

BE16: Final = struct.Struct(">H")
BE32: Final = struct.Struct(">I")
BE64: Final = struct.Struct(">Q")
#: Section type or footer mark, then the section id (or a length).
SECTION: Final = struct.Struct(">BI")
#: Instance id and version id, which follow the idstr in a section header.
SECTION_IDENTITY: Final = struct.Struct(">II")
#: Command number and length of its data.
COMMAND_HEADER: Final = struct.Struct(">HH")


class SectionType(IntEnum):
    """First byte of each part of a stream (QEMU_VM_*)."""

    EOF = 0x00
    START = 0x01
    PART = 0x02
    END = 0x03
    FULL = 0x04
    SUBSECTION = 0x05
    VMDESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    FOOTER = 0x7E


class RAMFlag(IntEnum):
    """Kind of a RAM record (RAM_SAVE_FLAG_*); CONTINUE is combined with one of the others."""

    FULL = 0x01
    ZERO = 0x02
    MEM_SIZE = 0x04
    PAGE = 0x08
    EOS = 0x10
    CONTINUE = 0x20
    XBZRLE = 0x40
    HOOK = 0x80
    COMPRESS_PAGE = 0x100
    MULTIFD_FLUSH = 0x200


class MigrationCommand(IntEnum):
    """Command from the source to the destination (MIG_CMD_*)."""

    OPEN_RETURN_PATH = 1
    PING = 2
    POSTCOPY_ADVISE = 3
    POSTCOPY_LISTEN = 4
    POSTCOPY_RUN = 5
    POSTCOPY_RAM_DISCARD = 6
    PACKAGED = 7
    ENABLE_COLO = 8
    POSTCOPY_RESUME = 9
    RECV_BITMAP = 10
    SWITCHOVER_START = 11


@functools.lru_cache
def section_footer(section_id: int) -> bytes:
    """Encode the footer of a section; the cache is bounded, because a peer chooses section ids."""
    return SECTION.pack(SectionType.FOOTER, section_id)


def section_type_name(number: int) -> str:
    """Name a section type for an error or a table: ``"END (03)"``, or ``"5c"`` if unknown."""
    try:
        return f"{SectionType(number).name} ({number:02x})"
    except ValueError:
        return f"{number:02x}"


def ram_flag_names(flags: int) -> str:
    """Name the flags of a RAM record for an error or a table: ``"PAGE|CONTINUE"``."""
    names = [flag.name for flag in RAMFlag if flags & flag]
    unknown = flags & ~sum(RAMFlag)
    if unknown or not names:
        names.append(f"0x{unknown:x}")
    return "|".join(names)


def counted_string(text: str) -> bytes:
    """Encode a name in the stream's format: u8 length, then the bytes."""
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def counted_identity(identity: bytes) -> bytes:
    """Encode an idstr with its length, then the instance id and the version id behind it."""
    return bytes([len(identity) - SECTION_IDENTITY.size]) + identity
