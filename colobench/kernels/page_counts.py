"""Page records in a buffer, counted and skipped: for a reader that keeps no RAM.

The records are those of `colobench.kernels.page_records`, and QEMU's XBZRLE and COMPRESS_PAGE ones.
Source: QEMU's migration/ram.c, RAM_SAVE_FLAG_*, and docs/xbzrle.txt.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Integers, inlined, kernel
from colobench.kernels.page_records import (
    BAD_PAGE,
    CONTINUE,
    HEADER_BYTES,
    MORE,
    NEXT,
    PAGE,
    PAGE_RECORD_BYTES,
    START,
    STOP,
    ZERO,
    ZERO_RECORD_BYTES,
)
from colobench.kernels.pages import PAGE_SIZE
from colobench.kernels.raw import clear, copy, load_word, swap_bytes

#: Flags of the records that `page_records` does not have.
XBZRLE, COMPRESS_PAGE = 0x40, 0x100
#: Most bytes of an encoded or compressed page that the kernel takes.
MOST_COMPRESSED = 2 * PAGE_SIZE

#: Slots of `counts`: records by kind, bytes of encoded pages, records of a page that had come
#: before, first and last page, and the page that is none of the block.
PAGES, ZEROS, XBZRLES, COMPRESSED, XBZRLE_BYTES, COMPRESSED_BYTES, DUPLICATES = range(7)
FIRST, LAST, BAD = range(7, 10)
COUNT_SLOTS = 10
#: A further result of `count_page_records`: the next record is of another kind than those before.
CHANGE = 5

_PAGE_BITS = np.uint64(12)
_FLAGS = np.uint64(PAGE_SIZE - 1)
_LOW_24, _LOW_32 = np.uint64(0xFFFFFF), np.uint64(0xFFFFFFFF)
_XBZRLE_HEAD = HEADER_BYTES + 3
_COMPRESSED_HEAD = HEADER_BYTES + 4
#: Encoding number of XBZRLE, above its length of two bytes.
_ENCODING = 1 << 16


@inlined
def _is_encoding(buffer: Bytes, at: int, stop: int) -> bool:
    """Say whether ``buffer[at:stop]`` is an XBZRLE encoding of changes within one page."""
    first = at
    place = 0
    changed = False
    while at < stop:
        length = np.int64(buffer[at])
        at += 1
        if length & 0x80:
            if at == stop or buffer[at] & 0x80:
                return False
            length = (length & 0x7F) | np.int64(buffer[at]) << 7
            at += 1
        # Only the first run of unchanged bytes may be empty.
        if length == 0 and (changed or at > first + 1):
            return False
        place += length
        if changed:
            at += length
        if place > PAGE_SIZE or at > stop:
            return False
        changed = not changed
    return not changed


@kernel("i8(u1[::1], i8[::1], i8[::1], u1[::1], i8, i8, u1[::1], i8)")
def count_page_records(
    buffer: Bytes,
    cursor: Integers,
    counts: Integers,
    seen: Bytes,
    block_pages: int,
    one_kind: int,
    kept: Bytes,
    first_kept: int,
) -> int:
    """Count complete CONTINUE records in a buffer, and skip them.

    Parameters
    ----------
    buffer
        uint8; the bytes are ``buffer[cursor[START]:cursor[STOP]]``.
    cursor
        int64[CURSOR_SLOTS]. START is moved behind the last record taken.
    counts
        int64[COUNT_SLOTS], set to what this call has counted.
    seen
        uint8, one for each of the block's first pages: 0, or 1 + the kind of the page's last
        record (PAGES, ZEROS, XBZRLES, COMPRESSED). Records of pages beyond it are not compared.
    block_pages
        The block's number of pages; a record's page must be in it.
    one_kind
        1: stop in front of a record of another kind than the first.
    kept, first_kept
        uint8, whole pages, and the number of their first page in the block. PAGE and ZERO records
        of these pages are stored there. Other records of them are not taken, and of a single page
        none is, so that who asked for it sees each of them.

    Returns
    -------
    int
        NEXT: the next record is of another kind, or too unusual to be taken. CHANGE: as said under
        `one_kind`. MORE: the next record is incomplete or missing. BAD_PAGE: its page, stored in
        counts[BAD], is none of the block.
    """
    begin = address(buffer)
    at, stop = begin + cursor[START], begin + cursor[STOP]
    counts[:] = 0
    end_kept = first_kept + len(kept) // PAGE_SIZE
    known = len(seen)
    kind = before = -1
    status = MORE
    while stop - at >= HEADER_BYTES:
        header = swap_bytes(load_word(at))
        flags = np.int64(header & _FLAGS)
        encoded = 0
        if flags == PAGE | CONTINUE:
            kind = PAGES
            size = PAGE_RECORD_BYTES
        elif flags == ZERO | CONTINUE:
            kind = ZEROS
            size = ZERO_RECORD_BYTES
        elif flags == XBZRLE | CONTINUE:
            kind = XBZRLES
            if stop - at < _XBZRLE_HEAD:
                break
            # The encoding's number, then its length.
            encoded = np.int64(swap_bytes(load_word(at + 3)) & _LOW_24) - _ENCODING
            size = _XBZRLE_HEAD + encoded
        elif flags == COMPRESS_PAGE | CONTINUE:
            kind = COMPRESSED
            if stop - at < _COMPRESSED_HEAD:
                break
            encoded = np.int64(swap_bytes(load_word(at + 4)) & _LOW_32)
            size = _COMPRESSED_HEAD + encoded
        else:
            status = NEXT
            break
        if not 0 <= encoded <= MOST_COMPRESSED:
            status = NEXT
            break
        page = np.int64(header >> _PAGE_BITS)
        if page >= block_pages:
            counts[BAD] = page
            status = BAD_PAGE
            break
        if one_kind and before >= 0 and kind != before:
            status = CHANGE
            break
        if stop - at < size:
            break
        if kind == XBZRLES:
            body = at - begin + _XBZRLE_HEAD
            if not _is_encoding(buffer, body, body + encoded):
                status = NEXT
                break
        if first_kept <= page < end_kept:
            place = address(kept) + (page - first_kept) * PAGE_SIZE
            if end_kept == first_kept + 1:
                status = NEXT
                break
            if kind == PAGES:
                copy(place, at + HEADER_BYTES, PAGE_SIZE)
            elif kind == ZEROS and buffer[at + HEADER_BYTES - begin] == 0:
                clear(place, PAGE_SIZE)
            else:
                status = NEXT
                break
        counts[XBZRLE_BYTES] += encoded if kind == XBZRLES else 0
        counts[COMPRESSED_BYTES] += encoded if kind == COMPRESSED else 0
        if before < 0:
            counts[FIRST] = page
        counts[LAST] = page
        counts[kind] += 1
        if page < known:
            counts[DUPLICATES] += seen[page] != 0
            seen[page] = 1 + kind
        before = kind
        at += size
    cursor[START] = at - begin
    return status
