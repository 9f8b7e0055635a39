"""Packets of pages between sockets and guest memory, QEMU's multifd format, many in one call.

`colobench.wire.multifd` describes a packet. It names all of its pages before their bytes, so the
bytes are read from the socket directly to their places.

A packet may also come without bytes. Then the receiver has mapped the sender's memory, and copies
the pages from there.

Sockets are blocking, with SO_RCVTIMEO and SO_SNDTIMEO as limits. A call that a signal interrupts
goes on.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address, fetch_or
from colobench.kernels.jit import Bytes, Integers, Pages, Words, inlined, kernel
from colobench.kernels.libc import EINTR, errno, readv, splice, vmsplice
from colobench.kernels.multifd_packets import (
    BAD_FIELD,
    BAD_NAME,
    BYTES,
    END,
    MAGIC,
    NAME_AT,
    NAME_BYTES,
    OFFSETS_AT,
    PACKET_AT,
    PACKET_BYTES,
    PACKET_PAGES,
    PAGES,
    SYNCED,
    VERSION,
    ZERO_PAGES,
    ZERO_PAGES_AT,
    check_offsets,
    check_packet,
    find_block,
    offset_of,
    refuse,
    store_pair,
)
from colobench.kernels.pages import PAGE_SIZE, is_zero_page
from colobench.kernels.raw import clear, copy, fence, load_word, store_word, stream, swap_bytes
from colobench.kernels.socket_io import add_buffer, write_all

#: Packets in one writev, limited by Linux's number of buffers (IOV_MAX = 1024).
_PACKETS_PER_WRITE = 7
#: Sizes of the kernels' scratch arrays: bytes of `packets` and of `packet`, words of `iov`.
SEND_BYTES = _PACKETS_PER_WRITE * PACKET_BYTES
RECEIVE_BYTES = 2 * PACKET_BYTES
IOV_WORDS = 2 * _PACKETS_PER_WRITE * (PACKET_PAGES + 1)
#: Most pages of a call that are copied through the CPU's cache: so few are flushed from there.
_CACHED_PAGES = 1024
_ONE = np.uint64(1)
_U32 = np.uint64(32)


@inlined
def _splice_all(
    fd: int, pipe_out: int, pipe_in: int, iov: Words, first: int, entries: int, progress: Integers
) -> int:
    """Pass the pages of iov[first:entries] to the socket without a copy; return 0 or -errno."""
    while first < entries:
        taken = vmsplice(pipe_in, address(iov) + 16 * first, entries - first, 0)
        if taken < 0:
            failure: int = errno()
            if failure == EINTR:
                continue
            return -failure
        left = taken
        while left > 0:
            given = splice(pipe_out, 0, fd, 0, left, 0)
            if given < 0:
                failure = errno()
                if failure == EINTR:
                    continue
                return -failure
            left -= given
            progress[BYTES] += given
        while first < entries and taken >= np.int64(iov[2 * first + 1]):
            taken -= np.int64(iov[2 * first + 1])
            first += 1
        if first < entries:
            iov[2 * first] += np.uint64(taken)
            iov[2 * first + 1] -= np.uint64(taken)
    return 0


@kernel(
    "i8(i8, i8, i8, u1[::1], i4[::1], i8, i8, i8, u1[::1], i8, i8, i8, i8, u1[::1], u8[::1],"
    " i8[::1])"
)
def send_packets(
    fd: int,
    pipe_out: int,
    pipe_in: int,
    memory: Bytes,
    pages: Pages,
    begin: int,
    end: int,
    first_page: int,
    name: Bytes,
    channel: int,
    channels: int,
    number: int,
    carried: int,
    packets: Bytes,
    iov: Words,
    progress: Integers,
) -> int:
    """Write one channel's packets of a page list to its socket, the pages directly from memory.

    Parameters
    ----------
    fd
        A blocking stream socket.
    pipe_out, pipe_in
        Both ends of an empty pipe, through which the socket is given the pages themselves. The
        receiver then reads what is written to them before it reads. On a UNIX socket this saves a
        copy. With -1 the pages are copied.
    memory
        uint8[bytes], whole pages.
    pages
        int32; pages[begin:end] are the pages of `memory` to send, all of one block.
    begin, end
        Range of entries in `pages`.
    first_page
        The block's first page in `memory`; offsets in the packets count from it.
    name
        uint8[NAME_BYTES], the block's name, padded with 0.
    channel, channels
        Number of this channel, and number of channels; they get the packets in turn.
    number
        Number of the list's first packet.
    carried
        1: the pages' bytes follow each packet, except all-zero pages, which are named as such.
        0: no bytes follow, and no page is read.
    packets, iov
        uint8[SEND_BYTES] and uint64[IOV_WORDS], overwritten.
    progress
        int64[PROGRESS_SLOTS]; BYTES, PAGES and ZERO_PAGES are increased by what was written, also
        on failure (pages of packets that were begun count).

    Returns
    -------
    int
        0, or -errno: EAGAIN if SO_SNDTIMEO ran out, EPIPE or ECONNRESET if the peer is gone.
    """
    entries, used = 0, 0
    index = channel
    while begin + index * PACKET_PAGES < end:
        start = begin + index * PACKET_PAGES
        stop = min(start + PACKET_PAGES, end)
        packet = address(packets) + used * PACKET_BYTES
        entries = add_buffer(iov, entries, packet, PACKET_BYTES)
        normal, tail = 0, stop - start
        for i in range(start, stop):
            offset = np.uint64((pages[i] - first_page) * PAGE_SIZE)
            page = address(memory) + pages[i] * PAGE_SIZE
            if carried and is_zero_page(page):
                tail -= 1
                store_word(packet + OFFSETS_AT + 8 * tail, swap_bytes(offset))
                continue
            store_word(packet + OFFSETS_AT + 8 * normal, swap_bytes(offset))
            normal += 1
            if carried:
                entries = add_buffer(iov, entries, page, PAGE_SIZE)
        zero = stop - start - normal
        store_pair(packet, MAGIC, VERSION)
        store_pair(packet + 8, 0, PACKET_PAGES)
        store_pair(packet + 16, normal, carried * normal * PAGE_SIZE)
        store_word(packet + 24, swap_bytes(np.uint64(number + index)))
        store_pair(packet + ZERO_PAGES_AT, zero, 0)
        clear(packet + ZERO_PAGES_AT + 8, 24)
        copy(packet + NAME_AT, address(name), NAME_BYTES)
        unused = packet + OFFSETS_AT + 8 * (stop - start)
        clear(unused, packet + PACKET_BYTES - unused)
        progress[PAGES] += stop - start
        progress[ZERO_PAGES] += zero
        used += 1
        index += channels
        status = 0
        if pipe_in >= 0:
            # The first buffer is the packet. It is copied, because it is soon overwritten.
            status = write_all(fd, iov, 1, progress)
            if status == 0:
                status = _splice_all(fd, pipe_out, pipe_in, iov, 1, entries, progress)
            entries, used = 0, 0
        elif used == _PACKETS_PER_WRITE:
            status = write_all(fd, iov, entries, progress)
            entries, used = 0, 0
        if status:
            return status
    return write_all(fd, iov, entries, progress)


@inlined
def _read_until(fd: int, iov: Words, entries: int, progress: Integers, until: int) -> int:
    """Fill the vector until progress[BYTES] is at least `until`; return 0, END or -errno.

    It can be called again for the rest, because filled buffers get the length 0.
    """
    first = 0
    while progress[BYTES] < until:
        count = readv(fd, address(iov) + 16 * first, entries - first)
        if count == 0:
            return END
        if count < 0:
            failure: int = errno()
            if failure == EINTR:
                continue
            return -failure
        progress[BYTES] += count
        while first < entries and count >= np.int64(iov[2 * first + 1]):
            count -= np.int64(iov[2 * first + 1])
            iov[2 * first + 1] = np.uint64(0)
            first += 1
        if first < entries:
            iov[2 * first] += np.uint64(count)
            iov[2 * first + 1] -= np.uint64(count)
    return 0


@inlined
def _copy_pages(packet: int, normal: int, place: int, source: int, around: bool) -> None:
    """Copy a packet's pages between blocks, run by run, past the CPU's cache or through it."""
    i = 0
    while i < normal:
        offset = offset_of(packet, i)
        run = 1
        while i + run < normal and offset_of(packet, i + run) == offset + run * PAGE_SIZE:
            run += 1
        if around:
            stream(place + offset, source + offset, run * PAGE_SIZE)
        else:
            copy(place + offset, source + offset, run * PAGE_SIZE)
        i += run
    fence()


@kernel("i8(i8, u1[::1], u1[::1], u8[::1], i8, u1[::1], i8[::1], i8[::1], u8[::1], i8[::1])")
def receive_packets(
    fd: int,
    packet: Bytes,
    memory: Bytes,
    bitmap: Words,
    source: int,
    names: Bytes,
    first_pages: Integers,
    block_pages: Integers,
    iov: Words,
    progress: Integers,
) -> int:
    """Read packets from a socket, and store their pages at their places, up to a SYNC.

    Parameters
    ----------
    fd
        A blocking stream socket.
    packet
        uint8[RECEIVE_BYTES], overwritten.
    memory
        uint8, whole pages, page-aligned.
    bitmap
        uint64, one bit for each page of `memory`, set once the page is stored. Several threads may
        set bits.
    source
        0: the pages' bytes follow each packet. Otherwise the address of the sender's memory, with
        the layout of `memory`, from which the pages are copied.
    names, first_pages, block_pages
        uint8[NAME_BYTES * n], int64[n], int64[n]: each block's name, padded with 0, its first page
        in `memory`, and its number of pages.
    iov
        uint64[IOV_WORDS], overwritten.
    progress
        int64[PROGRESS_SLOTS]; BYTES, PAGES and ZERO_PAGES are increased by what was received.
        PACKET_AT is the value of BYTES at the beginning of the last packet.

    Returns
    -------
    int
        SYNCED. BAD_FIELD: a packet is wrong; progress[FIELD] is the index in FIELDS,
        progress[FOUND] the value found (int64). END: the peer has closed the stream. -errno: EAGAIN
        if SO_RCVTIMEO ran out.

    Notes
    -----
    After a failure a page may be stored in part; its bit is not set then.
    """
    carried = 1 if source == 0 else 0
    here = address(packet)
    following = here + PACKET_BYTES
    progress[PACKET_AT] = progress[BYTES]
    entries = add_buffer(iov, 0, here, PACKET_BYTES)
    status: int = _read_until(fd, iov, entries, progress, progress[BYTES] + PACKET_BYTES)
    while status == 0:
        if check_packet(here, carried, progress) != SYNCED:
            return BAD_FIELD
        normal = np.int64(swap_bytes(load_word(here + 16)) >> _U32)
        zero = np.int64(swap_bytes(load_word(here + ZERO_PAGES_AT)) >> _U32)
        sync = swap_bytes(load_word(here + 8)) >> _U32
        block = find_block(here, names, len(first_pages)) if normal + zero else 0
        if block < 0:
            return refuse(progress, BAD_NAME, 0)
        if check_offsets(here, normal + zero, block_pages[block], progress) != SYNCED:
            return BAD_FIELD
        first = first_pages[block]
        place = address(memory) + first * PAGE_SIZE
        entries = 0
        if carried:
            for i in range(normal):
                entries = add_buffer(iov, entries, place + offset_of(here, i), PAGE_SIZE)
        else:
            around = progress[PAGES] >= _CACHED_PAGES
            _copy_pages(here, normal, place, source + first * PAGE_SIZE, around)
        # The next packet is read in the same call if it has arrived; one follows until the SYNC.
        packet_at = progress[PACKET_AT] + PACKET_BYTES + carried * normal * PAGE_SIZE
        if sync == np.uint64(0):
            entries = add_buffer(iov, entries, following, PACKET_BYTES)
        status = _read_until(fd, iov, entries, progress, packet_at)
        if status:
            break
        for i in range(normal + zero):
            offset = offset_of(here, i)
            if i >= normal:
                clear(place + offset, PAGE_SIZE)
            page = first + offset // PAGE_SIZE
            fetch_or(bitmap, page >> 6, _ONE << np.uint64(page & 63))
        progress[PAGES] += normal + zero
        progress[ZERO_PAGES] += zero
        if sync != np.uint64(0):
            return SYNCED
        progress[PACKET_AT] = packet_at
        status = _read_until(fd, iov, entries, progress, packet_at + PACKET_BYTES)
        here, following = following, here
    return status
