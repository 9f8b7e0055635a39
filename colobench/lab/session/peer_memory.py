"""Guest memory of a node, read from outside: its process shares it, and need not take part."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from colobench.memory.ram import PAGE_SIZE
from colobench.memory.tracker import Words

#: Name of a node's guest RAM, see memfd_create(2).
RAM_NAME = "colobench-ram"
_WORDS_OF_PAGE = PAGE_SIZE // 8


def read_memory(pid: int, name: str = RAM_NAME) -> npt.NDArray[np.uint64] | None:
    """Map a memory of a process, read-only.

    Parameters
    ----------
    pid
        Process, of the same user.
    name
        Name of the memory.

    Returns
    -------
    array or None
        uint64[pages, 512]; None if the process has ended, or has no such memory.
    """
    link = f"/memfd:{name}"
    try:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(each).removesuffix(" (deleted)") != link:
                continue
            descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                mapped = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
            finally:
                os.close(descriptor)
            return np.frombuffer(mapped, dtype=np.uint64).reshape(-1, _WORDS_OF_PAGE)
    except (OSError, ValueError):
        # The process has ended meanwhile.
        return None
    return None


def differing_pages(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> Words:
    """List the pages in which two memories differ, as a bitmap, uint64[pages / 64]."""
    differ = (one != other).any(axis=1)
    padded = np.zeros(-(-len(differ) // 64) * 64, dtype=np.uint8)
    padded[: len(differ)] = differ
    return np.packbits(padded, bitorder="little").view(np.uint64)
