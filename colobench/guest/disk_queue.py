"""Queue of a disk's requests: layout of its block of guest RAM, and of completions for the guest.

This module does not import NumPy.

Each disk has a block of guest RAM, ``disk0``, ``disk1`` and so on:

=========  ========  =======================================================================
offset     bytes
=========  ========  =======================================================================
0          4 KiB     64 slots of 64 bytes: the words KIND to TAG below, each a uint64
4 KiB      4 MiB     64 buffers of 64 KiB; buffer n has the data of slot n
=========  ========  =======================================================================

A slot goes round::

    FREE      ── the guest fills the words and the buffer ────────► SUBMITTED
    SUBMITTED ── the guest's CPU takes the host's completion ─────► DONE
    DONE      ── the guest has read status and data ──────────────► FREE

The host only reads this block. Its completions wait outside of RAM, in a
`colobench.guest.numba.disks.DiskQueue`, until the guest's CPU copies them
(`colobench.guest.disk.take_completions`). So a request that is under way when the guest is stopped
is SUBMITTED, whole, in the RAM that is saved.
"""

from __future__ import annotations

import enum

from colobench.block.request import RequestKind

#: Slots of a disk: the largest number of requests under way.
DISK_SLOTS = 64
#: Bytes of a slot, and of its buffer.
SLOT_BYTES, DISK_BUFFER_BYTES = 64, 64 << 10
#: Offset of the buffers, bytes.
BUFFERS_AT = 4096
#: Bytes of a disk's block of RAM.
DISK_BLOCK_BYTES = BUFFERS_AT + DISK_SLOTS * DISK_BUFFER_BYTES
#: Most disks of a guest.
DISKS_LIMIT = 8

#: Words of a slot, as offsets. KIND is a `RequestKind`, OFFSET and LENGTH are bytes. TAG is the
#: program's own: the host does not read it.
KIND, OFFSET, LENGTH, FLAGS, STATUS, STATE, TAG = range(0, 56, 8)
#: Bit of FLAGS: the write is to be on the medium before it is done (force unit access).
FUA = 1


class SlotState(enum.IntEnum):
    """Value of STATE."""

    FREE = 0
    SUBMITTED = 1
    DONE = 2


# Words of `DiskQueue.words`. The first are the device's registers, which are saved.
(
    SIZE, READS, WRITES, FLUSHES, DISCARDS, WRITES_OF_ZEROES, ERRORS, REFUSED,
    KICK_FD, BLOCK_AT, TAKEN, PUT,
) = range(12)  # fmt: skip
REGISTERS = 8
SLOT_NUMBERS = 12
STATUSES, LENGTHS, COUNTERS = (SLOT_NUMBERS + n * DISK_SLOTS for n in (1, 2, 3))
QUEUE_WORDS = SLOT_NUMBERS + 4 * DISK_SLOTS
#: Bytes of `DiskQueue.data`.
QUEUE_BYTES = DISK_SLOTS * DISK_BUFFER_BYTES

#: Register that counts the completed requests of a kind.
COUNTER_OF = {
    RequestKind.READ: READS,
    RequestKind.WRITE: WRITES,
    RequestKind.FLUSH: FLUSHES,
    RequestKind.DISCARD: DISCARDS,
    RequestKind.WRITE_ZEROES: WRITES_OF_ZEROES,
}
