"""The tracker `shadow`: a second copy of RAM, compared page by page."""

from __future__ import annotations

import numpy as np

from colobench.kernels import tracking
from colobench.kernels.jit import Bytes
from colobench.memory.ram import RAM
from colobench.memory.tracker import Tracker, Words


class Shadow(Tracker):
    """A full copy: costs nothing at a write, all of RAM's bandwidth at each collection.

    It needs nothing of the machine but memory, and sees writes through whatever mapping. A page
    that was written with what it held before is not named, nor need it be sent; the guest's
    programs never do that.
    """

    name = "shadow"

    def __init__(self, ram: RAM) -> None:
        super().__init__(ram)
        self._shadow: Bytes = np.empty_like(ram.array)

    def close(self) -> None:
        """Give the copy back."""
        super().close()
        self._shadow = np.zeros(0, dtype=np.uint8)

    def _arm(self) -> None:
        np.copyto(self._shadow, self.ram.array)

    def _collect(self, into: Words) -> None:
        tracking.compare(self.ram.array, self._shadow, into)

    def _disarm(self) -> None:
        """Do nothing: `arm` copies all of RAM."""
