"""Guest RAM: named blocks, one memfd, mapped once and pre-faulted."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError

PAGE_SIZE = 4096
#: A block's first page is a multiple of this, so that its part of a bitmap consists of whole words.
WORD_BITS = 64


@dataclass(frozen=True, slots=True)
class RAMBlock:
    """A named, page-aligned range of guest RAM, like QEMU's RAMBlock."""

    name: str
    #: Number of its first page across all blocks, a multiple of 64.
    first_page: int
    pages: int

    @property
    def used_length(self) -> int:
        """Its length in bytes."""
        return self.pages * PAGE_SIZE


def lay_out(sizes: Mapping[str, int]) -> tuple[RAMBlock, ...]:
    """Place blocks of the given sizes, in bytes, one after another.

    Raises
    ------
    LocalError
        If a name is not 1 to 255 bytes long, or a size is not a positive multiple of 4096.
    """
    blocks = []
    first_page = 0
    for name, size in sizes.items():
        if not 1 <= len(name.encode()) <= 255:
            raise LocalError(f"RAM block name: expected 1 to 255 bytes, found {name!r}")
        if size <= 0 or size % PAGE_SIZE:
            raise LocalError(
                f"RAM block {name!r}: expected a positive multiple of {PAGE_SIZE} bytes, "
                f"found {size}"
            )
        blocks.append(RAMBlock(name, first_page, size // PAGE_SIZE))
        first_page += -(-blocks[-1].pages // WORD_BITS) * WORD_BITS
    if not blocks:
        raise LocalError("RAM: expected at least one block, found none")
    return tuple(blocks)


def memory_bytes(blocks: tuple[RAMBlock, ...]) -> int:
    """Return the length in bytes of the memfd that holds the blocks."""
    last = blocks[-1]
    return (last.first_page + -(-last.pages // WORD_BITS) * WORD_BITS) * PAGE_SIZE


class PageMemory:
    """The bytes of a set of RAM blocks and one bit for each page.

    Attributes
    ----------
    blocks
        The blocks, in the order of their first pages.
    pages
        Number of pages, padding between the blocks included.
    array
        uint8[pages * 4096], C-contiguous, page-aligned.
    bitmap
        uint64[pages / 64]; bit i of word w stands for page 64 w + i. Its meaning depends on the
        memory: written in guest RAM, received in the RAM cache.
    fd
        The memfd behind `array`.
    """

    def __init__(self, name: str, blocks: tuple[RAMBlock, ...]) -> None:
        self.blocks = blocks
        self.pages = memory_bytes(blocks) // PAGE_SIZE
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, self.pages * PAGE_SIZE)
            # A process that receives the descriptor can rely on the length.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._map = mmap.mmap(
                self.fd, self.pages * PAGE_SIZE, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE
            )
        except BaseException:
            os.close(self.fd)
            raise
        self.array: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self.bitmap: npt.NDArray[np.uint64] = np.zeros(self.pages // WORD_BITS, dtype=np.uint64)

    def block(self, name: str) -> RAMBlock | None:
        """Return the block with this name, or None."""
        return next((block for block in self.blocks if block.name == name), None)

    def block_bytes(self, block: RAMBlock) -> npt.NDArray[np.uint8]:
        """Return a view of a block's bytes: uint8[block.used_length]."""
        begin = block.first_page * PAGE_SIZE
        return self.array[begin : begin + block.used_length]

    def close(self) -> None:
        """Release the memory, once. Views of it must not be used afterwards."""
        self.array = np.zeros(0, dtype=np.uint8)
        self.bitmap = np.zeros(0, dtype=np.uint64)
        # While a view is alive, the mapping stays; it is removed with the last view.
        with suppress(BufferError):
            self._map.close()
        # Its number may be another file's at a second call.
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class RAM(PageMemory):
    """The guest's RAM; a set bit says that the guest wrote the page."""


class RAMCache(PageMemory):
    """The secondary's copy of RAM; a set bit says that the page arrived since the last flush."""
