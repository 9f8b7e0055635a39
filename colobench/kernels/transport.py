"""Page records between sockets and guest memory, QEMU's RAM section format, many in one call.

A record is be64 (offset in the block | flags), then 4096 bytes (PAGE) or one fill byte (ZERO).
All records here are CONTINUE records, which name no block, but for the first one sent if the
caller wants it named. Source: QEMU's migration/ram.c, RAM_SAVE_FLAG_*.

Sockets are blocking, with SO_RCVTIMEO and SO_SNDTIMEO as limits. A call that a signal interrupts
goes on; Python's own signal handlers run when the kernel is done.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.bitmap import mark
from colobench.kernels.jit import Bytes, Integers, Pages, Words, inlined, kernel
from colobench.kernels.libc import EINTR, errno, read, writev
from colobench.kernels.pages import PAGE_SIZE, is_zero_page
from colobench.kernels.raw import clear, copy, fence, load_word, store_word, stream, swap_bytes

#: Flags of a record's header.
ZERO, PAGE, CONTINUE = 0x02, 0x08, 0x20
HEADER_BYTES = 8
ZERO_RECORD_BYTES = HEADER_BYTES + 1
PAGE_RECORD_BYTES = HEADER_BYTES + PAGE_SIZE
#: The most that a first record is longer by when it is named.
NAME_BYTES = 256

#: What `take_page_records` and `receive_page_records` return; the latter also -errno.
NEXT, MORE, BAD_PAGE, BAD_FILL, END = range(5)
#: Slots of their `cursor`.
START, STOP, PAGES, ZERO_PAGES, BAD, BYTES_READ = range(6)
CURSOR_SLOTS = 6

#: Linux's limit of buffers in one writev (IOV_MAX).
_IOV_MAX = 1024
#: Room that `send_page_records` needs: words of its `iov`, bytes of its `headers`.
IOV_WORDS = 2 * _IOV_MAX
HEADERS_BYTES = 16384

_PAGE_BITS = np.uint64(12)
_KIND = np.uint64(PAGE_SIZE - 1)
_PAGE_RECORD = np.uint64(PAGE | CONTINUE)
_ZERO_RECORD = np.uint64(ZERO | CONTINUE)


@inlined
def _put_header(to: int, offset: int, flags: int, named: int, name: Bytes) -> int:
    """Write a record's header, and the block's name behind it if `named`; the bytes written."""
    if named:
        store_word(to, swap_bytes(np.uint64(offset | flags)))
        copy(to + HEADER_BYTES, address(name), len(name))
        return HEADER_BYTES + len(name)
    store_word(to, swap_bytes(np.uint64(offset | flags | CONTINUE)))
    return HEADER_BYTES


@inlined
def add_buffer(iov: Words, entries: int, begin: int, length: int) -> int:
    """Append a buffer to the vector, or make the last one longer if it ends at `begin`."""
    last = 2 * (entries - 1)
    if entries and np.int64(iov[last] + iov[last + 1]) == begin:
        iov[last + 1] += np.uint64(length)
        return entries
    iov[2 * entries] = np.uint64(begin)
    iov[2 * entries + 1] = np.uint64(length)
    return entries + 1


@inlined
def write_all(fd: int, iov: Words, entries: int, progress: Integers) -> int:
    """Write the vector whole, however the socket splits it; 0 or -errno."""
    first = 0
    while first < entries:
        written = writev(fd, address(iov) + 16 * first, entries - first)
        if written < 0:
            failure: int = errno()
            if failure == EINTR:
                continue
            return -failure
        progress[0] += written
        while first < entries and written >= np.int64(iov[2 * first + 1]):
            written -= np.int64(iov[2 * first + 1])
            first += 1
        if first < entries:
            iov[2 * first] += np.uint64(written)
            iov[2 * first + 1] -= np.uint64(written)
    return 0


@kernel("i8(i8, u1[::1], i4[::1], i8, i8, i8, i8, u1[::1], u1[::1], i8, u1[::1], u8[::1], i8[::1])")
def send_page_records(
    fd: int,
    memory: Bytes,
    pages: Pages,
    begin: int,
    end: int,
    first_page: int,
    named: int,
    name: Bytes,
    lead: Bytes,
    lead_length: int,
    headers: Bytes,
    iov: Words,
    progress: Integers,
) -> int:
    """Write page records to a socket, the pages straight from memory.

    Parameters
    ----------
    fd
        A blocking stream socket.
    memory
        uint8[bytes], whole pages; the record of an all-zero page is ZERO.
    pages
        int32; pages[begin:end] are the pages of `memory` to send, all of one block.
    begin, end
        Which entries of `pages`.
    first_page
        The page of `memory` that the block begins with: offsets in the records count from it.
    named
        1: the first record has `name` in place of CONTINUE.
    name
        uint8[1 + n], the block's name, its length n before it; not read if `named` is 0.
    lead
        uint8; its first `lead_length` bytes go out before the first record, in the same call.
    lead_length
        How many.
    headers, iov
        uint8[HEADERS_BYTES] and uint64[IOV_WORDS], overwritten.
    progress
        int64[2], set to the bytes written and the ZERO records among them, also on failure.

    Returns
    -------
    int
        0, or -errno: EAGAIN when SO_SNDTIMEO ran out, EPIPE or ECONNRESET when the peer is gone.
    """
    progress[0] = 0
    progress[1] = 0
    entries = 0
    if lead_length:
        entries = add_buffer(iov, entries, address(lead), lead_length)
    at = address(headers)
    limit = at + HEADERS_BYTES - NAME_BYTES - ZERO_RECORD_BYTES
    for i in range(begin, end):
        if entries + 2 > _IOV_MAX or at > limit:
            status: int = write_all(fd, iov, entries, progress)
            if status:
                return status
            entries = 0
            at = address(headers)
        page = address(memory) + pages[i] * PAGE_SIZE
        offset = (pages[i] - first_page) * PAGE_SIZE
        zero = is_zero_page(page)
        length = _put_header(at, offset, ZERO if zero else PAGE, named and i == begin, name)
        if zero:
            clear(at + length, 1)
            length += 1
            progress[1] += 1
        entries = add_buffer(iov, entries, at, length)
        at += length
        if not zero:
            entries = add_buffer(iov, entries, page, PAGE_SIZE)
    return write_all(fd, iov, entries, progress)


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
    """Put page records into a buffer: the bytes that `send_page_records` would send.

    Parameters
    ----------
    out
        uint8, room for ``len(name) + PAGE_RECORD_BYTES * (end - begin)`` bytes.
    memory, pages, begin, end, first_page, named, name, progress
        As in `send_page_records`.

    Returns
    -------
    int
        The bytes put into `out`.
    """
    progress[1] = 0
    at = address(out)
    for i in range(begin, end):
        page = address(memory) + pages[i] * PAGE_SIZE
        offset = (pages[i] - first_page) * PAGE_SIZE
        zero = is_zero_page(page)
        at += _put_header(at, offset, ZERO if zero else PAGE, named and i == begin, name)
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
    """Move the pages of complete CONTINUE records from a buffer to their places.

    Parameters
    ----------
    buffer
        uint8; the bytes are ``buffer[cursor[START]:cursor[STOP]]``.
    cursor
        int64[CURSOR_SLOTS]. START moves behind the last record taken; PAGES and ZERO_PAGES are set
        to the records that this call took and the ZERO records among them.
    memory
        uint8, whole pages, a multiple of 64 of them; each page is written whole or not at all.
    bitmap
        uint64, one bit for each page of `memory`; set once the page is there.
    first_page, block_pages
        The block's pages in `memory`; the record's offset must be one of them.

    Returns
    -------
    int
        NEXT: the next record is of another kind. MORE: it is not all there, or nothing is.
        BAD_PAGE: its offset, put into cursor[BAD] as int64, is not a page of the block.
        BAD_FILL: it fills the page with the byte cursor[BAD], not 0.
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


@kernel("i8(i8, u1[::1], i8[::1], u1[::1], u8[::1], i8, i8)")
def receive_page_records(
    fd: int,
    buffer: Bytes,
    cursor: Integers,
    memory: Bytes,
    bitmap: Words,
    first_page: int,
    block_pages: int,
) -> int:
    """Take page records from a buffer, and read more from a socket as long as there are such.

    Parameters
    ----------
    fd
        A blocking stream socket.
    buffer
        uint8, room for PAGE_RECORD_BYTES or more; what is read beyond the records stays in it.
    cursor
        As in `take_page_records`; besides, BYTES_READ is at any time what this call has read.
    memory, bitmap, first_page, block_pages
        As in `take_page_records`.

    Returns
    -------
    int
        NEXT, BAD_PAGE or BAD_FILL, as in `take_page_records`. END: the peer has closed the stream,
        cursor[BAD] bytes behind the last record. -errno: EAGAIN when SO_RCVTIMEO ran out.
        After all of them the call can be made again.

    Notes
    -----
    Pages go through the buffer, for where the next one belongs is known only once its header is
    there. A buffer that stays in the CPU's second-level cache makes that copy nearly free.
    """
    pages, zero_pages = 0, 0
    cursor[BYTES_READ] = 0
    while True:
        status: int = take_page_records(buffer, cursor, memory, bitmap, first_page, block_pages)
        pages += cursor[PAGES]
        zero_pages += cursor[ZERO_PAGES]
        if status != MORE:
            break
        held = cursor[STOP] - cursor[START]
        for i in range(held):
            buffer[i] = buffer[cursor[START] + i]
        cursor[START] = 0
        cursor[STOP] = held
        count = read(fd, address(buffer) + held, len(buffer) - held)
        if count == 0:
            cursor[BAD] = held
            status = END
            break
        if count < 0:
            if errno() == EINTR:
                continue
            status = -errno()
            break
        cursor[BYTES_READ] += count
        cursor[STOP] += count
    cursor[PAGES] = pages
    cursor[ZERO_PAGES] = zero_pages
    return status
