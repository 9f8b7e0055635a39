"""Samples of page contents: how much of a page a program changes, and how far pages compress."""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from typing import Any

import numpy as np

from colobench.lab.traces.written_pages import Runs
from colobench.memory.ram import PAGE_SIZE

#: Pages read after one scan, pages kept, and pages of a scan that are looked at.
_READ_LIMIT, _KEEP_LIMIT, _LOOK_LIMIT = 4, 2048, 4096
#: One page in 16 is sampled, by a hash of its address, so that the same ones are seen again: those
#: whose product with 2**64 divided by the golden ratio has zeros above this bit.
_GOLDEN, _SAMPLE_SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(60)


class ContentSample:
    """Contents of a sample of the written pages.

    A page is read just after a scan, while the program may write to it again.

    Parameters
    ----------
    pid
        Process id of the program, whose tracer this process is.
    """

    def __init__(self, pid: int) -> None:
        self._path = f"/proc/{pid}/mem"
        self._memory = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._pages: dict[int, bytes] = {}
        self._changed: list[int] = []
        self._compressed, self._read = 0, 0

    def next_program(self) -> None:
        """Forget the pages: the process has executed another program."""
        os.close(self._memory)
        self._memory = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._pages.clear()

    def look(self, runs: Runs) -> None:
        """Read some of the pages that a scan found."""
        addresses = _first_pages(runs)
        chosen = addresses[(addresses // np.uint64(PAGE_SIZE) * _GOLDEN) >> _SAMPLE_SHIFT == 0]
        for address in map(int, chosen[:_READ_LIMIT]):
            page = b""
            with suppress(OSError):
                page = os.pread(self._memory, PAGE_SIZE, address)
            if len(page) == PAGE_SIZE:
                self._note(address, page)

    def figures(self) -> dict[str, Any]:
        """Give the figures for a data sheet; means are None if nothing was sampled."""
        return {
            "pages_read": self._read,
            "rewrites": len(self._changed),
            "changed_words": round(float(np.mean(self._changed)), 1) if self._changed else None,
            "zlib_ratio": (
                round(self._compressed / (self._read * PAGE_SIZE), 3) if self._read else None
            ),
        }

    def close(self) -> None:
        """Close the program's memory."""
        os.close(self._memory)

    def _note(self, address: int, page: bytes) -> None:
        self._read += 1
        self._compressed += len(zlib.compress(page, 1))
        before = self._pages.get(address)
        if before is not None:
            old, new = (np.frombuffer(each, dtype=np.uint64) for each in (before, page))
            self._changed.append(int(np.count_nonzero(old != new)))
        if before is not None or len(self._pages) < _KEEP_LIMIT:
            self._pages[address] = page


def _first_pages(runs: Runs) -> Runs:
    """Expand runs to the addresses of their pages, at most `_LOOK_LIMIT` of them."""
    lengths = ((runs[:, 1] - runs[:, 0]) // np.uint64(PAGE_SIZE)).astype(np.int64)
    used = int(np.searchsorted(np.cumsum(lengths), _LOOK_LIMIT)) + 1
    lengths, starts = np.minimum(lengths[:used], _LOOK_LIMIT), runs[:used, 0]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within.astype(np.uint64) * np.uint64(PAGE_SIZE)
