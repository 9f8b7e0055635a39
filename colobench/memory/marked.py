"""The tracker `marked`: the guest says itself what it writes."""

from __future__ import annotations

from colobench.kernels import bitmap
from colobench.memory.ram import RAM
from colobench.memory.tracker import Tracker, Words


class Marked(Tracker):
    """The guest's stores mark the page themselves, as an emulator's or a compiler's can."""

    name = "marked"

    def __init__(self, ram: RAM) -> None:
        super().__init__(ram)
        self.marks = ram.bitmap

    def _arm(self) -> None:
        bitmap.clear(self.marks)

    def _collect(self, into: Words) -> None:
        bitmap.sync(self.marks, into)

    def _disarm(self) -> None:
        """Do nothing: the guest goes on marking, and `arm` forgets it."""

    def _touch(self, page: int) -> None:
        super()._touch(page)
        bitmap.mark(self.marks, page)
