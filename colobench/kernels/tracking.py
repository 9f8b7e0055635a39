"""Kernels of the trackers: PAGEMAP_SCAN, comparison of RAM, and the handler of SIGSEGV."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types

from colobench.kernels.atomics import address, store_release
from colobench.kernels.jit import Bytes, Integers, Words, inlined, instruction, kernel
from colobench.kernels.libc import errno
from colobench.kernels.pages import PAGE_SIZE
from colobench.kernels.raw import copy, declared, load_word, pointer, store_word

ioctl: Any = types.ExternalFunction("ioctl", types.int32(types.int32, types.uintp, types.intp))
mprotect: Any = types.ExternalFunction(
    "mprotect", types.int32(types.intp, types.uintp, types.int32)
)
sigaction: Any = types.ExternalFunction(
    "sigaction", types.int32(types.int32, types.intp, types.intp)
)
raise_signal: Any = types.ExternalFunction("raise", types.int32(types.int32))

#: linux/fs.h: number of the ioctl of /proc/PID/pagemap, and words of its struct pm_scan_arg.
PAGEMAP_SCAN = 0xC0606610
SIZE, FLAGS, START, STOP, WALK_END, VECTOR, VECTOR_LENGTH, MAX_PAGES = range(8)
CATEGORY_INVERTED, CATEGORY_MASK, CATEGORY_ANY_OF, RETURN_MASK = range(8, 12)
SCAN_WORDS = 12
#: Words of a struct page_region: first address, address after the last page, categories.
REGION_WORDS = 3

#: Bytes that `differing_bits` compares.
STRIDE = 1024

_ZERO, _ONE, _ALL = np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
_LINE = ir.VectorType(ir.IntType(64), 8)
_LINE_BYTES = 64


@inlined
def set_run(bitmap: Words, begin: int, end: int) -> int:
    """Set the bits of the pages from `begin` to ``end - 1`` in a uint64[words]; return 0."""
    while begin < end:
        word = begin >> 6
        stop = min(end, (word + 1) << 6)
        length = np.uint64(stop - begin)
        bitmap[word] |= (_ALL >> (np.uint64(64) - length)) << np.uint64(begin & 63)
        begin = stop
    return 0


@kernel("i8(i8, i8, u8[::1], u8[::1], u8[::1])")
def scan_written(pagemap: int, begin: int, request: Words, regions: Words, into: Words) -> int:
    """Find the pages that were written since they were protected, and protect them again.

    Parameters
    ----------
    pagemap
        Descriptor of /proc/self/pagemap.
    begin
        Address of page 0.
    request
        uint64[SCAN_WORDS], a struct pm_scan_arg, filled in except for START, which is overwritten.
    regions
        uint64[REGION_WORDS * n], to which the request's VECTOR points; empty to protect only.
    into
        uint64[words]; the bits of the written pages are set in it, bits that are set stay.

    Returns
    -------
    int
        Number of runs of pages found, or -errno.

    Notes
    -----
    Testing and protecting a page are one atomic step. The walk ends early if `regions` is full, and
    is then resumed. Source: Documentation/admin-guide/mm/pagemap.rst of Linux.
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
    """Return the bits that differ in any of the words of STRIDE bytes at two addresses."""
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
    """Say whether the 4096 bytes at two addresses differ."""
    for offset in range(0, PAGE_SIZE, STRIDE):
        if differing_bits(left + offset, right + offset) != _ZERO:
            return True
    return False


@kernel("i8(u1[::1], u1[::1], u8[::1])")
def compare(memory: Bytes, shadow: Bytes, into: Words) -> int:
    """Find the pages that differ from their copies, and copy those again.

    Parameters
    ----------
    memory, shadow
        uint8[4096 * 64 * words], not overlapping; only `memory` may be written meanwhile.
    into
        uint64[words]; the bits of the pages that differ are set in it, bits that are set stay.

    Returns
    -------
    int
        Number of pages that differ.

    Notes
    -----
    A write during this call is found now, or makes `memory` differ from `shadow` the next time.
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


# Table of the fault handler: addresses of two actions, then for each slot a watched range.
PREVIOUS, DEFAULT = range(2)
FIRST_SLOT, SLOTS = 2, 16
BEGIN, END, BITMAP = range(3)
SLOT_WORDS = 3
TABLE_WORDS = FIRST_SLOT + SLOTS * SLOT_WORDS

# asm-generic/{signal,siginfo,mman-common}.h, for Linux on 64-bit processors.
SIGSEGV = 11
_SI_CODE, _SI_ADDR = 8, 16
_CODE = np.uint64(2**32 - 1)
_SENT = np.uint64(2**31)
_READ_WRITE = 3


@instruction(lambda _: types.int64(types.int64))
def _load_acquire_at(builder: Any, place: Any) -> Any:
    """Read the word at an address; later reads see all writes from before its release."""
    return builder.load_atomic(pointer(builder, place, ir.IntType(64)), "acquire", 8)


@instruction(lambda *_: types.void(types.int64, types.uint64))
def _set_bits_at(builder: Any, place: Any, bits: Any) -> None:
    """Set bits in the word at an address atomically."""
    builder.atomic_rmw("or", pointer(builder, place, ir.IntType(64)), bits, "seq_cst")


@kernel("i8(i8[::1], i8, i8, i8, i8)")
def watch_range(table: Integers, slot: int, begin: int, end: int, bitmap: int) -> int:
    """Put a range of addresses into a slot of the table, while threads may fault; return 0.

    Parameters
    ----------
    table
        int64[TABLE_WORDS].
    slot
        Number of the slot, below SLOTS.
    begin, end
        Addresses of the range, whole pages; both 0 for no range.
    bitmap
        Address of the range's bitmap, a uint64[words].
    """
    at = FIRST_SLOT + slot * SLOT_WORDS
    store_release(table, at + END, 0)
    store_release(table, at + BEGIN, begin)
    store_release(table, at + BITMAP, bitmap)
    store_release(table, at + END, end)
    return 0


@inlined
def _admit(table: int, fault: int) -> bool:
    """Make the watched page at an address writable and mark it; return False if not watched."""
    for slot in range(SLOTS):
        at = table + 8 * (FIRST_SLOT + slot * SLOT_WORDS)
        end = _load_acquire_at(at + 8 * END)
        begin = _load_acquire_at(at + 8 * BEGIN)
        if begin <= fault < end:
            page = (fault - begin) >> 12
            if mprotect(begin + page * PAGE_SIZE, np.uint64(PAGE_SIZE), _READ_WRITE):
                return False
            word = _load_acquire_at(at + 8 * BITMAP) + 8 * (page >> 6)
            _set_bits_at(word, _ONE << np.uint64(page & 63))
            return True
    return False


def fault_handler(table: int) -> Any:
    """Compile a handler of SIGSEGV that admits writes to watched pages.

    Parameters
    ----------
    table
        Address of an int64[TABLE_WORDS] that exists as long as the handler is installed.
        ``table[PREVIOUS]`` is the address of the replaced struct sigaction, ``table[DEFAULT]`` the
        address of one with SIG_DFL.

    Returns
    -------
    numba CFunc
        The handler, to be kept as long as it is installed. It neither takes the GIL nor allocates.
        The table's address is a constant in it, because a handler gets no such argument; so it is
        not cached.

    Notes
    -----
    The page becomes writable before its bit is set. In the opposite order, a collector might take
    the bit and protect the page in between, and the write would be in no epoch.

    For any other fault the previous action is restored, and the instruction faults again as soon as
    the handler returns. If that action calls this handler again, the default action follows. A
    signal that was sent, not caused by a fault, is raised again, because it does not recur.
    """

    @numba.cfunc(types.void(types.int32, types.int64, types.int64))
    def handle_fault(number: int, info: int, context: int) -> None:
        code = load_word(info + _SI_CODE) & _CODE
        sent = code == _ZERO or code >= _SENT
        fault: Any = np.int64(load_word(info + _SI_ADDR))
        if not sent and _admit(table, fault):
            return
        sigaction(SIGSEGV, np.int64(load_word(table + 8 * PREVIOUS)), 0)
        store_word(table + 8 * PREVIOUS, load_word(table + 8 * DEFAULT))
        if sent:
            raise_signal(SIGSEGV)

    return handle_fault
