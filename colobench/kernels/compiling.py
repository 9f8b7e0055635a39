"""Compiler of kernels and their parts: a part stays LLVM text until a kernel links it.

By itself numba compiles every function to machine code, and compiles it again within each function
that calls it. Only kernels call parts, so here a part is optimised only within the kernel, once;
compiling all kernels takes half of the time. This depends on numba's internals. `obstacle` tries
whether they are as expected; if not, numba compiles in its own way.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
from collections.abc import Iterator
from inspect import Parameter
from typing import Any

import numba
from numba import _dynfunc  # type: ignore[attr-defined]
from numba.core import cgutils, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering
from numba.extending import intrinsic

#: Prefix of the names of all functions that numba compiles (Itanium C++ ABI).
_MANGLED = "_ZN"


class _Library(JITCodeLibrary):
    """LLVM text that is optimised only as a whole, not function by function."""

    def add_llvm_module(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout
        self._final_module.link_in(module)

    def closure(self) -> list[Any]:
        """Return each library that this one needs once, including those that its parts need.

        Kernels come last. LLVM's linker drops a function that is not needed so far. A linked kernel
        contains parts whose calls are inlined already, so their callees would be dropped before a
        part that does call them.
        """
        found: dict[Any, None] = {}
        waiting = list(self._linking_libraries)
        while waiting:
            library = waiting.pop()
            if library not in found:
                found[library] = None
                if isinstance(library, PartLibrary):
                    waiting.extend(library._linking_libraries)
        return sorted(found, key=lambda library: not isinstance(library, PartLibrary))


class PartLibrary(_Library):
    """The LLVM text of a part, which is not optimised or compiled to machine code by itself."""

    def finalize(self) -> None:
        self._raise_if_finalized()
        for function in self._final_module.functions:
            if not function.is_declaration:
                function.linkage = "linkonce_odr"
        self._finalized = True

    @property
    def text(self) -> Any:
        """The LLVM module of the part without its callees."""
        return self._final_module

    def _get_module_for_linking(self) -> Any:
        """Return the part with its callees, for a function that numba compiles in its own way."""
        if self._shared_module is None:
            module = self._final_module.clone()
            for library in self.closure():
                module.link_in(_text(library), preserve=True)
            self._shared_module = module
        return self._shared_module


class KernelLibrary(_Library):
    """The machine code of a kernel, with its parts linked in."""

    def finalize(self) -> None:
        for library in self.closure():
            self._final_module.link_in(_text(library), preserve=True)
        self._linking_libraries = []
        self._check_links()
        super().finalize()

    def _check_links(self) -> None:
        """Refuse a kernel that calls an unlinked part, because it would call address 0."""
        for function in self._final_module.functions:
            if function.is_declaration and function.name.startswith(_MANGLED):
                raise RuntimeError(f"{self.name}: expected {function.name} in it, found it missing")


def _text(library: Any) -> Any:
    is_part = isinstance(library, PartLibrary)
    return library.text if is_part else library._get_module_for_linking()


def _prepare(state: Any, kind: type[_Library]) -> None:
    """Replace the library of a function before it is lowered by one of this kind."""
    state.library = kind(state.targetctx.codegen(), state.func_id.func_qualname)
    state.library.enable_object_caching()


@register_pass(mutates_CFG=True, analysis_only=False)
class KernelLowering(NativeLowering):
    """Lower a kernel to LLVM text, link its parts, and compile everything to machine code."""

    _name = "colobench_kernel_lowering"

    def run_pass(self, state: Any) -> bool:
        _prepare(state, KernelLibrary)
        return bool(super().run_pass(state))


@register_pass(mutates_CFG=True, analysis_only=False)
class PartLowering(NativeLowering):
    """Lower a part to LLVM text only.

    numba represents a compiled function by an object that Python can call. A part's object is never
    called, and its address is 0.
    """

    _name = "colobench_part_lowering"

    def run_pass(self, state: Any) -> bool:
        _prepare(state, PartLibrary)
        state.flags.no_compile = True
        try:
            super().run_pass(state)
        finally:
            state.flags.discard("no_compile")
        lowered = state["cr"]
        function, library = lowered.fndesc, state.library
        library.finalize()
        entry = _dynfunc.make_function(
            function.lookup_module(), function.qualname, "", 0, lowered.env, (library,)
        )
        state.targetctx.insert_user_function(entry, function, [library])
        state["cr"] = lowered._replace(cfunc=entry)
        return True


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Switch garbage collection off: over the compiler's many objects it takes a tenth of the time.

    numba compiles one function at a time, whatever the number of threads. The parts of a kernel are
    compiled within the kernel's compilation.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Compiler(CompilerBase):
    """numba's compiler with another lowering."""

    lowering: Any
    trial = False

    def define_pipelines(self) -> list[Any]:
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        if self.trial or obstacle() is None:
            passes = manager.passes
            position = [made for made, _ in passes].index(NativeLowering)
            passes[position] = (self.lowering, passes[position][1])
        return [manager]

    def compile_extra(self, function: Any) -> Any:
        with _no_garbage_collection():
            return super().compile_extra(function)


class KernelCompiler(_Compiler):
    """Compiler of kernels."""

    lowering = KernelLowering


class PartCompiler(_Compiler):
    """Compiler of parts of kernels."""

    lowering = PartLowering


def at_address(called: Any, signature: Any) -> Any:
    """Make a function for kernels that takes an address, and calls the kernel at it.

    Parameters
    ----------
    called
        The kernel.
    signature
        Signature with which it was compiled; arguments are converted to it.
    """

    def generate(context: Any, builder: Any, typed: Any, values: Any) -> Any:
        kinds, wanted = typed.args[1:], signature.args
        arguments = [
            context.cast(builder, value, kind, to)
            for value, kind, to in zip(values[1:], kinds, wanted, strict=True)
        ]
        result = cgutils.alloca_once(builder, context.get_value_type(signature.return_type))
        builder.store(cgutils.get_null_value(result.type.pointee), result)
        with cgutils.if_likely(builder, cgutils.is_not_null(builder, values[0])):
            kind = context.call_conv.get_function_type(signature.return_type, wanted)
            pointer = builder.inttoptr(values[0], kind.as_pointer())
            _, given = context.call_conv.call_function(
                builder, pointer, signature.return_type, wanted, arguments
            )
            builder.store(given, result)
        return builder.load(result)

    def define(typing_context: Any, address: Any, *arguments: Any) -> Any:
        return signature.return_type(types.uintp, *arguments), generate

    # numba would treat a call of `*arguments` as one with a tuple.
    own = [Parameter(name, Parameter.POSITIONAL_ONLY) for name in ("typing_context", "address")]
    taken = inspect.signature(called.py_func).parameters.values()
    define.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*own, *(each.replace(kind=Parameter.POSITIONAL_ONLY) for each in taken)]
    )
    return intrinsic(define)


@functools.cache
def obstacle() -> str | None:
    """Compile a kernel of two parts, and a caller of it, on trial.

    Returns
    -------
    str or None
        The error of the trial, in one line; None if the trial succeeded.
    """
    base: dict[str, Any] = {"nogil": True, "_nrt": False}
    part = base | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    kernels = type("TrialKernel", (KernelCompiler,), {"trial": True})
    parts = type("TrialPart", (PartCompiler,), {"trial": True})
    twice = numba.njit(pipeline_class=parts, **part)(lambda number: 2 * number)
    both = numba.njit(pipeline_class=parts, **part)(lambda number: twice(number) + 1)
    whole = numba.njit(pipeline_class=kernels, **base)(lambda number: both(number) + twice(number))
    try:
        whole.compile("i8(i8)")
        [overload] = whole.overloads.values()
        address = overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name)
        call = at_address(whole, overload.signature)
        outer = numba.njit(pipeline_class=kernels, **base)(lambda at, number: call(at, number))
        outer.compile("i8(u8, i8)")
        found = outer(address, 5)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None if found == 21 else f"a trial gave {found}, expected 21"
