"""Copies of marked pages from one memory into another, divided between threads."""

from __future__ import annotations

from functools import partial

from colobench.kernels import bitmap, pages
from colobench.memory.ram import PAGE_SIZE, WORD_BITS, PageMemory
from colobench.memory.tracker import Words
from colobench.node.workers import PAGES_FOR_A_THREAD, Workers


def flush(ram: PageMemory, cache: PageMemory, workers: Workers) -> int:
    """Copy the marked pages of the cache into RAM, and clear the marks; see `copy_marked`."""
    return copy_marked(ram, cache, cache.bitmap, workers)


def copy_marked(to: PageMemory, source: PageMemory, marks: Words, workers: Workers) -> int:
    """Copy the marked pages, and clear the marks.

    Parameters
    ----------
    to, source
        Memories with the same blocks.
    marks
        uint64[pages / 64]; bit i of word w is page 64 w + i.
    workers
        Threads that copy parts with equal numbers of marked pages.

    Returns
    -------
    int
        Number of pages copied.
    """
    marked = int(bitmap.popcount(marks))
    parts = max(1, min(workers.threads, marked // PAGES_FOR_A_THREAD))
    words = [bitmap.find_word(marks, part * marked // parts) for part in range(parts)]
    jobs = []
    for begin, end in zip(words, [*words[1:], len(marks)], strict=True):
        part = slice(begin * WORD_BITS * PAGE_SIZE, end * WORD_BITS * PAGE_SIZE)
        jobs.append(partial(pages.flush, to.array[part], source.array[part], marks[begin:end]))
    return sum(workers.run(jobs))
