"""The one decorator of all kernels: nogil, cached on disk, falling back when nothing is writable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numba

#: Every kernel of the project with the one signature it is called with, in order of definition.
REGISTRY: list[tuple[Any, str]] = []


def kernel(signature: str) -> Callable[[Callable[..., int]], Any]:
    """Compile a function with numba on its first call, without the GIL, and keep it on disk.

    Parameters
    ----------
    signature
        The numba signature that callers must keep to, such as ``"i8(u8[::1], i8)"``. It is what
        `warmup` compiles, and a test holds all calls to it.

    Notes
    -----
    numba refuses ``cache=True`` at decoration time when neither ``__pycache__`` nor the user's cache
    directory nor ``NUMBA_CACHE_DIR`` can be written; then the kernel is compiled in each process.
    """

    def decorate(function: Callable[..., int]) -> Any:
        try:
            compiled = numba.njit(nogil=True, cache=True)(function)
        except RuntimeError:
            compiled = numba.njit(nogil=True)(function)
        REGISTRY.append((compiled, signature))
        return compiled

    return decorate


def warmup() -> Iterator[tuple[str, int, int, float]]:
    """Compile every kernel, or load it from the cache.

    Yields
    ------
    name, done, total, seconds
        After each kernel: its name, how many are ready of how many, and what it took.
    """
    from colobench.kernels import import_all

    import_all()
    total = len(REGISTRY)
    for done, (compiled, signature) in enumerate(REGISTRY, start=1):
        begin = time.perf_counter()
        compiled.compile(signature)
        yield compiled.__name__, done, total, time.perf_counter() - begin
