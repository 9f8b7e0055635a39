"""Page records between sockets and guest memory, many in one call.

`colobench.kernels.page_records` describes a record. Sockets are blocking, with SO_RCVTIMEO and
SO_SNDTIMEO as limits. A call that a signal interrupts goes on; Python's own signal handlers run
after the kernel.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Integers, Pages, Words, inlined, kernel
from colobench.kernels.libc import EINTR, errno, read, writev
from colobench.kernels.page_records import (
    BAD,
    BYTES_READ,
    END,
    MORE,
    NAME_BYTES,
    PAGE,
    PAGES,
    START,
    STOP,
    ZERO,
    ZERO_PAGES,
    ZERO_RECORD_BYTES,
    put_header,
    take_page_records,
)
from colobench.kernels.pages import PAGE_SIZE, is_zero_page
from colobench.kernels.raw import clear

#: Linux's limit of buffers in one writev (IOV_MAX).
_IOV_MAX = 1024
#: Sizes of the scratch arrays of `send_page_records`: words of `iov`, bytes of `headers`.
IOV_WORDS = 2 * _IOV_MAX
HEADERS_BYTES = 16384


@inlined
def add_buffer(iov: Words, entries: int, begin: int, length: int) -> int:
    """Append a buffer to the vector, or extend the last one if it ends at `begin`."""
    last = 2 * (entries - 1)
    if entries and np.int64(iov[last] + iov[last + 1]) == begin:
        iov[last + 1] += np.uint64(length)
        return entries
    iov[2 * entries] = np.uint64(begin)
    iov[2 * entries + 1] = np.uint64(length)
    return entries + 1


@inlined
def write_all(fd: int, iov: Words, entries: int, progress: Integers) -> int:
    """Write the whole vector, in one call or in several; return 0 or -errno."""
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
    """Write page records to a socket, the pages directly from memory.

    Parameters
    ----------
    fd
        A blocking stream socket.
    memory
        uint8[bytes], whole pages; the record of an all-zero page is ZERO.
    pages
        int32; pages[begin:end] are the pages of `memory` to send, all of one block.
    begin, end
        Range of entries in `pages`.
    first_page
        The block's first page in `memory`; offsets in the records count from it.
    named
        1: the first record has `name` in place of CONTINUE.
    name
        uint8[1 + n], the block's name after its length n; not read if `named` is 0.
    lead
        uint8; its first `lead_length` bytes are written before the first record, in the same call.
    lead_length
        Number of these bytes.
    headers, iov
        uint8[HEADERS_BYTES] and uint64[IOV_WORDS], overwritten.
    progress
        int64[2], set to the number of bytes and of ZERO records written, also on failure.

    Returns
    -------
    int
        0, or -errno: EAGAIN if SO_SNDTIMEO ran out, EPIPE or ECONNRESET if the peer is gone.
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
        length = put_header(at, offset, ZERO if zero else PAGE, named and i == begin, name)
        if zero:
            clear(at + length, 1)
            length += 1
            progress[1] += 1
        entries = add_buffer(iov, entries, at, length)
        at += length
        if not zero:
            entries = add_buffer(iov, entries, page, PAGE_SIZE)
    return write_all(fd, iov, entries, progress)


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
    """Take page records from a buffer, and read more from a socket as long as records follow.

    Parameters
    ----------
    fd
        A blocking stream socket.
    buffer
        uint8, at least PAGE_RECORD_BYTES; bytes that are read after the records stay in it.
    cursor
        As in `take_page_records`; BYTES_READ is the number of bytes that this call has read so far.
    memory, bitmap, first_page, block_pages
        As in `take_page_records`.

    Returns
    -------
    int
        NEXT, BAD_PAGE or BAD_FILL, as in `take_page_records`. END: the peer has closed the stream,
        cursor[BAD] bytes after the last record. -errno: EAGAIN if SO_RCVTIMEO ran out.
        In each case the call can be repeated.

    Notes
    -----
    Pages go through the buffer, because a page's place is known only once its header has been read.
    If the buffer stays in the CPU's second-level cache, that copy costs almost nothing.
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
