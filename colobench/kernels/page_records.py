"""Page records in a buffer, in the format of QEMU's RAM section: encoded and decoded.

A record is be64 (offset in the block | flags), then 4096 bytes (PAGE) or one fill byte (ZERO).
All records here are CONTINUE records, which name no block; only the first one may name its block.
Source: QEMU's migration/ram.c, RAM_SAVE_FLAG_*. `colobench.kernels.socket_io` sends and receives
records without such a buffer.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.bitmap import mark
from colobench.kernels.jit import Bytes, Integers, Pages, Words, inlined, kernel
from colobench.kernels.pages import PAGE_SIZE, is_zero_page
from colobench.kernels.raw import clear, copy, fence, load_word, store_word, stream, swap_bytes

#: Flags of a record's header.
ZERO, PAGE, CONTINUE = 0x02, 0x08, 0x20
HEADER_BYTES = 8
ZERO_RECORD_BYTES = HEADER_BYTES + 1
PAGE_RECORD_BYTES = HEADER_BYTES + PAGE_SIZE
#: Most bytes by which a name lengthens a record.
NAME_BYTES = 256

#: Results of `take_page_records`; `receive_page_records` also returns END and -errno.
NEXT, MORE, BAD_PAGE, BAD_FILL, END = range(5)
#: Slots of their `cursor`.
START, STOP, PAGES, ZERO_PAGES, BAD, BYTES_READ = range(6)
CURSOR_SLOTS = 6

_PAGE_BITS = np.uint64(12)
_KIND = np.uint64(PAGE_SIZE - 1)
_PAGE_RECORD = np.uint64(PAGE | CONTINUE)
_ZERO_RECORD = np.uint64(ZERO | CONTINUE)


@inlined
def put_header(to: int, offset: int, flags: int, named: int, name: Bytes) -> int:
    """Write a record's header, then the block's name if `named`; return the bytes written."""
    if named:
        store_word(to, swap_bytes(np.uint64(offset | flags)))
        copy(to + HEADER_BYTES, address(name), len(name))
        return HEADER_BYTES + len(name)
    store_word(to, swap_bytes(np.uint64(offset | flags | CONTINUE)))
    return HEADER_BYTES


@kernel("i8(u1[::1], u1[::1], i4[::1], i8, i8, i8, i8, u1[::1], i8[::1])")
def encode_page_records(
    out: Bytes,
    memory: Bytes,
    pages: Pages,
    begin: int,
    end: int,
    first_page: int,
    named: int,
    name: Bytes,
    progress: Integers,
) -> int:
    """Encode page records into a buffer: the bytes that `send_page_records` would send.

    Parameters
    ----------
    out
        uint8, room for ``len(name) + PAGE_RECORD_BYTES * (end - begin)`` bytes.
    memory
        uint8[bytes], whole pages; the record of an all-zero page is ZERO.
    pages
        int32; pages[begin:end] are the pages of `memory` to encode, all of one block.
    begin, end
        Range of entries in `pages`.
    first_page
        The block's first page in `memory`; offsets in the records count from it.
    named
        1: the first record has `name` in place of CONTINUE.
    name
        uint8[1 + n], the block's name after its length n; not read if `named` is 0.
    progress
        int64[2], set to the number of bytes and the number of ZERO records.

    Returns
    -------
    int
        Number of bytes written to `out`.
    """
    progress[1] = 0
    at = address(out)
    for i in range(begin, end):
        page = address(memory) + pages[i] * PAGE_SIZE
        offset = (pages[i] - first_page) * PAGE_SIZE
        zero = is_zero_page(page)
        at += put_header(at, offset, ZERO if zero else PAGE, named and i == begin, name)
        if zero:
            clear(at, 1)
            at += 1
            progress[1] += 1
        else:
            copy(at, page, PAGE_SIZE)
            at += PAGE_SIZE
    length: int = at - address(out)
    progress[0] = length
    return length


@kernel("i8(u1[::1], i8[::1], u1[::1], u8[::1], i8, i8)")
def take_page_records(
    buffer: Bytes, cursor: Integers, memory: Bytes, bitmap: Words, first_page: int, block_pages: int
) -> int:
    """Store the pages of complete CONTINUE records from a buffer at their places.

    Parameters
    ----------
    buffer
        uint8; the bytes are ``buffer[cursor[START]:cursor[STOP]]``.
    cursor
        int64[CURSOR_SLOTS]. START is moved behind the last record taken. PAGES and ZERO_PAGES are
        set to the number of records that this call took, and of ZERO records among them.
    memory
        uint8, whole pages, a multiple of 64 of them; each page is written whole or not at all.
    bitmap
        uint64, one bit for each page of `memory`, set once the page is stored.
    first_page, block_pages
        The block's first page in `memory` and its number of pages; a record's page must be in it.

    Returns
    -------
    int
        NEXT: the next record is of another kind. MORE: the next record is incomplete or missing.
        BAD_PAGE: its offset, stored in cursor[BAD] as int64, is not a page of the block.
        BAD_FILL: its fill byte, stored in cursor[BAD], is not 0.
    """
    at, stop = address(buffer) + cursor[START], address(buffer) + cursor[STOP]
    cursor[PAGES] = 0
    cursor[ZERO_PAGES] = 0
    status = MORE
    while stop - at >= HEADER_BYTES:
        header = swap_bytes(load_word(at))
        kind = header & _KIND
        if kind != _PAGE_RECORD and kind != _ZERO_RECORD:
            status = NEXT
            break
        offset = np.int64(header - kind)
        if not 0 <= offset < block_pages * PAGE_SIZE:
            cursor[BAD] = offset
            status = BAD_PAGE
            break
        page = first_page + np.int64(header >> _PAGE_BITS)
        place = address(memory) + page * PAGE_SIZE
        if kind == _PAGE_RECORD:
            if stop - at < PAGE_RECORD_BYTES:
                break
            stream(place, at + HEADER_BYTES, PAGE_SIZE)
            at += PAGE_RECORD_BYTES
        else:
            if stop - at < ZERO_RECORD_BYTES:
                break
            fill = buffer[at + HEADER_BYTES - address(buffer)]
            if fill:
                cursor[BAD] = fill
                status = BAD_FILL
                break
            clear(place, PAGE_SIZE)
            cursor[ZERO_PAGES] += 1
            at += ZERO_RECORD_BYTES
        mark(bitmap, page)
        cursor[PAGES] += 1
    cursor[START] = at - address(buffer)
    fence()
    return status
