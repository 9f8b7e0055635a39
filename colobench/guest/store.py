"""Access of a guest program to its RAM, in which every write is marked for the tracker.

Addresses are bytes from the beginning of RAM. The data are always stored first, then the mark: if
the marks are collected in between, the page is sent again. Before both, a page that is frozen is
copied aside (`colobench.kernels.copy_on_write`), so each write is between `keep` and `mark`.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.bitmap import mark
from colobench.kernels.copy_on_write import BITMAP_WORDS, COPY_ASIDE, FROZEN, copy_aside
from colobench.kernels.jit import Bytes, Words, by_address, inlined
from colobench.kernels.raw import clear, copy, load_word, store_word

_call_copy_aside = by_address(copy_aside)


@inlined
def keep_page(memory: int, bitmap: Words, page: int) -> int:
    """Copy a page of the memory at this address aside, if it is frozen, before it is written."""
    if len(bitmap) > BITMAP_WORDS:
        bit = np.uint64(1) << np.uint64(page & 63)
        if bitmap[FROZEN + (page >> 6)] & bit != np.uint64(0):
            aside = bitmap[COPY_ASIDE]
            _call_copy_aside(aside, np.int64(address(bitmap)), memory, page << 12, np.int64(1))
    return 0


@inlined
def keep_bytes(memory: Bytes, bitmap: Words, at: int, length: int) -> int:
    """Copy the pages of `length` bytes, at least one, aside if they are frozen."""
    if len(bitmap) > BITMAP_WORDS:
        aside, base = bitmap[COPY_ASIDE], np.int64(address(memory))
        _call_copy_aside(aside, np.int64(address(bitmap)), base, np.int64(at), np.int64(length))
    return 0


@inlined
def mark_bytes(bitmap: Words, at: int, length: int) -> int:
    """Mark the pages of `length` bytes, at least one; an empty bitmap means no marks."""
    if len(bitmap):
        for page in range(at >> 12, ((at + length - 1) >> 12) + 1):
            mark(bitmap, page)
    return 0


@inlined
def get_word(memory: Bytes, at: int) -> np.uint64:
    """Read a word of the machine's byte order, at any address."""
    return load_word(np.int64(address(memory)) + at)


@inlined
def put_word(memory: Bytes, bitmap: Words, at: int, value: np.uint64) -> int:
    """Write a word of the machine's byte order, at any address."""
    keep_bytes(memory, bitmap, at, 8)
    store_word(np.int64(address(memory)) + at, np.uint64(value))
    return mark_bytes(bitmap, at, 8)


@inlined
def get_big_endian(memory: Bytes, at: int, length: int) -> np.uint64:
    """Read an unsigned number of up to 8 bytes in network byte order."""
    value = np.uint64(0)
    for i in range(length):
        value = (value << np.uint64(8)) | np.uint64(memory[at + i])
    return value


@inlined
def put_big_endian(memory: Bytes, bitmap: Words, at: int, length: int, value: np.uint64) -> int:
    """Write an unsigned number of up to 8 bytes in network byte order."""
    keep_bytes(memory, bitmap, at, length)
    value = np.uint64(value)
    for i in range(length):
        memory[at + length - 1 - i] = np.uint8(value & np.uint64(255))
        value = value >> np.uint64(8)
    return mark_bytes(bitmap, at, length)


@inlined
def put_byte(memory: Bytes, bitmap: Words, at: int, value: int) -> int:
    """Write a byte."""
    keep_bytes(memory, bitmap, at, 1)
    memory[at] = np.uint8(value)
    return mark_bytes(bitmap, at, 1)


@inlined
def clear_bytes(memory: Bytes, bitmap: Words, at: int, length: int) -> int:
    """Set bytes of RAM, at least one, to 0."""
    keep_bytes(memory, bitmap, at, length)
    clear(np.int64(address(memory)) + at, np.int64(length))
    return mark_bytes(bitmap, at, length)


@inlined
def copy_bytes(memory: Bytes, bitmap: Words, to: int, source: int, length: int) -> int:
    """Copy bytes within RAM; the ranges must not overlap."""
    if length > 0:
        keep_bytes(memory, bitmap, to, length)
        base = np.int64(address(memory))
        copy(base + to, base + source, length)
        mark_bytes(bitmap, to, length)
    return 0


@inlined
def move_down(memory: Bytes, bitmap: Words, to: int, source: int, length: int) -> int:
    """Copy bytes within RAM to a lower address; the ranges may overlap."""
    while length > 0:
        part = min(length, source - to)
        copy_bytes(memory, bitmap, to, source, part)
        to, source, length = to + part, source + part, length - part
    return 0
