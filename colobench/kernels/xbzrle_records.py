"""Page records with XBZRLE among them: encoded into a buffer, and decoded from one.

`colobench.kernels.page_records` describes a record. Instead of the page's bytes, an XBZRLE record
has the encoding of the changed bytes (`colobench.kernels.xbzrle`): u8 1, be16 length, and that
number of bytes. Source: QEMU's migration/ram.c, and docs/devel/migration/xbzrle.rst for the rule by
which a page enters the sender's cache.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.bitmap import mark
from colobench.kernels.jit import Bytes, Integers, Pages, Words, inlined, kernel
from colobench.kernels.page_records import (
    CONTINUE,
    HEADER_BYTES,
    MORE,
    NAME_BYTES,
    NEXT,
    PAGE,
    PAGE_RECORD_BYTES,
    PAGES,
    START,
    STOP,
    ZERO,
    ZERO_PAGES,
    put_header,
    take_page_records,
)
from colobench.kernels.pages import PAGE_SIZE, is_zero_page
from colobench.kernels.raw import clear, copy, load_word, swap_bytes
from colobench.kernels.xbzrle import MALFORMED, OVERFLOW, SLACK, decode, encode_page

#: Flag of a record's header, number of the only encoding, and bytes before the encoding.
XBZRLE, ENCODING_XBZRLE, ENCODING_BYTES = 0x40, 1, 3
#: Bytes of room that `put_xbzrle_records` needs for one record.
RECORD_BYTES = PAGE_RECORD_BYTES + NAME_BYTES + ENCODING_BYTES + SLACK
#: Collections of dirty pages for which an unused page keeps its slot in the sender's cache.
LIFETIME = 2
#: Slots of `progress` of `put_xbzrle_records`.
AT, RECORDS, PUT_ZERO_PAGES, ENCODED_PAGES, BYTES_SAVED = range(5)
PROGRESS_SLOTS = 5

_KIND = np.uint64(PAGE_SIZE - 1)
_XBZRLE_RECORD = np.uint64(XBZRLE | CONTINUE)


@inlined
def _place_in_cache(page: int, cached: Pages, ages: Pages, age: int) -> int:
    """Return the slot of a page in the cache, or -1 if its slot has another, recently used page."""
    slot = page & (len(cached) - 1)
    if cached[slot] != page and cached[slot] >= 0 and ages[slot] + LIFETIME > age:
        return -1
    return slot


@kernel(
    "i8(u1[::1], u1[::1], i4[::1], i8, i8, i8, i8, u1[::1], u1[::1], i4[::1], i4[::1], i8, u1[::1],"
    " i8[::1])"
)
def put_xbzrle_records(
    out: Bytes,
    memory: Bytes,
    pages: Pages,
    begin: int,
    end: int,
    first_page: int,
    named: int,
    name: Bytes,
    cache: Bytes,
    cached: Pages,
    ages: Pages,
    age: int,
    scratch: Bytes,
    progress: Integers,
) -> int:
    """Encode page records into a buffer as long as there is room, and keep the pages in a cache.

    A page in the cache is encoded by its difference from the cached one, or left out if it is
    equal. A page that is not in the cache, or whose encoding is no shorter than a page, is put
    whole.

    Parameters
    ----------
    out
        uint8, at least RECORD_BYTES, overwritten, also after the records.
    memory, pages, begin, end, first_page, named, name
        As in `page_records.encode_page_records`; the guest may write the pages meanwhile.
    cache
        uint8[4096 * slots]: pages as the receiver has them.
    cached
        int32[slots], a power of 2: number of the page in each slot, or -1. The lower bits of a
        page's number are the number of its slot.
    ages
        int32[slots]: the `age` at which each slot was last used.
    age
        Number of this collection of dirty pages; never smaller than before.
    scratch
        uint8[4096], overwritten.
    progress
        int64[PROGRESS_SLOTS], set to the next entry of `pages`, the number of records, the number
        of ZERO ones among them, the number of pages encoded or left out, and the bytes saved.

    Returns
    -------
    int
        Number of bytes written to `out`.
    """
    progress[:] = 0
    to = address(out)
    limit = to + len(out) - RECORD_BYTES
    now = address(scratch)
    i = begin
    while i < end and to <= limit:
        page = pages[i]
        offset = (page - first_page) * PAGE_SIZE
        naming = int(named != 0 and progress[RECORDS] == 0)
        # The same copy is encoded, sent and cached, because the guest may write meanwhile.
        copy(now, address(memory) + page * PAGE_SIZE, PAGE_SIZE)
        slot = _place_in_cache(page, cached, ages, age)
        known = slot >= 0 and cached[slot] == page
        kept = address(cache) + slot * PAGE_SIZE
        i += 1
        if is_zero_page(now):
            to += put_header(to, offset, ZERO, naming, name)
            clear(to, 1)
            to += 1
            progress[PUT_ZERO_PAGES] += 1
        else:
            header, length = 0, OVERFLOW
            if known:
                header = put_header(to, offset, XBZRLE, naming, name)
                length = encode_page(kept, now, to + header + ENCODING_BYTES, PAGE_SIZE)
            if length == 0:
                ages[slot] = age
                progress[ENCODED_PAGES] += 1
                progress[BYTES_SAVED] += PAGE_RECORD_BYTES
                continue
            if length == OVERFLOW:
                to += put_header(to, offset, PAGE, naming, name)
                copy(to, now, PAGE_SIZE)
                to += PAGE_SIZE
            else:
                to += header
                out[to - address(out)] = ENCODING_XBZRLE
                out[to - address(out) + 1] = length >> 8
                out[to - address(out) + 2] = length & 0xFF
                to += ENCODING_BYTES + length
                progress[ENCODED_PAGES] += 1
                progress[BYTES_SAVED] += PAGE_SIZE - ENCODING_BYTES - length
        progress[RECORDS] += 1
        if slot >= 0:
            copy(kept, now, PAGE_SIZE)
            cached[slot] = page
            ages[slot] = age
    progress[AT] = i
    total: int = to - address(out)
    return total


@kernel("i8(u1[::1], i8[::1], u1[::1], u8[::1], i8, i8, u1[::1])")
def take_xbzrle_records(
    buffer: Bytes,
    cursor: Integers,
    memory: Bytes,
    bitmap: Words,
    first_page: int,
    block_pages: int,
    scratch: Bytes,
) -> int:
    """Store the pages of complete CONTINUE records, XBZRLE ones among them, at their places.

    Parameters
    ----------
    buffer, cursor, memory, bitmap, first_page, block_pages
        As in `page_records.take_page_records`. `memory` has the pages that were sent last.
    scratch
        uint8[4096], overwritten.

    Returns
    -------
    int
        As from `page_records.take_page_records`; NEXT also for a wrong XBZRLE record.
    """
    pages, zero_pages = 0, 0
    while True:
        status: int = take_page_records(buffer, cursor, memory, bitmap, first_page, block_pages)
        pages += cursor[PAGES]
        zero_pages += cursor[ZERO_PAGES]
        if status != NEXT:
            break
        begin = cursor[START]
        here = address(buffer) + begin
        header = swap_bytes(load_word(here))
        offset = np.int64(header - (header & _KIND))
        if header & _KIND != _XBZRLE_RECORD or not 0 <= offset < block_pages * PAGE_SIZE:
            break
        left = cursor[STOP] - begin - HEADER_BYTES - ENCODING_BYTES
        if left < 0:
            status = MORE
            break
        length = np.int64(buffer[begin + HEADER_BYTES + 1]) << 8
        length |= np.int64(buffer[begin + HEADER_BYTES + 2])
        if buffer[begin + HEADER_BYTES] != ENCODING_XBZRLE or length > PAGE_SIZE:
            break
        if left < length:
            status = MORE
            break
        page = first_page + offset // PAGE_SIZE
        place = address(memory) + page * PAGE_SIZE
        # Decode into a copy: a wrong encoding is found only after part of it is decoded.
        copy(address(scratch), place, PAGE_SIZE)
        data = begin + HEADER_BYTES + ENCODING_BYTES
        # Not a literal, for which numba would compile `decode` once more.
        if decode(scratch, np.int64(0), buffer, data, length) == MALFORMED:
            break
        copy(place, address(scratch), PAGE_SIZE)
        mark(bitmap, page)
        pages += 1
        cursor[START] = data + length
    cursor[PAGES] = pages
    cursor[ZERO_PAGES] = zero_pages
    return status
