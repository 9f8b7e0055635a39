"""File of a receiver's checkpoints: it is whole for all that have it, link it or lock it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE, RAMCache, lay_out
from colobench.node.colo_thread import ColoThread
from colobench.node.receive import receiver
from colobench.node.receive.image import Image, ImageLayout
from colobench.node.receive.records import SavedCheckpoint
from colobench.node.receive.replacing import new_aside
from colobench.node.receive.saver import CheckpointSaver

PAGES = 128


class Keeper:
    """A saver with a RAM cache, all of whose pages get the number of each checkpoint."""

    def __init__(self, file: Path) -> None:
        self.said: list[SavedCheckpoint] = []
        self.memory = RAMCache("cache", lay_out({"ram": PAGES * PAGE_SIZE}))
        self.saver = CheckpointSaver(file, self.said.append)
        self.saver.start(ImageLayout.of(b"header", 2, self.memory.blocks), self.memory)

    def save(self, number: int) -> SavedCheckpoint:
        """Save a checkpoint, and wait until that is over."""
        self.saver.wait_until_captured()
        self.memory.array[:] = number
        self.memory.bitmap[:] = 2**64 - 1
        before = len(self.said)
        self.saver.committed(number, self.memory.bitmap, b"devices")
        while len(self.said) == before:
            self.saver._thread.join(0.001)  # type: ignore[union-attr]
        return self.said[-1]

    def end(self) -> None:
        self.saver.finish()
        self.memory.close()


@pytest.fixture
def keepers() -> Iterator[list[Keeper]]:
    made: list[Keeper] = []
    yield made
    for keeper in made:
        keeper.end()


def pages_in(file: Path) -> set[int]:
    """Give the numbers of the checkpoints whose pages are in a file."""
    data = file.read_bytes()
    records = data[data.index(b"\x03ram") + 4 :]
    return {records[page * (PAGE_SIZE + 8) + 8 :][100] for page in range(1, PAGES - 1)}


def test_links_and_moved_files_keep_the_checkpoint_that_they_had(
    tmp_path: Path, keepers: list[Keeper]
) -> None:
    file, link, moved = tmp_path / "guest", tmp_path / "link", tmp_path / "moved"
    keepers.append(keeper := Keeper(file))
    keeper.save(1)
    link.hardlink_to(file)
    keeper.save(2)
    file.rename(moved)
    file.write_bytes(b"of the user")
    for number in (3, 4, 5, 6):
        keeper.save(number)
    assert not any(record.error for record in keeper.said)
    assert file.stat().st_size == link.stat().st_size == moved.stat().st_size
    assert [pages_in(each) for each in (link, moved, file)] == [{1}, {2}, {6}]
    keepers.pop().end()
    assert sorted(os.listdir(tmp_path)) == ["guest", "link", "moved"]


def test_file_of_another_receiver_is_refused(tmp_path: Path, keepers: list[Keeper]) -> None:
    file = tmp_path / "guest"
    # Both begin before there is a file.
    keepers += [one := Keeper(file), other := Keeper(file)]
    assert one.save(1).error == ""
    refused = other.save(2)
    assert "another receiver" in refused.error
    assert str(refused).endswith(f"; {file} has no checkpoint of this session")
    assert one.save(3).error == ""
    assert pages_in(file) == {3}
    with pytest.raises(LocalError, match="another receiver"):
        CheckpointSaver(file, print)
    keepers.remove(one)
    one.end()
    assert other.save(4).error == ""
    assert pages_in(file) == {4}


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LocalError, match="another kind"):
        CheckpointSaver(tmp_path / "pipe", print)


def test_all_pages_are_written_again_after_a_failed_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = RAMCache("cache", lay_out({"ram": PAGES * PAGE_SIZE}))
    file = os.open(tmp_path / "guest", os.O_RDWR | os.O_CREAT)
    image = Image(file, ImageLayout.of(b"header", 2, memory.blocks), memory)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    assert image.write_pages() == PAGES
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            image.write_devices(b"devices")
    # A checkpoint that is committed meanwhile adds its pages to these bits.
    assert not image.lacking.any()
    assert image.write_pages() == PAGES
    image.write_devices(b"devices")
    assert image.write_pages() == 0
    image.close()
    memory.close()


def test_file_aside_is_found_again_whatever_its_name(tmp_path: Path) -> None:
    for name in ("[1] *?", "ä" * 120):
        descriptor, left = new_aside(tmp_path / name)
        os.close(descriptor)
        descriptor, path = new_aside(tmp_path / name)
        assert os.listdir(tmp_path) == [path.name]
        assert path != left
        with open(path, "rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(descriptor)
        path.unlink()


def test_receiver_that_has_no_thread_leaves_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: ColoThread, body: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ColoThread, "run", fail)
    monkeypatch.setattr(receiver, "load", lambda names: ())
    with pytest.raises(LocalError, match="can't start new thread"):
        receiver.Receiver(f"unix:{tmp_path / 'colo'}").start()
    assert list(tmp_path.iterdir()) == []


def test_error_of_the_function_that_is_told_ends_the_protection(tmp_path: Path) -> None:
    memory = RAMCache("cache", lay_out({"ram": PAGES * PAGE_SIZE}))

    def fail(record: SavedCheckpoint) -> None:
        raise ValueError("told")

    saver = CheckpointSaver(tmp_path / "guest", fail)
    saver.start(ImageLayout.of(b"header", 2, memory.blocks), memory)
    saver.committed(1, memory.bitmap, b"devices")
    saver.finish()
    with pytest.raises(LocalError, match="ValueError: told"):
        saver.committed(2, memory.bitmap, b"devices")
    memory.close()
