"""Copy-on-write: the copy of a checkpoint's pages is made while the guest runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from colobench.errors import LocalError
from colobench.kernels import bitmap
from colobench.kernels.copy_on_write import EPOCHS
from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.memory.tracker import Tracker, Words
from colobench.node.migration.page_copy import PageCopy
from colobench.node.workers import PAGES_FOR_A_THREAD, Workers


class CopyOnWrite(PageCopy):
    """A copy of pages that is made after the guest has gone on, as they were when it stood.

    Parameters
    ----------
    tracker
        Tracker of the guest, which was made freezable.
    workers
        See `PageCopy`.
    freezes
        False leaves pages unfrozen, so that they are copied as they are by then.

    Raises
    ------
    LocalError
        If the guest's pages cannot be frozen.
    """

    def __init__(self, tracker: Tracker, workers: Workers, freezes: bool = True) -> None:
        if tracker.frozen is None:
            raise LocalError(
                "capture copy-on-write: expected a guest that looks before each store whether the "
                "page is frozen, found one that does not"
            )
        super().__init__(tracker.ram, workers)
        self._frozen, self._freezes = tracker.frozen, freezes

    @property
    def size(self) -> int:
        """Bytes of all copies, those included that the guest has made at once at most."""
        return super().size + self._frozen.most_copies * PAGE_SIZE

    def capture(self, pages: Words) -> None:
        """Freeze the pages of the stopped guest; see `PageCopy`."""
        if self._freezes:
            self._frozen.freeze(pages)

    def complete(self, pages: Words) -> None:
        """Copy the frozen pages while the guest runs, and thaw them; see `PageCopy`."""
        count = int(bitmap.popcount(pages))
        parts = max(1, min(self._workers.threads, count // PAGES_FOR_A_THREAD))
        words = [bitmap.find_word(pages, part * count // parts) for part in range(parts)]
        ranges = zip(words, [*words[1:], len(pages)], strict=True)
        self._workers.run(
            [partial(self._frozen.copy, self.memory, pages, *each) for each in ranges]
        )
        self._frozen.thaw()

    def close(self) -> None:
        """Thaw the pages, and release the memory."""
        self._frozen.thaw()
        super().close()


class ChosenMemory(PageMemory):
    """One of several memories with the same blocks, which senders take for a single one.

    Parameters
    ----------
    memories
        The memories, which are closed with this one; the first is chosen.
    """

    def __init__(self, memories: Sequence[PageMemory]) -> None:
        self._memories = memories
        self.blocks, self.pages = memories[0].blocks, memories[0].pages
        self.choose(0)

    def choose(self, number: int) -> None:
        """Choose a memory, whose pages are sent from now on."""
        chosen = self._memories[number]
        self.array, self.bitmap, self.fd = chosen.array, chosen.bitmap, chosen.fd

    def close(self) -> None:
        """Release all memories."""
        self.array, self.bitmap = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.uint64)
        for each in self._memories:
            each.close()


class EpochCopies(CopyOnWrite):
    """Copies of up to two epochs that are open at once, each in a memory of its own, in parts.

    A memory is written again only for the next but one epoch: `multifd` passes pages by reference.

    Parameters
    ----------
    tracker, workers, freezes
        See `CopyOnWrite`.
    """

    def __init__(self, tracker: Tracker, workers: Workers, freezes: bool = True) -> None:
        super().__init__(tracker, workers, freezes)
        first = self.memory
        self._memories = [first]
        try:
            for _ in range(EPOCHS - 1):
                self._memories.append(PageMemory("colobench-ram-copy", first.blocks))
        except BaseException:
            for each in self._memories:
                each.close()
            raise
        self.memory = self._chosen = ChosenMemory(self._memories)

    @property
    def size(self) -> int:
        """Bytes of all copies, see `CopyOnWrite`."""
        return super().size + (EPOCHS - 1) * len(self._memories[0].array)

    def choose(self, epoch: int) -> None:
        """Send from the copies of an epoch, 0 or 1."""
        self._chosen.choose(epoch)

    def freeze(self, pages: Words, epoch: int) -> None:
        """Freeze the pages of the stopped guest for an epoch."""
        if self._freezes:
            self._frozen.freeze(pages, epoch)

    def copy(self, pages: Words, begin: int, end: int, epoch: int) -> None:
        """Copy an epoch's frozen pages in a range of words, and thaw them; the guest runs."""
        self._frozen.copy(self._memories[epoch], pages, begin, end, epoch)
        self._frozen.thaw(epoch, begin, end)

    def close(self) -> None:
        """Thaw the pages of all epochs, and release the memories."""
        for epoch in range(EPOCHS):
            self._frozen.thaw(epoch)
        super().close()
