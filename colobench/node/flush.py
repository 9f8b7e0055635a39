"""Flush of the RAM cache into RAM, divided between threads."""

from __future__ import annotations

from functools import partial

from colobench.kernels import bitmap, pages
from colobench.memory.ram import PAGE_SIZE, WORD_BITS, PageMemory
from colobench.node.workers import PAGES_FOR_A_THREAD, Workers


def flush(ram: PageMemory, cache: PageMemory, workers: Workers) -> int:
    """Copy the marked pages of the cache into RAM, and clear the marks.

    Parameters
    ----------
    ram, cache
        Memories with the same blocks.
    workers
        Threads that copy parts with equal numbers of marked pages.

    Returns
    -------
    int
        Number of pages copied.
    """
    marked = int(bitmap.popcount(cache.bitmap))
    parts = max(1, min(workers.threads, marked // PAGES_FOR_A_THREAD))
    words = [bitmap.find_word(cache.bitmap, part * marked // parts) for part in range(parts)]
    jobs = []
    for begin, end in zip(words, [*words[1:], len(cache.bitmap)], strict=True):
        part = slice(begin * WORD_BITS * PAGE_SIZE, end * WORD_BITS * PAGE_SIZE)
        jobs.append(
            partial(pages.flush, ram.array[part], cache.array[part], cache.bitmap[begin:end])
        )
    return sum(workers.run(jobs))
