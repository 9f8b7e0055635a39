"""The encoding `divergent`: both sides hash the dirty pages, and only those that differ are sent.

As in PLOVER (C. Wang et al., NSDI 2018), the secondary's guest runs, and has most of the pages
that the primary's guest wrote. PLOVER hashes the pages that either guest wrote. Here those that the
primary's wrote are enough, because the RAM cache has the others as the primary has them.

A page that is equal is not sent, so the RAM cache has it as it was. It is copied there from the
secondary's RAM after the commit, when the cache is flushed. Until then nothing is changed: a
secondary that takes over goes on from its RAM, and never uses the cache.
"""

from __future__ import annotations

import itertools
import secrets
from functools import partial

import numpy as np
import numpy.typing as npt

from colobench.kernels.page_hashes import hash_listed_pages
from colobench.kernels.page_records import PAGE_RECORD_BYTES
from colobench.memory.ram import PageMemory
from colobench.memory.tracker import Words
from colobench.node.breakpoints import Breakpoints
from colobench.node.channel import Channel
from colobench.node.flush import copy_marked
from colobench.node.migration.page_path import Pages
from colobench.node.workers import PAGES_FOR_A_THREAD, Workers
from colobench.wire.page_hashes import (
    ListedPages,
    divergent_pages,
    encode_divergent_pages,
    encode_hashes,
    encode_listed_pages,
    listed_pages,
    message_bytes,
    page_hashes,
)

#: Bits of a seed, which no guest can foresee, so that no guest can construct equal hashes.
_SEED_BITS = 63


def hash_pages(memory: PageMemory, listed: ListedPages, workers: Workers) -> Words:
    """Hash listed pages on several threads.

    Returns
    -------
    array
        uint64[2 n], see `colobench.kernels.page_hashes.hash_listed_pages`.
    """
    pages, seed = listed
    hashes = np.empty(2 * len(pages), dtype=np.uint64)
    parts = max(1, min(workers.threads, len(pages) // PAGES_FOR_A_THREAD))
    edges = [part * len(pages) // parts for part in range(parts + 1)]
    workers.run(
        [
            partial(
                hash_listed_pages, memory.array, pages[begin:end], seed, hashes[2 * begin : 2 * end]
            )
            for begin, end in itertools.pairwise(edges)
        ]
    )
    return hashes


class PageComparison:
    """The primary's side: which dirty pages differ from the secondary's.

    Parameters
    ----------
    channel
        The main connection.
    memory
        The guest's RAM.
    workers
        Threads that hash.
    breakpoints
        Points at which a checkpoint can be held.

    Attributes
    ----------
    compared, equal
        Numbers of pages of the last checkpoint that were compared, and that were equal.
    """

    def __init__(
        self, channel: Channel, memory: PageMemory, workers: Workers, breakpoints: Breakpoints
    ) -> None:
        self._channel, self._memory, self._workers = channel, memory, workers
        self._breakpoints = breakpoints
        self._pages: Pages = np.zeros(0, dtype=np.int32)
        self.compared = self.equal = 0

    def send_hashes(self, pages: Pages) -> None:
        """Send the numbers of pages, and then their hashes, while the secondary hashes its own.

        Parameters
        ----------
        pages
            Numbers over all RAM blocks, int32[n], ascending; valid until `divergent`.

        Raises
        ------
        PeerLost, PeerStalled
        """
        channel, self._pages = self._channel, pages
        listed = ListedPages(pages, secrets.randbits(_SEED_BITS))
        channel.write(encode_listed_pages(listed))
        channel.flush()
        self._breakpoints.reach("hashes")
        channel.write(encode_hashes(hash_pages(self._memory, listed, self._workers)))
        channel.flush()
        self._breakpoints.reach("hashes-sent")

    def divergent(self) -> Pages:
        """Receive the secondary's answer, and give the pages that differ.

        Raises
        ------
        PeerLost, PeerStalled
        RAMError
            If it is no such answer.
        """
        pages, channel = self._pages, self._channel
        differs = channel.parse(divergent_pages(channel.buffer, len(pages)), len(pages))
        found: Pages = pages[differs]
        self.compared, self.equal = len(pages), len(pages) - len(found)
        return found

    def statistics(self) -> dict[str, int]:
        """Return counts of the last checkpoint, by their names in a record."""
        saved = self.equal * PAGE_RECORD_BYTES - message_bytes(self.compared)
        return {
            "compared-pages": self.compared,
            "equal-pages": self.equal,
            "bytes-saved": saved,
        }


class ComparedPages:
    """The secondary's side: the pages that its guest has as the primary's has them.

    Parameters
    ----------
    ram
        The guest's RAM, which has the pages that our guest wrote.
    cache
        The RAM cache, which has the pages of the last checkpoint.
    workers
        Threads that hash and copy.
    """

    def __init__(self, ram: PageMemory, cache: PageMemory, workers: Workers) -> None:
        self._ram, self._cache, self._workers = ram, cache, workers
        self._pages = ram.pages
        #: Pages that were equal at this checkpoint.
        self._equal: Words = np.zeros_like(cache.bitmap)

    def answer(self, channel: Channel, breakpoints: Breakpoints) -> None:
        """Receive the primary's hashes, compare them with our RAM's, and answer.

        Raises
        ------
        PeerLost, PeerStalled
        RAMError
            If the list of pages is wrong.
        """
        at_most = message_bytes(self._pages)
        listed = channel.parse(listed_pages(channel.buffer, self._pages), at_most)
        ours = hash_pages(self._ram, listed, self._workers)
        theirs = channel.parse(page_hashes(channel.buffer, len(listed.pages)), at_most)
        breakpoints.reach("hashes-received")
        differs = (ours != theirs).reshape(-1, 2).any(axis=1)
        self._mark_equal(listed.pages[~differs])
        channel.write(encode_divergent_pages(differs))
        channel.flush()
        breakpoints.reach("compared")

    def enter_cache(self) -> None:
        """Copy equal pages from RAM into the cache, and unmark them there: RAM has them already.

        The pages that our guest wrote must be marked in the cache.
        """
        # Those that our guest has not written are in the cache as they are in RAM.
        np.bitwise_and(self._equal, self._cache.bitmap, out=self._equal)
        np.bitwise_xor(self._cache.bitmap, self._equal, out=self._cache.bitmap)
        copy_marked(self._cache, self._ram, self._equal, self._workers)

    def _mark_equal(self, pages: npt.NDArray[np.int32]) -> None:
        bits = np.zeros(self._pages, dtype=np.uint8)
        bits[pages] = 1
        self._equal[:] = np.packbits(bits, bitorder="little").view(np.uint64)
