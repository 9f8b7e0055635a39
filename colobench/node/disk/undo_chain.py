"""Undo of the last three checkpoints of a disk, in files beside its image.

The state of a guest is written into a file after its checkpoint was committed, so a disk has to go
back to any checkpoint that the file may have. Old bytes are kept by checkpoint: those of what was
written after checkpoint N are in FILE.undo-0, -1 or -2, by N modulo 3, which are layer buffers
(`layer_file.py`). The epoch of such a buffer is N + 1. Undone are the newest first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from colobench.block.backend import BlockData
from colobench.block.clusters import CLUSTER_SIZE, ByteRange
from colobench.block.layers import EXTENT_COST
from colobench.errors import LocalError
from colobench.node.disk.layer_file import FileLayerBuffer, epoch_in

#: Number of checkpoints that a disk can go back to: the last one, and those before it.
UNDO_CHECKPOINTS: Final = 3


class UndoChain:
    """Layer buffer that keeps what it had at the last checkpoints.

    It has room for a whole disk, so no write has to wait for the next checkpoint: a primary that is
    stopped waits for its writes first. The files have holes where nothing was written.

    Parameters
    ----------
    image
        Real path of the image.
    size
        Size of the disk in bytes.
    generation
        Generation of the image from now on. This is checkpoint 0.

    Raises
    ------
    LocalError
        If a file cannot be made, or another process uses it.
    """

    def __init__(self, image: str, size: int, generation: str) -> None:
        self.limit = size + (size // CLUSTER_SIZE + 1) * EXTENT_COST
        self._checkpoint = 0
        with ExitStack() as stack:
            self._buffers = [
                self._make(path, generation, number, stack)
                for number, path in enumerate(_paths(image))
            ]
            stack.pop_all()

    def _make(self, path: str, generation: str, number: int, stack: ExitStack) -> FileLayerBuffer:
        buffer = FileLayerBuffer(path, self.limit, generation, reserves=False)
        stack.callback(buffer.close)
        buffer.begin(number + 1)
        return buffer

    @property
    def _newest(self) -> FileLayerBuffer:
        return self._buffers[self._checkpoint % UNDO_CHECKPOINTS]

    def write(self, place: int, data: BlockData) -> None:
        """Write bytes; raises `BlockError` if that failed."""
        self._newest.write(place, data)

    def read(self, place: int, length: int) -> bytes:
        """Return bytes; raises `BlockError` if that failed."""
        return self._newest.read(place, length)

    def keep(self, offset: int, length: int, place: int) -> None:
        """Enter old bytes into the index; raises `BlockError` if that failed."""
        self._newest.keep(offset, length, place)

    def empty(self) -> None:
        """Keep from now on what the next checkpoint needs, and forget the oldest one."""
        following = self._checkpoint + 1
        self._buffers[following % UNDO_CHECKPOINTS].begin(following + 1)
        self._checkpoint = following

    def close(self) -> None:
        """Close the files, which stay."""
        for buffer in self._buffers:
            buffer.close(remove=False)


def undo_to(
    image: str, generation: str, checkpoint: int, write: Callable[[int, bytes], object]
) -> int:
    """Undo what was written after a checkpoint; whoever is killed meanwhile does it again.

    Parameters
    ----------
    image
        Real path of the image.
    generation
        Its generation.
    checkpoint
        Number of the checkpoint.
    write
        Function that writes bytes at an offset of the image.

    Returns
    -------
    int
        Number of bytes that were written.

    Raises
    ------
    LocalError
        If the files are not there whole, or do not lead to the checkpoint.
    """
    with ExitStack() as stack:
        kept = dict(stack.enter_context(epoch_in(path, generation)) for path in _paths(image))
        if checkpoint + 1 not in kept:
            found = ", ".join(str(epoch - 1) for epoch in sorted(kept))
            raise LocalError(
                f"{image}: expected to go back to checkpoint {checkpoint}, found the undo of "
                f"{found} beside it"
            )
        undone = 0
        for epoch in sorted(kept, reverse=True):
            if epoch > checkpoint:
                undone += sum(_written(place, data, write) for place, data in kept[epoch])
        return undone


def _written(place: ByteRange, data: bytes, write: Callable[[int, bytes], object]) -> int:
    write(place.offset, data)
    return len(data)


def remove_undo(image: str) -> None:
    """Remove the files of an image whose checkpoint is all that it has."""
    for path in _paths(image):
        # One that stays is of no use, and does no harm.
        with suppress(OSError):
            os.unlink(path)


def _paths(image: str) -> list[str]:
    return [f"{image}.undo-{number}" for number in range(UNDO_CHECKPOINTS)]
