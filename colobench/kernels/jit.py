"""What kernels are made with: one decorator for them, one for their parts, one for instructions.

Kernels release the GIL and are cached on disk, see `colobench.kernels.cache`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core import config, types
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler import Compiler
from numba.core.sigutils import normalize_signature
from numba.extending import intrinsic

from colobench.kernels.cache import CacheState, KernelCache

F = TypeVar("F", bound=Callable[..., Any])

#: The arrays that kernels take, one-dimensional and C-contiguous: u1[::1], u8[::1], i8[::1].
Bytes: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.uint64]
Integers: TypeAlias = npt.NDArray[np.int64]
#: Page numbers, i4[::1]: enough for 8 TiB of RAM, and half of the memory traffic of int64.
Pages: TypeAlias = npt.NDArray[np.int32]

#: Every kernel of the project with the one signature it is called with, in order of definition.
REGISTRY: list[tuple[Any, str]] = []


#: Without numba's runtime (NRT) nothing can be allocated, which numba says when it compiles, and
#: nobody counts references to arrays: a call is quicker by a third.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}
_PART_OPTIONS = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _pipelines() -> tuple[type, type, Callable[[], str | None]]:
    """Give the compilers of kernels and of parts, and what tells why numba's own has to do."""
    try:
        from colobench.kernels import compiling
    except ImportError as error:  # The compiler of this numba is divided into other modules.
        missing = str(error)
        return Compiler, Compiler, lambda: missing
    return compiling.KernelCompiler, compiling.PartCompiler, compiling.obstacle


_KernelCompiler, _PartCompiler, obstacle = _pipelines()


def kernel(signature: str) -> Callable[[Callable[..., int]], Any]:
    """Compile a function with numba on its first call, without the GIL, and keep it on disk.

    Parameters
    ----------
    signature
        The numba signature that callers must keep to, such as ``"i8(u8[::1], i8)"``. It is what
        `warmup` compiles, and after that no other is compiled.

    Notes
    -----
    The cache lies where numba puts it: in ``NUMBA_CACHE_DIR``, in ``__pycache__``, or in the user's
    cache directory. Where none of them can be written, it is a temporary one of this process and
    its nodes; and if there is no such thing either, the kernel is compiled in each process.
    """

    def decorate(function: Callable[..., int]) -> Any:
        compiled: Any = numba.njit(pipeline_class=_KernelCompiler, **_OPTIONS)(function)
        try:
            compiled._cache = KernelCache(function)
        except (RuntimeError, OSError):
            pass
        else:
            _take_turns(compiled)
        REGISTRY.append((compiled, signature))
        return compiled

    return decorate


def _take_turns(compiled: Any) -> None:
    """Have processes that need the same kernel at the same time compile it once."""
    compile_now = compiled.compile

    def compile_or_wait(signature: Any) -> Any:
        arguments = normalize_signature(signature)[0]  # type: ignore[no-untyped-call]
        cache = compiled._cache
        ready = arguments in compiled.overloads or not compiled._can_compile
        if ready or not isinstance(cache, KernelCache):
            return compile_now(signature)
        with cache.turn(arguments, compiled.targetctx):
            return compile_now(signature)

    compiled.compile = compile_or_wait


def inlined(function: F) -> F:
    """Compile a function as a part of the kernels that call it; Python must not call it.

    It has no entry for that: the process would end. Without the wrappers that Python would call it
    through, a part is compiled in half the time; and it is compiled for integers, where numba would
    do it once more for each constant.
    """
    part: Any = numba.njit(pipeline_class=_PartCompiler, **_PART_OPTIONS)(function)
    template = part.get_call_template
    unliteral: Any = types.unliteral
    part.get_call_template = lambda arguments, named: template(
        tuple(map(unliteral, arguments)), named
    )
    return cast(F, part)


def instruction(signature: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make a function for kernels out of one that builds its LLVM instructions.

    Parameters
    ----------
    signature
        Gives the numba signature for the numba types of the arguments.

    Notes
    -----
    The decorated function takes llvmlite's IRBuilder and the arguments' LLVM values, for an array
    the pointer to its first element. It returns the LLVM value of the result, or None.
    """

    def decorate(build: Callable[..., Any]) -> Any:
        def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            values = [
                context.make_array(kind)(context, builder, value).data
                if isinstance(kind, types.Array)
                else value
                for kind, value in zip(typed.args, arguments, strict=True)
            ]
            result = build(builder, *values)
            return context.get_dummy_value() if result is None else result

        @functools.wraps(build)
        def define(typing_context: Any, *arguments: Any) -> tuple[Any, Callable[..., Any]]:
            return signature(*arguments), generate

        return intrinsic(define)

    return decorate


def target_has(*features: str) -> bool:
    """Tell whether the CPU that numba compiles for has all of these features.

    Parameters
    ----------
    features
        LLVM's names, such as ``"avx512f"``.

    Notes
    -----
    That CPU is this one, unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say otherwise. Features that
    follow from NUMBA_CPU_NAME alone do not count. numba's cache on disk keeps CPUs apart.
    """
    given: str | None = config.CPU_FEATURES  # type: ignore[attr-defined]
    if given is None:
        given = get_host_cpu_features()  # type: ignore[no-untyped-call]
    known = str(given).split(",")
    return all("+" + feature in known and "-" + feature not in known for feature in features)


def warmup() -> Iterator[tuple[str, int, int, float]]:
    """Compile every kernel, or load it from the cache.

    A kernel that is ready refuses arrays of other types with TypeError, where it would otherwise
    be compiled a second time.

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
        # As types, as a call has them: numba's cache keeps a signature in words apart.
        arguments = normalize_signature(signature)[0]  # type: ignore[no-untyped-call]
        if arguments not in compiled.overloads:
            compiled.compile(arguments)
        compiled.disable_compile()
        yield compiled.__name__, done, total, time.perf_counter() - begin


def examine_cache() -> Iterator[tuple[str, Path | None, CacheState, Path | None]]:
    """Look for every kernel on disk, without loading or compiling any.

    Yields
    ------
    name, directory, state, damaged
        Of each kernel: its name, where its cache is (None if there is nowhere to write), what is
        there for this machine and these sources, and the file that is damaged.
    """
    from colobench.kernels import import_all

    import_all()
    for compiled, signature in REGISTRY:
        cache = compiled._cache
        if not isinstance(cache, KernelCache):
            yield compiled.__name__, None, CacheState.MISSING, None
            continue
        arguments = normalize_signature(signature)[0]  # type: ignore[no-untyped-call]
        state, damaged = cache.state(arguments, compiled.targetctx)
        yield compiled.__name__, Path(cache.cache_path), state, damaged
