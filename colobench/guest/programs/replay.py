"""The program ``replay``: each step writes to the next page of a trace, which lies in guest RAM.

A tick of the timer is a millisecond of the trace. The steps of a tick are the page writes that the
trace has up to its end, so that a guest that was late catches up. After its last interval the trace
begins again. RAM is a function of the trace, the seed and the number of steps done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colobench.guest.numba import cpu as parts
from colobench.guest.numba.cpu import (
    COALESCED_TICKS,
    PENDING_WRITES,
    RAM_PAGE,
    RAM_PAGES,
    TICKS,
    WORK,
)
from colobench.guest.programs import writer
from colobench.guest.replay_table import (
    CHANGED_WORDS,
    HEADER_MAGIC,
    INTERVAL_TICKS,
    INTERVALS,
    MAGIC,
    RANDOM_WORDS,
    RUNS,
    TABLE_PAGE,
    TARGET_PAGES,
    TICKS_LIMIT,
    WORDS_PER_PAGE,
    WRITES,
    encode_table,
    load_trace,
)
from colobench.guest.store import keep_page
from colobench.kernels.atomics import address
from colobench.kernels.bitmap import mark
from colobench.kernels.jit import Bytes, Words, inlined, kernel
from colobench.memory.ram import PAGE_SIZE

if TYPE_CHECKING:
    from colobench.guest.numba.machine import Machine

_U0, _U1, _U32 = np.uint64(0), np.uint64(1), np.uint64(32)
_PAGE_WORDS, _MAGIC = np.uint64(WORDS_PER_PAGE), np.uint64(MAGIC)
_LAST_WORD, _SMALL, _DRAW = np.uint64(WORDS_PER_PAGE - 1), np.uint64(0xFF), np.uint64(54)
#: Steps of a tick, so that the timer goes on whatever is in RAM.
_STEPS_LIMIT = np.uint64(1_000_000)
_TICKS_LIMIT, _PAGE_NUMBER = np.uint64(TICKS_LIMIT), np.uint64(2**32 - 1)


@inlined
def find_header(control: Words, words: Words) -> int:
    """Return the index of the header's first word; -1 if RAM has no table that fits into it.

    RAM may come from a peer, so all that is an index, or a divisor, is compared with RAM's size.
    """
    pages = control[RAM_PAGES]
    at = np.int64((control[RAM_PAGE] + pages - _U1) * _PAGE_WORDS)
    table, target = words[at + TABLE_PAGE], words[at + TARGET_PAGES]
    ticks, changed = words[at + INTERVAL_TICKS], words[at + CHANGED_WORDS]
    intervals, runs = words[at + INTERVALS], words[at + RUNS]
    if words[at + HEADER_MAGIC] != _MAGIC or table >= pages or target > table or target == _U0:
        return -1
    room = (pages - _U1 - table) * _PAGE_WORDS
    if intervals > room or runs > room - intervals or intervals == _U0 or runs == _U0:
        return -1
    if ticks == _U0 or ticks > _TICKS_LIMIT or changed > _PAGE_WORDS or words[at + WRITES] == _U0:
        return -1
    return at


@inlined
def find_run(words: Words, first: int, runs: int, write: np.uint64) -> int:
    """Return the number of the run with a page write, from 0; 0 if no run ends behind it.

    `first` is the index of the first run's word, `runs` their number.
    """
    low, high = 0, runs
    while low < high:
        middle = (low + high) // 2
        if (words[first + middle] >> _U32) > write:
            high = middle
        else:
            low = middle + 1
    return low if low < runs else 0


@inlined
def steps_of_tick(cpu: Words, timer: Words, words: Words, header: int, ends: int) -> np.uint64:
    """Return the number of steps to do at the next tick.

    `header` and `ends` are the indices of the header's first word and of the first interval's end.
    """
    intervals = words[header + INTERVALS]
    interval = (timer[TICKS] + timer[COALESCED_TICKS]) // words[header + INTERVAL_TICKS]
    due = interval // intervals * words[header + WRITES]
    due += words[ends + np.int64(interval % intervals)]
    return min(due - cpu[WORK], _STEPS_LIMIT) if due > cpu[WORK] else _U0


@inlined
def write_page(
    control: Words,
    cpu: Words,
    words: Words,
    bitmap: Words,
    page: np.uint64,
    random: np.uint64,
    changed: int,
    share: np.uint64,
) -> int:
    """Do a step: write `changed` words of that page of pc.ram; `share` of 1024 are random."""
    at = np.int64(control[RAM_PAGE] + page)
    keep_page(np.int64(address(words)), bitmap, at)
    for number in range(changed):
        value = parts.splitmix64(random + np.uint64(number))
        place = np.int64((random + np.uint64(number)) & _LAST_WORD)
        words[(at << 9) + place] = value if (value >> _DRAW) < share else value & _SMALL
    if len(bitmap):
        mark(bitmap, at)
    cpu[WORK] += _U1
    cpu[PENDING_WRITES] -= _U1
    return 0


@kernel(writer.SIGNATURE)
def replay(
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
) -> int:
    """Run the CPU, with the arguments of `colobench.guest.numba.cpu`."""
    while parts.wait_for_host(control, cpu, timer):
        # RAM and registers may be others than before the stop.
        header = find_header(control, words)
        ends, first, runs, run = 0, 0, 0, 0
        writes, write, changed, share, target, steps = _U1, _U0, 0, _U0, _U1, _U0
        if header >= 0:
            ends = np.int64((control[RAM_PAGE] + words[header + TABLE_PAGE]) * _PAGE_WORDS)
            first = ends + np.int64(words[header + INTERVALS])
            runs, writes = np.int64(words[header + RUNS]), words[header + WRITES]
            changed = np.int64(words[header + CHANGED_WORDS])
            share, target = words[header + RANDOM_WORDS], words[header + TARGET_PAGES]
            write = cpu[WORK] % writes
            run = find_run(words, first, runs, write)
        while parts.is_running(control, cpu):
            if cpu[PENDING_WRITES] == _U0 or header < 0:
                steps = _U0
                if header >= 0:
                    steps = steps_of_tick(cpu, timer, words, header, ends)
                parts.rest(
                    control, cpu, timer, nic, in_ends, in_lengths, in_frames, out_ends,
                    out_lengths, out_frames, steps,
                )  # fmt: skip
                continue
            random = parts.random_bits(cpu)
            begin = words[first + run - 1] >> _U32 if run > 0 else _U0
            entry = words[first + run]
            page = ((entry & _PAGE_NUMBER) + (write - begin)) % target
            write_page(control, cpu, words, bitmap, page, random, changed, share)
            write += _U1
            if write >= entry >> _U32:
                run += 1
            if write >= writes or run >= runs:
                write = cpu[WORK] % writes
                run = find_run(words, first, runs, write)
            if parts.is_to_be_seen(cpu):
                parts.show_work(
                    control, cpu, serial, scrollback, nic, out_ends, out_lengths, out_frames,
                    memory, bitmap, random,
                )  # fmt: skip
    return 0


def initialize(machine: Machine) -> None:
    """Put the trace into RAM; the rest of RAM is zero.

    Raises
    ------
    LocalError
        If the trace cannot be read, or does not fit into RAM.
    """
    settings = machine.settings
    assert settings.trace is not None  # Checked by the settings.
    trace = load_trace(settings.trace, settings.trace_sha256)
    block = machine.block("pc.ram")
    table = encode_table(trace, block.pages, settings.working_set)
    end = (block.first_page + block.pages) * PAGE_SIZE
    machine.ram.array[end - table.nbytes : end] = table.view(np.uint8)


def run(machine: Machine) -> int:
    """Run the machine's CPU."""
    return int(replay(*writer.arguments(machine)))
