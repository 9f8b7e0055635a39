"""Image files: the bytes of a disk, errors with their place, one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colobench.block.backend import BlockError
from colobench.block.request import BlockRequest, RequestKind
from colobench.errors import LocalError
from colobench.node.disk.faults import FaultRule, FaultyBackend
from colobench.node.disk.image import FileImage, ImageInUse
from memory_disk import MemoryDisk
from share import amount

SIZE = 64 * 512


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "disk.img")


requests = st.builds(
    lambda kind, begin, count, byte: BlockRequest(
        kind,
        begin * 512,
        min(count, 64 - begin) * 512,
        bytes([byte]) * (min(count, 64 - begin) * 512) if kind is RequestKind.WRITE else b"",
        fua=byte % 8 == 0,
    ),
    st.sampled_from([kind for kind in RequestKind if kind is not RequestKind.FLUSH]),
    st.integers(0, 63),
    st.integers(1, 64),
    st.integers(1, 255),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=amount(30, 300),
)
@given(st.lists(requests, max_size=15))
def test_an_image_has_the_bytes_that_were_written_to_it(path, asked):
    twin = MemoryDisk(bytes(SIZE))
    with FileImage(path, SIZE) as image:
        image.write_zeroes(0, SIZE)
        for request in asked:
            assert request.perform(image) == request.perform(twin)
        image.flush()
    with FileImage(path, read_only=True) as image:
        assert image.read(0, SIZE) == twin.bytes
        assert image.size == os.stat(path).st_size == SIZE


def test_a_new_image_is_a_hole_and_a_discard_makes_one_again(path):
    with FileImage(path, 1 << 30) as image:
        assert image.allocated == 0
        image.write(1 << 20, b"x" * (1 << 20))
        image.flush()
        assert image.allocated >= 1 << 20
        image.discard(0, 4 << 20)
        assert image.allocated == 0
        assert image.read(1 << 20, 512) == bytes(512)


def test_zeros_are_written_where_the_file_system_has_no_better_way(path, monkeypatch):
    with FileImage(path, 4 << 20) as image:
        image.write(0, b"x" * (4 << 20))
        monkeypatch.setattr("colobench.node.disk.image._fallocate", no_fallocate)
        image.discard(512, (3 << 20) + 512)
        assert image.read(0, 4 << 20) == b"x" * 512 + bytes((3 << 20) + 512) + b"x" * (
            (1 << 20) - 1024
        )


def no_fallocate(*_):
    import ctypes

    ctypes.set_errno(errno.EOPNOTSUPP)
    return -1


def test_an_image_is_open_for_writing_once_or_for_reading_by_several(path):
    with (
        FileImage(path, SIZE),
        pytest.raises(ImageInUse, match="expected one that is not in use"),
    ):
        FileImage(path)
    with (
        FileImage(path, read_only=True),
        FileImage(path, read_only=True),
        pytest.raises(ImageInUse),
    ):
        FileImage(path)
    FileImage(path).close()


@pytest.mark.parametrize("byte", [101, 201])
def test_image_that_a_qemu_writes_or_wants_for_itself_is_in_use(tmp_path, byte):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(SIZE))
    with open(path, "rb") as of_qemu:
        lock = struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
        fcntl.fcntl(of_qemu, fcntl.F_OFD_SETLK, lock)
        with pytest.raises(ImageInUse, match="found it locked by a QEMU"):
            FileImage(str(path))
        FileImage(str(path), read_only=True).close()
    FileImage(str(path)).close()


def test_a_file_that_has_shrunk_fails_with_its_path_and_is_not_made_longer(path):
    with FileImage(path, SIZE) as image:
        os.truncate(path, SIZE // 2)
        for request in (
            BlockRequest(RequestKind.READ, 0, SIZE),
            BlockRequest(RequestKind.WRITE, SIZE // 2, 512, bytes(512)),
            BlockRequest(RequestKind.DISCARD, SIZE // 2, 512),
            BlockRequest(RequestKind.WRITE_ZEROES, 0, SIZE),
        ):
            with pytest.raises(BlockError, match=rf"{path}.*{SIZE} bytes, found one of") as caught:
                request.perform(image)
            assert caught.value.errno == errno.EIO
        assert os.stat(path).st_size == SIZE // 2
        assert image.read(0, 512) == bytes(512)


def test_an_image_that_may_only_be_read_refuses_every_change(path):
    FileImage(path, SIZE).close()
    with FileImage(path, read_only=True) as image:
        for kind in (RequestKind.WRITE, RequestKind.DISCARD, RequestKind.WRITE_ZEROES):
            data = bytes(512) if kind is RequestKind.WRITE else b""
            with pytest.raises(BlockError, match="read-only") as caught:
                BlockRequest(kind, 0, 512, data).perform(image)
            assert caught.value.errno == errno.EPERM
        image.flush()


@pytest.mark.parametrize(
    ("raised", "told"), [("ENOSPC", "ENOSPC"), ("EDQUOT", "ENOSPC"), ("EFBIG", "EIO")]
)
def test_an_error_of_the_file_system_is_told_with_path_and_offset(path, monkeypatch, raised, told):
    def fail(*_):
        raise OSError(getattr(errno, raised), "on purpose")

    with FileImage(path, SIZE) as image:
        monkeypatch.setattr(os, "pwritev", fail)
        with pytest.raises(
            BlockError, match=rf"{path}, write at offset 1024: on purpose"
        ) as caught:
            image.write(1024, bytes(512))
        assert caught.value.errno == getattr(errno, told)
        assert isinstance(caught.value.__cause__, OSError)


def test_once_a_flush_has_failed_none_succeeds(path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "on purpose")

    with FileImage(path, SIZE) as image:
        image.flush()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(BlockError, match="flush: on purpose"):
                image.flush()
        with pytest.raises(BlockError, match="flush: on purpose"):
            image.flush()


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "a multiple"), (513, "a multiple"), (1 << 60, "a multiple"), (1024, "found a file of")],
)
def test_a_size_that_is_wrong_is_refused_and_the_file_is_as_before(path, size, words):
    FileImage(path, SIZE).close()
    with pytest.raises(LocalError, match=words):
        FileImage(path, size)
    assert os.stat(path).st_size == SIZE


def test_what_is_no_image_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "odd").write_bytes(b"x" * 700)
    for name, words in (
        ("fifo", "regular file"),
        ("odd", "a multiple of 512"),
        ("missing", "No such file"),
        ("", "cannot be opened"),
    ):
        with pytest.raises(LocalError, match=words):
            FileImage(str(tmp_path / name))
    with pytest.raises(LocalError, match="path of a file"):
        FileImage("")
    assert not (tmp_path / "missing").exists()


def test_a_rule_is_met_by_what_touches_its_range_as_often_as_it_says():
    disk = FaultyBackend(MemoryDisk(b"o" * SIZE))
    rule = FaultRule.from_json({"kinds": ["write"], "offset": 1024, "length": 512, "count": 2})
    disk.set_rules([rule])
    disk.write(0, b"1" * 1024)
    disk.read(1024, 512)
    disk.write(1536, b"1" * 512)
    for _ in range(2):
        with pytest.raises(BlockError, match="WRITE at offset 512"):
            disk.write(512, b"2" * 1024)
    disk.write(512, b"3" * 1024)
    assert disk.met == 2
    assert disk.read(0, 2048) == b"1" * 512 + b"3" * 1024 + b"1" * 512


@pytest.mark.parametrize(
    ("kind", "byte"), [("write", b"1"), ("discard", b"\0"), ("write-zeroes", b"\0")]
)
def test_a_torn_change_has_its_first_half_and_a_late_one_is_whole(kind: str, byte: bytes):
    disk = FaultyBackend(MemoryDisk(b"o" * SIZE))

    def change(offset: int, length: int) -> None:
        number = RequestKind[kind.upper().replace("-", "_")]
        data = byte * length if number is RequestKind.WRITE else b""
        BlockRequest(number, offset, length, data).perform(disk)

    disk.set_rules([FaultRule.from_json({"kinds": [kind], "torn": True, "errno": "ENOSPC"})])
    with pytest.raises(BlockError) as caught:
        change(0, 2048)
    assert caught.value.errno == errno.ENOSPC
    disk.set_rules([FaultRule.from_json({"kinds": [kind], "delay-ms": 1, "errno": 0})])
    change(2048, 1024)
    assert disk.read(0, 3072) == byte * 1024 + b"o" * 1024 + byte * 1024
    assert disk.met == 2


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"kinds": []},
        {"kinds": "write"},
        {"kinds": ["writes"]},
        {"kinds": ["write"], "errno": False},
        {"kinds": ["write"], "errno": 0.0},
        1,
        None,
        ["kinds"],
        {"kinds": [1]},
        {"kinds": ["read"], "errno": "EBADF"},
        {"kinds": ["read"], "errno": 5},
        {"kinds": ["read"], "offset": -1},
        {"kinds": ["read"], "length": 0},
        {"kinds": ["read"], "delay-ms": 1e9},
        {"kinds": ["read"], "count": True},
        {"kinds": ["read"], "torn": 1},
        {"kinds": ["read"], "colour": 1},
    ],
)
def test_a_rule_with_a_wrong_member_is_refused(members):
    with pytest.raises(LocalError, match=r"expected .* found"):
        FaultRule.from_json(members)
