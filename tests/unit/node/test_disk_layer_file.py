"""Layers in a file: as those in memory, and a killed secondary's image can be undone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import killed_secondary
from colobench.block.backend import BlockError
from colobench.block.clusters import CLUSTER_SIZE
from colobench.block.generation import ImageState
from colobench.block.layers import LayersFull, MemoryLayerBuffer, SecondaryLayers
from colobench.errors import LocalError
from colobench.node.disk.generation_file import DiskImage
from colobench.node.disk.image import ImageInUse
from colobench.node.disk.layer_file import FileLayerBuffer, load_hidden
from colobench.node.disk.repair import undo
from memory_disk import MemoryDisk
from share import SEED, amount

GENERATION = "a" * 32
SIZE = 24 * CLUSTER_SIZE
LIMIT = 1 << 21


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "disk.img.layers")


def test_layers_in_a_file_are_those_in_memory(path):
    buffer = FileLayerBuffer(path, LIMIT, GENERATION)
    disks = [MemoryDisk(b"o" * SIZE) for _ in range(2)]
    both = [
        SecondaryLayers(disk, each)
        for disk, each in zip(disks, (buffer, MemoryLayerBuffer(LIMIT)), strict=True)
    ]
    steps = random.Random(SEED)
    for _ in range(200):
        offset, data = steps.randrange(SIZE // 512 - 64) * 512, steps.randbytes(512) * 64
        step = steps.choice(("forwarded", "guest", "guest", "checkpoint"))
        for layers in both:
            if step == "checkpoint":
                layers.checkpoint()
                continue
            try:
                getattr(layers, step).write(offset, data)
            except LayersFull:
                layers.checkpoint()
        assert both[0].in_use == both[1].in_use
        assert both[0].guest.read(0, SIZE) == both[1].guest.read(0, SIZE)
    for layers in both:
        layers.merge()
    assert disks[0].bytes == disks[1].bytes


def left_behind(buffer, path):
    """Load what a process that ends now leaves behind."""
    buffer.close(remove=False)
    return load_hidden(path, GENERATION)


def test_a_checkpoint_leaves_nothing_to_undo_and_later_writes_are_all_undone(path):
    disk = MemoryDisk(b"o" * SIZE)
    buffer = FileLayerBuffer(path, LIMIT, GENERATION)
    layers = SecondaryLayers(disk, buffer)
    for cluster in range(8):
        layers.forwarded.write(cluster * CLUSTER_SIZE, b"1" * 512)
    layers.checkpoint()
    committed = bytes(disk.bytes)
    layers.forwarded.write(3 * CLUSTER_SIZE, b"2" * (2 * CLUSTER_SIZE))
    layers.forwarded.write(0, b"3" * 512)
    hidden = left_behind(buffer, path)
    assert [place for place, _ in hidden] == [
        (3 * CLUSTER_SIZE, 2 * CLUSTER_SIZE),
        (0, CLUSTER_SIZE),
    ]
    for place, data in hidden:
        disk.write(place.offset, data)
    assert disk.bytes == committed


def test_a_merge_can_be_undone_until_the_takeover_is_noted(path):
    disk = MemoryDisk(b"o" * SIZE)
    buffer = FileLayerBuffer(path, LIMIT, GENERATION)
    layers = SecondaryLayers(disk, buffer)
    layers.forwarded.write(512, b"1" * 512)
    layers.guest.write(1024, b"2" * 512)
    layers.merge()
    assert disk.bytes == b"o" * 1024 + b"2" * 512 + b"o" * (SIZE - 1536)
    for place, data in left_behind(buffer, path):
        disk.write(place.offset, data)
    assert disk.bytes == b"o" * SIZE


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_disks_of_a_secondary_that_was_killed_in_a_commit_are_of_one_checkpoint(tmp_path, order):
    """The first disk whose layers are empty commits; layers of another pair are left alone."""
    paths = [str(tmp_path / f"{disk}.img.layers") for disk in range(4)]
    generations = [GENERATION] * 3 + ["b" * 32]
    buffers = list(map(FileLayerBuffer, paths, [LIMIT] * 4, generations))
    layers = [SecondaryLayers(MemoryDisk(bytes(SIZE)), buffer) for buffer in buffers]
    for each in layers:
        each.forwarded.write(0, b"1" * 512)
    layers[0].checkpoint()
    layers[0].forwarded.write(CLUSTER_SIZE, b"2" * 512)
    for buffer in buffers:
        buffer.close(remove=False)
    places = {}
    for disk in order:
        places[disk] = [place for place, _ in load_hidden(paths[disk], GENERATION)]
        os.unlink(paths[disk])
    assert places == {0: [(CLUSTER_SIZE, CLUSTER_SIZE)], 1: [], 2: []}
    assert len(load_hidden(paths[3], "b" * 32)) == 1


def test_a_buffer_that_fails_fails_the_write_and_not_the_disk(path, monkeypatch):
    disk = MemoryDisk(b"o" * SIZE)
    layers = SecondaryLayers(disk, FileLayerBuffer(path, LIMIT, GENERATION))
    layers.forwarded.write(0, b"1" * 512)

    def fail(*_):
        raise OSError(5, "on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        for write in (
            lambda: layers.forwarded.write(CLUSTER_SIZE, b"2" * 512),
            lambda: layers.guest.write(0, b"2" * 512),
            layers.checkpoint,
        ):
            with pytest.raises(BlockError, match=rf"{path}: on purpose"):
                write()
    assert disk.bytes == b"1" * 512 + b"o" * (SIZE - 512)
    layers.merge()
    assert disk.bytes == b"o" * SIZE


def test_layers_are_refused_of_another_generation_or_boot_or_in_use_or_damaged(path, monkeypatch):
    buffer = FileLayerBuffer(path, LIMIT, GENERATION)
    for use in (
        lambda: FileLayerBuffer(path, LIMIT, GENERATION),
        lambda: load_hidden(path, GENERATION),
    ):
        with pytest.raises(ImageInUse):
            use()
    SecondaryLayers(MemoryDisk(bytes(SIZE)), buffer).forwarded.write(0, bytes(512))
    assert len(left_behind(buffer, path)) == 1
    with pytest.raises(LocalError, match="expected layers of the generation b"):
        load_hidden(path, "b" * 32)
    with monkeypatch.context() as patch:
        patch.setattr("colobench.node.disk.layer_file.boot_identifier", lambda: "another")
        with pytest.raises(LocalError, match="this boot of the machine"):
            load_hidden(path, GENERATION)
    with open(path, "r+b") as file:
        file.seek(4096 + 24)
        file.write(b"\xff" * 8)
    with pytest.raises(LocalError, match="expected an entry within"):
        load_hidden(path, GENERATION)
    header = Path(path).read_bytes()[:1024]
    Path(path).write_bytes(header)
    with pytest.raises(LocalError, match="expected the number of an epoch"):
        load_hidden(path, GENERATION)
    for contents in (b"", b"\0" * 8192, os.urandom(8192), b"colobench layers 1 9"):
        Path(path).write_bytes(contents)
        with pytest.raises(LocalError, match="expected layers"):
            load_hidden(path, GENERATION)
    with pytest.raises(LocalError, match="cannot be opened: No such file"):
        load_hidden(f"{path}.missing", GENERATION)


@pytest.mark.parametrize("seed", range(SEED, SEED + amount(3, 100)))
def test_a_killed_secondarys_image_is_repaired_to_its_last_checkpoint(tmp_path, seed):
    """SIGKILL comes at any moment: in a write, in the copy before it, or in a checkpoint."""
    path = str(tmp_path / "secondary.img")
    values = (path, str(tmp_path), str(SIZE), str(LIMIT), str(seed))
    secondary = subprocess.Popen(
        [sys.executable, killed_secondary.__file__, *values], stdout=subprocess.PIPE, text=True
    )
    with secondary:
        for _ in range(random.Random(seed).randrange(1, 20)):
            assert secondary.stdout.readline()
        secondary.kill()
    undo(path, str(tmp_path))
    image = DiskImage(path)
    assert image.generation.state is ImageState.CLEAN
    number = image.generation.checkpoint
    contents = image.read(0, SIZE)
    image.close()
    # The layers are empty before the checkpoint's number is noted.
    disks = [killed_secondary.committed_disk(SIZE, seed, each) for each in (number, number + 1)]
    assert contents in disks
    assert sorted(os.listdir(tmp_path)) == ["secondary.img", "secondary.img.generation"]
