"""The tracker `shadow`: it compares RAM with a copy, page by page."""

from __future__ import annotations

import numpy as np

from colobench.kernels import tracking
from colobench.kernels.jit import Bytes
from colobench.memory.ram import RAM
from colobench.memory.tracker import Tracker, Words


class Shadow(Tracker):
    """Tracker with a full copy: a write costs nothing, a collection reads all of RAM and the copy.

    It needs no feature of the machine, and sees writes through any mapping. A page that was written
    with the bytes it already had is not reported, and need not be sent; the guest's programs never
    write such a page.
    """

    name = "shadow"

    def __init__(self, ram: RAM) -> None:
        super().__init__(ram)
        self._shadow: Bytes = np.empty_like(ram.array)

    def close(self) -> None:
        """Release the copy."""
        super().close()
        self._shadow = np.zeros(0, dtype=np.uint8)

    def _arm(self) -> None:
        np.copyto(self._shadow, self.ram.array)

    def _collect(self, into: Words) -> None:
        tracking.compare(self.ram.array, self._shadow, into)

    def _disarm(self) -> None:
        """Do nothing: `arm` copies all of RAM."""
