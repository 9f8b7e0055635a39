"""`colobench disk`: it says what images are, and repairs what a killed node has left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from colobench.block.clusters import CLUSTER_SIZE, ClusterSet
from colobench.block.generation import IMAGE_TABLE, ImageEvent, ImageState
from colobench.block.layers import SecondaryLayers
from colobench.cli.main import main
from colobench.node.disk.description import describe_image
from colobench.node.disk.generation_file import DiskImage, load_generation, new_generation
from colobench.node.disk.image import FileImage
from colobench.node.disk.layer_file import FileLayerBuffer, layers_path
from colobench.protocol.table import text
from places import CLONE

SIZE = 20 * CLUSTER_SIZE


@pytest.fixture
def paths(tmp_path):
    return str(tmp_path / "primary.img"), str(tmp_path / "secondary.img")


def killed_pair(paths) -> None:
    """Leave two images as nodes do that are killed: the secondary first, and later the primary."""
    primary, secondary = (DiskImage(path, SIZE) for path in paths)
    shared = new_generation()
    primary.on(ImageEvent.OPENED_BY_GUEST)
    secondary.on(ImageEvent.COPY_BEGINS)
    for image in (primary, secondary):
        image.on(ImageEvent.PAIRED, identifier=shared)
        image.on(ImageEvent.COMMIT, checkpoint=5)
    secondary.close()
    primary.on(ImageEvent.LEFT_ALONE)
    primary.write(3 * CLUSTER_SIZE, b"p" * 512)
    primary.close()


def told(capsys, *arguments: str) -> tuple[int, dict]:
    status = main(["disk", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_show_says_which_of_two_images_is_current_and_where_no_guest_is_started(paths, capsys):
    killed_pair(paths)
    status, found = told(capsys, "show", *paths)
    assert status == 3
    assert [image["state"] for image in found["images"]] == ["in-use", "following"]
    assert [image["checkpoint"] for image in found["images"]] == [5, 5]
    assert found["images"][0]["refusal"] == ""
    assert "no checkpoint committed" in found["images"][1]["refusal"]
    assert (found["relation"], found["differing"]) == ("first-is-current", CLUSTER_SIZE)
    assert main(["disk", "show", paths[0]]) == 0
    words = capsys.readouterr().out
    assert "left by a killed node while a guest ran on it" in words
    assert "a guest" in words


def test_an_image_that_a_node_has_open_is_told_so_and_is_not_repaired(paths, capsys):
    image = DiskImage(paths[0], SIZE)
    image.on(ImageEvent.OPENED_BY_GUEST)
    assert main(["disk", "show", paths[0]]) == 3
    assert "a process has it open" in capsys.readouterr().out
    assert main(["disk", "repair", paths[0], "--accept"]) == 1
    assert "locked by a process" in capsys.readouterr().err
    image.close()


def test_a_repair_from_the_current_image_copies_what_differs_and_makes_a_pair(paths, capsys):
    killed_pair(paths)
    assert told(capsys, "repair", paths[1])[0] == 3
    status, found = told(capsys, "repair", paths[1], "--from", paths[0])
    assert (status, found["written"], found["state"]) == (0, CLUSTER_SIZE, "clean")
    with FileImage(paths[0]) as one, FileImage(paths[1]) as other:
        assert one.read(0, SIZE) == other.read(0, SIZE)
    status, found = told(capsys, "show", *paths)
    assert (status, found["relation"], found["differing"]) == (0, "first-is-current", 0)


def test_a_repair_makes_a_missing_image_without_the_holes_of_the_current_one(paths, capsys):
    image = DiskImage(paths[0], SIZE)
    image.file.write(0, b"x" * 512)
    image.close()
    assert told(capsys, "repair", paths[1], "--from", paths[0])[0] == 0
    assert describe_image(paths[1]).allocated <= CLUSTER_SIZE * 16
    with open(paths[0], "rb") as one, open(paths[1], "rb") as other:
        assert one.read() == other.read()


def test_the_current_image_is_not_repaired_from_an_older_one(paths, capsys):
    killed_pair(paths)
    before = describe_image(paths[0])
    assert main(["disk", "repair", paths[0], "--from", paths[1]]) == 1
    assert main(["disk", "repair", paths[1], "--accept"]) == 0
    capsys.readouterr()
    assert describe_image(paths[0]) == before


def test_accepting_takes_an_image_as_it_is_and_forgets_its_pair(paths, capsys):
    killed_pair(paths)
    status, found = told(capsys, "repair", paths[1], "--accept")
    assert (status, found["state"], found["peer"]) == (0, "clean", "")
    image = DiskImage(paths[1])
    assert image.on(ImageEvent.OPENED_BY_GUEST).state is ImageState.IN_USE
    image.close()


def test_a_generation_that_cannot_be_read_is_told_and_replaced_only_if_that_is_accepted(
    paths, capsys
):
    FileImage(paths[0], SIZE).close()
    beside = f"{paths[0]}.generation"
    Path(beside).write_text("{}")
    assert told(capsys, "show", paths[0])[0] == 3
    assert told(capsys, "repair", paths[0])[0] == 3
    assert Path(beside).read_text() == "{}"
    assert told(capsys, "repair", paths[0], "--accept")[0] == 0
    assert told(capsys, "show", paths[0])[0] == 0


def test_a_killed_secondarys_image_is_undone_from_its_layers(paths, tmp_path, capsys):
    killed_pair(paths)
    generation = describe_image(paths[1]).generation.identifier
    buffer = FileLayerBuffer(layers_path(str(tmp_path), paths[1]), 1 << 20, generation)
    with FileImage(paths[1]) as base:
        SecondaryLayers(base, buffer).forwarded.write(512, b"p" * CLUSTER_SIZE)
    buffer.close(remove=False)
    status, found = told(capsys, "repair", paths[1], "--disk-buffer", str(tmp_path))
    assert (status, found["written"], found["state"]) == (0, 2 * CLUSTER_SIZE, "clean")
    with FileImage(paths[1]) as base:
        assert base.read(0, SIZE) == bytes(SIZE)
    status, found = told(capsys, "show", *paths)
    assert (status, found["relation"]) == (0, "first-is-current")
    assert found["differing"] == 3 * CLUSTER_SIZE
    # The layers are gone with what they undid, and a clean image has none.
    assert main(["disk", "repair", paths[1], "--disk-buffer", str(tmp_path)]) == 1
    assert "expected a killed secondary's image" in capsys.readouterr().err


def test_a_merge_that_was_killed_is_not_undone_in_part(paths, tmp_path, capsys):
    killed_pair(paths)
    image = DiskImage(paths[1])
    own = ClusterSet(SIZE)
    own.touch(0, 512)
    image.note(own)
    identifier = image.generation.identifier
    image.close()
    layers = layers_path(str(tmp_path), paths[1])
    FileLayerBuffer(layers, 1 << 20, identifier).close(remove=False)
    assert main(["disk", "repair", paths[1], "--disk-buffer", str(tmp_path)]) == 1
    assert "own guest" in capsys.readouterr().err
    assert describe_image(paths[1]).generation.state is ImageState.FOLLOWING


@pytest.mark.parametrize(("own", "refused"), [(None, False), (1024, False), (CLUSTER_SIZE, True)])
def test_a_merge_that_was_killed_is_undone_if_the_layers_have_all_that_it_wrote(
    paths, tmp_path, capsys, own, refused
):
    image = DiskImage(paths[1], SIZE)
    image.on(ImageEvent.COPY_BEGINS)
    identifier = image.on(ImageEvent.PAIRED).identifier
    buffer = FileLayerBuffer(layers_path(str(tmp_path), paths[1]), 1 << 20, identifier)
    layers = SecondaryLayers(image, buffer)
    # A write of a checkpoint, which is not to be undone, before one of no checkpoint.
    layers.forwarded.write(5 * CLUSTER_SIZE, b"1" * 512)
    layers.checkpoint()
    layers.forwarded.write(0, b"2" * 512)
    if own is not None:
        layers.guest.write(own, b"3" * 512)
    image.note(layers.clusters())
    layers.merge()
    image.close()
    buffer.close(remove=False)
    status = main(["disk", "repair", paths[1], "--disk-buffer", str(tmp_path)])
    assert status == int(refused)
    assert ("own guest, found that it may have some" in capsys.readouterr().err) == refused
    with FileImage(paths[1]) as base:
        assert base.read(5 * CLUSTER_SIZE, 512) == b"1" * 512
        assert refused or base.read(0, 2 * CLUSTER_SIZE) == bytes(2 * CLUSTER_SIZE)


@pytest.fixture
def flushed(monkeypatch):
    """List each file that is flushed, with what it is by then."""
    found = []

    def flush(image):
        generation = load_generation(image.path, image.size)
        found.append((image.path, generation and generation.state))

    monkeypatch.setattr(FileImage, "flush", flush)
    return found


def test_an_image_is_flushed_before_a_repair_says_that_it_is_clean(paths, flushed):
    killed_pair(paths)
    assert main(["disk", "repair", paths[1], "--from", paths[0]]) == 0
    assert (paths[0], ImageState.IN_USE) in flushed
    assert (paths[1], ImageState.COPYING) in flushed


def test_an_image_is_flushed_before_it_is_accepted(paths, flushed):
    killed_pair(paths)
    assert main(["disk", "repair", paths[1], "--accept"]) == 0
    assert flushed == [(paths[1], ImageState.FOLLOWING)]


def test_an_image_is_not_repaired_from_itself(paths, tmp_path, capsys):
    killed_pair(paths)
    os.symlink(paths[0], tmp_path / "link")
    assert main(["disk", "repair", paths[0], "--from", str(tmp_path / "link")]) == 1
    assert "expected another image than the current one" in capsys.readouterr().err


def test_an_image_of_another_size_than_before_is_told_and_accepted(paths, capsys):
    killed_pair(paths)
    os.truncate(paths[0], 2 * SIZE)
    assert told(capsys, "show", paths[0])[0] == 3
    assert main(["disk", "repair", paths[0], "--accept"]) == 0
    capsys.readouterr()
    assert told(capsys, "show", paths[0])[0] == 0


def test_an_image_of_a_size_that_no_disk_has_is_refused(paths, capsys):
    Path(paths[0]).write_bytes(bytes(1024))
    assert main(["disk", "show", paths[0]]) == 3
    assert "multiple of 4096" in capsys.readouterr().out


def test_an_incomplete_copy_that_claims_to_be_one_of_a_pair_is_not_read(paths, capsys):
    killed_pair(paths)
    for path in paths:
        beside = Path(f"{path}.generation")
        members = json.loads(beside.read_text())
        beside.write_text(json.dumps(members | {"state": "copying", "peer": members["generation"]}))
    assert main(["disk", "show", *paths]) == 3
    assert "peer: expected none of an incomplete copy" in capsys.readouterr().out


def test_images_that_cannot_be_compared_or_read_are_errors(paths, capsys):
    FileImage(paths[0], SIZE).close()
    FileImage(paths[1], SIZE + 512).close()
    assert main(["disk", "show", *paths]) == 1
    assert "expected the same size" in capsys.readouterr().err
    assert main(["disk", "show", *paths, paths[0]]) == 1
    assert main(["disk", "show", f"{paths[0]}.missing"]) == 1
    os.mkfifo(f"{paths[0]}.fifo")
    assert main(["disk", "show", f"{paths[0]}.fifo"]) == 1
    capsys.readouterr()


def test_the_document_has_the_table_of_steps():
    document = (CLONE / "docs" / "disks.md").read_text()
    assert text(IMAGE_TABLE) in document
