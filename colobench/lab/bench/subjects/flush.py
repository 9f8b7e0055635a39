"""Copies of scattered pages: the flush of the RAM cache, and gathering."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from colobench.kernels import bitmap, pages
from colobench.lab.bench.case import TWO_CORES, Case, at_least, subject
from colobench.lab.bench.context import (
    GIB,
    PAGE_SIZE,
    BenchContext,
    as_rates,
    binary,
    thousands,
)
from colobench.lab.bench.measured import Measured
from colobench.lab.bench.subjects.bitmaps import dirty
from colobench.lab.bench.timing import timed

COPIED_PAGES = 100_000
UNIT = "GB/s"


class _Work:
    """RAM, the RAM cache, and the marks of the pages to copy."""

    def __init__(self, context: BenchContext) -> None:
        self.context = context
        self.ram_bytes, self.count = _sizes(context)
        self.size = self.count * PAGE_SIZE
        self.cache = context.noise("cache", self.ram_bytes)
        self.ram = context.memory("ram", self.ram_bytes).array
        total = self.ram_bytes // PAGE_SIZE
        self.chosen = dirty(total, self.count / total)
        self.marks = self.chosen.copy()
        self.numbers = np.zeros(total + bitmap.LIST_SLACK, dtype=np.int32)
        bitmap.list_pages(self.chosen, self.numbers)

    def mark(self) -> None:
        """Mark the pages again, which a flush has cleared."""
        self.marks[:] = self.chosen

    def flush(self) -> None:
        pages.flush(self.ram, self.cache, self.marks)

    def gather(self) -> None:
        pages.gather(self.cache, self.numbers, self.count, self.ram)

    def in_one_piece(self, name: str) -> Callable[[], object]:
        """Return C's copy of the same number of bytes in one piece."""
        function = self.context.references.function
        return function(f"pages.{name}", self.ram, self.cache, self.size)

    def page_by_page(self, name: str) -> Callable[[], object]:
        """Return C's copy of the same pages."""
        function = self.context.references.function
        return function(f"pages.{name}", self.ram, self.cache, self.numbers, self.count)


def _sizes(context: BenchContext) -> tuple[int, int]:
    ram = context.size(GIB, 64 * PAGE_SIZE)
    return ram, min(context.size(COPIED_PAGES), ram // PAGE_SIZE)


def _words(context: BenchContext) -> str:
    ram, count = _sizes(context)
    return f"{thousands(count)} random pages of {binary(ram)}"


def _against(context: BenchContext, verb: str, name: str) -> Measured:
    work = _Work(context)
    ours = timed(work.flush, work.mark) if verb == "flush" else timed(work.gather)
    scattered = name.startswith("flush")
    reference = work.page_by_page(name) if scattered else work.in_one_piece(name)
    return as_rates(context.compare(ours, timed(reference)), work.size)


@subject("flush", "flush and gathering of random pages: against copies in C")
def flush(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    words = _words(context)
    for verb in ("flush", "gather"):
        for name, against, target in (
            ("copy_nontemporal", "C's contiguous non-temporal copy", at_least(0.9)),
            ("copy_nontemporal_ahead", "the same, fetching ahead", None),
            ("flush_memcpy", "C's loop of memcpy", at_least(1.7)),
            ("flush_nontemporal", "C's scattered non-temporal copy", None),
        ):
            measure = partial(_against, context, verb, name)
            yield Case(f"{verb}, {words}, {against}", UNIT, measure, target)


@subject("flush2", "the flush on two threads: against one thread")
def flush_on_two_threads(context: BenchContext) -> Iterator[Case]:
    """Give the case; its bound is also the required speed-up of memcpy by two threads."""

    def measure() -> Measured:
        work = _Work(context)
        middle = len(work.marks) // 2
        first, second = slice(None, middle), slice(middle, None)
        bytes_of_word = 64 * PAGE_SIZE

        def part(words: slice) -> None:
            begin, end, _ = words.indices(len(work.marks))
            memory = slice(begin * bytes_of_word, end * bytes_of_word)
            pages.flush(work.ram[memory], work.cache[memory], work.marks[words])

        def on_both() -> None:
            list(threads.map(part, (first, second)))

        with ThreadPoolExecutor(2) as threads:
            *samples, two_threads = context.compare(
                timed(on_both, work.mark, time.perf_counter),
                timed(work.flush, work.mark, time.perf_counter),
                context.cores.sample,
            )
        return as_rates(samples, work.size, two_threads=two_threads)

    words = f"{_words(context)}, one thread"
    yield Case(words, UNIT, measure, at_least(TWO_CORES))
