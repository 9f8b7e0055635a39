"""Interface of all that has a disk's bytes, and the error of a request that it cannot do."""

from __future__ import annotations

import errno as codes
from typing import Protocol, TypeAlias, runtime_checkable

from colobench.errors import LocalError

#: Contents of sectors, in any form whose bytes can be copied at once.
BlockData: TypeAlias = bytes | bytearray | memoryview


class BlockError(LocalError):
    """A request that a disk has not done.

    Parameters
    ----------
    number
        Number from `errno` for whom the request came from: EIO, ENOSPC, EINVAL, or EPERM of a disk
        that may only be read.
    text
        Sentence for people: what was expected and found, and where.

    Attributes
    ----------
    errno
        That number.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} ({codes.errorcode.get(number, number)})")
        self.errno = number


class BlockBackend(Protocol):
    """A disk of a fixed size. Offsets and lengths are bytes, multiples of 512, within the size.

    A write that raised an error may have changed any part of its range, and nothing else. All
    methods raise `BlockError`. Whether several threads may call them at once is said by each class.
    """

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes."""

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write bytes; with `fua` (force unit access), return once they are on stable storage."""

    def flush(self) -> None:
        """Return once every write that has returned is on stable storage."""

    def discard(self, offset: int, length: int) -> None:
        """Give the space of a range back. Its bytes are zeros afterwards, so that copies agree."""

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros."""


@runtime_checkable
class Extents(Protocol):
    """Ability of some backends: they know where they have holes."""

    def extents(self, offset: int, length: int, limit: int) -> list[tuple[int, bool]]:
        """Return the length in bytes of each extent from an offset on, and whether it is a hole.

        A hole reads as zeros. There are at most `limit` extents, so they may end before the range.
        """
