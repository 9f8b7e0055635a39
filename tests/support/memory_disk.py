"""A disk in memory, whose flushes are counted."""

from __future__ import annotations

from colobench.block.backend import BlockData


class MemoryDisk:
    """Backend over a bytearray."""

    def __init__(self, contents: bytes) -> None:
        self.bytes = bytearray(contents)
        self.flushes = 0

    @property
    def size(self) -> int:
        return len(self.bytes)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.bytes[offset : offset + length])

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        self.bytes[offset : offset + len(data)] = data
        self.flushes += fua

    def flush(self) -> None:
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def write_zeroes(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))
