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
        self.marks = ram.bitmap

    def _arm(self) -> None:
        bitmap.clear(self.marks)

    def _collect(self, into: Words) -> None:
        bitmap.sync(self.marks, into)

    def _disarm(self) -> None:
        """Do nothing: the guest goes on marking, and `arm` clears the marks."""

    def _touch(self, page: int) -> None:
        super()._touch(page)
        bitmap.mark(self.marks, page)
