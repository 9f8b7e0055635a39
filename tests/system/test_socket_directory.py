"""Sockets find a place whatever the temporary directory is, or it is said how to give them one.

The long temporary directories are pytest's, who removes them; nothing is removed with its contents
here. The short place to fall back to is the one that `nothing_left` has made, never the real one.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colobench.errors import LocalError
from colobench.lab.session.session import Session
from colobench.processes import socket_directory
from colobench.processes.socket_directory import (
    LARGEST_NUMBER,
    LONGEST_PARENT,
    NAMES,
    QEMU_PREFIX,
    SESSION_PREFIX,
    make_socket_directory,
    parents,
)
from colobench.settings.heartbeat import HeartbeatSettings


@pytest.fixture
def short(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let sockets fall back to a short directory of the test's own, and to no other."""
    directory = Path(tempfile.gettempdir())
    assert directory.name.startswith("cb-")
    monkeypatch.setattr(socket_directory, "FALLBACKS", (str(directory),))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return directory


@pytest.fixture
def made() -> Iterator[Callable[[str], Path]]:
    """Make directories for sockets, which have to be empty at the end, and are removed."""
    directories = []

    def make(prefix: str) -> Path:
        directories.append(make_socket_directory(prefix))
        return directories[-1]

    yield make
    for each in directories:
        each.rmdir()


def of_length(top: Path, length: int, character: str = "x") -> str:
    """Make a directory in `top` whose path has so many bytes."""
    size = len(os.fsencode(character))
    left = length - len(os.fsencode(top))
    if left < 2:
        pytest.skip(f"{top} is too long itself")
    path = str(top)
    while left:
        # A slash and a name; no single character may be left over for the next turn.
        part = left if left <= 200 else 200 if left != 201 else 100
        path += "/" + character * ((part - 1) // size) + "_" * ((part - 1) % size)
        left -= part
    os.makedirs(path)
    assert len(os.fsencode(path)) == length
    return path


def bind_all(directory: Path) -> None:
    for name in NAMES:
        path = directory / name.format(LARGEST_NUMBER)
        kind = socket.SOCK_DGRAM if name.endswith(".heartbeat") else socket.SOCK_STREAM
        with socket.socket(socket.AF_UNIX, kind) as bound:
            bound.bind(str(path))
        path.unlink()


@pytest.mark.parametrize("prefix", [SESSION_PREFIX, QEMU_PREFIX])
@pytest.mark.parametrize("length", [107, 108, 150, 250])
@pytest.mark.parametrize("character", ["x", "é", "\udcff"])
def test_every_socket_fits_however_long_the_temporary_directory_is(
    prefix: str,
    length: int,
    character: str,
    short: Path,
    made: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", of_length(tmp_path, length, character))
    directory = made(prefix)
    assert directory.parent == short
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    bind_all(directory)


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("character", ["x", "é", "\udcff"])
def test_temporary_directory_is_used_exactly_as_far_as_its_path_is_short_enough(
    excess: int,
    character: str,
    short: Path,
    made: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = Path(of_length(short, LONGEST_PARENT + excess, character))
    monkeypatch.setattr(tempfile, "tempdir", str(inner))
    try:
        directory = make_socket_directory(SESSION_PREFIX)
        assert directory.parent == (short if excess else inner)
        bind_all(directory)
        directory.rmdir()
    finally:
        inner.rmdir()


def test_order_is_temporary_directory_then_that_of_the_user_then_the_others(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert list(parents()) == [tmp_path, Path("/run/user/1000"), short]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "not/absolute")
    assert list(parents()) == [tmp_path, short]


@pytest.mark.parametrize("place", ["nonexistent", "a file"])
def test_temporary_directory_that_cannot_be_used_is_passed_over(
    place: str,
    short: Path,
    made: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setattr(socket_directory, "LONGEST_PARENT", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / place))
    assert made(SESSION_PREFIX).parent == short


def test_directory_in_which_no_socket_can_be_made_is_passed_over_and_left_clean(
    short: Path,
    made: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its path is short enough, it is said, but then it is not: `bind` refuses it.
    long = of_length(tmp_path, 150)
    monkeypatch.setattr(socket_directory, "LONGEST_PARENT", 1000)
    monkeypatch.setattr(tempfile, "tempdir", long)
    assert made(SESSION_PREFIX).parent == short
    assert os.listdir(long) == []


def test_where_no_place_will_do_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Path("/" + "x" * 90)
    monkeypatch.setattr(socket_directory, "parents", lambda: [long, Path("/nonexistent")])
    with pytest.raises(LocalError) as caught:
        make_socket_directory(SESSION_PREFIX)
    words = str(caught.value)
    assert f"at most {LONGEST_PARENT} bytes, found {long} with 91 bytes" in words
    assert "/nonexistent: No such file or directory" in words
    assert words.endswith("set TMPDIR to such a one")


def test_session_with_every_socket_runs_under_a_long_temporary_directory(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", of_length(tmp_path, 150))
    with Session(
        ram="8M",
        guest="kv",
        delay=20,
        variant="upstream",
        output="compare",
        hostfwd="tcp:127.0.0.1:0-:6379",
        heartbeat=HeartbeatSettings(50, 5000),
        keep_stream=True,
        spare=True,
    ) as session:
        session.run(1)
        directory = session.nodes["primary"].qmp_path.parent
        assert directory.parent == short
        found = [each.name for each in directory.iterdir() if stat.S_ISSOCK(each.stat().st_mode)]
    assert not directory.exists()
    declared = [re.compile(re.escape(name).replace(r"\{\}", r"\d+")) for name in NAMES]
    assert [name for name in found if not any(each.fullmatch(name) for each in declared)] == []
    for kind in ("node-0.qmp", "switch", "arbiter", "mirror-1", "primary-0.heartbeat"):
        assert kind in found
