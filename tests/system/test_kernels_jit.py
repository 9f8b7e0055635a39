"""What the decorator promises of every kernel, and what becomes of the cache."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import binding
from numba.core import config, errors, sigutils, types
from numba.core.caching import FunctionCache

import colobench.kernels
from colobench.guest.programs import Program
from colobench.kernels import bitmap, jit
from colobench.kernels.sources import file_of
from colobench.kernels.warmup import kernels_in, load
from colobench.node.kernels import all_kernel_modules, kernel_modules
from colobench.settings.transport import PageTransport
from share import SHARE

PACKAGE = Path(colobench.kernels.__file__).parent

kernels_in(all_kernel_modules())
#: Modules whose kernels are compiled anew: without a share of the long runs those of the plainest
#: pair, because the store and its TCP stack take a minute.
MODULES = (
    all_kernel_modules()
    if SHARE
    else kernel_modules((Program.UNIFORM,), PageTransport.MULTIFD, ("shadow",))
)


def with_each(kernels: list[tuple[Any, str]]) -> pytest.MarkDecorator:
    """Parametrize a test by kernels and their signatures."""
    names = [compiled.__name__ for compiled, _ in kernels]
    return pytest.mark.parametrize(("compiled", "signature"), kernels, ids=names)


every_kernel = with_each(jit.REGISTRY)
every_kernel_compiled_anew = with_each(
    [each for each in jit.REGISTRY if each[0].py_func.__module__ in MODULES]
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


@functools.cache
def compiled_anew(compiled: Any, signature: str) -> Any:
    """Compile a kernel again: one that came from the cache has no LLVM text."""
    fresh = type(compiled)(compiled.py_func, targetoptions=compiled.targetoptions)
    fresh.compile(signature)
    return fresh


class Assembly:
    """The LLVM text of a compiled function, its wrapper for Python, and all that they call."""

    def __init__(self, compiled: Any) -> None:
        [text] = compiled.inspect_llvm().values()
        [overload] = compiled.overloads.values()
        self.entry: str = overload.fndesc.llvm_func_name
        self.wrapper: str = overload.fndesc.llvm_cpython_wrapper_name
        #: The lines of each function, from LLVM's `define` to its closing bracket.
        self.functions = {
            self.names(lines[0])[0]: lines[1:]
            for lines in map(str.splitlines, re.findall(r"^define .*?^}", text, re.DOTALL | re.M))
        }

    @staticmethod
    def names(line: str) -> list[str]:
        """Give the global names in a line."""
        return [quoted or plain for quoted, plain in re.findall(r'@(?:"([^"]+)"|([\w.$-]+))', line)]

    def reached(self, start: str) -> set[str]:
        """Give the names that a function, and all it calls, refers to."""
        found, new = set(), {start}
        while new:
            found |= new
            lines = [line for name in new for line in self.functions.get(name, [])]
            new = {name for line in lines for name in self.names(line)} - found
        return found


_MAY_ALLOCATE = r"alloc|align|^mmap|free|^Py|^_Z"


def allocations(compiled: Any) -> set[str]:
    """Give what a compiled function, or anything it calls, may call to get or free memory."""
    assembly = Assembly(compiled)
    assert assembly.functions[assembly.entry]
    return {
        name
        for name in assembly.reached(assembly.entry)
        # LLVM names a table of constants after the function that it has made it for.
        if not name.startswith("switch.table.")
        and (
            name.startswith("NRT_")
            or (name not in assembly.functions and re.search(_MAY_ALLOCATE, name))
        )
    }


def calls_without_the_gil(compiled: Any) -> bool:
    """Tell whether the wrapper that Python calls gives the GIL back for the function's time."""
    assembly = Assembly(compiled)
    interesting = ("PyEval_SaveThread", assembly.entry, "PyEval_RestoreThread")
    calls = [
        name
        for line in assembly.functions[assembly.wrapper]
        for name in assembly.names(line)
        if name in interesting
    ]
    assert assembly.entry in calls
    return tuple(calls) == interesting


def make_and_sum(length):
    array = np.empty(length, dtype=np.int64)
    for i in range(length):
        array[i] = i * i
    return array[length // 2] + array.sum()


@every_kernel
def test_kernel_is_compiled_without_the_gil_and_without_memory_to_allocate(compiled, signature):
    assert compiled.targetoptions["nogil"] is True
    assert compiled.targetoptions["_nrt"] is False


@every_kernel_compiled_anew
def test_kernel_releases_the_gil(compiled, signature):
    assert calls_without_the_gil(compiled_anew(compiled, signature))


def test_kernel_that_keeps_the_gil_would_be_found():
    def successor(number):
        return number + 1

    without, keeping = numba.njit(nogil=True)(successor), numba.njit(successor)
    for compiled in without, keeping:
        compiled.compile("i8(i8)")
    assert calls_without_the_gil(without)
    assert not calls_without_the_gil(keeping)


@every_kernel
def test_kernel_is_compiled_for_its_signature_and_no_other(compiled, signature):
    arguments, result = sigutils.normalize_signature(signature)
    # Whatever called the kernel in this process before this test is held to the signature too.
    if arguments not in compiled.overloads:
        compiled.compile(signature)
    [found] = compiled.nopython_signatures
    assert (found.args, types.unliteral(found.return_type)) == (arguments, result)


@every_kernel_compiled_anew
def test_kernel_allocates_nothing(compiled, signature):
    assert allocations(compiled_anew(compiled, signature)) == set()


@pytest.mark.parametrize("depth", [0, 1])
def test_kernel_that_makes_an_array_would_be_found(depth):
    function = make_and_sum
    if depth:
        # Not inlined: the text of what is called counts too.
        called = numba.njit(nogil=True)(make_and_sum)

        def function(length):
            return called(length) + called(length + 1)

    compiled = numba.njit(nogil=True)(function)
    compiled.compile("i8(i8)")
    assert any("NRT_" in name for name in allocations(compiled))


def test_kernel_that_calls_malloc_would_be_found():
    malloc = types.ExternalFunction("malloc", types.intp(types.uintp))
    compiled = numba.njit(nogil=True, _nrt=False)(lambda length: malloc(length))
    compiled.compile("i8(u8)")
    assert allocations(compiled) == {"malloc"}


@pytest.mark.parametrize("decorate", [jit.kernel("i8(i8)"), jit.inlined])
def test_kernel_that_makes_an_array_is_not_compiled(decorate, monkeypatch):
    monkeypatch.setattr(jit, "REGISTRY", [])
    with pytest.raises(errors.TypingError, match="function empty"):
        decorate(make_and_sum)(8)


@pytest.mark.parametrize(
    ("given", "features", "expected"),
    [
        ("+avx2,+avx512f", ["avx512f"], True),
        ("+avx2,+avx512f", ["avx2", "avx512f"], True),
        ("+avx2,-avx512f", ["avx512f"], False),
        ("+avx2,+avx512f", ["avx512f", "avx512vbmi2"], False),
        ("+avx512f,-avx512f", ["avx512f"], False),
        ("+avx512fp16", ["avx512f"], False),
        ("", ["avx512f"], False),
    ],
)
def test_target_has_the_features_that_numba_is_told(given, features, expected, monkeypatch):
    monkeypatch.setattr(config, "CPU_FEATURES", given)
    assert jit.target_has(*features) is expected


def test_target_has_the_features_of_this_cpu_if_numba_is_told_nothing(monkeypatch):
    monkeypatch.setattr(config, "CPU_FEATURES", None)
    of_this_cpu = binding.get_host_cpu_features()
    assert of_this_cpu
    for feature, there in of_this_cpu.items():
        assert jit.target_has(feature) is there


@pytest.fixture
def compiling_again() -> Iterator[None]:
    """Let kernels be compiled by a call again after the test, as in a fresh process."""
    yield
    for compiled, _ in jit.REGISTRY:
        compiled.disable_compile(False)


@pytest.mark.usefixtures("compiling_again")
def test_warmup_readies_every_kernel_and_then_compiles_no_more():
    modules = all_kernel_modules()
    steps = list(load(modules))
    assert [name for name, *_ in steps] == [kernel.__name__ for kernel in kernels_in(modules)]
    assert [done for _, done, _, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, _, total, _ in steps} == {len(steps)}
    assert bitmap.popcount(np.ones(3, dtype=np.uint64)) == 3
    with pytest.raises(TypeError):
        bitmap.popcount(np.ones(3, dtype=np.int64))
    assert len(list(load(modules))) == len(steps)


def test_modules_that_are_warmed_up_have_all_kernels():
    sources = sorted(PACKAGE.parent.rglob("*.py"))
    with_kernels = {file for file in sources if re.search(r"^@kernel\(", file.read_text(), re.M)}
    assert set(map(file_of, all_kernel_modules())) == with_kernels


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
    script = f"""
from colobench.kernels.warmup import load
assert list(load({MODULES}))
"""
    call = """
import numpy as np
from colobench.guest.settings import GuestSettings
from colobench.guest.numba.machine import Machine
from colobench.kernels.bitmap import popcount
machine = Machine(GuestSettings(4096))
machine.run_until(10)
machine.start()
machine.close()
assert popcount(np.ones(3, dtype=np.uint64)) == 3
"""
    caches = []
    for each in (script, call, script):
        run_python(PACKAGE, each, NUMBA_CACHE_DIR=str(tmp_path))
        caches.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")})
    assert len(caches[0]) == 2 * len(kernels_in(MODULES))
    assert caches[0] == caches[1] == caches[2]


def test_kernels_work_where_no_cache_can_be_written(copied_package):
    # A file where a directory should be stops the superuser too.
    (copied_package / "__pycache__").write_text("")
    unwritable = {
        "XDG_CACHE_HOME": "/dev/null/cache",
        "NUMBA_CACHE_DIR": "",
    }
    nothing = """
import tempfile
tempfile.tempdir = "/dev/null/nowhere"
"""
    output = run_python(copied_package, nothing + COUNT_AND_TELL, **unwritable)
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
