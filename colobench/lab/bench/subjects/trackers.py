"""Dirty tracking by userfaultfd: what a page's first write costs, and the collection."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from colobench.lab.bench.case import Case, at_most, subject
from colobench.lab.bench.context import GIB, PAGE_SIZE, BenchContext, binary, thousands
from colobench.lab.bench.measured import Measured
from colobench.memory.ram import RAM
from colobench.memory.tracker import Tracker, watch

DIRTY_PAGES = 100_000


def _write(ram: RAM, pages: npt.NDArray[np.int64] | slice) -> float:
    """Write the first word of those pages; seconds that this thread ran, in the kernel, too."""
    words = ram.array.view(np.uint64).reshape(-1, PAGE_SIZE // 8)[:, 0]
    begin = time.thread_time()
    words[pages] = 1
    return time.thread_time() - begin


def _sample(ram: RAM, tracker: Tracker, pages: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Give the seconds that a first write of a page takes, and those of a collection."""
    into = np.zeros_like(ram.bitmap)
    tracker.collect(into)
    first = _write(ram, slice(None)) / ram.pages
    tracker.collect(into)
    _write(ram, pages)
    begin = time.thread_time()
    tracker.collect(into)
    return first, time.thread_time() - begin


@subject("userfault", "dirty tracking by userfaultfd: first write of a page, and collection")
def userfault(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    size = context.size(GIB, 64 * PAGE_SIZE)
    count = context.size(DIRTY_PAGES)

    def measure(which: int, units: float) -> Measured:
        ram = context.memory("watched", size)
        chance = np.random.default_rng(0)
        pages = np.sort(chance.choice(ram.pages, min(count, ram.pages), replace=False))
        tracker = watch("userfault", ram)
        try:
            tracker.arm()
            samples = [_sample(ram, tracker, pages) for _ in range(context.rounds + 1)][1:]
        finally:
            tracker.close()
        return Measured([units * each[which] for each in samples])

    words = f"first write of each page of {binary(size)}"
    yield Case(words, "µs", lambda: measure(0, 1e6), at_most(1.3, "µs"))
    words = f"collection of {thousands(count)} dirty pages of {binary(size)}"
    yield Case(words, "ms", lambda: measure(1, 1e3), at_most(5, "ms"))
