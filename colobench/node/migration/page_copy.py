"""A copy of the pages of a checkpoint, from which they are sent while the guest runs."""

from __future__ import annotations

import numpy as np

from colobench.memory.ram import RAM, PageMemory
from colobench.memory.tracker import Words
from colobench.node.flush import copy_marked
from colobench.node.workers import Workers


class PageCopy:
    """A memory as large as RAM, in which each copied page has the place that it has in RAM.

    All of it is allocated and pre-faulted at once, so that no copy waits for memory. Senders name
    pages by their numbers, so none needs to know that it sends from a copy; with the transport
    `memfd` the secondary maps the copy instead of RAM.

    Parameters
    ----------
    ram
        The guest's RAM.
    workers
        Threads that share the work.

    Attributes
    ----------
    memory
        The copies.
    """

    def __init__(self, ram: RAM, workers: Workers) -> None:
        self._ram, self._workers = ram, workers
        self.memory = PageMemory("colobench-ram-copy", ram.blocks)

    @property
    def size(self) -> int:
        """Bytes of memory for copies."""
        return len(self.memory.array)

    def capture(self, pages: Words) -> None:
        """Capture the pages of a checkpoint while the guest stands still; see `take`."""
        self.take(pages)

    def complete(self, pages: Words) -> None:
        """Complete the copy of captured pages, once the guest runs."""

    def take(self, pages: Words) -> int:
        """Copy pages from RAM.

        Parameters
        ----------
        pages
            uint64[pages / 64], the pages to copy; bit i of word w is page 64 w + i. Not changed.

        Returns
        -------
        int
            Number of pages copied.
        """
        marks = self.memory.bitmap
        np.copyto(marks, pages)
        return copy_marked(self.memory, self._ram, marks, self._workers)

    def close(self) -> None:
        """Release the memory."""
        self.memory.close()
