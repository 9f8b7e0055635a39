"""Frozen memory in tests: all pages of a guest's, and a guest that does nothing but write pages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numba
import numpy as np

from colobench.guest.store import keep_page
from colobench.kernels.atomics import address
from colobench.memory.frozen import FrozenPages

PAGE = 4096


class FrozenMemory:
    """Freezes all pages of a memory, uint8[pages * 4096]."""

    def __init__(self, memory: np.ndarray) -> None:
        pages = -(-len(memory) // PAGE // 64) * 64
        ram: Any = SimpleNamespace(pages=pages, array=memory)
        self._memory, self._frozen = memory, FrozenPages(ram)
        self._all = np.full(pages // 64, 2**64 - 1, dtype=np.uint64)
        self._out: Any = SimpleNamespace(array=np.empty(pages * PAGE, dtype=np.uint8))
        #: What a guest takes for its marks, and the dirty bitmap in it.
        self.marks, self.dirty = self._frozen.marks, self._frozen.dirty

    def freeze(self) -> None:
        self._frozen.freeze(self._all)

    def check(self, before: np.ndarray) -> None:
        """Hold that each page that is not as before was copied as it was before."""
        different = self._memory.view(np.uint64) != before.view(np.uint64)
        changed = np.flatnonzero(different.reshape(-1, PAGE // 8).any(axis=1))
        pages = np.zeros(len(self._all) * 64, dtype=np.uint8)
        pages[changed] = 1
        wanted = np.packbits(pages, bitorder="little").view(np.uint64)
        assert self._frozen.copy(self._out, wanted, 0, len(wanted)) == len(changed)
        kept = self._out.array.reshape(-1, PAGE)[changed]
        assert (kept == before.reshape(-1, PAGE)[changed]).all(), "a frozen page has changed"


@numba.njit(nogil=True)
def write_pages(memory, words, marks, pages, value):
    """Write all words of pages, as a guest does."""
    for page in pages:
        keep_page(np.int64(address(memory)), marks, np.int64(page))
        for word in range(512):
            words[512 * page + word] = value
    return 0


def write(ram, frozen, pages, value) -> None:
    numbers = np.array(pages, dtype=np.int64)
    write_pages(ram.array, ram.array.view(np.uint64), frozen.marks, numbers, np.uint64(value))
