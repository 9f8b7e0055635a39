"""A program's use of its disks: parts of kernels that submit requests and take completions.

A program that uses disks takes two arguments, `colobench.guest.numba.disks.Disks.arrays`:

disks
    uint64[disks * QUEUE_WORDS], see `colobench.guest.numba.disks.DiskQueue`; empty without disks.
    It belongs to the host, but for the registers.
disk_data
    uint8[disks * QUEUE_BYTES], the data of completed reads.

A turn of such a program calls `take_completions`, looks for slots that are DONE (`completed`),
reads their status and data, frees them (`release`), submits new requests (`free_slot`, `submit`),
and then calls `kick` once, if it has submitted any. The host wakes a sleeping CPU when it has
completed requests.

`disk_at` is the address of a disk's block, from `disk_block`. Slots are numbers from 0 to 63;
offsets and lengths are bytes; a status is 0 or an errno. RAM may come from a peer, so the words of
a slot that a function returns are bounded, or are to be bounded by the caller as it says.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.disk_queue import (
    BLOCK_AT,
    BUFFERS_AT,
    COUNTERS,
    DISK_BUFFER_BYTES,
    DISK_SLOTS,
    ERRORS,
    FLAGS,
    KICK_FD,
    KIND,
    LENGTH,
    LENGTHS,
    OFFSET,
    PUT,
    QUEUE_BYTES,
    QUEUE_WORDS,
    REGISTERS,
    SIZE,
    SLOT_BYTES,
    SLOT_NUMBERS,
    STATE,
    STATUS,
    STATUSES,
    TAG,
    TAKEN,
    SlotState,
)
from colobench.guest.numba.cpu import notify
from colobench.guest.store import get_word, keep_bytes, mark_bytes, put_word
from colobench.kernels.atomics import address, load_acquire, store_release
from colobench.kernels.jit import Bytes, Words, inlined
from colobench.kernels.raw import copy, fence

_U0, _U1 = np.uint64(0), np.uint64(1)
_SLOTS = np.uint64(DISK_SLOTS)
_FREE, _SUBMITTED, _DONE = (np.uint64(state) for state in SlotState)


@inlined
def disks_in(disks: Words) -> int:
    """Return the number of disks."""
    return len(disks) // QUEUE_WORDS


@inlined
def disk_block(disks: Words, disk: int) -> int:
    """Return the address of the block of a disk, which must be there."""
    return np.int64(disks[disk * QUEUE_WORDS + BLOCK_AT])


@inlined
def disk_size(disks: Words, disk: int) -> int:
    """Return the size of a disk in bytes."""
    return np.int64(disks[disk * QUEUE_WORDS + SIZE])


@inlined
def kick(control: Words, disks: Words, disk: int) -> int:
    """Tell the host that requests were submitted to a disk."""
    return notify(control, disks[disk * QUEUE_WORDS + KICK_FD])


@inlined
def slot_at(disk_at: int, slot: int) -> int:
    """Return the address of a slot."""
    return disk_at + slot * SLOT_BYTES


@inlined
def buffer_at(disk_at: int, slot: int) -> int:
    """Return the address of a slot's buffer, DISK_BUFFER_BYTES long."""
    return disk_at + BUFFERS_AT + slot * DISK_BUFFER_BYTES


@inlined
def state_of(memory: Bytes, disk_at: int, slot: int) -> np.uint64:
    """Return the state of a slot; any value in a RAM that is broken."""
    return get_word(memory, slot_at(disk_at, slot) + STATE)


@inlined
def status_of(memory: Bytes, disk_at: int, slot: int) -> int:
    """Return the status of a slot that is DONE: 0, or an errno."""
    return np.int64(get_word(memory, slot_at(disk_at, slot) + STATUS))


@inlined
def word_of(memory: Bytes, disk_at: int, slot: int, word: int) -> int:
    """Return a word of a slot, such as KIND, OFFSET or TAG; to be bounded by the caller."""
    return np.int64(get_word(memory, slot_at(disk_at, slot) + word))


@inlined
def _find(memory: Bytes, disk_at: int, begin: int, state: np.uint64) -> int:
    for slot in range(begin, DISK_SLOTS):
        if state_of(memory, disk_at, slot) == state:
            return slot
    return -1


@inlined
def free_slot(memory: Bytes, disk_at: int) -> int:
    """Return the first slot that is FREE, or -1."""
    return _find(memory, disk_at, 0, _FREE)


@inlined
def completed(memory: Bytes, disk_at: int, begin: int) -> int:
    """Return the first slot from `begin` on that is DONE, or -1."""
    return _find(memory, disk_at, begin, _DONE)


@inlined
def in_flight(memory: Bytes, disk_at: int) -> int:
    """Count the slots that are SUBMITTED."""
    count = 0
    for slot in range(DISK_SLOTS):
        if state_of(memory, disk_at, slot) == _SUBMITTED:
            count += 1
    return count


@inlined
def submit(
    memory: Bytes,
    bitmap: Words,
    disk_at: int,
    slot: int,
    kind: int,
    offset: int,
    length: int,
    flags: int,
    tag: int,
) -> int:
    """Submit the request of a slot that is FREE; a write's data are in its buffer already.

    The slot and its buffer must not be changed before it is DONE. The tag is the program's own.
    """
    at = slot_at(disk_at, slot)
    put_word(memory, bitmap, at + KIND, np.uint64(kind))
    put_word(memory, bitmap, at + OFFSET, np.uint64(offset))
    put_word(memory, bitmap, at + LENGTH, np.uint64(length))
    put_word(memory, bitmap, at + FLAGS, np.uint64(flags))
    put_word(memory, bitmap, at + TAG, np.uint64(tag))
    # The host, which runs at the same time, must not see the state before the words.
    fence()
    put_word(memory, bitmap, at + STATE, _SUBMITTED)
    return 0


@inlined
def release(memory: Bytes, bitmap: Words, disk_at: int, slot: int) -> int:
    """Make a slot FREE that is DONE."""
    return put_word(memory, bitmap, slot_at(disk_at, slot) + STATE, _FREE)


@inlined
def _complete(
    memory: Bytes, bitmap: Words, disk_at: int, slot: int, status: np.uint64, data: int, length: int
) -> int:
    """Write a completion into its slot, with `length` bytes from the address `data`."""
    if length > 0:
        to = buffer_at(disk_at, slot)
        keep_bytes(memory, bitmap, to, length)
        copy(np.int64(address(memory)) + to, data, np.int64(length))
        mark_bytes(bitmap, to, length)
    put_word(memory, bitmap, slot_at(disk_at, slot) + STATUS, status)
    return put_word(memory, bitmap, slot_at(disk_at, slot) + STATE, _DONE)


@inlined
def take_completions(
    memory: Bytes, bitmap: Words, disks: Words, disk_data: Bytes, disk: int
) -> int:
    """Write the completions of a disk into RAM, and count them; return their number.

    A completion for a slot that is not SUBMITTED, as in a broken RAM, is dropped.
    """
    base = disk * QUEUE_WORDS
    disk_at = disk_block(disks, disk)
    count = 0
    while load_acquire(disks, base + PUT) != disks[base + TAKEN]:
        entry = base + np.int64(disks[base + TAKEN] % _SLOTS)
        slot = np.int64(disks[entry + SLOT_NUMBERS] % _SLOTS)
        if state_of(memory, disk_at, slot) == _SUBMITTED:
            length = min(np.int64(disks[entry + LENGTHS]), DISK_BUFFER_BYTES)
            data = np.int64(address(disk_data)) + disk * QUEUE_BYTES + slot * DISK_BUFFER_BYTES
            status = disks[entry + STATUSES]
            _complete(memory, bitmap, disk_at, slot, status, data, length)
            disks[base + np.int64(disks[entry + COUNTERS]) % REGISTERS] += _U1
            if status != _U0:
                disks[base + ERRORS] += _U1
            count += 1
        store_release(disks, base + TAKEN, disks[base + TAKEN] + _U1)
    return count
