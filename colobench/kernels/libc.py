"""Calls of the C library from kernels: addresses are integers, a failure is -1 and `errno`."""

from __future__ import annotations

import errno as codes
from typing import Any

from llvmlite import ir
from numba.core import types

from colobench.kernels.jit import instruction
from colobench.kernels.raw import declared

EINTR = codes.EINTR

_pointer = types.intp

read: Any = types.ExternalFunction("read", types.intp(types.int32, _pointer, types.uintp))
write: Any = types.ExternalFunction("write", types.intp(types.int32, _pointer, types.uintp))
readv: Any = types.ExternalFunction("readv", types.intp(types.int32, _pointer, types.int32))
vmsplice: Any = types.ExternalFunction(
    "vmsplice", types.intp(types.int32, _pointer, types.uintp, types.uint32)
)
splice: Any = types.ExternalFunction(
    "splice",
    types.intp(types.int32, _pointer, types.int32, _pointer, types.uintp, types.uint32),
)
writev: Any = types.ExternalFunction("writev", types.intp(types.int32, _pointer, types.int32))
ppoll: Any = types.ExternalFunction("ppoll", types.int32(_pointer, types.uintp, _pointer, _pointer))
clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, _pointer))


@instruction(lambda: types.int64())
def errno(builder: Any) -> Any:
    """Return this thread's errno, an int64; inside a kernel no other call can change it."""
    number = ir.IntType(32)
    kind = ir.FunctionType(number.as_pointer(), [])
    location = builder.call(declared(builder, kind, "__errno_location"), [])
    return builder.sext(builder.load(location), ir.IntType(64))
