"""The append-only file of the key-value store: its words and buffers in RAM, its blocks on disk.

A guest with a disk has this area of RAM at the beginning of pc.ram, before the network stack:

=================  ===================================================================
offset             bytes
=================  ===================================================================
0                  4 KiB: the words below; the words of two logs; room for replies
4 KiB              buffer of log 0: commands that are not in a block yet
4 KiB + capacity   buffer of log 1
=================  ===================================================================

The disk has a superblock in two copies, at 0 and at 4 KiB, then two areas of equal size. The
superblock with the higher sequence says in which area the current log is; the other area is for
the next rewriting. A log is a sequence of blocks, each a head of 64 bytes and a part of the stream
of commands, padded to a multiple of 512 bytes. A block's checksum has the log's generation and the
checksum of the block before as its key. So the first block that was not written whole, or is left
from an older log, ends the log.

The stream is Redis's: commands as arrays of bulk strings. A line ``#MS:`` gives the millisecond of
the commands after it. When they are executed again, keys expire by these times, as they did at
first; so the log needs no DEL for a key that has expired, in contrast to Redis's.

`log` is the address of the area; the store's word LOG has its distance. Words read from RAM are
checked as in `colobench.guest.region`.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.keyspace import siphash
from colobench.guest.region import apart, get_number, leading_zeros, put_number
from colobench.guest.store import clear_bytes, copy_bytes, get_word, move_down, put_word
from colobench.kernels.jit import Bytes, Words, inlined

#: Word of the store's superblock: the bytes from the beginning of the area to the store, or 0.
LOG = 96
#: Words of the area. MAGIC; bytes of each buffer; the phase below; appendfsync; the number of the
#: current log, 0 or 1; 1 if it is written; the phase of rewriting; 1 if a rewriting is asked for;
#: errno of the last write, and of the last rewriting.
MAGIC, CAPACITY, PHASE, POLICY, CURRENT, ACTIVE, REWRITE, WANTED, STATUS, REWRITE_STATUS = range(
    0, 80, 8
)
#: Positions in the stream of commands since the start, bytes: its end; the end of what is in
#: submitted blocks; of what a flush under way covers; of what was flushed; of what was appended
#: when the log was last switched.
APPENDED, CUT, FLUSHING_TO, FLUSHED, PAUSED = range(80, 120, 8)
#: 1 if connections may be served again; 1 if commands are stamped with times; within EXEC (see
#: `colobench.guest.propagation`); next chain to dump; sequence of the superblock; bytes of an area;
#: bytes of the log after the last rewriting.
RELEASE, TIMED, TRANSACTION, CHAIN, SUPERBLOCK, AREA_BYTES, BASE = range(120, 176, 8)
#: Microseconds: the last block cut, the last flush, the last error, the last rewriting begun.
LAST_CUT, LAST_FLUSH, LAST_ERROR, LAST_REWRITE = range(176, 208, 8)
#: 1 if appendonly is yes at the start; 1 while a flush of the current log is under way, 2 if it
#: failed. While loading: the millisecond of the stream; commands executed; 1 at the end of the log;
#: bytes dropped, because they were not a whole command.
WANTS_LOG, FLUSH_STATE, LOADED_MS, LOADED, LOAD_ENDED, DROPPED = range(208, 256, 8)
#: The words of log 0 and log 1: the number of its area; its generation; bytes in the area; number
#: of blocks; checksum of the last block; the used range of its buffer; state of its blocks, see
#: below; the last time stamped; 1 if the next block begins a command, whatever was before.
LOGS, LOG_BYTES = 512, 128
AREA, GENERATION, NEXT, SEQUENCE, PREVIOUS, BEGIN, END, BATCH, STAMP, FRESH = range(0, 80, 8)
#: Room for the replies of commands that are executed again, which nobody reads.
SCRATCH, HEADER_BYTES = 2048, 4096
MAGIC_WORD = np.int64(int.from_bytes(b"coloaof1", "little"))

#: Phases: appendonly is no; the superblock is read; it is written; the log is read; commands are
#: logged; the disk cannot be used.
OFF, READING, FORMATTING, LOADING, SERVING, UNUSABLE = (np.int64(n) for n in range(6))
#: Values of appendfsync, and their names.
EVERYSEC, ALWAYS, NEVER = (np.int64(n) for n in range(3))
POLICIES = ("everysec", "always", "no")
#: Phases of rewriting: keys are dumped; the current log's blocks are awaited; the rest is written;
#: it is flushed; the superblock is written; it is flushed.
NO_REWRITE, DUMPING, WAITING, DRAINING, SYNCING, SWITCHING, CONFIRMING = (
    np.int64(n) for n in range(7)
)

#: States of a log's blocks: none is under way; some are; one has failed.
IDLE, WRITING, FAILED = (np.int64(n) for n in range(3))

SECTOR = 512
#: Layout of the disk, bytes: the superblock's second copy, the first area, the smallest disk.
SECOND_COPY, AREAS_AT, SMALLEST_DISK = 4096, 8192, 512 << 10
#: Words of a block's head, and its length; the last one is its checksum.
(BLOCK_MAGIC, BLOCK_GENERATION, BLOCK_SEQUENCE, BLOCK_LENGTH, BLOCK_FRESH, BLOCK_CHECKSUM) = range(
    0, 48, 8
)
BLOCK_HEAD, LONGEST_BLOCK = 64, 64 << 10
MOST_PAYLOAD = LONGEST_BLOCK - BLOCK_HEAD
BLOCK_WORD = np.int64(int.from_bytes(b"aofblock", "little"))
#: Words of a superblock.
(
    SUPER_MAGIC, SUPER_SEQUENCE, SUPER_DISK, SUPER_AREA_BYTES, SUPER_AREA, SUPER_GENERATION,
    SUPER_CHECKSUM,
) = range(0, 56, 8)  # fmt: skip
SUPER_WORD = np.int64(int.from_bytes(b"colo-aof", "little"))
_SECRET = np.uint64(0x243F6A8885A308D3)
_U0 = np.uint64(0)
#: Bytes that a command's record may be longer than twice the command.
ALLOWANCE = 512


def buffer_bytes(ram_bytes: int) -> int:
    """Return the capacity of a log's buffer in a pc.ram of that size.

    It holds the longest key and the longest value, each `colobench.guest.clients.longest_value`.
    """
    return 1 << max(16, (ram_bytes // 16 - 1).bit_length())


def area_bytes(ram_bytes: int) -> int:
    """Return the bytes of the whole area in a pc.ram of that size, a multiple of 4096."""
    return HEADER_BYTES + 2 * buffer_bytes(ram_bytes)


@inlined
def area_of(ram_bytes: int) -> int:
    """Compute `area_bytes` in a kernel."""
    return HEADER_BYTES + (2 << max(16, 64 - leading_zeros(np.uint64(ram_bytes // 16 - 1))))


@inlined
def is_log(memory: Bytes, log: int, end: int) -> bool:
    """Say whether an area of whole buffers begins at `log` and ends before `end`."""
    if log < 0 or log > end - HEADER_BYTES:
        return False
    capacity = get_number(memory, log + CAPACITY)
    return (
        get_number(memory, log + MAGIC) == MAGIC_WORD
        and 0 < capacity <= (end - log - HEADER_BYTES) // 2
    )


@inlined
def log_of(memory: Bytes, kv: int) -> int:
    """Return the address of a store's append-only file, or -1 if it has none."""
    distance = get_number(memory, kv + LOG)
    if distance <= 0 or distance > kv or not is_log(memory, kv - distance, kv):
        return -1
    return kv - distance


@inlined
def words_of(log: int, number: int) -> int:
    """Return the address of the words of log 0 or 1; only the lowest bit of the number counts."""
    return log + LOGS + (number & 1) * LOG_BYTES


@inlined
def current(memory: Bytes, log: int) -> int:
    """Return the number of the current log."""
    return get_number(memory, log + CURRENT) & 1


@inlined
def buffer_of(memory: Bytes, log: int, number: int) -> int:
    """Return the address of a log's buffer."""
    return log + HEADER_BYTES + (number & 1) * get_number(memory, log + CAPACITY)


@inlined
def used(memory: Bytes, log: int, number: int, capacity: int) -> tuple[int, int]:
    """Return the used range of a log's buffer, limited to the buffer."""
    words = words_of(log, number)
    end = max(np.int64(0), min(get_number(memory, words + END), np.int64(capacity)))
    return max(np.int64(0), min(get_number(memory, words + BEGIN), end)), end


@inlined
def set_used(memory: Bytes, bitmap: Words, log: int, number: int, begin: int, end: int) -> int:
    """Set the used range of a log's buffer; an empty one begins at 0 again."""
    words = words_of(log, number)
    put_number(memory, bitmap, words + BEGIN, 0 if begin == end else begin)
    return put_number(memory, bitmap, words + END, 0 if begin == end else end)


@inlined
def make_room(
    memory: Bytes, bitmap: Words, log: int, number: int, capacity: int, needed: int
) -> bool:
    """Say whether a log's buffer has room for a number of bytes; move its contents for that."""
    apart()
    begin, end = used(memory, log, number, capacity)
    if end + needed <= capacity:
        return True
    if end - begin + needed > capacity:
        return False
    base = log + HEADER_BYTES + (number & 1) * capacity
    move_down(memory, bitmap, base, base + begin, end - begin)
    set_used(memory, bitmap, log, number, np.int64(0), end - begin)
    return True


@inlined
def is_written(memory: Bytes, log: int, number: int) -> bool:
    """Say whether commands are appended to that log."""
    if number == current(memory, log):
        return get_number(memory, log + ACTIVE) != 0
    return get_number(memory, log + REWRITE) != NO_REWRITE


@inlined
def is_logging(memory: Bytes, log: int) -> bool:
    """Say whether commands are logged."""
    return get_number(memory, log + PHASE) == SERVING


@inlined
def is_loading(memory: Bytes, kv: int) -> bool:
    """Say whether the store is being loaded from its disk."""
    log = log_of(memory, kv)
    if log < 0:
        return False
    phase = get_number(memory, log + PHASE)
    return READING <= phase <= LOADING


@inlined
def checksum(memory: Bytes, begin: int, length: int, generation: int, previous: int) -> int:
    """Compute the checksum of bytes, with a generation and a checksum before as its key."""
    return np.int64(
        siphash(memory, begin, length, np.uint64(generation) ^ _SECRET, np.uint64(previous))
    )


@inlined
def block_bytes(payload: int) -> int:
    """Return the bytes of a block on disk."""
    return (BLOCK_HEAD + payload + SECTOR - 1) & -SECTOR


@inlined
def seal(
    memory: Bytes,
    bitmap: Words,
    block: int,
    payload: int,
    length: int,
    generation: int,
    sequence: int,
    previous: int,
    fresh: int,
) -> int:
    """Make a block at an address, with `length` bytes from `payload` on; return its checksum."""
    apart()
    clear_bytes(memory, bitmap, block, BLOCK_HEAD)
    total = block_bytes(length)
    padding = total - BLOCK_HEAD - length
    if padding > 0:
        clear_bytes(memory, bitmap, block + total - padding, padding)
    copy_bytes(memory, bitmap, block + BLOCK_HEAD, payload, length)
    put_word(memory, bitmap, block + BLOCK_MAGIC, np.uint64(BLOCK_WORD))
    put_word(memory, bitmap, block + BLOCK_GENERATION, np.uint64(generation))
    put_word(memory, bitmap, block + BLOCK_SEQUENCE, np.uint64(sequence))
    put_word(memory, bitmap, block + BLOCK_LENGTH, np.uint64(length))
    put_word(memory, bitmap, block + BLOCK_FRESH, np.uint64(fresh))
    result = checksum(memory, block, BLOCK_HEAD + length, generation, previous)
    put_word(memory, bitmap, block + BLOCK_CHECKSUM, np.uint64(result))
    return result


@inlined
def open_block(
    memory: Bytes,
    bitmap: Words,
    block: int,
    room: int,
    generation: int,
    sequence: int,
    previous: int,
) -> tuple[int, int]:
    """Check the block at an address, which has `room` bytes; the word of its checksum becomes 0.

    Returns the length of its payload and its checksum. The length is -1 if there is no such block,
    -2 if it is longer than `room`.
    """
    apart()
    if room < SECTOR or get_number(memory, block + BLOCK_MAGIC) != BLOCK_WORD:
        return -1, 0
    length = get_number(memory, block + BLOCK_LENGTH)
    known = get_number(memory, block + BLOCK_GENERATION) == generation
    known = known and get_number(memory, block + BLOCK_SEQUENCE) == sequence
    if not known or length <= 0 or length > MOST_PAYLOAD:
        return -1, 0
    if block_bytes(length) > room:
        return -2, 0
    found = get_number(memory, block + BLOCK_CHECKSUM)
    put_word(memory, bitmap, block + BLOCK_CHECKSUM, _U0)
    if checksum(memory, block, BLOCK_HEAD + length, generation, previous) != found:
        return -1, 0
    return length, found


@inlined
def make_superblock(
    memory: Bytes,
    bitmap: Words,
    at: int,
    sequence: int,
    disk: int,
    each: int,
    area: int,
    generation: int,
) -> int:
    """Make a superblock of one sector at an address."""
    apart()
    clear_bytes(memory, bitmap, at, SECTOR)
    put_word(memory, bitmap, at + SUPER_MAGIC, np.uint64(SUPER_WORD))
    put_word(memory, bitmap, at + SUPER_SEQUENCE, np.uint64(sequence))
    put_word(memory, bitmap, at + SUPER_DISK, np.uint64(disk))
    put_word(memory, bitmap, at + SUPER_AREA_BYTES, np.uint64(each))
    put_word(memory, bitmap, at + SUPER_AREA, np.uint64(area))
    put_word(memory, bitmap, at + SUPER_GENERATION, np.uint64(generation))
    check = checksum(memory, at, SUPER_CHECKSUM, np.int64(0), np.int64(0))
    return put_word(memory, bitmap, at + SUPER_CHECKSUM, np.uint64(check))


@inlined
def superblock_sequence(memory: Bytes, at: int, disk: int) -> int:
    """Return the sequence of a superblock; 0 if the sector is empty, -1 if it has other bytes."""
    apart()
    if get_number(memory, at + SUPER_MAGIC) != SUPER_WORD:
        for word in range(0, SECTOR, 8):
            if get_word(memory, at + word) != _U0:
                return -1
        return 0
    each, sequence = (
        get_number(memory, at + SUPER_AREA_BYTES),
        get_number(memory, at + SUPER_SEQUENCE),
    )
    check = checksum(memory, at, SUPER_CHECKSUM, np.int64(0), np.int64(0))
    fits = LONGEST_BLOCK <= each <= (disk - AREAS_AT) // 2 and each % SECTOR == 0
    area, generation = (
        get_number(memory, at + SUPER_AREA),
        get_number(memory, at + SUPER_GENERATION),
    )
    if get_number(memory, at + SUPER_CHECKSUM) != check or not fits:
        return -1
    return sequence if sequence > 0 and 0 <= area <= 1 and generation > 0 else -1


@inlined
def place_log(memory: Bytes, bitmap: Words, log: int, bytes_of_area: int, kv: int) -> int:
    """Write where the area of a store is, and how large its buffers are; of 0 bytes: it has none.

    All of that follows from pc.ram, so RAM that says something else is wrong.
    """
    if bytes_of_area == 0:
        return put_number(memory, bitmap, kv + LOG, np.int64(0))
    put_number(memory, bitmap, log + MAGIC, MAGIC_WORD)
    put_number(memory, bitmap, log + CAPACITY, (bytes_of_area - HEADER_BYTES) // 2)
    return put_number(memory, bitmap, kv + LOG, kv - log)


@inlined
def initialize_log(
    memory: Bytes, bitmap: Words, log: int, bytes_of_area: int, kv: int, policy: int, wanted: int
) -> int:
    """Make the area of a store that is to be loaded from its disk."""
    clear_bytes(memory, bitmap, log, HEADER_BYTES)
    place_log(memory, bitmap, log, bytes_of_area, kv)
    put_number(memory, bitmap, log + PHASE, READING)
    put_number(memory, bitmap, log + POLICY, policy)
    return put_number(memory, bitmap, log + WANTS_LOG, wanted)
