"""Atomic loads, stores and exchanges of array elements, and the address of an array.

They order memory between the threads of a process and between processes that map the same memory.
Arrays are uint64[:] or int64[:], C-contiguous; the index is not checked and does not wrap.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from colobench.kernels.jit import instruction

_ALIGNMENT = 8


@instruction(lambda array: types.int64(array))
def address(builder: Any, array: Any) -> Any:
    """Return the address of the first byte of any array, an int64."""
    return builder.ptrtoint(array, ir.IntType(64))


@instruction(lambda array, index: array.dtype(array, types.int64))
def load_acquire(builder: Any, array: Any, index: Any) -> Any:
    """Read array[index]; later reads see all writes from before its `store_release`."""
    return builder.load_atomic(builder.gep(array, [index]), "acquire", _ALIGNMENT)


@instruction(lambda array, index, value: types.void(array, types.int64, array.dtype))
def store_release(builder: Any, array: Any, index: Any, value: Any) -> None:
    """Write array[index] after all earlier reads and writes."""
    builder.store_atomic(value, builder.gep(array, [index]), "release", _ALIGNMENT)


@instruction(lambda array, index, value: array.dtype(array, types.int64, array.dtype))
def exchange(builder: Any, array: Any, index: Any, value: Any) -> Any:
    """Write array[index] and return its old value, atomically and sequentially consistent."""
    return builder.atomic_rmw("xchg", builder.gep(array, [index]), value, "seq_cst")


@instruction(lambda array, index, value: array.dtype(array, types.int64, array.dtype))
def fetch_or(builder: Any, array: Any, index: Any, value: Any) -> Any:
    """Set bits of array[index] and return its old value, atomically."""
    return builder.atomic_rmw("or", builder.gep(array, [index]), value, "seq_cst")


@instruction(
    lambda array, index, expected, value: array.dtype(array, types.int64, array.dtype, array.dtype)
)
def compare_exchange(builder: Any, array: Any, index: Any, expected: Any, value: Any) -> Any:
    """Write array[index] if it is `expected`, and return its old value, atomically."""
    element = builder.gep(array, [index])
    return builder.extract_value(builder.cmpxchg(element, expected, value, "seq_cst", "seq_cst"), 0)
