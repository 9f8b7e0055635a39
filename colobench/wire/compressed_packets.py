"""Packets of compressed pages on multifd's channels.

A packet is that of `colobench.wire.multifd`, with one of these flags, and next_packet_size is the
length of the compressed block that follows, which is that of the normal pages:

==========  ======================================================================================
flag        block
==========  ======================================================================================
2 << 1      part of a Zstandard stream, flushed; the stream is the channel's, from its first packet
            to its end. QEMU's multifd-compression=zstd has the same.
1 << 16     LZ4's block format. QEMU has no LZ4; the flag is beyond all of QEMU's.
==========  ======================================================================================

A packet without normal pages has no block.

Source: QEMU's migration/multifd-zstd.c, version 9.0 and later.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from colobench.kernels.multifd_packets import (
    MAGIC,
    NAME_AT,
    NAME_BYTES,
    PACKET_PAGES,
    SYNC,
    VERSION,
)
from colobench.memory.ram import PAGE_SIZE
from colobench.wire.compression import compressed_limit
from colobench.wire.errors import RAMError

#: Flag of each compression.
FLAGS: Final = {"zstd": 2 << 1, "lz4": 1 << 16}
#: Most bytes of a packet's block.
BLOCK_LIMIT: Final = compressed_limit(PACKET_PAGES * PAGE_SIZE)
_NUMBERS: Final = struct.Struct(">IIIIIIQI")
_FLAGS_AT, _SIZE_AT = 8, 20


class PacketNumbers(NamedTuple):
    """Numbers of a packet: its pages, the length of its block, whether it ends a section."""

    normal: int
    zero: int
    size: int
    is_sync: bool
    name: bytes


def announce_block(packet: memoryview, method: str, size: int) -> None:
    """Write the flag and the length of a block into a packet."""
    struct.pack_into(">I", packet, _FLAGS_AT, FLAGS[method])
    struct.pack_into(">I", packet, _SIZE_AT, size)


def parse_packet(packet: memoryview, method: str, offset: int) -> PacketNumbers:
    """Check the numbers of a packet; its offsets and its name are not checked.

    Parameters
    ----------
    packet
        The packet.
    method
        Compression that was agreed on.
    offset
        Offset in the channel's stream, for errors.

    Raises
    ------
    RAMError
        If one is not right.
    """
    magic, version, flags, room, normal, size, _, zero = _NUMBERS.unpack_from(packet)
    flag = FLAGS[method]
    if normal:
        limit = compressed_limit(normal * PAGE_SIZE)
        sizes, right = f"1 to {limit} bytes for {normal} pages", 0 < size <= limit
    else:
        sizes, right = "0 without normal pages", size == 0
    usual = (flag, flag | SYNC) if normal else (flag, flag | SYNC, SYNC)
    for name, expected, found, at, fits in (
        ("magic", f"{MAGIC:#x}", f"{magic:#x}", 0, magic == MAGIC),
        ("version", VERSION, version, 4, version == VERSION),
        ("flags", f"{flag:#x} ({method})", f"{flags:#x}", 8, flags in usual),
        ("pages_alloc", PACKET_PAGES, room, 12, room == PACKET_PAGES),
        ("normal_pages", f"at most {PACKET_PAGES}", normal, 16, normal <= PACKET_PAGES),
        ("next_packet_size", sizes, size, 20, right),
        (
            "zero_pages",
            f"at most {PACKET_PAGES} with the normal pages",
            zero,
            32,
            normal + zero <= PACKET_PAGES,
        ),
    ):
        if not fits:
            raise RAMError(f"multifd {name}", expected=expected, found=found, offset=offset + at)
    name_field = bytes(packet[NAME_AT : NAME_AT + NAME_BYTES])
    return PacketNumbers(normal, zero, size, bool(flags & SYNC), name_field)
