"""Packets of compressed pages, between guest memory and buffers: QEMU's multifd with compression.

`colobench.wire.compressed_packets` describes them. A library compresses the pages in between.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address, fetch_or
from colobench.kernels.jit import Bytes, Integers, Pages, Words, kernel
from colobench.kernels.multifd_packets import (
    MAGIC,
    NAME_AT,
    NAME_BYTES,
    OFFSETS_AT,
    PACKET_BYTES,
    PACKET_PAGES,
    SYNCED,
    VERSION,
    ZERO_PAGES_AT,
    check_offsets,
    offset_of,
    store_pair,
)
from colobench.kernels.pages import PAGE_SIZE, is_zero_page
from colobench.kernels.raw import clear, copy, fence, store_word, stream, swap_bytes

_ONE = np.uint64(1)


@kernel("i8(u1[::1], u1[::1], i4[::1], i8, i8, i8, u1[::1], i8, u1[::1])")
def fill_packet(
    packet: Bytes,
    memory: Bytes,
    pages: Pages,
    start: int,
    stop: int,
    first_page: int,
    name: Bytes,
    number: int,
    out: Bytes,
) -> int:
    """Fill in a packet, and copy its pages together; flags and next_packet_size are left 0.

    Parameters
    ----------
    packet
        uint8[PACKET_BYTES], overwritten.
    memory
        uint8[bytes], whole pages.
    pages
        int32; pages[start:stop], at most PACKET_PAGES, are the pages of `memory`, all of one block.
    start, stop
        Range of entries in `pages`.
    first_page
        The block's first page in `memory`; offsets in the packet count from it.
    name
        uint8[NAME_BYTES], the block's name, padded with 0.
    number
        The packet's number.
    out
        uint8[PACKET_PAGES * PAGE_SIZE], gets the pages that are not all zero.

    Returns
    -------
    int
        Number of pages in `out`.
    """
    to = address(packet)
    normal, tail = 0, stop - start
    for i in range(start, stop):
        offset = np.uint64((pages[i] - first_page) * PAGE_SIZE)
        page = address(memory) + pages[i] * PAGE_SIZE
        if is_zero_page(page):
            tail -= 1
            store_word(to + OFFSETS_AT + 8 * tail, swap_bytes(offset))
            continue
        store_word(to + OFFSETS_AT + 8 * normal, swap_bytes(offset))
        copy(address(out) + normal * PAGE_SIZE, page, PAGE_SIZE)
        normal += 1
    store_pair(to, MAGIC, VERSION)
    store_pair(to + 8, 0, PACKET_PAGES)
    store_pair(to + 16, normal, 0)
    store_word(to + 24, swap_bytes(np.uint64(number)))
    store_pair(to + ZERO_PAGES_AT, stop - start - normal, 0)
    clear(to + ZERO_PAGES_AT + 8, 24)
    copy(to + NAME_AT, address(name), NAME_BYTES)
    unused = to + OFFSETS_AT + 8 * (stop - start)
    clear(unused, to + PACKET_BYTES - unused)
    return normal


@kernel("i8(u1[::1], i8, i8, i8, i8, i8, u1[::1], u8[::1], i8[::1])")
def store_packet(
    packet: Bytes,
    normal: int,
    zero: int,
    first_page: int,
    block_pages: int,
    source: int,
    memory: Bytes,
    bitmap: Words,
    progress: Integers,
) -> int:
    """Store the pages of a packet at their places.

    Parameters
    ----------
    packet
        uint8[PACKET_BYTES], whose numbers were checked.
    normal, zero
        Its numbers of pages.
    first_page, block_pages
        The first page in `memory` of the block that it names, and the block's number of pages.
    source
        Address of the pages' ``normal * PAGE_SIZE`` bytes.
    memory
        uint8, whole pages, page-aligned.
    bitmap
        uint64, one bit for each page of `memory`, set once the page is stored. Several threads may
        set bits.
    progress
        int64[PROGRESS_SLOTS]; FIELD and FOUND are set on failure.

    Returns
    -------
    int
        SYNCED. BAD_FIELD: an offset is no page of the block; then no page is stored.
    """
    here = address(packet)
    status: int = check_offsets(here, normal + zero, block_pages, progress)
    if status != SYNCED:
        return status
    for i in range(normal + zero):
        offset = offset_of(here, i)
        place = address(memory) + first_page * PAGE_SIZE + offset
        if i < normal:
            stream(place, source + i * PAGE_SIZE, PAGE_SIZE)
        else:
            clear(place, PAGE_SIZE)
    fence()
    for i in range(normal + zero):
        page = first_page + offset_of(here, i) // PAGE_SIZE
        fetch_or(bitmap, page >> 6, _ONE << np.uint64(page & 63))
    return SYNCED
