"""Images of a pair: the primary gets the current one, and no current one is overwritten."""

from __future__ import annotations

import os

import pytest

from colobench.block.clusters import CLUSTER_SIZE
from colobench.block.generation import ImageEvent
from colobench.errors import LocalError
from colobench.lab.session.pair_disks import PairDisks
from colobench.node.disk.generation_file import DiskImage, new_generation
from colobench.settings.settings import Settings

SIZE = 4 * CLUSTER_SIZE


@pytest.fixture
def image(tmp_path) -> str:
    """Give an image whose replica has taken over."""
    path = str(tmp_path / "disk.img")
    primary, secondary = (DiskImage(each, SIZE) for each in (path, f"{path}.replica"))
    shared = new_generation()
    primary.on(ImageEvent.OPENED_BY_GUEST)
    secondary.on(ImageEvent.COPY_BEGINS)
    for disk in (primary, secondary):
        disk.on(ImageEvent.PAIRED, identifier=shared)
    primary.close()
    secondary.on(ImageEvent.TAKEN_OVER)
    secondary.close()
    return path


def pair(image: str) -> PairDisks:
    return PairDisks(Settings().override(disks=f"{image},size={SIZE >> 10}K"))


def test_the_primary_gets_the_replica_that_went_on(image):
    disks = pair(image)
    disks.choose()
    assert disks.of_primary == [f"{image}.replica"]


@pytest.mark.parametrize(
    ("lost", "found"),
    [
        (("", ".generation", ".changed"), "no file"),
        (("",), "no file"),
        ((".generation",), "no .*disk.img.generation"),
    ],
)
def test_a_replica_is_not_overwritten_by_an_image_of_which_nothing_is_known(image, lost, found):
    for suffix in lost:
        os.unlink(image + suffix)
    with pytest.raises(LocalError, match=f"found {found}; --disk {image}.replica goes on"):
        pair(image).choose()
    alone = pair(f"{image}.replica")
    alone.choose()
    assert alone.of_primary == [f"{image}.replica"]


def test_a_missing_replica_is_made_anew(image):
    os.unlink(f"{image}.replica")
    disks = pair(image)
    disks.choose()
    assert disks.of_primary == [image]
