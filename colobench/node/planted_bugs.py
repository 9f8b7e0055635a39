"""Planted bugs of the flush and of loading, see ``docs/bug-museum.md``."""

from __future__ import annotations

import numpy as np

from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.wire.vmstate import Device
from colobench.wire.vmstate import State as DeviceState

#: Name of the device that a dirty load leaves as it is.
_LEFT_OUT = "timer"


def forget_zero_pages(cache: PageMemory) -> None:
    """Clear the marks of pages that are all zero: no flush copies them (`SKIPPED_ZERO_PAGES`)."""
    marks = cache.bitmap.view(np.uint8)
    flags = np.unpackbits(marks, bitorder="little")
    pages = cache.array.reshape(-1, PAGE_SIZE)
    flags[: len(pages)] &= pages.any(axis=1)
    marks[:] = np.packbits(flags, bitorder="little")


def without_a_device(
    states: list[tuple[Device, DeviceState]],
) -> list[tuple[Device, DeviceState]]:
    """Leave out a device, which stays as the secondary's guest has left it (`DIRTY_LOAD`)."""
    return [(device, state) for device, state in states if device.idstr != _LEFT_OUT]
