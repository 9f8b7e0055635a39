"""A secondary's disk with its layers in a file, which writes until it is killed.

As a program: path of the image, directory of the layers, size, limit, seed. After each checkpoint
it prints the checkpoint's number.
"""

from __future__ import annotations

import random
import sys

from colobench.block.generation import ImageEvent
from colobench.block.layers import SecondaryLayers
from colobench.node.disk.generation_file import DiskImage
from colobench.node.disk.layer_file import FileLayerBuffer, layers_path
from memory_disk import MemoryDisk

#: Writes between two checkpoints.
WRITES = 8


def forwarded_write(steps: random.Random, size: int) -> tuple[int, bytes]:
    """Give the next write: its offset and its data."""
    length = steps.choice((1, 9, 130)) * 512
    return steps.randrange((size - length) // 512 + 1) * 512, steps.randbytes(8) * (length // 8)


def committed_disk(size: int, seed: int, checkpoints: int) -> bytes:
    """Give the bytes that the disk has at a checkpoint."""
    disk, steps = MemoryDisk(bytes(size)), random.Random(seed)
    for _ in range(WRITES * checkpoints):
        disk.write(*forwarded_write(steps, size))
    return bytes(disk.bytes)


def follow(path: str, directory: str, size: int, limit: int, seed: int) -> None:
    image = DiskImage(path, size)
    image.on(ImageEvent.COPY_BEGINS)
    shared = image.on(ImageEvent.PAIRED).identifier
    buffer = FileLayerBuffer(layers_path(directory, path), limit, shared)
    layers, steps, number = SecondaryLayers(image.file, buffer), random.Random(seed), 0
    while True:
        for _ in range(WRITES):
            layers.forwarded.write(*forwarded_write(steps, size))
        number += 1
        layers.checkpoint()
        image.on(ImageEvent.COMMIT, checkpoint=number)
        print(number, flush=True)


if __name__ == "__main__":
    follow(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
