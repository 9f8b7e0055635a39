"""Requests to a disk as values: checked against its size, and done on a backend."""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import Final

from colobench.block.backend import BlockBackend, BlockData, BlockError

#: Bytes of a sector: offsets and lengths are multiples of it.
SECTOR_SIZE: Final = 512
#: Longest request of a guest, and of a client by NBD, bytes.
GUEST_LENGTH_MAX: Final = 1 << 20
NBD_LENGTH_MAX: Final = 32 << 20
#: Largest disk, bytes, as ext4 limits a file.
DISK_SIZE_MAX: Final = 16 << 40


class RequestKind(enum.IntEnum):
    """Kind of a request, with its number in guest RAM."""

    READ = 0
    WRITE = 1
    FLUSH = 2
    DISCARD = 3
    WRITE_ZEROES = 4


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """A request to a disk.

    Attributes
    ----------
    kind
        Kind of the request.
    offset, length
        Range of the disk in bytes, multiples of 512; both are 0 in a FLUSH.
    data
        `length` bytes to write in a WRITE, else empty.
    fua
        Whether a WRITE is done only once it is on stable storage (force unit access).
    """

    kind: RequestKind
    offset: int = 0
    length: int = 0
    data: BlockData = b""
    fua: bool = False

    def check(self, size: int, length_max: int = GUEST_LENGTH_MAX) -> None:
        """Check the request against a disk's size in bytes, and the longest allowed one.

        Raises
        ------
        BlockError
            With EINVAL, or ENOSPC for a change beyond the disk's end, as in NBD.
        """
        if self.kind is RequestKind.FLUSH:
            if self.offset or self.length or self.data:
                raise self._invalid("no range and no data", f"{self.length} bytes, {self._place}")
            return
        if not 0 < self.length <= length_max:
            raise self._invalid(f"1 to {length_max} bytes", f"{self.length}, {self._place}")
        if self.offset < 0 or self.offset % SECTOR_SIZE or self.length % SECTOR_SIZE:
            raise self._invalid(f"multiples of {SECTOR_SIZE}", f"{self.length}, {self._place}")
        if len(self.data) != (self.length if self.kind is RequestKind.WRITE else 0):
            raise self._invalid("as much data as its length", f"{len(self.data)} bytes")
        if self.offset + self.length > size:
            number = errno.EINVAL if self.kind is RequestKind.READ else errno.ENOSPC
            raise self._invalid(f"a range within {size} bytes", self._place, number)

    def perform(self, backend: BlockBackend) -> bytes:
        """Do the request on a backend; returns the bytes that a READ has read, else none.

        Raises
        ------
        BlockError
            If the backend cannot do it.
        """
        if self.kind is RequestKind.READ:
            return backend.read(self.offset, self.length)
        if self.kind is RequestKind.WRITE:
            backend.write(self.offset, self.data, self.fua)
        elif self.kind is RequestKind.FLUSH:
            backend.flush()
        elif self.kind is RequestKind.DISCARD:
            backend.discard(self.offset, self.length)
        else:
            backend.write_zeroes(self.offset, self.length)
        return b""

    @property
    def _place(self) -> str:
        return f"offset {self.offset}"

    def _invalid(self, expected: str, found: str, number: int = errno.EINVAL) -> BlockError:
        return BlockError(number, f"{self.kind.name}: expected {expected}, found {found}")
