"""Decorators for kernels, for their parts, and for LLVM instructions.

Kernels release the GIL and are cached on disk, see `colobench.kernels.cache`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core import config, types
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler import Compiler
from numba.core.registry import cpu_target
from numba.core.sigutils import normalize_signature
from numba.extending import intrinsic

from colobench.kernels.cache import KernelCache

F = TypeVar("F", bound=Callable[..., Any])

#: The arrays that kernels take, one-dimensional and C-contiguous: u1[::1], u8[::1], i8[::1].
Bytes: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.uint64]
Integers: TypeAlias = npt.NDArray[np.int64]
#: Page numbers, i4[::1]: enough for 8 TiB of RAM, and half of the memory traffic of int64.
Pages: TypeAlias = npt.NDArray[np.int32]

#: Every kernel of the project with its only signature, in order of definition.
REGISTRY: list[tuple[Any, str]] = []


#: Without numba's runtime (NRT) a kernel that allocates is refused when it is compiled, and
#: references to arrays are not counted, which makes a call quicker by a third.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}
_PART_OPTIONS = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class _Ways(NamedTuple):
    """Compilers for kernels, for their parts, and for calls at an address."""

    kernel: type
    part: type
    #: Makes the function by which other kernels call a kernel at its address, from its signature.
    at_address: Callable[[Any, Any], Any] | None
    #: Returns the reason for compiling in numba's own way, or None.
    obstacle: Callable[[], str | None]


def _ways() -> _Ways:
    try:
        from colobench.kernels import compiling
    except ImportError as error:  # This numba's compiler has other modules.
        missing = str(error)
        return _Ways(Compiler, Compiler, None, lambda: missing)
    return _Ways(
        compiling.KernelCompiler,
        compiling.PartCompiler,
        compiling.at_address,
        lambda: compiling.obstacle(),
    )


_WAYS = _ways()


def obstacle() -> str | None:
    """Return the reason why kernels are compiled in numba's own way, or None if they are not."""
    return _WAYS.obstacle()


def kernel(signature: str) -> Callable[[Callable[..., int]], Any]:
    """Compile a function with numba on its first call, without the GIL, and keep it on disk.

    Parameters
    ----------
    signature
        The numba signature of all calls, such as ``"i8(u8[::1], i8)"``.
        `colobench.kernels.warmup` compiles it, and after that no other one is compiled.

    Notes
    -----
    The cache is in numba's directory: ``NUMBA_CACHE_DIR``, ``__pycache__``, or the user's cache
    directory. If none of them is writable, it is in a temporary directory of this process and its
    nodes. If that cannot be made either, each process compiles the kernel.
    """

    def decorate(function: Callable[..., int]) -> Any:
        compiled: Any = numba.njit(pipeline_class=_WAYS.kernel, **_OPTIONS)(function)
        try:
            compiled._cache = KernelCache(function)
        except (RuntimeError, OSError):
            pass
        else:
            _take_turns(compiled)
        arguments, result = normalize_signature(signature)  # type: ignore[no-untyped-call]
        compiled.signature_called = result(*arguments)
        REGISTRY.append((compiled, signature))
        return compiled

    return decorate


def _take_turns(compiled: Any) -> None:
    """Let processes that need the same kernel at the same time compile it only once."""
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

    A part has no entry for Python, so the process would end. Without the wrappers for Python, a
    part is compiled in half the time. It is compiled once for integers; numba would compile it
    again for each constant argument.
    """
    part: Any = numba.njit(pipeline_class=_WAYS.part, **_PART_OPTIONS)(function)
    template = part.get_call_template
    unliteral: Any = types.unliteral
    part.get_call_template = lambda arguments, named: template(
        tuple(map(unliteral, arguments)), named
    )
    return cast(F, part)


class _ByAddress:
    """Stand-in, within kernels, for a kernel that they call at its address."""

    def __init__(self, called: Any) -> None:
        self._called = called

    @functools.cached_property
    def _numba_type_(self) -> Any:
        """Choose the kind of call when a kernel that calls it is compiled."""
        called = self._called
        if _WAYS.at_address is not None and obstacle() is None:
            chosen = _WAYS.at_address(called, called.signature_called)
        else:
            chosen = inlined(lambda _address, *arguments: called(*arguments))
        context = cpu_target.typing_context
        context.refresh()
        return context.resolve_value_type(chosen)


def by_address(called: Any) -> Any:
    """Make a function by which other kernels call a kernel without containing it.

    It takes the address from `entry_address`, then the kernel's arguments. With the address 0 it
    does nothing and returns 0. So a kernel that only some programs need is compiled for these
    alone, and two kernels can be compiled at the same time.
    """
    return _ByAddress(called)


def entry_address(called: Any) -> int:
    """Return the address of a kernel in this process, for a call `by_address`; never 0.

    The address belongs to the host, and must not be stored in the guest's RAM or devices.
    """
    if obstacle() is not None:
        # The kernel is contained in its callers.
        return 1
    arguments = called.signature_called.args
    if arguments not in called.overloads:
        called.compile(arguments)
    overload = called.overloads[arguments]
    return int(overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name))


def instruction(signature: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make a function for kernels from one that builds its LLVM instructions.

    Parameters
    ----------
    signature
        Function from the numba types of the arguments to the numba signature.

    Notes
    -----
    The decorated function takes llvmlite's IRBuilder and the LLVM values of the arguments; that of
    an array is the pointer to its first element. It returns the LLVM value of the result, or None.
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
    """Say whether the CPU that numba compiles for has all of these features.

    Parameters
    ----------
    features
        LLVM's names of features, such as ``"avx512f"``.

    Notes
    -----
    That CPU is this machine's, unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another one.
    Features that only follow from NUMBA_CPU_NAME do not count. numba's cache on disk distinguishes
    CPUs.
    """
    given: str | None = config.CPU_FEATURES  # type: ignore[attr-defined]
    if given is None:
        given = get_host_cpu_features()  # type: ignore[no-untyped-call]
    known = str(given).split(",")
    return all("+" + feature in known and "-" + feature not in known for feature in features)
