"""Pages that the primary's guest wrote, collected from its tracker and listed for a sender."""

from __future__ import annotations

import numpy as np

from colobench.kernels import bitmap
from colobench.memory.ram import WORD_BITS
from colobench.memory.tracker import Tracker, Words
from colobench.node.migration.page_path import Pages


class DirtyPages:
    """Dirty pages as QEMU's migration bitmap and as a list.

    Parameters
    ----------
    tracker
        Tracker of the guest's writes to RAM.

    Attributes
    ----------
    bitmap
        uint64[pages / 64], the pages of the last collection.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        ram = tracker.ram
        self.bitmap: Words = np.zeros_like(ram.bitmap)
        self._list: Pages = np.zeros(ram.pages + bitmap.LIST_SLACK, dtype=np.int32)
        #: Pages that `count` has collected, and that the next collection has as well.
        self._counted: Words = np.zeros_like(ram.bitmap)
        self._forgotten = 0

    def arm(self) -> Pages:
        """Begin to track writes, and list all pages of RAM, as if each had been written."""
        self._tracker.arm()
        bitmap.clear(self._counted)
        blocks = self._tracker.ram.blocks
        bits = np.zeros(self._tracker.ram.pages, dtype=np.uint8)
        for block in blocks:
            bits[block.first_page : block.first_page + block.pages] = 1
        self.bitmap[:] = np.packbits(bits, bitorder="little").view(np.uint64)
        return np.flatnonzero(bits).astype(np.int32)

    def collect(self) -> Pages:
        """List the pages written since the last call; the list is valid until the next one."""
        bitmap.clear(self.bitmap)
        bitmap.union(self.bitmap, self._counted)
        bitmap.clear(self._counted)
        self._tracker.collect(self.bitmap)
        return self._list[: bitmap.list_pages(self.bitmap, self._list)]

    def put_back(self, page: int) -> None:
        """Let the pages of the last collection from `page` on be in the next collection, too."""
        word, bit = divmod(page, WORD_BITS)
        self.bitmap[:word] = 0
        self.bitmap[word] &= np.uint64(2**WORD_BITS - (1 << bit))
        bitmap.union(self._counted, self.bitmap)

    def count(self) -> int:
        """Count the pages written since the last collection, while the guest runs."""
        self._tracker.collect(self._counted)
        count: int = bitmap.popcount(self._counted)
        return count

    def collect_but_one(self) -> Pages:
        """Collect all dirty pages but one, which is forgotten (`Bug.MISSED_DIRTY_BIT`)."""
        pages = self.collect()
        if not len(pages):
            return pages
        self._forgotten += 1
        return np.delete(pages, self._forgotten * 7919 % len(pages))
