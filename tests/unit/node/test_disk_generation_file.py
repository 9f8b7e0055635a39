"""FILE.generation: it tells what an image is, also after a kill at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from colobench.block.clusters import CLUSTER_SIZE, ClusterSet
from colobench.block.generation import (
    ImageEvent,
    ImageState,
    Relation,
    WrongImageState,
    differing,
    relate,
)
from colobench.errors import LocalError
from colobench.node.disk.generation_file import DiskImage, load_generation, new_generation
from colobench.node.disk.image import FileImage, ImageInUse

SIZE = 20 * CLUSTER_SIZE


@pytest.fixture
def paths(tmp_path):
    return str(tmp_path / "primary.img"), str(tmp_path / "secondary.img")


def test_an_image_that_nobody_has_used_is_clean_and_nothing_is_written_beside_it(paths, tmp_path):
    image = DiskImage(paths[0], SIZE)
    assert image.generation.state is ImageState.CLEAN
    image.close()
    assert os.listdir(tmp_path) == ["primary.img"]
    assert load_generation(paths[0], SIZE) is None


def test_each_event_is_on_disk_when_it_is_told(paths, tmp_path):
    image = DiskImage(paths[0], SIZE)
    for event, number in (
        (ImageEvent.OPENED_BY_GUEST, None),
        (ImageEvent.PAIRED, None),
        (ImageEvent.COMMIT, 1),
        (ImageEvent.COMMIT, 1 << 40),
        (ImageEvent.LEFT_ALONE, None),
        (ImageEvent.CLEAN_END, None),
    ):
        told = image.on(event, checkpoint=number)
        assert load_generation(paths[0], SIZE) == told
    assert told.checkpoint == 1 << 40
    assert not told.shared
    image.close()
    assert sorted(os.listdir(tmp_path)) == ["primary.img", "primary.img.generation"]


KILLED = """
import os, random, signal, sys
from colobench.block.generation import ImageEvent
from colobench.node.disk.generation_file import DiskImage
path, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
image = DiskImage(path, size)
image.on(ImageEvent.OPENED_BY_GUEST)
image.on(ImageEvent.PAIRED, identifier=sys.argv[4])
steps = random.Random(seed)
for step in range(steps.randrange(2, 12)):
    image.write(steps.randrange(size // 512) * 512, b"n" * 512)
    if step % 4 == 1:
        image.on(ImageEvent.COMMIT, checkpoint=step)
image.discard(0, 512)
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_primary(path: str, shared: str, seed: int) -> None:
    command = [sys.executable, "-c", KILLED, path, str(SIZE), str(seed), shared]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL


def test_a_killed_primarys_image_differs_only_where_it_had_noted_a_change(paths):
    """What its guest wrote, and what the survivor writes, is all that a new pair has to copy."""
    old, new = paths
    shared = new_generation()
    secondary = DiskImage(new, SIZE)
    secondary.on(ImageEvent.COPY_BEGINS)
    secondary.on(ImageEvent.PAIRED, identifier=shared)
    kill_a_primary(old, shared, 7)
    secondary.on(ImageEvent.TAKEN_OVER)
    secondary.write(10 * CLUSTER_SIZE, b"s" * 512)

    found = DiskImage(old)
    assert found.generation.state is ImageState.IN_USE
    assert found.generation.checkpoint is not None
    assert relate(found.generation, secondary.generation) is Relation.SECOND_IS_CURRENT
    clusters = differing(found.generation, secondary.generation)
    assert 2 <= len(clusters) < 20
    offset = 0
    for offset in range(0, SIZE, CLUSTER_SIZE):
        if not clusters.meets(offset, 1):
            both = (image.read(offset, CLUSTER_SIZE) for image in (found, secondary))
            assert next(both) == next(both)
    found.close()
    secondary.close()


def test_after_a_kill_the_guest_may_be_started_and_the_notes_go_on(paths):
    kill_a_primary(paths[0], new_generation(), random.Random(1).randrange(100))
    image = DiskImage(paths[0])
    noted = image.found.changed.copy()
    image.on(ImageEvent.OPENED_BY_GUEST)
    image.write(19 * CLUSTER_SIZE, bytes(512))
    image.close()
    again = load_generation(paths[0], SIZE)
    noted.touch(19 * CLUSTER_SIZE, 512)
    assert again.changed == noted


@pytest.mark.parametrize("damage", ["missing", "short", "long", "of another generation"])
def test_notes_that_are_not_whole_mean_that_all_may_differ(paths, damage):
    image = DiskImage(paths[0], SIZE)
    image.on(ImageEvent.OPENED_BY_GUEST)
    image.on(ImageEvent.PAIRED)
    image.close()
    notes = f"{paths[0]}.changed"
    assert load_generation(paths[0], SIZE).changed == ClusterSet(SIZE)
    if damage == "missing":
        os.unlink(notes)
    elif damage == "of another generation":
        with open(notes, "r+b") as file:
            file.write(b"0" * 32)
    else:
        os.truncate(notes, os.stat(notes).st_size + (1 if damage == "long" else -1))
    assert load_generation(paths[0], SIZE).changed is None


def test_a_merge_is_noted_before_it_begins(paths):
    image = DiskImage(paths[1], SIZE)
    image.on(ImageEvent.COPY_BEGINS)
    image.on(ImageEvent.PAIRED)
    layers = ClusterSet(SIZE)
    layers.touch(3 * CLUSTER_SIZE, 2 * CLUSTER_SIZE)
    layers.touch(SIZE - 512, 512)
    image.note(layers)
    assert load_generation(paths[1], SIZE).changed == layers
    image.on(ImageEvent.TAKEN_OVER)
    image.write(0, bytes(512))
    layers.touch(0, 512)
    assert load_generation(paths[1], SIZE).changed == layers
    image.close()


def test_a_torn_image_is_refused_and_stays_as_it_is(paths):
    image = DiskImage(paths[1], SIZE)
    image.on(ImageEvent.COPY_BEGINS)
    image.on(ImageEvent.PAIRED)
    image.close()
    image = DiskImage(paths[1])
    with pytest.raises(WrongImageState, match="no checkpoint committed"):
        image.on(ImageEvent.OPENED_BY_GUEST)
    assert load_generation(paths[1], SIZE) == image.found
    image.close()


def test_an_event_that_cannot_be_written_is_an_error_and_not_true(paths, monkeypatch):
    image = DiskImage(paths[0], SIZE)
    image.on(ImageEvent.OPENED_BY_GUEST)
    before = image.generation

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(LocalError, match=r"generation: cannot be written: No space left"):
            image.on(ImageEvent.CLEAN_END)
    assert image.generation == before == load_generation(paths[0], SIZE)
    image.close()


def test_an_image_beside_which_something_else_lies_is_not_opened(paths):
    FileImage(paths[0], SIZE).close()
    beside = f"{paths[0]}.generation"
    image = DiskImage(paths[1], SIZE + 512)
    text = replace(image.generation, size=SIZE + 512).to_text().encode()
    image.close()
    for contents, words in (
        (b"\xff", "decode"),
        (b"{}", "expected the members"),
        (text, "found one of"),
    ):
        with open(beside, "wb") as file:
            file.write(contents)
        with pytest.raises(LocalError, match=rf"{beside}.*{words}"):
            DiskImage(paths[0])
    # The failed attempts have let go of the image.
    os.unlink(beside)
    image = DiskImage(paths[0])
    with pytest.raises(ImageInUse):
        DiskImage(paths[0])
    image.close()


def test_an_image_that_is_made_anew_has_not_the_generation_of_the_one_before(paths):
    image = DiskImage(paths[1], SIZE)
    image.on(ImageEvent.COPY_BEGINS)
    image.on(ImageEvent.PAIRED)
    image.close()
    os.unlink(paths[1])
    image = DiskImage(paths[1], SIZE)
    assert (image.found.state, image.found.peer) == (ImageState.CLEAN, "")
    image.close()
