"""A planted bug of the trackers, see ``docs/bug-museum.md``."""

from __future__ import annotations

import numpy as np

from colobench.memory.ram import PAGE_SIZE
from colobench.memory.tracker import Tracker, Words


class UntouchedPages(Tracker):
    """Tracker that misses the first write to a page that was never touched (`UNTOUCHED_PAGES`).

    Such a page is no page of the process yet, and protection of what is not there has no effect. A
    page counts as touched here when there is something in it.

    Parameters
    ----------
    tracker
        Tracker whose reports lose these pages.
    """

    name = "untouched-pages"

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(tracker.ram)
        self._tracker = tracker
        self.marks = tracker.marks
        self._fresh: Words = np.zeros(tracker.ram.pages // 64, dtype=np.uint64)
        self._protected = self._fresh.copy()

    def close(self) -> None:
        """Close the tracker behind this one."""
        super().close()
        self._tracker.close()

    def _arm(self) -> None:
        self._tracker.arm()
        self._protect()

    def _collect(self, into: Words) -> None:
        self._fresh[:] = 0
        self._tracker.collect(self._fresh)
        into |= self._fresh & self._protected
        self._protect()

    def _disarm(self) -> None:
        self._tracker.disarm()

    def _protect(self) -> None:
        touched = self.ram.array.reshape(-1, PAGE_SIZE).any(axis=1)
        self._protected = np.packbits(touched, bitorder="little").view(np.uint64)
