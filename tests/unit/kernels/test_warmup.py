"""Kernels are compiled once, by whichever process comes first, and a note says that they are."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numba.core import config

from colobench.kernels import cache, jit, note, sources, warmup
from colobench.kernels.cache import CacheState

MODULES = (__name__,)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a kernel that has a cache of its own, and is not in it."""
    monkeypatch.setattr(jit, "REGISTRY", [])
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))

    @jit.kernel("i8(i8)")
    def successor(number: int) -> int:
        return number + 1

    return successor


def files(directory: Path) -> set[str]:
    return {path.suffix for path in directory.rglob("*") if path.is_file()}


def lock_of(kernel: Any) -> Path:
    return Path(f"{kernel._cache._cache_file._index_path}.lock")


@pytest.fixture
def held(kernel: Any) -> Iterator[Path]:
    """Hold the lock of the kernel, as another process does that compiles it."""
    path = lock_of(kernel)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_kernel_that_nobody_compiles_is_compiled_and_leaves_no_lock(kernel, tmp_path):
    assert list(warmup.compile_unclaimed([kernel])) == ["successor"]
    assert warmup.state(kernel)[0] is CacheState.READY
    assert files(tmp_path) == {".nbi", ".nbc"}


def test_kernel_that_another_process_compiles_is_left_to_it(kernel, held):
    assert list(warmup.compile_unclaimed([kernel])) == []
    assert not kernel.overloads
    assert held.exists()


def test_lock_that_a_killed_process_has_left_stops_nobody(kernel, tmp_path):
    left = lock_of(kernel)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    assert list(warmup.compile_unclaimed([kernel])) == ["successor"]
    assert files(tmp_path) == {".nbi", ".nbc"}


#: Holds a lock as the package does, says so, and does nothing.
HOLDER = """
import signal, sys
from colobench.kernels import cache
assert cache._lock(sys.argv[1]) is not None
print("held", flush=True)
signal.pause()
"""


@pytest.fixture
def holder(kernel: Any) -> Iterator[subprocess.Popen[str]]:
    """Give a process that holds the lock of the kernel."""
    lock_of(kernel).parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLDER, str(lock_of(kernel))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_kernel_is_waited_for_as_long_as_the_process_that_compiles_it_lives(
    kernel, holder, monkeypatch
):
    looks = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 5:
            assert not kernel.overloads
            holder.kill()
            holder.wait()

    monkeypatch.setattr("colobench.kernels.cache.time.sleep", look)
    assert kernel(1) == 2
    assert len(looks) == 5
    assert not lock_of(kernel).exists()


def test_kernel_is_not_waited_for_while_the_process_that_compiles_it_is_stopped(kernel, holder):
    holder.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
    assert kernel(1) == 2
    assert lock_of(kernel).exists()


def test_lock_ends_with_its_process_though_a_fork_of_it_lives(kernel, tmp_path):
    path = str(tmp_path / "lock")
    descriptor = cache._lock(path)
    assert descriptor is not None
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        # It lives until it is told to end.
        theirs.send(b"forked")
        theirs.recv(1)
        os._exit(0)
    assert ours.recv(6) == b"forked"
    # As the end of a process does, without removing the file.
    os.close(descriptor)
    cache._locks.discard(descriptor)
    again = cache._lock(path)
    ours.send(b"!")
    os.waitpid(pid, 0)
    ours.close()
    theirs.close()
    assert again is not None
    cache._unlock(path, again)


def test_what_is_missing_is_compiled_and_counted(kernel):
    steps = list(warmup.compile_missing(MODULES, 1))
    assert [(step.name, step.done, step.total) for step in steps] == [("successor", 1, 1)]
    assert list(warmup.compile_missing(MODULES, 1)) == []


def test_note_holds_until_a_source_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not note.is_noted(MODULES)
    note.note(MODULES)
    note.note(("another",))
    assert note.is_noted(MODULES)
    monkeypatch.setattr(sources, "digest", lambda files: "changed")
    assert not note.is_noted(MODULES)
    note.note(MODULES)
    assert note.is_noted(MODULES)
    # The older note of these modules is gone, and that of others is not.
    assert len(os.listdir(tmp_path)) == 2


def test_note_that_cannot_be_written_is_not_there(monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/dev/null/nowhere")
    note.note(MODULES)
    assert not note.is_noted(MODULES)


@pytest.mark.parametrize(
    ("line", "imported"),
    [
        ("from colobench.kernels import raw, libc", {"raw.py", "libc.py", "__init__.py"}),
        ("from colobench.kernels.raw import (\n    copy,\n    load,\n)", {"raw.py"}),
        ("import colobench.kernels.raw", {"raw.py"}),
        ("if TYPE_CHECKING:\n    from colobench.kernels import raw", set()),
        ("import numpy", set()),
    ],
)
def test_sources_of_a_kernel_are_what_its_module_imports(line, imported):
    found = filter(None, map(sources.file_of, sources._modules(line)))
    assert {path.name for path in found} == imported
