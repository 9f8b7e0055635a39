"""A volatile write cache below a disk: a loss of power takes with it what was not flushed.

SIGKILL of a node loses no write, because the kernel has it. In this cache, which is in the node's
own memory, it loses what a loss of power of the host would lose. As the cache of a real disk, it
writes some sectors back early, in any order, and others only with the next flush. It is for
experiments (setting ``volatile_cache``).
"""

from __future__ import annotations

import mmap
import random
import threading
from collections.abc import Iterator
from typing import Final

from colobench.block.backend import BlockData
from colobench.block.request import SECTOR_SIZE
from colobench.node.disk.image import FileImage

#: Share of the writes of which some sectors are written back at once.
_EARLY: Final = 0.25


class VolatileCache:
    """Cache on top of an image, with the image's methods. Several threads may use it at once.

    Parameters
    ----------
    file
        The image.

    Attributes
    ----------
    path, size, read_only
        Those of the image.
    """

    def __init__(self, file: FileImage) -> None:
        self._file = file
        self.path, self.size, self.read_only = file.path, file.size, file.read_only
        self._lock = threading.Lock()
        self._memory = mmap.mmap(-1, file.size)
        #: For each sector 1 if it is only in memory.
        self._dirty = bytearray(file.size // SECTOR_SIZE)
        self._chance = random.Random(file.path)

    @property
    def allocated(self) -> int:
        """Bytes that the file takes on its own disk."""
        return self._file.allocated

    def close(self) -> None:
        """Close the image; what was not flushed is lost."""
        self._file.close()
        self._memory.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes; errors are those of the image."""
        with self._lock:
            data = bytearray(self._file.read(offset, length))
            for begin, end in self._runs(offset, offset + length):
                data[begin - offset : end - offset] = self._memory[begin:end]
            return bytes(data)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write into memory; with `fua`, also to stable storage."""
        end = offset + len(data)
        with self._lock:
            self._memory[offset:end] = bytes(data)
            self._mark(offset, end, 1)
            if fua:
                self._file.write(offset, data, True)
                self._mark(offset, end, 0)
            elif self._chance.random() < _EARLY:
                ends = self._chance.choices(range(offset, end + 1, SECTOR_SIZE), k=2)
                self._write_back(min(ends), max(ends))

    def flush(self) -> None:
        """Write everything back, to stable storage."""
        with self._lock:
            self._write_back(0, self.size)
        self._file.flush()

    def discard(self, offset: int, length: int) -> None:
        """Make zeros of a range; the image has a hole there after the next flush."""
        self.write(offset, bytes(length))

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros."""
        self.write(offset, bytes(length))

    def extents(self, offset: int, length: int, limit: int) -> list[tuple[int, bool]]:
        """Return one extent of data: where holes will be is not known before a flush."""
        return [(length, False)]

    def _write_back(self, begin: int, end: int) -> None:
        for first, last in list(self._runs(begin, end)):
            data = self._memory[first:last]
            if data.count(0) == len(data):
                self._file.discard(first, last - first)
            else:
                self._file.write(first, data)
            self._mark(first, last, 0)

    def _mark(self, begin: int, end: int, dirty: int) -> None:
        first, last = begin // SECTOR_SIZE, end // SECTOR_SIZE
        self._dirty[first:last] = bytes((dirty,)) * (last - first)

    def _runs(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Give the ranges of bytes that are only in memory."""
        at, stop = begin // SECTOR_SIZE, end // SECTOR_SIZE
        while (first := self._dirty.find(1, at, stop)) >= 0:
            at = self._dirty.find(0, first, stop)
            at = stop if at < 0 else at
            yield first * SECTOR_SIZE, at * SECTOR_SIZE
