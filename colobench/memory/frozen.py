"""Frozen pages: they keep their content of one moment for the host, while the guest writes."""

from __future__ import annotations

import numpy as np

from colobench.errors import LocalError
from colobench.kernels import copy_on_write
from colobench.kernels.copy_on_write import (
    BITMAP_WORDS,
    COPIED,
    EPOCH_WORDS,
    EPOCHS,
    FROZEN,
    MARKS_WORDS,
    NEEDED,
)
from colobench.kernels.jit import Words, entry_address
from colobench.memory.ram import PAGE_SIZE, RAM, PageMemory


class FrozenPages:
    """Pages of RAM that a guest copies aside before it writes to them.

    Up to EPOCHS epochs have frozen pages at once, each its own, and copies of its own.

    All of it lives as long as its RAM, because the guest may write to it at any moment. Memory for
    copies is taken as they are made, and used again.

    Parameters
    ----------
    ram
        The guest's RAM.

    Attributes
    ----------
    marks
        uint64[MARKS_WORDS], which the guest takes in place of a dirty bitmap; the dirty bitmap is
        its beginning, see `colobench.kernels.copy_on_write`.

    Raises
    ------
    LocalError
        If there is too much RAM.
    """

    def __init__(self, ram: RAM) -> None:
        self._words = ram.pages // 64
        if self._words > BITMAP_WORDS:
            raise LocalError(
                f"RAM: expected at most {BITMAP_WORDS * 64 * PAGE_SIZE} bytes, so that pages can "
                f"be frozen, found {len(ram.array)}"
            )
        self._ram = ram
        # The system gives memory to such large arrays only where they are written.
        self.marks: Words = np.zeros(MARKS_WORDS, dtype=np.uint64)
        self.marks[copy_on_write.COPY_ASIDE] = entry_address(copy_on_write.copy_aside)
        self._memories = [np.empty(ram.pages * PAGE_SIZE, dtype=np.uint8) for _ in range(EPOCHS)]
        self._places = [np.empty(ram.pages, dtype=np.int32) for _ in range(EPOCHS)]
        for epoch, (copies, places) in enumerate(zip(self._memories, self._places, strict=True)):
            self.marks[self._at(epoch, copy_on_write.COPIES_AT)] = copies.ctypes.data
            self.marks[self._at(epoch, copy_on_write.PLACES_AT)] = places.ctypes.data
        self._most_copies = [0] * EPOCHS

    @property
    def dirty(self) -> Words:
        """The dirty bitmap, uint64[pages / 64], a part of `marks`."""
        return self.marks[: self._words]

    @property
    def most_copies(self) -> int:
        """Number of pages for whose copies memory was taken, of all epochs together."""
        return sum(self._most_copies)

    def copies(self, epoch: int = 0) -> int:
        """Count the copies that the guest has made for an epoch since its freeze."""
        return int(self.marks[self._at(epoch, copy_on_write.COPIES)])

    def freeze(self, pages: Words, epoch: int = 0) -> None:
        """Freeze pages of the stopped guest for an epoch, and forget its earlier copies.

        Parameters
        ----------
        pages
            uint64[pages / 64]; bit i of word w is page 64 w + i.
        epoch
            Which of the epochs, below EPOCHS. Those of the others stay frozen.
        """
        self._most_copies[epoch] = max(self._most_copies[epoch], self.copies(epoch))
        self.marks[self._at(epoch, copy_on_write.COPIES)] = 0
        self._bitmap(epoch, COPIED)[:] = 0
        self._bitmap(epoch, NEEDED)[:] = pages
        self._set_frozen(slice(None))

    def copy(self, to: PageMemory, pages: Words, begin: int, end: int, epoch: int = 0) -> int:
        """Copy pages as they were when they were frozen; the guest may run.

        Parameters
        ----------
        to
            A memory with the same blocks.
        pages
            The pages that were frozen for the epoch.
        begin, end
            Range of words of `pages`. Threads may copy different ranges at the same time.
        epoch
            See `freeze`.

        Returns
        -------
        int
            Number of pages copied.
        """
        counts = np.zeros(copy_on_write.COUNT_SLOTS, dtype=np.int64)
        return int(
            copy_on_write.copy_frozen(
                to.array, self._ram.array, self.marks, pages, begin, end, epoch, counts
            )
        )

    def thaw(self, epoch: int = 0, begin: int = 0, end: int | None = None) -> None:
        """End the freeze for an epoch: the guest writes without making copies for it.

        Parameters
        ----------
        epoch
            See `freeze`.
        begin, end
            Range of words of the bitmap whose pages are thawed; usually all. One thread at a time.
        """
        self._bitmap(epoch, NEEDED)[begin:end] = 0
        self._set_frozen(slice(begin, end))

    def _at(self, epoch: int, word: int) -> int:
        return EPOCH_WORDS * epoch + word

    def _bitmap(self, epoch: int, word: int) -> Words:
        """Give an epoch's bitmap, as long as RAM needs it."""
        at = self._at(epoch, word)
        return self.marks[at : at + self._words]

    def _set_frozen(self, words: slice) -> None:
        """Set FROZEN to what the epochs need and have not, or had not a moment ago."""
        frozen = np.zeros_like(self.dirty[words])
        for epoch in range(EPOCHS):
            frozen |= self._bitmap(epoch, NEEDED)[words] & ~self._bitmap(epoch, COPIED)[words]
        self.marks[FROZEN : FROZEN + self._words][words] = frozen
