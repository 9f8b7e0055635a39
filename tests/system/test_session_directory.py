"""What a killed session leaves is removed by the next one; what somebody uses is not touched."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from colobench.processes.session_directory import (
    SessionDirectory,
    is_running,
    qemu_directory,
    remove_left,
    running,
)
from colobench.processes.socket_directory import QEMU_PREFIX, SESSION_PREFIX

#: Makes a directory, says where, and waits; its end is that of a killed session.
OWNER = """
import sys, tempfile
from pathlib import Path
from colobench.processes.session_directory import SessionDirectory
made = SessionDirectory(lambda: Path(tempfile.mkdtemp("", "colobench-session-", sys.argv[1])))
(made.path / "node-0.stderr").write_text("words")
print(made.path, flush=True)
sys.stdin.read()
"""


def make_in(parent: Path) -> SessionDirectory:
    return SessionDirectory(lambda: Path(tempfile.mkdtemp("", SESSION_PREFIX, parent)))


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Make a directory whose process is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        path = Path(owner.stdout.readline().strip())
        assert is_running(path)
        assert remove_left(tmp_path) == []
        owner.kill()
    assert not is_running(path)
    return path


def test_directory_of_a_killed_process_is_removed_and_a_living_ones_is_not(
    left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colobench.processes.session_directory.parents", lambda: [left.parent])
    mine = make_in(left.parent)
    assert running() == [mine.path]
    assert remove_left(left.parent) == [left]
    assert list(left.parent.iterdir()) == [mine.path]
    mine.remove()
    assert list(left.parent.iterdir()) == []


def test_directory_of_a_killed_process_with_a_qemu_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "colobench.processes.session_directory.make_socket_directory",
        lambda prefix: Path(tempfile.mkdtemp("", prefix, tmp_path)),
    )
    left = tmp_path / f"{QEMU_PREFIX}left"
    left.mkdir()
    (left / "bios").write_bytes(b"firmware")
    with contextlib.ExitStack() as closing:
        mine = qemu_directory(closing)
        assert list(tmp_path.iterdir()) == [mine]
        assert remove_left(tmp_path) == []
        # It is no session.
        assert mine not in running()
    assert list(tmp_path.iterdir()) == []


def test_symbolic_links_are_neither_removed_nor_followed(left: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    link = tmp_path / f"{SESSION_PREFIX}link"
    link.symlink_to(precious)
    # Neither is one inside.
    (left / "inside").symlink_to(precious)
    assert remove_left(tmp_path) == [left]
    assert link.is_symlink()
    assert (precious / "file").read_text() == "kept"


def test_what_is_not_a_sessions_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / f"{SESSION_PREFIX}file").write_text("a file")
    nested = tmp_path / f"{SESSION_PREFIX}nested"
    (nested / "deep").mkdir(parents=True)
    (nested / "file").write_text("kept")
    assert remove_left(tmp_path) == []
    assert (nested / "file").read_text() == "kept"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_users_directory_is_left_alone(left: Path) -> None:
    os.chown(left, 12345, 12345)
    assert remove_left(left.parent) == []
    assert not is_running(left)
    assert left.is_dir()


def test_directory_in_which_a_process_listens_is_left_alone(left: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(left / "s"))
        assert remove_left(left.parent) == []
    assert remove_left(left.parent) == [left]


def test_who_makes_one_while_others_clean_up_has_it_whole(tmp_path: Path) -> None:
    ending = threading.Event()

    def clean_up() -> None:
        while not ending.is_set():
            remove_left(tmp_path)

    cleaners = [threading.Thread(target=clean_up) for _ in range(2)]
    for cleaner in cleaners:
        cleaner.start()
    try:
        for _ in range(200):
            made = make_in(tmp_path)
            (made.path / "file").write_text("mine")
            assert (made.path / "file").read_text() == "mine"
            made.remove()
            assert not made.path.exists()
    finally:
        ending.set()
        for cleaner in cleaners:
            cleaner.join()
    assert list(tmp_path.iterdir()) == []
