"""The append-only file's requests to the disk: `drive` loads, writes, flushes and rewrites it.

All state is in guest RAM: the words of `colobench.guest.append_only_file`, and the slots of the
disk. So a guest that goes on from a checkpoint goes on with the file, too. A request under way then
is submitted again, which changes nothing: its place in the area is used by no other block of the
same log, and the superblock is written only if no other request is under way.

=======  ===================================================================
slots    requests
=======  ===================================================================
0 to 7   blocks of log 0; the superblock's copies and blocks while loading
8 to 15  blocks of log 1
16       flush
17       superblock
=======  ===================================================================

The phases of rewriting::

    NO_REWRITE ── wanted ─────────────────────────────────────► DUMPING
    DUMPING    ── every key is in the other log's buffer ─────► WAITING
    WAITING    ── no request of the current log is under way ─► DRAINING, no block is begun
    DRAINING   ── the other log has all that the current has ─► SYNCING
    SYNCING    ── flushed ────────────────────────────────────► SWITCHING
    SWITCHING  ── the superblock is written ──────────────────► CONFIRMING
    CONFIRMING ── flushed ────────────────────────────────────► NO_REWRITE, the other is current

An error up to SYNCING ends the rewriting. From then on the superblock may name the other log, so
the last two steps are tried again each second, and meanwhile the store takes no writes.
"""

from __future__ import annotations

import errno

import numpy as np

from colobench.block.request import RequestKind
from colobench.guest import kv
from colobench.guest.append_only_file import (
    ACTIVE,
    ALWAYS,
    APPENDED,
    AREA,
    AREA_BYTES,
    AREAS_AT,
    BASE,
    BATCH,
    BEGIN,
    BLOCK_FRESH,
    BLOCK_HEAD,
    CAPACITY,
    CHAIN,
    CONFIRMING,
    CURRENT,
    CUT,
    DRAINING,
    DROPPED,
    DUMPING,
    END,
    EVERYSEC,
    FAILED,
    FLUSH_STATE,
    FLUSHED,
    FLUSHING_TO,
    FORMATTING,
    FRESH,
    GENERATION,
    HEADER_BYTES,
    IDLE,
    LAST_CUT,
    LAST_ERROR,
    LAST_FLUSH,
    LAST_REWRITE,
    LOAD_ENDED,
    LOADED,
    LOADED_MS,
    LOADING,
    LONGEST_BLOCK,
    MOST_PAYLOAD,
    NEXT,
    NO_REWRITE,
    OFF,
    PAUSED,
    PHASE,
    POLICY,
    PREVIOUS,
    READING,
    RELEASE,
    REWRITE,
    REWRITE_STATUS,
    SCRATCH,
    SECOND_COPY,
    SECTOR,
    SEQUENCE,
    SERVING,
    SMALLEST_DISK,
    STAMP,
    STATUS,
    SUPER_AREA,
    SUPER_AREA_BYTES,
    SUPER_GENERATION,
    SUPERBLOCK,
    SWITCHING,
    SYNCING,
    TIMED,
    UNUSABLE,
    WAITING,
    WANTED,
    WANTS_LOG,
    WRITING,
    area_of,
    block_bytes,
    current,
    initialize_log,
    is_log,
    make_room,
    make_superblock,
    open_block,
    seal,
    set_used,
    superblock_sequence,
    used,
    words_of,
)
from colobench.guest.disk import (
    buffer_at,
    disk_block,
    disk_size,
    release,
    state_of,
    status_of,
    submit,
    take_completions,
    word_of,
)
from colobench.guest.disk_queue import LENGTH, OFFSET, SlotState
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    EXPIRING,
    chain_link,
    follow,
    is_expired,
    is_store,
    most_entries,
)
from colobench.guest.propagation import put_set
from colobench.guest.region import DAMAGE, LINK, apart, chains_in, get_number, put_number
from colobench.guest.rings import clients_begin, clients_bytes, store_begin
from colobench.guest.store import copy_bytes
from colobench.kernels.jit import Bytes, Words, by_address, inlined, kernel

#: Most blocks of a log that are under way.
BLOCKS = 8
FLUSH_SLOT, SUPER_SLOT = 16, 17
#: Microseconds: between two flushes of everysec, and before a failed request is submitted again;
#: the longest time that a command waits for others in its block, unless appendfsync is always;
#: between two rewritings that the file's size has caused.
SECOND_US, GATHER_US, REWRITE_US = 1_000_000, 5_000, 10_000_000
#: Bytes that are written at once, and chains of keys that one call dumps.
GATHERED, DUMPED_CHAINS = 32 << 10, 4096
_READ, _WRITE, _FLUSH = (
    np.int64(kind) for kind in (RequestKind.READ, RequestKind.WRITE, RequestKind.FLUSH)
)
_FREE, _SUBMITTED, _DONE = (np.uint64(state) for state in SlotState)
_ONE, _TWO = np.int64(1), np.int64(2)
_ENOSPC, _ENOMEM, _EINVAL = (
    np.int64(number) for number in (errno.ENOSPC, errno.ENOMEM, errno.EINVAL)
)
_CONSUMED, _CLOSE = kv.CONSUMED, kv.CLOSE
_REPLAY = np.int64(kv.REPLAY)
_U0 = np.uint64(0)
_SCROLLBACK = np.uint64(512)
_call_execute = by_address(kv.execute)


@inlined
def _say(serial: Words, scrollback: Bytes, text: bytes) -> int:
    """Print a text on the serial console."""
    for i in range(len(text)):
        scrollback[np.int64((serial[0] + np.uint64(i)) % _SCROLLBACK)] = text[i]
    serial[0] += np.uint64(len(text))
    return 0


@inlined
def _say_number(serial: Words, scrollback: Bytes, number: int) -> int:
    """Print a number that is not negative on the serial console."""
    size, rest = 1, number // 10
    while rest > 0:
        size, rest = size + 1, rest // 10
    for i in range(size):
        place = serial[0] + np.uint64(size - 1 - i)
        scrollback[np.int64(place % _SCROLLBACK)] = np.uint8(48 + number % 10)
        number = number // 10
    serial[0] += np.uint64(size)
    return 0


@inlined
def _note_error(memory: Bytes, bitmap: Words, log: int, error: int, now: int) -> int:
    """Note that a request of the current log has failed; a lost record's error stays."""
    if get_number(memory, log + STATUS) != _ENOMEM:
        put_number(memory, bitmap, log + STATUS, error)
    return put_number(memory, bitmap, log + LAST_ERROR, now)


@inlined
def _note_success(memory: Bytes, bitmap: Words, log: int) -> int:
    """Note that requests of the current log are done: connections may be served again."""
    if get_number(memory, log + STATUS) != _ENOMEM:
        put_number(memory, bitmap, log + STATUS, ZERO)
    return put_number(memory, bitmap, log + RELEASE, _ONE)


@inlined
def _is_too_soon(memory: Bytes, log: int, now: int) -> bool:
    """Say whether the last error is so recent that nothing is tried again yet."""
    waited = now - get_number(memory, log + LAST_ERROR)
    return get_number(memory, log + STATUS) != 0 and 0 <= waited < SECOND_US


@inlined
def _again(memory: Bytes, bitmap: Words, disk_at: int, slot: int, kind: int) -> int:
    """Submit the request of a slot that is DONE once more; its buffer is as it was."""
    offset = word_of(memory, disk_at, slot, OFFSET)
    length = word_of(memory, disk_at, slot, LENGTH)
    return submit(memory, bitmap, disk_at, slot, kind, offset, length, ZERO, ZERO)


@inlined
def _forget(memory: Bytes, bitmap: Words, disk_at: int, first: int, last: int) -> int:
    """Free the slots in a range that are DONE."""
    for slot in range(first, last):
        if state_of(memory, disk_at, slot) == _DONE:
            release(memory, bitmap, disk_at, slot)
    return 0


@inlined
def _is_free(memory: Bytes, disk_at: int, first: int, last: int) -> bool:
    """Say whether all slots in a range are FREE."""
    for slot in range(first, last):  # noqa: SIM110 (numba has no `all`)
        if state_of(memory, disk_at, slot) != _FREE:
            return False
    return True


@inlined
def _area_at(memory: Bytes, log: int, number: int) -> int:
    """Return the place of a log's area on the disk, bytes."""
    area = get_number(memory, words_of(log, number) + AREA) & 1
    return AREAS_AT + area * get_number(memory, log + AREA_BYTES)


@inlined
def _cut(
    memory: Bytes, bitmap: Words, log: int, number: int, capacity: int, disk_at: int, now: int
) -> int:
    """Submit blocks of what is in a log's buffer; return 0, or ENOSPC if the area is full."""
    apart()
    words, first = words_of(log, number), BLOCKS * number
    if not _is_free(memory, disk_at, first, first + BLOCKS):
        return 0
    base, area = log + HEADER_BYTES + number * capacity, _area_at(memory, log, number)
    generation = get_number(memory, words + GENERATION)
    limit, full = get_number(memory, log + AREA_BYTES), ZERO
    for slot in range(first, first + BLOCKS):
        begin, end = used(memory, log, number, capacity)
        length = min(end - begin, np.int64(MOST_PAYLOAD))
        place, total = get_number(memory, words + NEXT), block_bytes(length)
        if length <= 0:
            break
        if place < 0 or place + total > limit:
            full = _ENOSPC
            break
        sequence = get_number(memory, words + SEQUENCE)
        found = seal(
            memory, bitmap, buffer_at(disk_at, slot), base + begin, length, generation, sequence,
            get_number(memory, words + PREVIOUS), get_number(memory, words + FRESH),
        )  # fmt: skip
        submit(memory, bitmap, disk_at, slot, _WRITE, area + place, total, ZERO, ZERO)
        put_number(memory, bitmap, words + PREVIOUS, found)
        put_number(memory, bitmap, words + SEQUENCE, sequence + 1)
        put_number(memory, bitmap, words + NEXT, place + total)
        put_number(memory, bitmap, words + FRESH, ZERO)
        put_number(memory, bitmap, words + BATCH, WRITING)
        set_used(memory, bitmap, log, number, begin + length, end)
    put_number(memory, bitmap, log + LAST_CUT, now)
    return full


@inlined
def _collect(memory: Bytes, bitmap: Words, log: int, number: int, disk_at: int) -> int:
    """Look for the end of a log's blocks under way; return the errno of one that has failed."""
    words, first = words_of(log, number), BLOCKS * number
    if get_number(memory, words + BATCH) != WRITING:
        return 0
    error = ZERO
    for slot in range(first, first + BLOCKS):
        if state_of(memory, disk_at, slot) == _SUBMITTED:
            return 0
    for slot in range(first, first + BLOCKS):
        if state_of(memory, disk_at, slot) == _DONE:
            status = status_of(memory, disk_at, slot)
            if status == 0:
                release(memory, bitmap, disk_at, slot)
            else:
                error = status
    put_number(memory, bitmap, words + BATCH, FAILED if error else IDLE)
    return error


@inlined
def _retry(memory: Bytes, bitmap: Words, log: int, number: int, disk_at: int) -> int:
    """Submit the failed blocks of the current log once more."""
    first = BLOCKS * number
    for slot in range(first, first + BLOCKS):
        if state_of(memory, disk_at, slot) == _DONE:
            _again(memory, bitmap, disk_at, slot, _WRITE)
    return put_number(memory, bitmap, words_of(log, number) + BATCH, WRITING)


@inlined
def _flush_current(memory: Bytes, bitmap: Words, log: int, disk_at: int, now: int) -> int:
    """Go on with a flush of the current log."""
    state = state_of(memory, disk_at, FLUSH_SLOT)
    if state == _DONE:
        error = status_of(memory, disk_at, FLUSH_SLOT)
        if error == 0:
            release(memory, bitmap, disk_at, FLUSH_SLOT)
            put_number(memory, bitmap, log + FLUSH_STATE, IDLE)
            flushed = get_number(memory, log + FLUSHING_TO)
            put_number(memory, bitmap, log + FLUSHED, flushed)
            return _note_success(memory, bitmap, log)
        if get_number(memory, log + FLUSH_STATE) == WRITING:
            put_number(memory, bitmap, log + FLUSH_STATE, FAILED)
            _note_error(memory, bitmap, log, error, now)
        elif not _is_too_soon(memory, log, now):
            put_number(memory, bitmap, log + FLUSH_STATE, WRITING)
            _again(memory, bitmap, disk_at, FLUSH_SLOT, _FLUSH)
    elif state == _FREE:
        put_number(memory, bitmap, log + FLUSH_STATE, IDLE)
    return 0


@inlined
def _begin_flush(memory: Bytes, bitmap: Words, disk_at: int) -> int:
    """Submit a flush."""
    return submit(memory, bitmap, disk_at, FLUSH_SLOT, _FLUSH, ZERO, ZERO, ZERO, ZERO)


@inlined
def _is_flush_due(memory: Bytes, log: int, now: int) -> bool:
    """Say whether what is written is to be flushed."""
    policy = get_number(memory, log + POLICY)
    if get_number(memory, log + CUT) <= get_number(memory, log + FLUSHED):
        return False
    since = now - get_number(memory, log + LAST_FLUSH)
    return policy == ALWAYS or (policy == EVERYSEC and not 0 <= since < SECOND_US)


@inlined
def _is_cut_due(memory: Bytes, log: int, waiting: int, now: int) -> bool:
    """Say whether waiting bytes of the current log are to be written."""
    since = now - get_number(memory, log + LAST_CUT)
    always = get_number(memory, log + POLICY) == ALWAYS
    return waiting > 0 and (always or waiting >= GATHERED or not 0 <= since < GATHER_US)


@inlined
def _write_current(
    memory: Bytes, bitmap: Words, log: int, capacity: int, disk_at: int, now: int
) -> int:
    """Write and flush the current log."""
    apart()
    number = current(memory, log)
    words = words_of(log, number)
    error = _collect(memory, bitmap, log, number, disk_at)
    if error:
        _note_error(memory, bitmap, log, error, now)
    if get_number(memory, log + FLUSH_STATE) != IDLE:
        return _flush_current(memory, bitmap, log, disk_at, now)
    batch, paused = get_number(memory, words + BATCH), get_number(memory, log + REWRITE) >= DRAINING
    if paused or batch == WRITING or _is_too_soon(memory, log, now):
        return 0
    if batch == FAILED:
        return _retry(memory, bitmap, log, number, disk_at)
    _forget(memory, bitmap, disk_at, FLUSH_SLOT, FLUSH_SLOT + 1)
    if state_of(memory, disk_at, FLUSH_SLOT) != _FREE:
        return 0
    if _is_flush_due(memory, log, now):
        put_number(memory, bitmap, log + LAST_FLUSH, now)
        put_number(memory, bitmap, log + FLUSHING_TO, get_number(memory, log + CUT))
        put_number(memory, bitmap, log + FLUSH_STATE, WRITING)
        return _begin_flush(memory, bitmap, disk_at)
    begin, end = used(memory, log, number, capacity)
    if get_number(memory, log + ACTIVE) == 0 or not _is_cut_due(memory, log, end - begin, now):
        return 0
    full = _cut(memory, bitmap, log, number, capacity, disk_at, now)
    begin, end = used(memory, log, number, capacity)
    put_number(memory, bitmap, log + CUT, get_number(memory, log + APPENDED) - (end - begin))
    if full:
        _note_error(memory, bitmap, log, full, now)
    else:
        _note_success(memory, bitmap, log)
    return 0


@inlined
def _end_rewrite(memory: Bytes, bitmap: Words, log: int, error: int) -> int:
    """End a rewriting that has failed; the current log goes on."""
    put_number(memory, bitmap, log + REWRITE, NO_REWRITE)
    put_number(memory, bitmap, log + REWRITE_STATUS, error)
    return put_number(memory, bitmap, log + RELEASE, _ONE)


@inlined
def _is_rewrite_due(memory: Bytes, log: int, now: int) -> bool:
    """Say whether the log has grown so much that it is to be rewritten unasked."""
    size = get_number(memory, words_of(log, current(memory, log)) + NEXT)
    area, base = get_number(memory, log + AREA_BYTES), get_number(memory, log + BASE)
    since = now - get_number(memory, log + LAST_REWRITE)
    grown = size > area // 2 and size - base > area // 4
    grown = grown or (get_number(memory, log + STATUS) == _ENOSPC and size > base)
    return grown and get_number(memory, log + ACTIVE) != 0 and not 0 <= since < REWRITE_US


@inlined
def _begin_rewrite(memory: Bytes, bitmap: Words, log: int, disk_at: int, now: int) -> int:
    """Begin a rewriting into the other area, if one is wanted."""
    if get_number(memory, log + WANTED) == 0 and not _is_rewrite_due(memory, log, now):
        return 0
    number = current(memory, log)
    other, first = words_of(log, 1 - number), BLOCKS * (1 - number)
    _forget(memory, bitmap, disk_at, first, first + BLOCKS)
    if not _is_free(memory, disk_at, first, first + BLOCKS):
        return 0
    generation = max(get_number(memory, words_of(log, number) + GENERATION) + 1, now)
    put_number(memory, bitmap, other + GENERATION, generation)
    area = get_number(memory, words_of(log, number) + AREA)
    put_number(memory, bitmap, other + AREA, 1 - (area & 1))
    for word in (NEXT, SEQUENCE, PREVIOUS, BEGIN, END, BATCH, STAMP, FRESH):
        put_number(memory, bitmap, other + word, ZERO)
    put_number(memory, bitmap, log + CHAIN, ZERO)
    put_number(memory, bitmap, log + WANTED, ZERO)
    put_number(memory, bitmap, log + LAST_REWRITE, now)
    return put_number(memory, bitmap, log + REWRITE, DUMPING)


@inlined
def _put_chain(memory: Bytes, bitmap: Words, store: int, chain: int, at: int, limit: int) -> int:
    """Write SET for each key of a chain; only its length counts if that is beyond the limit."""
    apart()
    link = chain_link(memory, store, chain)
    for _ in range(most_entries(memory, store)):
        entry = follow(memory, bitmap, store, link)
        if not entry:
            break
        if not is_expired(memory, store, entry):
            at = put_set(memory, bitmap, at, limit, entry)
        link = entry + LINK
    return at


@inlined
def _dump(memory: Bytes, bitmap: Words, log: int, capacity: int, store: int, other: int) -> int:
    """Put keys into the other log's buffer while it has room; return 0 or an errno."""
    apart()
    chains = chains_in(len(memory) - store)
    chain = max(ZERO, get_number(memory, log + CHAIN))
    base, error = log + HEADER_BYTES + other * capacity, ZERO
    for _ in range(DUMPED_CHAINS):
        begin, end = used(memory, log, other, capacity)
        if chain >= chains or end - begin > capacity // 2:
            break
        # Without room only the length is computed.
        length = _put_chain(memory, bitmap, store, chain, base, base - 1) - base
        if length > 0:
            if not make_room(memory, bitmap, log, other, capacity, length):
                error = _ENOMEM if begin == end else ZERO
                break
            begin, end = used(memory, log, other, capacity)
            _put_chain(memory, bitmap, store, chain, base + end, base + capacity)
            set_used(memory, bitmap, log, other, begin, end + length)
        chain += 1
    put_number(memory, bitmap, log + CHAIN, chain)
    if get_number(memory, store + DAMAGE) != 0:
        put_number(memory, bitmap, store + DAMAGE, ZERO)
        error = _EINVAL
    if chain >= chains and error == 0:
        put_number(memory, bitmap, log + REWRITE, WAITING)
    return error


@inlined
def _write_other(
    memory: Bytes, bitmap: Words, log: int, capacity: int, other: int, disk_at: int, now: int
) -> int:
    """Write what is in the other log's buffer; return 0 or an errno."""
    error = _collect(memory, bitmap, log, other, disk_at)
    if error or get_number(memory, words_of(log, other) + BATCH) != IDLE:
        return error
    begin, end = used(memory, log, other, capacity)
    busy = get_number(memory, log + REWRITE) == DUMPING and end - begin < MOST_PAYLOAD
    if begin == end or busy:
        return 0
    error = _cut(memory, bitmap, log, other, capacity, disk_at, now)
    put_number(memory, bitmap, log + RELEASE, _ONE)
    return error


@inlined
def _write_superblock(memory: Bytes, bitmap: Words, log: int, disk_at: int, disk_bytes: int) -> int:
    """Submit the superblock that makes the other log the current one."""
    other = words_of(log, 1 - current(memory, log))
    sequence = get_number(memory, log + SUPERBLOCK) + 1
    make_superblock(
        memory, bitmap, buffer_at(disk_at, SUPER_SLOT), sequence, disk_bytes,
        get_number(memory, log + AREA_BYTES), get_number(memory, other + AREA),
        get_number(memory, other + GENERATION),
    )  # fmt: skip
    place = SECOND_COPY * (sequence & 1)
    submit(memory, bitmap, disk_at, SUPER_SLOT, _WRITE, place, np.int64(SECTOR), ZERO, ZERO)
    return put_number(memory, bitmap, log + REWRITE, SWITCHING)


@inlined
def _switch(memory: Bytes, bitmap: Words, log: int, capacity: int, disk_at: int) -> int:
    """Make the other log the current one."""
    old = current(memory, log)
    new, phase = 1 - old, get_number(memory, log + PHASE)
    _forget(memory, bitmap, disk_at, BLOCKS * old, BLOCKS * (old + 1))
    set_used(memory, bitmap, log, old, ZERO, ZERO)
    put_number(memory, bitmap, words_of(log, old) + BATCH, IDLE)
    put_number(memory, bitmap, log + CURRENT, new)
    put_number(memory, bitmap, log + SUPERBLOCK, get_number(memory, log + SUPERBLOCK) + 1)
    put_number(memory, bitmap, log + FLUSHED, get_number(memory, log + PAUSED))
    begin, end = used(memory, log, new, capacity)
    put_number(memory, bitmap, log + CUT, get_number(memory, log + APPENDED) - (end - begin))
    put_number(memory, bitmap, log + BASE, get_number(memory, words_of(log, new) + NEXT))
    put_number(memory, bitmap, log + STATUS, ZERO)
    put_number(memory, bitmap, log + REWRITE_STATUS, ZERO)
    put_number(memory, bitmap, log + REWRITE, NO_REWRITE)
    if phase == FORMATTING:
        phase = SERVING if get_number(memory, log + WANTS_LOG) != 0 else OFF
        put_number(memory, bitmap, log + PHASE, phase)
    put_number(memory, bitmap, log + ACTIVE, _ONE if phase == SERVING else ZERO)
    return put_number(memory, bitmap, log + RELEASE, _ONE)


@inlined
def _confirm(
    memory: Bytes,
    bitmap: Words,
    log: int,
    capacity: int,
    disk_at: int,
    disk_bytes: int,
    now: int,
) -> int:
    """Go on with the last three phases of a rewriting, or with the first superblock."""
    apart()
    phase = get_number(memory, log + REWRITE)
    slot, kind = (SUPER_SLOT, _WRITE) if phase == SWITCHING else (FLUSH_SLOT, _FLUSH)
    if state_of(memory, disk_at, slot) != _DONE:
        return 0
    error = status_of(memory, disk_at, slot)
    if error and phase != SYNCING:
        if get_number(memory, log + STATUS) == 0:
            _note_error(memory, bitmap, log, error, now)
        elif not _is_too_soon(memory, log, now):
            put_number(memory, bitmap, log + STATUS, ZERO)
            _again(memory, bitmap, disk_at, slot, kind)
        return 0
    release(memory, bitmap, disk_at, slot)
    if error:
        return _end_rewrite(memory, bitmap, log, error)
    if phase == SYNCING:
        return _write_superblock(memory, bitmap, log, disk_at, disk_bytes)
    if phase == SWITCHING:
        _begin_flush(memory, bitmap, disk_at)
        return put_number(memory, bitmap, log + REWRITE, CONFIRMING)
    return _switch(memory, bitmap, log, capacity, disk_at)


@inlined
def _rewrite(
    memory: Bytes,
    bitmap: Words,
    log: int,
    capacity: int,
    store: int,
    store_end: int,
    disk_at: int,
    now: int,
) -> int:
    """Go on with a rewriting up to SYNCING."""
    apart()
    phase, number = get_number(memory, log + REWRITE), current(memory, log)
    other = 1 - number
    error = _write_other(memory, bitmap, log, capacity, other, disk_at, now)
    if error == 0 and phase == DUMPING:
        error = _dump(memory[:store_end], bitmap, log, capacity, store, other)
    if error:
        put_number(memory, bitmap, words_of(log, other) + BATCH, IDLE)
        return _end_rewrite(memory, bitmap, log, error)
    if phase == WAITING:
        batch = get_number(memory, words_of(log, number) + BATCH)
        if batch != WRITING and get_number(memory, log + FLUSH_STATE) != WRITING:
            put_number(memory, bitmap, log + PAUSED, get_number(memory, log + APPENDED))
            return put_number(memory, bitmap, log + REWRITE, DRAINING)
    if phase == DRAINING:
        begin, end = used(memory, log, other, capacity)
        written = get_number(memory, log + APPENDED) - (end - begin)
        idle = get_number(memory, words_of(log, other) + BATCH) == IDLE
        _forget(memory, bitmap, disk_at, FLUSH_SLOT, FLUSH_SLOT + 1)
        free = state_of(memory, disk_at, FLUSH_SLOT) == _FREE
        if idle and free and written >= get_number(memory, log + PAUSED):
            put_number(memory, bitmap, log + FLUSH_STATE, IDLE)
            _begin_flush(memory, bitmap, disk_at)
            return put_number(memory, bitmap, log + REWRITE, SYNCING)
    return 0


@inlined
def _give_up(memory: Bytes, bitmap: Words, log: int, error: int) -> int:
    """Note that the disk cannot be used; the store takes no writes then."""
    wanted = get_number(memory, log + WANTS_LOG) != 0
    put_number(memory, bitmap, log + PHASE, UNUSABLE if wanted else OFF)
    put_number(memory, bitmap, log + STATUS, error)
    put_number(memory, bitmap, log + AREA_BYTES, ZERO)
    return put_number(memory, bitmap, log + RELEASE, _ONE)


@inlined
def _format(memory: Bytes, bitmap: Words, log: int, disk_at: int, disk_bytes: int, now: int) -> int:
    """Begin to write the first superblock of an empty disk."""
    each = ((disk_bytes - AREAS_AT) // 2) & -4096
    put_number(memory, bitmap, log + AREA_BYTES, each)
    put_number(memory, bitmap, log + SUPERBLOCK, ZERO)
    put_number(memory, bitmap, log + CURRENT, _ONE)
    put_number(memory, bitmap, words_of(log, 0) + AREA, ZERO)
    put_number(memory, bitmap, words_of(log, 0) + GENERATION, max(now, _ONE))
    put_number(memory, bitmap, log + PHASE, FORMATTING)
    return _write_superblock(memory, bitmap, log, disk_at, disk_bytes)


@inlined
def _choose(
    memory: Bytes,
    bitmap: Words,
    log: int,
    disk_at: int,
    disk_bytes: int,
    now: int,
    serial: Words,
    scrollback: Bytes,
) -> int:
    """Choose the newer one of the two superblocks that were read."""
    first = superblock_sequence(memory, buffer_at(disk_at, 0), disk_bytes)
    second = superblock_sequence(memory, buffer_at(disk_at, 1), disk_bytes)
    _forget(memory, bitmap, disk_at, 0, 2)
    if first == 0 and second == 0:
        _say(serial, scrollback, b"append only file: an empty disk, formatted\n")
        return _format(memory, bitmap, log, disk_at, disk_bytes, now)
    if first <= 0 and second <= 0:
        _say(serial, scrollback, b"append only file: the disk has other data, and is not used\n")
        return _give_up(memory, bitmap, log, _EINVAL)
    at = buffer_at(disk_at, 0 if first > second else 1)
    put_number(memory, bitmap, log + SUPERBLOCK, max(first, second))
    put_number(memory, bitmap, log + AREA_BYTES, get_number(memory, at + SUPER_AREA_BYTES))
    put_number(memory, bitmap, log + CURRENT, ZERO)
    words = words_of(log, 0)
    put_number(memory, bitmap, words + AREA, get_number(memory, at + SUPER_AREA))
    put_number(memory, bitmap, words + GENERATION, get_number(memory, at + SUPER_GENERATION))
    wanted = get_number(memory, log + WANTS_LOG) != 0
    return put_number(memory, bitmap, log + PHASE, LOADING if wanted else OFF)


@inlined
def _read_superblocks(
    memory: Bytes,
    bitmap: Words,
    log: int,
    disk_at: int,
    disk_bytes: int,
    now: int,
    serial: Words,
    scrollback: Bytes,
) -> int:
    """Read both copies of the superblock."""
    apart()
    if disk_bytes < SMALLEST_DISK:
        _say(serial, scrollback, b"append only file: the disk is smaller than 512 KiB\n")
        return _give_up(memory, bitmap, log, _ENOSPC)
    for copy in range(2):
        state = state_of(memory, disk_at, copy)
        if state == _FREE and not _is_too_soon(memory, log, now):
            place = np.int64(SECOND_COPY) * copy
            submit(memory, bitmap, disk_at, copy, _READ, place, np.int64(SECTOR), ZERO, ZERO)
        if state != _DONE:
            return 0
    for copy in range(2):
        error = status_of(memory, disk_at, copy)
        if error:
            _forget(memory, bitmap, disk_at, 0, 2)
            return _note_error(memory, bitmap, log, error, now)
    put_number(memory, bitmap, log + STATUS, ZERO)
    return _choose(memory, bitmap, log, disk_at, disk_bytes, now, serial, scrollback)


@inlined
def _take_blocks(
    memory: Bytes, bitmap: Words, log: int, capacity: int, disk_at: int, length: int
) -> int:
    """Take the blocks at the beginning of what was read, at most LONGEST_BLOCK bytes."""
    words, base, offset = words_of(log, 0), log + HEADER_BYTES, ZERO
    generation = get_number(memory, words + GENERATION)
    while True:
        block = buffer_at(disk_at, 0) + offset
        sequence = get_number(memory, words + SEQUENCE)
        payload, found = open_block(
            memory, bitmap, block, length - offset, generation, sequence,
            get_number(memory, words + PREVIOUS),
        )  # fmt: skip
        begin, end = used(memory, log, 0, capacity)
        if payload < 0:
            # A block that begins further on is read again from its beginning.
            cut_off = offset > 0 and (payload == -2 or length - offset < SECTOR)
            return put_number(memory, bitmap, log + LOAD_ENDED, ZERO if cut_off else _ONE)
        if get_number(memory, block + BLOCK_FRESH) != 0 and begin < end:
            return put_number(memory, bitmap, words + FRESH, _TWO)
        if end + payload > capacity:
            return 0
        copy_bytes(memory, bitmap, base + end, block + BLOCK_HEAD, payload)
        set_used(memory, bitmap, log, 0, begin, end + payload)
        put_number(memory, bitmap, words + PREVIOUS, found)
        put_number(memory, bitmap, words + SEQUENCE, sequence + 1)
        total = block_bytes(payload)
        put_number(memory, bitmap, words + NEXT, get_number(memory, words + NEXT) + total)
        offset += total


@inlined
def _read_log(memory: Bytes, bitmap: Words, log: int, capacity: int, disk_at: int, now: int) -> int:
    """Read the log; return 2 if something was read, 1 if it is to be waited for, else 0."""
    state, words = state_of(memory, disk_at, 0), words_of(log, 0)
    if state == _DONE:
        error = status_of(memory, disk_at, 0)
        length = max(ZERO, min(word_of(memory, disk_at, 0, LENGTH), np.int64(LONGEST_BLOCK)))
        if error:
            _note_error(memory, bitmap, log, error, now)
        else:
            put_number(memory, bitmap, log + STATUS, ZERO)
            _take_blocks(memory, bitmap, log, capacity, disk_at, length)
        release(memory, bitmap, disk_at, 0)
        return 2
    if state == _SUBMITTED:
        return 1
    if get_number(memory, log + LOAD_ENDED) != 0:
        return 0
    begin, end = used(memory, log, 0, capacity)
    if get_number(memory, words + FRESH) == _TWO and begin < end:
        return 0
    if _is_too_soon(memory, log, now):
        return 1
    if not make_room(memory, bitmap, log, 0, capacity, np.int64(LONGEST_BLOCK)):
        return 0
    place = get_number(memory, words + NEXT)
    length = min(np.int64(LONGEST_BLOCK), get_number(memory, log + AREA_BYTES) - place)
    if place < 0 or length < SECTOR:
        put_number(memory, bitmap, log + LOAD_ENDED, _ONE)
        return 0
    offset = _area_at(memory, log, 0) + place
    submit(memory, bitmap, disk_at, 0, _READ, offset, length, ZERO, ZERO)
    return 1


@inlined
def _end_loading(
    memory: Bytes, bitmap: Words, log: int, store: int, serial: Words, scrollback: Bytes
) -> int:
    """Begin to serve the store that was loaded."""
    words = words_of(log, 0)
    put_number(memory, bitmap, words + FRESH, _ONE)
    put_number(memory, bitmap, log + BASE, get_number(memory, words + NEXT))
    expires = get_number(memory, store + EXPIRING) > 0 or get_number(memory, log + LOADED_MS) > 0
    put_number(memory, bitmap, log + TIMED, _ONE if expires else ZERO)
    put_number(memory, bitmap, log + ACTIVE, _ONE)
    put_number(memory, bitmap, log + PHASE, SERVING)
    _say(serial, scrollback, b"append only file: ")
    _say_number(serial, scrollback, get_number(memory, log + LOADED))
    _say(serial, scrollback, b" commands loaded from ")
    _say_number(serial, scrollback, get_number(memory, words + NEXT))
    _say(serial, scrollback, b" bytes, ")
    _say_number(serial, scrollback, get_number(memory, log + DROPPED))
    _say(serial, scrollback, b" bytes of an incomplete command dropped\n")
    return put_number(memory, bitmap, log + RELEASE, _ONE)


@inlined
def _load(
    memory: Bytes,
    bitmap: Words,
    log: int,
    capacity: int,
    store: int,
    store_end: int,
    clients: int,
    clients_size: int,
    disk_at: int,
    now: int,
    execute: np.uint64,
    service: Words,
    serial: Words,
    scrollback: Bytes,
) -> int:
    """Read a part of the log, and execute a part of its commands."""
    apart()
    words, base = words_of(log, 0), log + HEADER_BYTES
    waits = _read_log(memory, bitmap, log, capacity, disk_at, now)
    begin, end = used(memory, log, 0, capacity)
    consumed, failed = ZERO, False
    if begin < end:
        executed = _call_execute(
            execute, memory, bitmap, store, store_end - store, clients, clients_size, _REPLAY,
            base + begin, base + end, log + SCRATCH, log + HEADER_BYTES, _U0, ZERO, ZERO, service,
        )  # fmt: skip
        consumed = max(ZERO, min(np.int64(service[_CONSUMED]), end - begin))
        failed = service[_CLOSE] != _U0
        put_number(memory, bitmap, log + LOADED, get_number(memory, log + LOADED) + executed)
        set_used(memory, bitmap, log, 0, begin + consumed, end)
    if consumed > 0 and not failed:
        return 1
    if waits and not failed:
        return waits >> 1
    begin, end = used(memory, log, 0, capacity)
    ended = get_number(memory, log + LOAD_ENDED) != 0
    if not failed and (ended or get_number(memory, words + FRESH) == _TWO):
        put_number(memory, bitmap, log + DROPPED, get_number(memory, log + DROPPED) + end - begin)
        set_used(memory, bitmap, log, 0, ZERO, ZERO)
        put_number(memory, bitmap, words + FRESH, ZERO)
        return _end_loading(memory, bitmap, log, store, serial, scrollback) if ended else 1
    if failed or begin < end:
        _say(serial, scrollback, b"append only file: a command cannot be executed: memory?\n")
        return _give_up(memory, bitmap, log, _ENOMEM)
    return 1


@kernel("i8(u1[::1], u8[::1], i8, i8, i8, u8[::1], u1[::1], u8, u8, u8[::1], u8[::1], u1[::1])")
def drive(
    memory: Bytes,
    bitmap: Words,
    log: int,
    ram: int,
    size: int,
    disks: Words,
    disk_data: Bytes,
    now_us: np.uint64,
    execute: np.uint64,
    service: Words,
    serial: Words,
    scrollback: Bytes,
) -> int:
    """Take completed requests of disk 0, and submit what the append-only file needs next.

    Parameters
    ----------
    memory, bitmap
        uint8[...], all of RAM, and its marks, uint64[pages / 64] or empty.
    log
        Address of the file's area, in bytes from the beginning of `memory`.
    ram, size
        Address and length, in bytes, of the rest of pc.ram, with the network stack and the store.
    disks, disk_data
        The disks, as in `colobench.guest.disk`.
    now_us
        The guest's clock, microseconds since 1970.
    execute
        Address of the kernel `colobench.guest.kv.execute`.
    service
        uint64[8], scratch.
    serial, scrollback
        The serial console's registers, uint64[1], and its uint8[512].

    Returns
    -------
    int
        Bit 0 is set if requests were submitted; bit 1 if the stack or a further call has something
        to do at once.
    """
    store, disk_at = store_begin(ram, size), disk_block(disks, 0)
    disk_bytes, now = disk_size(disks, 0), np.int64(now_us)
    take_completions(memory, bitmap, disks, disk_data, 0)
    if not is_log(memory, log, store) or not is_store(memory[: ram + size], store):
        return 0
    capacity, before = get_number(memory, log + CAPACITY), _under_way(memory, disk_at)
    phase, more = get_number(memory, log + PHASE), ZERO
    if phase == READING:
        _read_superblocks(memory, bitmap, log, disk_at, disk_bytes, now, serial, scrollback)
    elif phase == LOADING:
        more = _load(
            memory, bitmap, log, 2 * capacity, store, ram + size, clients_begin(ram, size),
            clients_bytes(size), disk_at, now, execute, service, serial, scrollback,
        )  # fmt: skip
    rewrite = get_number(memory, log + REWRITE)
    if rewrite >= SYNCING:
        _confirm(memory, bitmap, log, capacity, disk_at, disk_bytes, now)
    elif phase in (SERVING, OFF):
        _write_current(memory, bitmap, log, capacity, disk_at, now)
        if rewrite != NO_REWRITE:
            _rewrite(memory, bitmap, log, capacity, store, ram + size, disk_at, now)
            more = _ONE if get_number(memory, log + REWRITE) == DUMPING else ZERO
        elif phase == SERVING:
            _begin_rewrite(memory, bitmap, log, disk_at, now)
    submitted = _under_way(memory, disk_at) & ~before
    moved = get_number(memory, log + PHASE) != phase or get_number(memory, log + RELEASE) != 0
    return (1 if submitted != 0 else 0) | (2 if more != 0 or moved else 0)


@inlined
def _under_way(memory: Bytes, disk_at: int) -> int:
    """Return the slots of the file that are SUBMITTED, as bits."""
    bits = ZERO
    for slot in range(SUPER_SLOT + 1):
        if state_of(memory, disk_at, slot) == _SUBMITTED:
            bits |= np.int64(1) << slot
    return bits


@kernel("i8(u1[::1], u8[::1], i8, i8, i8, i8)")
def initialize(
    memory: Bytes, bitmap: Words, begin: int, size: int, policy: int, wanted: int
) -> int:
    """Make an append-only file that is to be loaded, and tell the store that it has one.

    Parameters
    ----------
    memory, bitmap
        As in `drive`.
    begin, size
        Address and length of pc.ram, bytes; `colobench.guest.tcp.initialize` was called with what
        follows the area.
    policy
        EVERYSEC, ALWAYS or NEVER.
    wanted
        1 for appendonly yes.
    """
    ram = begin + area_of(size)
    store = store_begin(ram, begin + size - ram)
    return initialize_log(memory, bitmap, begin, ram - begin, store, policy, wanted)
