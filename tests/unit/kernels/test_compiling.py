"""Parts of kernels stay LLVM text, and where numba's insides are others, numba's own way does."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.caching import NullCache
from numba.core.compiler import Compiler

from colobench.guest.region import apart
from colobench.kernels import compiling, jit


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Give a kernel, and the part that it calls by way of another part."""
    monkeypatch.setattr(jit, "REGISTRY", [])

    @jit.inlined
    def twice(number: int) -> int:
        return 2 * number

    @jit.inlined
    def both(number: int) -> int:
        return twice(number) + 1

    @jit.kernel("i8(i8)")
    def whole(number: int) -> int:
        return both(number) + twice(number)

    # What one test compiles is nothing for the next one to find.
    whole._cache = NullCache()
    return whole, twice


def library(compiled: Any) -> Any:
    [overload] = compiled.overloads.values()
    return overload.library


def test_insides_of_this_numba_are_as_expected():
    assert compiling.obstacle() is None


def test_part_is_never_made_machine_code(kernel):
    whole, twice = kernel
    assert whole(5) == 21
    assert isinstance(library(twice), compiling.PartLibrary)
    [overload] = twice.overloads.values()
    engine = library(whole)._codegen._engine
    assert not engine.is_symbol_defined(overload.fndesc.llvm_func_name)


def test_function_compiled_in_numbas_own_way_can_use_a_part_of_parts(kernel):
    whole, _ = kernel

    @jit.inlined
    def plus_three(number: int) -> int:
        return whole(number) + 3

    assert numba.njit(lambda number: plus_three(number))(5) == 24


@pytest.fixture
def kernel_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a kernel that calls another one and a part, both of which call the same part."""
    monkeypatch.setattr(jit, "REGISTRY", [])

    @jit.inlined
    def shared(number: int) -> int:
        apart()
        return 2 * number

    @jit.inlined
    def beside(number: int) -> int:
        apart()
        return shared(number) + 1

    @jit.kernel("i8(i8)")
    def inner(number: int) -> int:
        return shared(number) + 5

    @jit.kernel("i8(i8)")
    def outer(number: int) -> int:
        return beside(number) + inner(number)

    inner._cache = outer._cache = NullCache()
    return outer


def test_part_that_a_kernel_brings_along_is_there_for_other_parts_too(kernel_of_a_kernel):
    assert kernel_of_a_kernel(5) == 26


def test_kernel_that_would_call_a_part_which_is_missing_is_refused(kernel, monkeypatch):
    monkeypatch.setattr(compiling.KernelLibrary, "closure", lambda self: [])
    with pytest.raises(RuntimeError, match=r"expected _ZN.*(twice|both).* in it, found it missing"):
        kernel[0](5)


def test_where_the_trial_fails_numba_compiles_in_its_own_way(kernel, monkeypatch):
    monkeypatch.setattr(compiling, "obstacle", lambda: "other insides")
    whole, twice = kernel
    assert whole(5) == 21
    assert not isinstance(library(twice), compiling.PartLibrary)
    assert not isinstance(library(whole), compiling.KernelLibrary)


def test_trial_tells_in_one_line_why_it_failed(monkeypatch):
    monkeypatch.setattr(compiling, "_dynfunc", object())
    told = compiling.obstacle.__wrapped__()
    assert told == "AttributeError: 'object' object has no attribute 'make_function'"


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_as_it_was_after_compiling(kernel, enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        kernel[0](5)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_numba_without_the_modules_that_are_extended_compiles_in_its_own_way(monkeypatch):
    monkeypatch.setitem(sys.modules, "colobench.kernels.compiling", None)
    monkeypatch.delattr("colobench.kernels.compiling")
    ways = jit._ways()
    assert ways.kernel is ways.part is Compiler
    assert ways.at_address is None
    assert "colobench.kernels" in ways.obstacle()


def kernels_that_call(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Give a kernel, and another that calls it at an address with numbers of other types."""
    monkeypatch.setattr(jit, "REGISTRY", [])

    @jit.kernel("i8(u8[::1], i8, u8)")
    def called(words: Any, number: int, other: int) -> int:
        words[0] += np.uint64(1)
        return number - np.int64(other)

    call = jit.by_address(called)

    @jit.kernel("i8(u8, u8[::1], u1)")
    def calling(address: int, words: Any, number: int) -> int:
        return call(address, words, number, True)

    called._cache = calling._cache = NullCache()
    return called, calling


def test_kernel_called_at_its_address_is_not_within_the_one_that_calls_it(monkeypatch):
    called, calling = kernels_that_call(monkeypatch)
    words = np.zeros(1, dtype=np.uint64)
    assert calling(jit.entry_address(called), words, np.uint8(200)) == 199
    assert words == 1
    assert called.py_func.__name__ not in library(calling).get_llvm_str()


def test_call_at_address_zero_does_nothing(monkeypatch):
    _, calling = kernels_that_call(monkeypatch)
    words = np.zeros(1, dtype=np.uint64)
    assert calling(0, words, np.uint8(200)) == 0
    assert words == 0


def test_where_the_trial_fails_a_kernel_is_called_in_numbas_own_way(monkeypatch):
    monkeypatch.setattr(compiling, "obstacle", lambda: "other insides")
    called, calling = kernels_that_call(monkeypatch)
    words = np.zeros(1, dtype=np.uint64)
    assert calling(jit.entry_address(called), words, np.uint8(200)) == 199
    assert words == 1
    assert not isinstance(library(calling), compiling.KernelLibrary)
