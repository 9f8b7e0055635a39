"""The pages that the primary's guest wrote: collected from its tracker, listed for a sender."""

from __future__ import annotations

import numpy as np

from colobench.kernels import bitmap
from colobench.memory.tracker import Tracker, Words
from colobench.node.migration.page_path import Pages


class DirtyPages:
    """The pages that are to be sent, as QEMU's migration bitmap and as a list.

    Parameters
    ----------
    tracker
        Knows which pages of RAM the guest wrote.

    Attributes
    ----------
    bitmap
        uint64[pages / 64], the pages that were collected last.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        ram = tracker.ram
        self.bitmap: Words = np.zeros_like(ram.bitmap)
        self._list: Pages = np.zeros(ram.pages + bitmap.LIST_SLACK, dtype=np.int32)
        self._forgotten = 0

    def arm(self) -> Pages:
        """Begin to track; gives all pages of RAM."""
        self._tracker.arm()
        blocks = self._tracker.ram.blocks
        everything = [np.arange(b.first_page, b.first_page + b.pages) for b in blocks]
        return np.concatenate(everything).astype(np.int32)

    def collect(self) -> Pages:
        """Collect the pages written since the last time; the list is good until the next call."""
        bitmap.clear(self.bitmap)
        self._tracker.collect(self.bitmap)
        return self._list[: bitmap.list_pages(self.bitmap, self._list)]

    def collect_but_one(self) -> Pages:
        """Collect, and forget one page of those found (`Bug.MISSED_DIRTY_BIT`)."""
        pages = self.collect()
        if not len(pages):
            return pages
        self._forgotten += 1
        return np.delete(pages, self._forgotten * 7919 % len(pages))
