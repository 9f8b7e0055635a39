"""Dirty tracking by userfaultfd: cost of a page's first write, and of a collection."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from colobench.errors import RemoteError
from colobench.lab.bench.case import Case, at_most, subject
from colobench.lab.bench.context import GIB, PAGE_SIZE, BenchContext, as_times, binary, thousands
from colobench.lab.bench.measured import Measured
from colobench.memory.ram import RAM
from colobench.memory.tracker import Tracker, watch

DIRTY_PAGES = 100_000


def _write(ram: RAM, pages: npt.NDArray[np.int64] | slice) -> float:
    """Write the first word of pages; return this thread's processor time, seconds."""
    words = ram.array.view(np.uint64).reshape(-1, PAGE_SIZE // 8)[:, 0]
    begin = time.thread_time()
    words[pages] = 1
    return time.thread_time() - begin


def _minor_fault(ram: RAM) -> float:
    """Measure the first write of a page that is only to be mapped, seconds."""
    with mmap.mmap(ram.fd, len(ram.array)) as mapping:
        words = np.frombuffer(mapping, dtype=np.uint64).reshape(-1, PAGE_SIZE // 8)[:, 0]
        begin = time.thread_time()
        words[:] = 1
        seconds = time.thread_time() - begin
        # A view keeps the mapping from being closed.
        del words
    return seconds / ram.pages


def _read_pagemap(ram: RAM, into: npt.NDArray[np.uint8]) -> float:
    """Measure the reading of /proc/self/pagemap, which has 8 bytes for each page, seconds."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        begin = time.thread_time()
        pagemap.seek(ram.array.ctypes.data // PAGE_SIZE * 8)
        found = pagemap.readinto(into.data)
        seconds = time.thread_time() - begin
    if found != len(into):
        raise RemoteError(f"pagemap: expected {len(into)} bytes, found {found}")
    return seconds


def _sample(ram: RAM, tracker: Tracker, pages: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Measure the first write of a page, and a collection, seconds."""
    into = np.zeros_like(ram.bitmap)
    tracker.collect(into)
    first = _write(ram, slice(None)) / ram.pages
    tracker.collect(into)
    _write(ram, pages)
    begin = time.thread_time()
    tracker.collect(into)
    return first, time.thread_time() - begin


@subject("userfault", "dirty tracking by userfaultfd: against minor faults and /proc/self/pagemap")
def userfault(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    size = context.size(GIB, 64 * PAGE_SIZE)
    count = context.size(DIRTY_PAGES)

    def measure(which: int, units: float) -> Measured:
        ram = context.memory("watched", size)
        chance = np.random.default_rng(0)
        pages = np.sort(chance.choice(ram.pages, min(count, ram.pages), replace=False))
        tracker = watch("userfault", ram)
        entries = np.zeros(8 * ram.pages, dtype=np.uint8)
        try:
            tracker.arm()
            ours, reference = context.compare(
                lambda: _sample(ram, tracker, pages)[which],
                (lambda: _minor_fault(ram), lambda: _read_pagemap(ram, entries))[which],
            )
        finally:
            tracker.close()
        return as_times((ours, reference), units)

    words = f"first write of each page of {binary(size)}, minor page faults"
    yield Case(words, "µs", lambda: measure(0, 1e6), at_most(1.5))
    words = f"collection of {thousands(count)} dirty pages of {binary(size)}, reading the pagemap"
    yield Case(words, "ms", lambda: measure(1, 1e3), at_most(0.6))
