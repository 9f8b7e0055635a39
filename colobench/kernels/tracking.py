"""What trackers do with RAM and with the kernel of the host, for many pages in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Words, inlined, instruction, kernel
from colobench.kernels.libc import errno
from colobench.kernels.pages import PAGE_SIZE
from colobench.kernels.raw import copy, declared, pointer

ioctl: Any = types.ExternalFunction("ioctl", types.int32(types.int32, types.uintp, types.intp))

#: linux/fs.h: the ioctl of /proc/PID/pagemap, and the words of its struct pm_scan_arg.
PAGEMAP_SCAN = 0xC0606610
SIZE, FLAGS, START, STOP, WALK_END, VECTOR, VECTOR_LENGTH, MAX_PAGES = range(8)
CATEGORY_INVERTED, CATEGORY_MASK, CATEGORY_ANY_OF, RETURN_MASK = range(8, 12)
SCAN_WORDS = 12
#: The words of a struct page_region: first address, address behind the last page, categories.
REGION_WORDS = 3

#: Bytes that `differing_bits` compares.
STRIDE = 1024

_ZERO, _ONE, _ALL = np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
_LINE = ir.VectorType(ir.IntType(64), 8)
_LINE_BYTES = 64


@inlined
def set_run(bitmap: Words, begin: int, end: int) -> int:
    """Set the bits of the pages from `begin` to ``end - 1`` in a uint64[words]; 0."""
    while begin < end:
        word = begin >> 6
        stop = min(end, (word + 1) << 6)
        length = np.uint64(stop - begin)
        bitmap[word] |= (_ALL >> (np.uint64(64) - length)) << np.uint64(begin & 63)
        begin = stop
    return 0


@kernel("i8(i8, i8, u8[::1], u8[::1], u8[::1])")
def scan_written(pagemap: int, begin: int, request: Words, regions: Words, into: Words) -> int:
    """Learn which pages were written since they were protected, and protect them again.

    Parameters
    ----------
    pagemap
        A descriptor of /proc/self/pagemap.
    begin
        The address of page 0.
    request
        uint64[SCAN_WORDS], a struct pm_scan_arg that is filled in up to START; overwritten there.
    regions
        uint64[REGION_WORDS * n], what the request's VECTOR points at; empty to protect only.
    into
        uint64[words]; gets the bits of the pages written, bits that are set stay.

    Returns
    -------
    int
        How many runs of pages were found, or -errno.

    Notes
    -----
    For one page, asking and protecting are one step. The walk ends early when `regions` is full and
    is then taken up again. Source: Documentation/admin-guide/mm/pagemap.rst of Linux.
    """
    runs = 0
    request[START] = np.uint64(begin)
    while request[START] < request[STOP]:
        found = ioctl(pagemap, np.uint64(PAGEMAP_SCAN), address(request))
        if found < 0:
            failure: int = errno()
            return -failure
        for region in range(0, REGION_WORDS * found, REGION_WORDS):
            first: Any = (np.int64(regions[region]) - begin) >> 12
            end: Any = (np.int64(regions[region + 1]) - begin) >> 12
            set_run(into, first, end)
        runs += found
        request[START] = request[WALK_END]
    return runs


@instruction(lambda *_: types.uint64(types.int64, types.int64))
def differing_bits(builder: Any, left: Any, right: Any) -> Any:
    """Give the bits that differ in any of the words of STRIDE bytes at two addresses."""
    seen = _LINE([0] * 8)
    for offset in range(0, STRIDE, _LINE_BYTES):
        lines = [
            builder.load(pointer(builder, side, _LINE, offset), align=1) for side in (left, right)
        ]
        seen = builder.or_(seen, builder.xor(*lines))
    kind = ir.FunctionType(ir.IntType(64), [_LINE])
    return builder.call(declared(builder, kind, "llvm.vector.reduce.or.v8i64"), [seen])


@inlined
def differ(left: int, right: int) -> bool:
    """Tell whether the 4096 bytes at two addresses differ."""
    for offset in range(0, PAGE_SIZE, STRIDE):  # noqa: SIM110 - numba knows no generators
        if differing_bits(left + offset, right + offset) != _ZERO:
            return True
    return False


@kernel("i8(u1[::1], u1[::1], u8[::1])")
def compare(memory: Bytes, shadow: Bytes, into: Words) -> int:
    """Find the pages that differ from their copies, and copy those again.

    Parameters
    ----------
    memory, shadow
        uint8[4096 * 64 * words], not overlapping; only `memory` is written by others meanwhile.
    into
        uint64[words]; gets the bits of the pages that differ, bits that are set stay.

    Returns
    -------
    int
        How many differ.

    Notes
    -----
    A write beside this call is found now, or else makes `memory` differ from `shadow` the next time:
    what is copied has it or has not.
    """
    differing = 0
    for word in range(len(into)):
        bits = _ZERO
        for bit in range(64):
            offset = (64 * word + bit) * PAGE_SIZE
            page, twin = address(memory) + offset, address(shadow) + offset
            if differ(page, twin):
                copy(twin, page, PAGE_SIZE)
                bits |= _ONE << np.uint64(bit)
                differing += 1
        if bits != _ZERO:
            into[word] |= bits
    return differing
