"""Kernels are compiled once, by whichever process comes first, and a note says that they are."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numba.core import config

from colobench.kernels import jit, note, sources, warmup
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


def test_kernel_is_waited_for_no_longer_than_patience(kernel, held, monkeypatch):
    monkeypatch.setattr("colobench.kernels.cache.PATIENCE", 0.1)
    assert kernel(1) == 2


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
