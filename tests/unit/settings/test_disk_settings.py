"""Disks in settings: each mistake is one error, before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.guest.disk_settings import DiskSettings
from colobench.lab.session.disk_images import identify_disks
from colobench.settings.settings import Settings

NAMES = st.text("a,= é/", min_size=1).filter(lambda name: name.strip(","))


@given(NAMES, st.none() | st.integers(1, 2**20).map(lambda n: n << 12), NAMES)
def test_disk_is_what_was_written(image: str, size: int | None, replica: str) -> None:
    disk = DiskSettings(image, size, replica)
    assert DiskSettings.parse(str(disk)) == disk


def test_replica_is_beside_the_image_unless_it_is_named() -> None:
    assert DiskSettings.parse("disk.img,size=64M") == DiskSettings(
        "disk.img", 64 << 20, "disk.img.replica"
    )


@pytest.mark.parametrize(
    ("disks", "message"),
    [
        ("x,size=1000", "expected a size that is a positive multiple of 4096 bytes, .* found 1000"),
        ("x,size=0", "expected a size that is a positive multiple"),
        ("x,size=17T", "expected a number such as 64M"),
        ("x,size=17000G", "at most 16384G, found"),
        ("x,speed=4", "expected size=SIZE or replica=FILE, each at most once, found 'speed=4'"),
        ("x,size=4K,size=4K", "each at most once, found 'size=4K'"),
        (",size=4K", "expected the path of a file, found ''"),
        (["x,size=4K", "./x,size=4K"], "expected each file once, found ./x twice"),
        ("x,size=4K,replica=x", "expected each file once, found x twice"),
        (["x,size=4K", "x.replica,size=4K"], "expected each file once, found x.replica twice"),
        ([f"{n},size=4K" for n in range(9)], "disks: expected at most 8, found 9"),
    ],
)
def test_settings_of_a_disk_that_cannot_be_are_refused(
    disks: str | list[str], message: str
) -> None:
    with pytest.raises(LocalError, match=message):
        Settings().override(disks=disks)


def test_a_bug_that_commits_two_checkpoints_at_once_does_not_go_with_disks() -> None:
    with pytest.raises(LocalError, match="expected a guest without disks"):
        Settings().override(disks="x,size=4K", bug="joint-release", experiment=True)


def test_sizes_come_from_the_images(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(bytes(8192))
    found = identify_disks(
        Settings().override(disks=[f"{tmp_path}/old", f"{tmp_path}/new,size=1M"])
    )
    assert found.guest.disk_sizes() == [8192, 1 << 20]
    assert found.agreed()["disks"] == [8192, 1 << 20]
    assert not (tmp_path / "new").exists()


def test_images_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    old, short = tmp_path / "old", tmp_path / "short"
    old.write_bytes(bytes(8192))
    short.write_bytes(bytes(100))
    os.link(old, tmp_path / "link")
    for disks, message in (
        (tmp_path / "none", "or a size with which to make one, such as .*/none,size=64M; found no"),
        (f"{tmp_path}/no/new,size=4K", "expected a directory in which an image can be made, found"),
        (f"{old},size=4K", "expected an image of 4K, found one of 8K"),
        (short, "expected a size that is a positive multiple of 4096 bytes, .* found 100"),
        (tmp_path, "expected a regular file, found another kind"),
        (f"{tmp_path}/new,size=4K,replica={old}", "old: expected an image of 4K, found one of 8K"),
        (f"{old},replica={tmp_path}/link", "expected a file of its own, found that of .*/old"),
    ):
        with pytest.raises(LocalError, match=message):
            identify_disks(Settings().override(disks=str(disks)))


def test_a_directory_for_layers_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, found in (("nowhere", "found nothing there"), ("file", "found none that can be")):
        with pytest.raises(
            LocalError, match=f"disk_buffer .*{path}: expected a directory .*{found}"
        ):
            identify_disks(Settings().override(disk_buffer=str(tmp_path / path)))
