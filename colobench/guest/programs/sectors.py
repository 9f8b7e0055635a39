"""The programs ``sectors``: they write and read runs of sectors that say which write they are.

Three programs differ in the runs that they choose: at random, by Zipf's law, one after the other.
Each millisecond they submit as many requests as the setting ``writes_per_tick`` says, unless the
disks are slower. The fourth, ``pages_and_sectors``, writes as many pages of RAM instead, those of
its working set at the end of pc.ram, one after the other. Besides, it submits 4 requests each
millisecond, which its disks do not slow down. An eighth of them are reads, whose sectors are
compared with the table in RAM. A few runs are discarded instead of written, but not by the fourth,
whose load measurements compare. An error is counted, and the program goes on: a request that failed
may have changed any sector of its run, or none. See `colobench.guest.sector_table`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colobench.block.request import RequestKind
from colobench.guest import disk as disks_parts
from colobench.guest.disk_queue import (
    DISK_SLOTS,
    FLAGS,
    FUA,
    KIND,
    OFFSET,
    TAG,
    SlotState,
)
from colobench.guest.numba import cpu as parts
from colobench.guest.numba.cpu import (
    PENDING_WRITES,
    RAM_PAGE,
    RAM_PAGES,
    SEED,
    STEPS_PER_LINE,
    WORK,
    WRITES_PER_TICK,
)
from colobench.guest.programs import Program, writer
from colobench.guest.programs.hotcold import draw_page, zipf_distribution
from colobench.guest.sector_table import (
    ACKNOWLEDGED,
    COMPARED,
    DISCARDED,
    DURABLE,
    ENTRY_BYTES,
    FAILED,
    FLUSH_COVERS,
    FLUSHED,
    HEADER_WORDS,
    MISMATCH_DISK,
    MISMATCH_SECTOR,
    MISMATCHED,
    PLACE,
    RUN_BYTES,
    RUN_SECTORS,
    SECTOR_BYTES,
    SECTOR_MAGIC,
    SECTOR_WORDS,
    SEQUENCE,
    SUBMITTED,
    TABLE_AT,
    WRITTEN,
    runs_of,
)
from colobench.guest.store import get_word, keep_bytes, mark_bytes, put_word
from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Words, inlined, kernel
from colobench.kernels.raw import load_word, store_word

if TYPE_CHECKING:
    from colobench.guest.numba.machine import Machine

#: Most requests of a disk that are under way.
IN_FLIGHT = 32
#: One of so many requests is a read, or a flush; one of so many writes is FUA, or a discard.
STEPS_PER_READ, STEPS_PER_FLUSH, WRITES_PER_FUA, WRITES_PER_DISCARD = 8, 64, 16, 32
#: Runs that are tried before a step does nothing because requests to all of them are under way.
TRIES = 8
#: Ways of choosing runs; the last one is UNIFORM, with pages of RAM between the requests.
UNIFORM, HOTCOLD, SEQUENTIAL, WITH_PAGES = range(4)
#: Requests of a millisecond that has pages between them: 56 MB/s are written.
REQUESTS_PER_TICK = 4
#: Results of `sequence_of` for a sector that says nothing, and one that is no write's.
_EMPTY, _TORN = np.uint64(0), np.uint64(2**64 - 1)

_U0, _U1, _U16 = np.uint64(0), np.uint64(1), np.uint64(16)
_LINE = np.uint64(STEPS_PER_LINE)
_MAGIC = np.uint64(SECTOR_MAGIC)
_READ, _WRITE, _FLUSH, _DISCARD = (
    int(kind)
    for kind in (RequestKind.READ, RequestKind.WRITE, RequestKind.FLUSH, RequestKind.DISCARD)
)
_FREE = np.uint64(SlotState.FREE)


@inlined
def fill_sector(at: int, disk: int, sector: int, sequence: np.uint64, seed: np.uint64) -> int:
    """Write a sector's 512 bytes at an address."""
    key = parts.splitmix64(np.uint64(seed) ^ np.uint64(disk))
    key = parts.splitmix64(parts.splitmix64(key ^ np.uint64(sector)) ^ np.uint64(sequence))
    store_word(at, _MAGIC)
    store_word(at + 8, np.uint64(disk))
    store_word(at + 16, np.uint64(sector))
    store_word(at + 24, np.uint64(sequence))
    store_word(at + 32, np.uint64(seed))
    for word in range(HEADER_WORDS, SECTOR_WORDS):
        store_word(at + 8 * word, parts.splitmix64(key + np.uint64(word)))
    return 0


@inlined
def sequence_of(at: int, disk: int, sector: int, seed: np.uint64) -> np.uint64:
    """Return the sequence number of a sector at an address: _EMPTY if all is 0, or _TORN."""
    bits = _U0
    for word in range(SECTOR_WORDS):
        bits |= load_word(at + 8 * word)
    if bits == _U0:
        return _EMPTY
    sequence = load_word(at + 24)
    key = parts.splitmix64(np.uint64(seed) ^ np.uint64(disk))
    key = parts.splitmix64(parts.splitmix64(key ^ np.uint64(sector)) ^ sequence)
    wrong = (load_word(at) ^ _MAGIC) | (load_word(at + 8) ^ np.uint64(disk))
    wrong |= (load_word(at + 16) ^ np.uint64(sector)) | (load_word(at + 32) ^ np.uint64(seed))
    for word in range(HEADER_WORDS, SECTOR_WORDS):
        wrong |= load_word(at + 8 * word) ^ parts.splitmix64(key + np.uint64(word))
    return sequence if wrong == _U0 else _TORN


@inlined
def runs_in(disks: Words, disk: int, size: int) -> int:
    """Return the number of runs of a disk; size is that of pc.ram in bytes."""
    room = (size - TABLE_AT) // ENTRY_BYTES // disks_parts.disks_in(disks)
    return min(disks_parts.disk_size(disks, disk) // RUN_BYTES, room)


@inlined
def entry_at(disks: Words, disk: int, ram: int, size: int, run: int) -> int:
    """Return the address of a run's entry in the table."""
    at = ram + TABLE_AT + run * ENTRY_BYTES
    for before in range(disk):
        at += runs_in(disks, before, size) * ENTRY_BYTES
    return at


@inlined
def count(memory: Bytes, bitmap: Words, at: int) -> int:
    """Add 1 to a word of RAM."""
    return put_word(memory, bitmap, at, get_word(memory, at) + _U1)


@inlined
def compare_run(
    memory: Bytes, bitmap: Words, ram: int, entry: int, at: int, disk: int, run: int,
    seed: np.uint64,
) -> int:  # fmt: skip
    """Compare the sectors of a run that was read to the address `at` with the run's entry."""
    least, most = get_word(memory, entry + ACKNOWLEDGED), get_word(memory, entry + SUBMITTED)
    discarded = get_word(memory, entry + DISCARDED)
    base = np.int64(address(memory)) + at
    count(memory, bitmap, ram + COMPARED)
    for i in range(RUN_SECTORS):
        sector = run * RUN_SECTORS + i
        found = sequence_of(base + i * SECTOR_BYTES, disk, sector, seed)
        written = discarded if found == _EMPTY else found
        if found == _TORN or written < least or found > most:
            count(memory, bitmap, ram + MISMATCHED)
            put_word(memory, bitmap, ram + MISMATCH_DISK, np.uint64(disk))
            put_word(memory, bitmap, ram + MISMATCH_SECTOR, np.uint64(sector))
    return 0


@inlined
def acknowledge(
    memory: Bytes, bitmap: Words, ram: int, entry: int, sequence: np.uint64, fua: bool
) -> int:  # fmt: skip
    """Note that a change of a run is done; at each moment the entry is right if the CPU dies."""
    place = get_word(memory, ram + WRITTEN) + _U1
    if fua:
        put_word(memory, bitmap, entry + FLUSH_COVERS, sequence)
    elif get_word(memory, entry + PLACE) <= get_word(memory, ram + DURABLE):
        put_word(memory, bitmap, entry + FLUSH_COVERS, get_word(memory, entry + ACKNOWLEDGED))
    put_word(memory, bitmap, entry + PLACE, place)
    put_word(memory, bitmap, entry + ACKNOWLEDGED, sequence)
    return put_word(memory, bitmap, ram + WRITTEN, place)


@inlined
def flushed(memory: Bytes, bitmap: Words, ram: int, covered: np.uint64) -> int:
    """Note that a flush is done, which covers the first writes that were acknowledged."""
    if covered > get_word(memory, ram + DURABLE):
        put_word(memory, bitmap, ram + DURABLE, covered)
    return count(memory, bitmap, ram + FLUSHED)


@inlined
def finish(
    memory: Bytes, bitmap: Words, disks: Words, disk: int, slot: int, ram: int, size: int,
    seed: np.uint64,
) -> int:  # fmt: skip
    """Note the result of a request that is DONE."""
    disk_at = disks_parts.disk_block(disks, disk)
    kind = disks_parts.word_of(memory, disk_at, slot, KIND)
    run = disks_parts.word_of(memory, disk_at, slot, OFFSET) // RUN_BYTES
    if disks_parts.status_of(memory, disk_at, slot) != 0:
        return count(memory, bitmap, ram + FAILED)
    tag = np.uint64(disks_parts.word_of(memory, disk_at, slot, TAG))
    if kind == _FLUSH:
        return flushed(memory, bitmap, ram, tag)
    if run < 0 or run >= runs_in(disks, disk, size):
        return 0
    entry = entry_at(disks, disk, ram, size, run)
    if kind != _READ:
        fua = disks_parts.word_of(memory, disk_at, slot, FLAGS) & FUA != 0
        return acknowledge(memory, bitmap, ram, entry, tag, fua)
    at = disks_parts.buffer_at(disk_at, slot)
    return compare_run(memory, bitmap, ram, entry, at, disk, run, seed)


@inlined
def finish_all(
    memory: Bytes, bitmap: Words, disks: Words, disk_data: Bytes, ram: int, size: int,
    seed: np.uint64,
) -> int:  # fmt: skip
    """Note the results of all requests that are DONE, and free their slots."""
    for disk in range(disks_parts.disks_in(disks)):
        if disks_parts.take_completions(memory, bitmap, disks, disk_data, disk) == 0:
            continue
        disk_at = disks_parts.disk_block(disks, disk)
        slot = disks_parts.completed(memory, disk_at, 0)
        while slot >= 0:
            finish(memory, bitmap, disks, disk, slot, ram, size, seed)
            disks_parts.release(memory, bitmap, disk_at, slot)
            slot = disks_parts.completed(memory, disk_at, slot + 1)
    return 0


@inlined
def is_under_way(memory: Bytes, disk_at: int, run: int) -> bool:
    """Say whether a slot that is not FREE has a request to a run."""
    for slot in range(DISK_SLOTS):
        if (
            disks_parts.state_of(memory, disk_at, slot) != _FREE
            and disks_parts.word_of(memory, disk_at, slot, KIND) != _FLUSH
            and disks_parts.word_of(memory, disk_at, slot, OFFSET) == run * RUN_BYTES
        ):
            return True
    return False


@inlined
def choose_run(
    memory: Bytes, disks: Words, disk: int, runs: int, pattern: int, distribution: Words,
    work: np.uint64, random: np.uint64,
) -> int:  # fmt: skip
    """Choose a run to which no request is under way; -1 if some were tried in vain."""
    disk_at = disks_parts.disk_block(disks, disk)
    if pattern == SEQUENTIAL:
        first = np.int64(work // np.uint64(disks_parts.disks_in(disks)) % np.uint64(runs))
    elif pattern == HOTCOLD:
        first = np.int64(draw_page(distribution, random) % np.uint64(runs))
    else:
        first = np.int64(random % np.uint64(runs))
    for step in range(min(TRIES, runs)):
        run = (first + step) % runs
        if not is_under_way(memory, disk_at, run):
            return run
    return -1


@inlined
def begin_change(
    memory: Bytes, bitmap: Words, ram: int, entry: int, discards: bool
) -> np.uint64:  # fmt: skip
    """Note a write or a discard of a run that is about to be submitted; return its number."""
    sequence = get_word(memory, ram + SEQUENCE) + _U1
    put_word(memory, bitmap, ram + SEQUENCE, sequence)
    put_word(memory, bitmap, entry + SUBMITTED, sequence)
    if discards:
        put_word(memory, bitmap, entry + DISCARDED, sequence)
    return sequence


@inlined
def change_run(
    memory: Bytes, bitmap: Words, disks: Words, disk: int, slot: int, ram: int, size: int, run: int,
    seed: np.uint64, kind: int, flags: int,
) -> int:  # fmt: skip
    """Submit a write or a discard of a run with the next sequence number."""
    disk_at = disks_parts.disk_block(disks, disk)
    entry = entry_at(disks, disk, ram, size, run)
    sequence = begin_change(memory, bitmap, ram, entry, kind == _DISCARD)
    if kind == _WRITE:
        at = disks_parts.buffer_at(disk_at, slot)
        keep_bytes(memory, bitmap, at, RUN_BYTES)
        base = np.int64(address(memory)) + at
        for i in range(RUN_SECTORS):
            fill_sector(base + i * SECTOR_BYTES, disk, run * RUN_SECTORS + i, sequence, seed)
        mark_bytes(bitmap, at, RUN_BYTES)
    return disks_parts.submit(
        memory, bitmap, disk_at, slot, kind, run * RUN_BYTES, RUN_BYTES, flags, np.int64(sequence)
    )


@inlined
def submit_next(
    control: Words, cpu: Words, memory: Bytes, bitmap: Words, disks: Words, pattern: int,
    distribution: Words, ram: int, size: int,
) -> bool:  # fmt: skip
    """Do a step: submit a request; return False if the disk has too many under way."""
    work, seed = cpu[WORK], cpu[SEED]
    disk = np.int64(work % np.uint64(disks_parts.disks_in(disks)))
    disk_at = disks_parts.disk_block(disks, disk)
    slot = disks_parts.free_slot(memory, disk_at)
    if slot < 0 or disks_parts.in_flight(memory, disk_at) >= IN_FLIGHT:
        return False
    random = parts.random_bits(cpu)
    chance = np.int64(parts.splitmix64(random) >> _U16)
    cpu[WORK] += _U1
    cpu[PENDING_WRITES] -= _U1
    if chance % STEPS_PER_FLUSH == 1:
        covered = np.int64(get_word(memory, ram + WRITTEN))
        disks_parts.submit(memory, bitmap, disk_at, slot, _FLUSH, 0, 0, 0, covered)
        disks_parts.kick(control, disks, disk)
        return True
    runs = runs_in(disks, disk, size)
    run = -1
    if runs > 0:
        run = choose_run(memory, disks, disk, runs, pattern, distribution, work, random)
    if run < 0:
        return True
    if chance % STEPS_PER_READ == 0:
        disks_parts.submit(memory, bitmap, disk_at, slot, _READ, run * RUN_BYTES, RUN_BYTES, 0, 0)
    elif pattern != WITH_PAGES and (chance >> 12) % WRITES_PER_DISCARD == 0:
        change_run(memory, bitmap, disks, disk, slot, ram, size, run, seed, _DISCARD, 0)
    else:
        flags = FUA if (chance >> 8) % WRITES_PER_FUA == 0 else 0
        change_run(memory, bitmap, disks, disk, slot, ram, size, run, seed, _WRITE, flags)
    disks_parts.kick(control, disks, disk)
    return True


@inlined
def write_page(
    control: Words, cpu: Words, words: Words, bitmap: Words, disks: Words, size: int,
    every: np.uint64,
) -> bool:  # fmt: skip
    """Do a step: write a word of the next page of the working set, which ends with pc.ram."""
    table = TABLE_AT
    for disk in range(disks_parts.disks_in(disks)):
        table += runs_in(disks, disk, size) * ENTRY_BYTES
    pages = control[RAM_PAGES]
    room = pages - np.uint64((table + 4095) >> 12)
    count = min(parts.pages_to_write(control, cpu), room)
    if count != _U0:
        # The steps that are requests are no pages.
        number = (cpu[WORK] - cpu[WORK] // every) % count
        random = parts.random_bits(cpu)
        parts.write_word(control, cpu, words, bitmap, pages - _U1 - number, random)
    return count != _U0


@inlined
def do_step(
    control: Words, cpu: Words, words: Words, memory: Bytes, bitmap: Words, disks: Words,
    pattern: int, distribution: Words, ram: int, size: int,
) -> bool:  # fmt: skip
    """Do a step: a request, or a page; return False if there is none to do."""
    # A guest whose state comes from a peer may have no disk.
    if cpu[PENDING_WRITES] == _U0 or len(disks) == 0:
        return False
    every = max(_U1, cpu[WRITES_PER_TICK] // np.uint64(REQUESTS_PER_TICK))
    if pattern == WITH_PAGES and cpu[WORK] % every != _U0:
        return write_page(control, cpu, words, bitmap, disks, size, every)
    if submit_next(control, cpu, memory, bitmap, disks, pattern, distribution, ram, size):
        return True
    return pattern == WITH_PAGES and write_page(control, cpu, words, bitmap, disks, size, every)


@kernel(writer.SIGNATURE.replace(")", ", u8[::1], u1[::1], i8, u8[::1])"))
def write_sectors(
    control: Words,
    cpu: Words,
    timer: Words,
    serial: Words,
    scrollback: Bytes,
    nic: Words,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    words: Words,
    memory: Bytes,
    bitmap: Words,
    disks: Words,
    disk_data: Bytes,
    pattern: int,
    distribution: Words,
) -> int:
    """Run the CPU, with the arguments of `colobench.guest.numba.cpu` and some more.

    ``disks`` and ``disk_data`` are those of `colobench.guest.disk`, ``pattern`` is one of UNIFORM,
    HOTCOLD, SEQUENTIAL and WITH_PAGES, ``distribution`` the table of `draw_page`, for HOTCOLD.
    """
    ram, size = np.int64(control[RAM_PAGE]) << 12, np.int64(control[RAM_PAGES]) << 12
    while parts.wait_for_host(control, cpu, timer):
        while parts.is_running(control, cpu):
            finish_all(memory, bitmap, disks, disk_data, ram, size, cpu[SEED])
            if do_step(
                control, cpu, words, memory, bitmap, disks, pattern, distribution, ram, size
            ):
                if cpu[WORK] % _LINE == _U0:
                    parts.print_line(serial, scrollback, cpu[WORK])
                continue
            parts.rest(
                control, cpu, timer, nic, in_ends, in_lengths, in_frames, out_ends,
                out_lengths, out_frames, cpu[WRITES_PER_TICK],
            )  # fmt: skip
    return 0


def initialize(machine: Machine) -> None:
    """Leave RAM as it is: zero."""


_PATTERNS = {
    Program.SECTORS.number: UNIFORM,
    Program.SECTORS_HOTCOLD.number: HOTCOLD,
    Program.SECTORS_SEQUENTIAL.number: SEQUENTIAL,
    Program.PAGES_AND_SECTORS.number: WITH_PAGES,
}


def run(machine: Machine) -> int:
    """Run the machine's CPU."""
    pattern, table = _PATTERNS[machine.cpu["program"]], np.zeros(0, np.uint64)
    if pattern == HOTCOLD and machine.disks:
        size, disks = machine.block("pc.ram").used_length, machine.disks
        runs = max(runs_of(disk.size, size, len(disks)) for disk in disks)
        table = zipf_distribution(max(runs, 1))
    arguments = (*writer.arguments(machine), *machine.disk_arrays, pattern, table)
    return int(write_sectors(*arguments))
