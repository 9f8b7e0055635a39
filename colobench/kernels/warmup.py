"""Warm-up of kernels: they are compiled once, on all cores, and loaded before they are needed."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from colobench.kernels import cache_directory, jit
from colobench.kernels.cache import CacheState, KernelCache

#: Number of kernels to compile for which another process is worth its start.
KERNELS_PER_PROCESS = 12
#: Seconds that a process may take to end before it is killed.
END_SECONDS = 10.0


class Step(NamedTuple):
    """A kernel that is ready: its name, numbers of ready and of all kernels, seconds here."""

    name: str
    done: int
    total: int
    seconds: float


def kernels_in(modules: Iterable[str]) -> list[Any]:
    """Import modules, and return their kernels in the order of the modules."""
    for module in modules:
        importlib.import_module(module)
    place = {module: number for number, module in enumerate(modules)}
    found = [each for each, _ in jit.REGISTRY if each.py_func.__module__ in place]
    return sorted(found, key=lambda each: place[each.py_func.__module__])


def state(kernel: Any) -> tuple[CacheState, Path | None]:
    """Return a kernel's state on disk, and the damaged file if any, without loading it."""
    cache = kernel._cache
    if not isinstance(cache, KernelCache):
        return CacheState.MISSING, None
    return cache.state(kernel.signature_called.args, kernel.targetctx)


def directory(kernel: Any) -> Path | None:
    """Return the directory of a kernel's cache; None if no directory is writable."""
    cache = kernel._cache
    return Path(cache.cache_path) if isinstance(cache, KernelCache) else None


def load(modules: Iterable[str]) -> Iterator[Step]:
    """Load the kernels of modules from the cache, and compile the missing ones here.

    Afterwards a kernel refuses arrays of other types with TypeError; otherwise numba would compile
    it a second time.
    """
    kernels = kernels_in(modules)
    for done, kernel in enumerate(kernels, start=1):
        begin = time.perf_counter()
        arguments = kernel.signature_called.args
        if arguments not in kernel.overloads:
            kernel.compile(arguments)
        kernel.disable_compile()
        yield Step(kernel.__name__, done, len(kernels), time.perf_counter() - begin)


def compile_unclaimed(kernels: Iterable[Any]) -> Iterator[str]:
    """Compile the kernels that are not in the cache and that no other process is compiling."""
    for kernel in kernels:
        cache = kernel._cache
        if not isinstance(cache, KernelCache):
            continue
        arguments = kernel.signature_called.args
        with cache.claim(arguments, kernel.targetctx) as is_ours:
            if is_ours and state(kernel)[0] is not CacheState.READY:
                kernel.compile(arguments)
        if is_ours:
            yield kernel.__name__


def compile_missing(modules: Sequence[str], processes: int) -> Iterator[Step]:
    """Compile the missing kernels of modules, in this process and in others.

    Parameters
    ----------
    modules
        Names of the modules; those with the kernels that take longest come first.
    processes
        Number of processes that may compile at the same time, this one included.
    """
    kernels = kernels_in(modules)
    missing = [kernel for kernel in kernels if state(kernel)[0] is not CacheState.READY]
    more = min(processes, len(missing) // KERNELS_PER_PROCESS) - 1
    begin = time.perf_counter()
    with _helpers(modules, more):
        for name in compile_unclaimed(missing):
            done = sum(state(kernel)[0] is CacheState.READY for kernel in kernels)
            now = time.perf_counter()
            yield Step(name, done, len(kernels), now - begin)
            begin = now
        # The kernels that other processes are compiling are waited for.
        for kernel in missing:
            if isinstance(kernel._cache, KernelCache) and state(kernel)[0] is not CacheState.READY:
                kernel.compile(kernel.signature_called.args)
                now = time.perf_counter()
                yield Step(kernel.__name__, len(kernels), len(kernels), now - begin)
                begin = now


@contextmanager
def _helpers(modules: Sequence[str], count: int) -> Iterator[None]:
    """Run a number of helper processes until they find nothing to compile, or this one fails."""
    environment = os.environ | cache_directory.environment()
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    with ExitStack() as ending:
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-m", "colobench.kernels", *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            ending.callback(_end, process)
        yield


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a helper process by closing its standard input."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
