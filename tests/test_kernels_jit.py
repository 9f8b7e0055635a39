"""What the decorator promises of every kernel, and what becomes of the cache."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numba.core import sigutils, types
from numba.core.caching import FunctionCache

import colobench.kernels
from colobench.kernels import bitmap, import_all, jit

PACKAGE = Path(colobench.kernels.__file__).parent

import_all()
every_kernel = pytest.mark.parametrize(
    ("compiled", "signature"), jit.REGISTRY, ids=[item.__name__ for item, _ in jit.REGISTRY]
)


@pytest.fixture
def copied_package(tmp_path: Path) -> Path:
    """Copy the package, so that a test may change it; the directory of its kernels."""
    copy = shutil.copytree(
        PACKAGE.parent, tmp_path / "copy/colobench", ignore=shutil.ignore_patterns("__pycache__")
    )
    return Path(copy) / "kernels"


def run_python(package: Path, script: str, **environment: str) -> str:
    """Run a script in a process of its own with the copied package; what it prints."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "PYTHONPATH": str(package.parents[1]), **environment},
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@every_kernel
def test_kernel_releases_the_gil(compiled, signature):
    assert compiled.targetoptions["nogil"] is True


@every_kernel
def test_kernel_is_compiled_for_its_signature_and_no_other(compiled, signature):
    arguments, result = sigutils.normalize_signature(signature)
    # Whatever called the kernel in this process before this test is held to the signature too.
    if arguments not in compiled.overloads:
        compiled.compile(signature)
    [found] = compiled.nopython_signatures
    assert (found.args, types.unliteral(found.return_type)) == (arguments, result)


@every_kernel
def test_kernel_allocates_nothing(compiled, signature):
    # A kernel that came from the cache has no LLVM text: compile it anew.
    fresh = type(compiled)(compiled.py_func, targetoptions=compiled.targetoptions)
    fresh.compile(signature)
    [text] = fresh.inspect_llvm().values()
    assert "define" in text
    assert "NRT_Allocate" not in text
    assert "NRT_MemInfo_alloc" not in text


@pytest.fixture
def compiling_again() -> Iterator[None]:
    """Let kernels be compiled by a call again after the test, as in a fresh process."""
    yield
    for compiled, _ in jit.REGISTRY:
        compiled.disable_compile(False)


@pytest.mark.usefixtures("compiling_again")
def test_warmup_readies_every_kernel_and_then_compiles_no_more():
    steps = list(jit.warmup())
    assert [name for name, *_ in steps] == [compiled.__name__ for compiled, _ in jit.REGISTRY]
    assert [done for _, done, _, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, _, total, _ in steps} == {len(steps)}
    assert bitmap.popcount(np.ones(3, dtype=np.uint64)) == 3
    with pytest.raises(TypeError):
        bitmap.popcount(np.ones(3, dtype=np.int64))
    assert len(list(jit.warmup())) == len(steps)


def test_importing_the_package_does_not_import_numba(copied_package):
    script = "import sys, colobench.kernels; print('numba' in sys.modules)"
    assert run_python(copied_package, script) == "False\n"


COUNT_AND_TELL = """
import json
import numpy as np
from colobench.kernels.bitmap import popcount
assert popcount(np.ones(3, dtype=np.uint64)) == 3
stats = popcount.stats
print(json.dumps([stats.cache_path, sum(stats.cache_hits.values())]))
"""


def test_cache_is_kept_until_any_kernel_source_changes(copied_package, tmp_path):
    cache = tmp_path / "cache"
    outcomes = []
    for change in (False, False, True, False):
        if change:
            with (copied_package / "raw.py").open("a") as source:
                source.write("# changed\n")
        path, hits = json.loads(
            run_python(copied_package, COUNT_AND_TELL, NUMBA_CACHE_DIR=str(cache))
        )
        assert Path(path).is_relative_to(cache)
        outcomes.append(hits)
    assert outcomes == [0, 1, 0, 1]


def test_after_a_warmup_no_process_compiles_anything(tmp_path):
    script = "from colobench.kernels import jit; assert list(jit.warmup())"
    call = """
import numpy as np
from colobench.guest.configuration import Configuration
from colobench.guest.machine import Machine
from colobench.kernels.bitmap import popcount
machine = Machine(Configuration(4096))
machine.run_until(10)
machine.start()
machine.close()
assert popcount(np.ones(3, dtype=np.uint64)) == 3
"""
    caches = []
    for each in (script, call, script):
        run_python(PACKAGE, each, NUMBA_CACHE_DIR=str(tmp_path))
        caches.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")})
    assert len(caches[0]) == 2 * len(jit.REGISTRY)
    assert caches[0] == caches[1] == caches[2]


def test_kernels_work_where_no_cache_can_be_written(copied_package):
    # A file where a directory should be stops the superuser too.
    (copied_package / "__pycache__").write_text("")
    refused = """
import numba
from colobench.kernels import jit
try:
    numba.njit(cache=True)(jit.inlined)
except RuntimeError as error:
    assert "no locator available" in str(error)
else:
    raise AssertionError("numba found a place to write to")
"""
    unwritable = {"XDG_CACHE_HOME": "/dev/null/cache", "NUMBA_CACHE_DIR": ""}
    output = run_python(copied_package, refused + COUNT_AND_TELL, **unwritable)
    assert json.loads(output) == [None, 0]


def test_full_disk_does_not_stop_a_kernel(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FunctionCache, "save_overload", full)
    monkeypatch.setattr(jit, "REGISTRY", [])

    @jit.kernel("i8(i8)")
    def successor(number):
        return number + 1

    assert successor(1) == 2
