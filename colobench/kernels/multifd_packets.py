"""Packets of page lists in QEMU's multifd format: constants and checks.

`colobench.wire.multifd` describes a packet, `colobench.kernels.multifd` sends and receives it.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Integers, inlined
from colobench.kernels.pages import PAGE_SIZE
from colobench.kernels.raw import load_word, store_word, swap_bytes

MAGIC, VERSION = 0x11223344, 1
#: Flag of the packet that ends a section's pages on a channel.
SYNC = 1
#: Pages of a packet: 512 KiB, as in QEMU.
PACKET_PAGES = 128
NAME_BYTES = 256
ZERO_PAGES_AT, NAME_AT, OFFSETS_AT = 32, 64, 64 + NAME_BYTES
PACKET_BYTES = OFFSETS_AT + 8 * PACKET_PAGES

#: Slots of `progress`.
BYTES, PAGES, ZERO_PAGES, FIELD, FOUND, PACKET_AT = range(6)
PROGRESS_SLOTS = 6
#: Results of `receive_packets`, beside -errno.
SYNCED, BAD_FIELD, END = range(3)
#: Fields of a packet that can be wrong; FIELD is an index in here.
FIELDS = (
    "magic", "version", "flags", "pages_alloc", "normal_pages", "next_packet_size", "zero_pages",
    "ramblock", "offset",
)  # fmt: skip
(
    _BAD_MAGIC, _BAD_VERSION, _BAD_FLAGS, _BAD_ALLOC, _BAD_NORMAL, _BAD_SIZE, _BAD_ZERO, BAD_NAME,
    _BAD_OFFSET,
) = range(len(FIELDS))  # fmt: skip

_LOW = np.uint64(2**32 - 1)
_U32 = np.uint64(32)


@inlined
def store_pair(to: int, high: int, low: int) -> None:
    """Write two be32."""
    store_word(to, swap_bytes(np.uint64(high) << _U32 | np.uint64(low)))


@inlined
def find_block(packet: int, names: Bytes, blocks: int) -> int:
    """Return the number of the block that a packet names, -1 if there is no such block."""
    for block in range(blocks):
        different = np.uint64(0)
        for at in range(0, NAME_BYTES, 8):
            different |= load_word(packet + NAME_AT + at) ^ load_word(
                address(names) + block * NAME_BYTES + at
            )
        if different == np.uint64(0):
            return block
    return -1


@inlined
def refuse(progress: Integers, field: int, found: int) -> int:
    """Store the number and the value of a wrong field in `progress`; return BAD_FIELD."""
    progress[FIELD] = field
    progress[FOUND] = found
    return BAD_FIELD


@inlined
def check_packet(packet: int, carried: int, progress: Integers) -> int:
    """Check the numbers of a packet; return SYNCED if they are right, else BAD_FIELD."""
    word = swap_bytes(load_word(packet))
    if word >> _U32 != np.uint64(MAGIC):
        return refuse(progress, _BAD_MAGIC, np.int64(word >> _U32))
    if word & _LOW != np.uint64(VERSION):
        return refuse(progress, _BAD_VERSION, np.int64(word & _LOW))
    word = swap_bytes(load_word(packet + 8))
    if word >> _U32 > np.uint64(SYNC):
        return refuse(progress, _BAD_FLAGS, np.int64(word >> _U32))
    if word & _LOW != np.uint64(PACKET_PAGES):
        return refuse(progress, _BAD_ALLOC, np.int64(word & _LOW))
    word = swap_bytes(load_word(packet + 16))
    normal = np.int64(word >> _U32)
    if normal > PACKET_PAGES:
        return refuse(progress, _BAD_NORMAL, normal)
    if np.int64(word & _LOW) != carried * normal * PAGE_SIZE:
        return refuse(progress, _BAD_SIZE, np.int64(word & _LOW))
    zero = np.int64(swap_bytes(load_word(packet + ZERO_PAGES_AT)) >> _U32)
    if normal + zero > PACKET_PAGES:
        return refuse(progress, _BAD_ZERO, zero)
    return SYNCED


@inlined
def check_offsets(packet: int, count: int, block_pages: int, progress: Integers) -> int:
    """Check that every page of a packet is in the block; return SYNCED, else BAD_FIELD."""
    limit = np.uint64(block_pages * PAGE_SIZE)
    for i in range(count):
        offset = swap_bytes(load_word(packet + OFFSETS_AT + 8 * i))
        if offset >= limit or offset & np.uint64(PAGE_SIZE - 1):
            return refuse(progress, _BAD_OFFSET, np.int64(offset))
    return SYNCED


@inlined
def offset_of(packet: int, i: int) -> int:
    """Return the offset of page `i` of a packet, which was checked."""
    offset: int = np.int64(swap_bytes(load_word(packet + OFFSETS_AT + 8 * i)))
    return offset
