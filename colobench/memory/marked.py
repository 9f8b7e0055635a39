"""The tracker `marked`: the guest itself marks the pages that it writes."""

from __future__ import annotations

from colobench.kernels import bitmap
from colobench.memory.ram import RAM
from colobench.memory.tracker import Tracker, Words


class Marked(Tracker):
    """Each store of the guest marks its page, as an emulator or a compiler can arrange."""

    name = "marked"

    def __init__(self, ram: RAM) -> None:
        super().__init__(ram)
        self.marks = self._dirty = ram.bitmap

    def make_freezable(self) -> None:
        """Give the guest a longer array for its marks; see `Tracker`."""
        from colobench.memory.frozen import FrozenPages

        self.frozen = FrozenPages(self.ram)
        self.marks, self._dirty = self.frozen.marks, self.frozen.dirty

    def _arm(self) -> None:
        bitmap.clear(self._dirty)

    def _collect(self, into: Words) -> None:
        bitmap.sync(self._dirty, into)

    def _disarm(self) -> None:
        """Do nothing: the guest goes on marking, and `arm` clears the marks."""

    def _touch(self, page: int) -> None:
        super()._touch(page)
        bitmap.mark(self.marks, page)
