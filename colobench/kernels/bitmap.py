"""Dirty bitmaps: uint64 words, bit i of word w is page 64 w + i.

Kernels that mark and kernels that collect may run at the same time in different threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from colobench.kernels.atomics import address, exchange, load_acquire, store_release
from colobench.kernels.jit import Pages, Words, inlined, instruction, kernel, target_has
from colobench.kernels.raw import (
    STRETCH_WORDS,
    count_ones,
    declared,
    load_word,
    pointer,
    store_number,
    trailing_zeros,
    words_in_use,
    words_with_edges,
)

#: Entries of room that `list_pages` and `list_runs` need after their last result.
LIST_SLACK = 64

_ZERO, _ONE, _TOP = np.uint64(0), np.uint64(1), np.uint64(63)
_BYTE, _NUMBER, _FLAG = ir.IntType(8), ir.IntType(32), ir.IntType(1)
_BYTES, _FLAGS = ir.VectorType(_BYTE, 64), ir.VectorType(_FLAG, 64)
_QUARTER = ir.VectorType(_NUMBER, 16)


@kernel("i8(u8[::1], i8)")
def mark(bitmap: Words, page: int) -> int:
    """Set a page's bit; to be called after the page was written.

    Parameters
    ----------
    bitmap
        uint64[words].
    page
        The page, below ``64 * words``.

    Notes
    -----
    Only one thread may mark. While another thread collects, no mark is lost. The bit is stored even
    if it is set already, because it may just have been collected, before the write to the page was
    visible. If a word is collected between load and store, the store brings its bits back, and its
    pages are collected twice.
    """
    word = page >> 6
    store_release(bitmap, word, load_acquire(bitmap, word) | (_ONE << np.uint64(page & 63)))
    return 0


@kernel("i8(u8[::1], u8[::1])")
def sync(source: Words, into: Words) -> int:
    """Move all bits from one bitmap into another, as QEMU does with KVM's dirty log.

    Parameters
    ----------
    source
        uint64[words]; each nonzero word is atomically exchanged with 0.
    into
        uint64[words]; bits that are set stay.

    Returns
    -------
    int
        Number of bits moved.
    """
    words = len(source)
    whole = words - words % STRETCH_WORDS
    moved = 0
    for first in range(0, whole, STRETCH_WORDS):
        used = words_in_use(address(source) + 8 * first)
        while used != _ZERO:
            word = first + trailing_zeros(used)
            used &= used - _ONE
            bits = exchange(source, word, _ZERO)
            moved += count_ones(bits)
            into[word] |= bits
    for word in range(whole, words):
        bits = exchange(source, word, _ZERO)
        moved += count_ones(bits)
        into[word] |= bits
    return moved


@instruction(lambda *_: types.void(types.int64, types.uint64, types.int32))
def put_compressed(builder: Any, to: Any, bits: Any, base: Any) -> None:
    """Write base + i for each bit i that is set, as int32; up to 64 of them are overwritten.

    The numbers 0 to 63 are compressed as bytes (AVX-512 VBMI2) and widened in quarters. No branch
    depends on single bits, and the others go the same way for all words of one density.
    """
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES, _FLAGS])
    compress = declared(builder, kind, "llvm.x86.avx512.mask.compress.v64i8")
    flags = builder.bitcast(bits, _FLAGS)
    numbers = builder.call(compress, [_BYTES(list(range(64))), _BYTES([0] * 64), flags])
    undefined = _QUARTER(ir.Undefined)
    bases = builder.shuffle_vector(
        builder.insert_element(undefined, base, _NUMBER(0)), undefined, _QUARTER([0] * 16)
    )

    def put(quarter: int) -> None:
        lanes = _QUARTER(list(range(16 * quarter, 16 * quarter + 16)))
        part = builder.zext(builder.shuffle_vector(numbers, numbers, lanes), _QUARTER)
        place = pointer(builder, to, _QUARTER, 64 * quarter)
        builder.store(builder.add(part, bases), place, align=4)

    found = builder.ctpop(bits)
    put(0)
    with builder.if_then(builder.icmp_unsigned(">", found, found.type(16))):
        put(1)
        put(2)
        with builder.if_then(builder.icmp_unsigned(">", found, found.type(48))):
            put(3)


@inlined
def put_each(to: int, bits: Any, base: Any) -> None:
    """Write base + i for each bit i that is set, as int32; up to 64 of them are overwritten.

    They are written in groups of four, without testing each, which avoids most unpredictable
    branches.
    Source: G. Langdale and D. Lemire, "Parsing gigabytes of JSON per second", section 3.2.
    """
    end = to + 4 * count_ones(bits)
    while to < end:
        for i in range(4):
            store_number(to + 4 * i, base + np.int32(trailing_zeros(bits)))
            bits &= bits - _ONE
        to += 16


def page_lister(put: Any) -> Callable[[Words, Pages], Any]:
    """Make the part that lists a bitmap's pages with `put_compressed` or `put_each`."""

    @inlined
    def list_all(bitmap: Words, pages: Pages) -> Any:
        words = len(bitmap)
        whole = words - words % STRETCH_WORDS
        to = address(pages)
        for first in range(0, whole, STRETCH_WORDS):
            used = words_in_use(address(bitmap) + 8 * first)
            while used != _ZERO:
                word = first + trailing_zeros(used)
                used &= used - _ONE
                bits = load_word(address(bitmap) + 8 * word)
                put(to, bits, np.int32(64 * word))
                to += 4 * count_ones(bits)
        for word in range(whole, words):
            bits = load_word(address(bitmap) + 8 * word)
            put(to, bits, np.int32(64 * word))
            to += 4 * count_ones(bits)
        return (to - address(pages)) // 4

    return list_all


def run_lister(put: Any) -> Callable[[Words, Pages, Pages], Any]:
    """Make the part that lists a bitmap's runs with `put_compressed` or `put_each`."""

    @inlined
    def list_edges(bits: Any, before: Any, base: Any, start_to: int, stop_to: int) -> Any:
        # A run starts at a marked page whose lower neighbour is unmarked, and stops at an unmarked
        # page whose lower neighbour is marked.
        below = (bits << _ONE) | (before >> _TOP)
        starts, stops = bits & ~below, below & ~bits
        put(start_to, starts, base)
        put(stop_to, stops, base)
        return start_to + 4 * count_ones(starts), stop_to + 4 * count_ones(stops)

    @inlined
    def list_all(bitmap: Words, starts: Pages, lengths: Pages) -> Any:
        words = len(bitmap)
        start_to, stop_to = address(starts), address(lengths)
        if words == 0:
            return 0
        # The first word has no word before it, so the stretches begin at the second.
        start_to, stop_to = list_edges(bitmap[0], _ZERO, np.int32(0), start_to, stop_to)
        whole = words - (words - 1) % STRETCH_WORDS
        for first in range(1, whole, STRETCH_WORDS):
            used = words_with_edges(address(bitmap) + 8 * first)
            while used != _ZERO:
                word = first + trailing_zeros(used)
                used &= used - _ONE
                at = address(bitmap) + 8 * word
                start_to, stop_to = list_edges(
                    load_word(at), load_word(at - 8), np.int32(64 * word), start_to, stop_to
                )
        for word in range(whole, words):
            at = address(bitmap) + 8 * word
            start_to, stop_to = list_edges(
                load_word(at), load_word(at - 8), np.int32(64 * word), start_to, stop_to
            )
        runs = (start_to - address(starts)) // 4
        if bitmap[words - 1] >> _TOP:
            lengths[runs - 1] = 64 * words
        for run in range(runs):
            lengths[run] -= starts[run]
        return runs

    return list_all


_put = put_compressed if target_has("avx512f", "avx512bw", "avx512vbmi2") else put_each
_list_pages = page_lister(_put)
_list_runs = run_lister(_put)


@kernel("i8(u8[::1], i4[::1])")
def list_pages(bitmap: Words, pages: Pages) -> int:
    """List the pages of a bitmap, which must not be written meanwhile.

    Parameters
    ----------
    bitmap
        uint64[words].
    pages
        int32; set to the pages, ascending. It needs room for LIST_SLACK entries more than the
        bitmap has pages, or for ``64 * words + LIST_SLACK`` if that number is not known. Entries
        after the last page may be overwritten.

    Returns
    -------
    int
        Number of pages.
    """
    count: int = _list_pages(bitmap, pages)
    return count


@kernel("i8(u8[::1], i4[::1], i4[::1])")
def list_runs(bitmap: Words, starts: Pages, lengths: Pages) -> int:
    """List the runs of consecutive pages of a bitmap, which must not be written meanwhile.

    Parameters
    ----------
    bitmap
        uint64[words].
    starts, lengths
        int32; set to each run's first page, ascending, and its number of pages. Both need room for
        LIST_SLACK entries more than the bitmap has runs, or for ``32 * words + LIST_SLACK`` if that
        number is not known. Entries after the last run may be overwritten.

    Returns
    -------
    int
        Number of runs, each of maximal length.
    """
    runs: int = _list_runs(bitmap, starts, lengths)
    return runs


@kernel("i8(u8[::1], u8[::1])")
def union(into: Words, other: Words) -> int:
    """Set the bits of `other` in `into`, both uint64[words]; return 0."""
    words = len(into)
    whole = words - words % STRETCH_WORDS
    for first in range(0, whole, STRETCH_WORDS):
        if words_in_use(address(other) + 8 * first) != _ZERO:
            for word in range(first, first + STRETCH_WORDS):
                into[word] |= other[word]
    for word in range(whole, words):
        into[word] |= other[word]
    return 0


@kernel("i8(u8[::1])")
def clear(bitmap: Words) -> int:
    """Clear all bits of a uint64[words]; return 0."""
    words = len(bitmap)
    whole = words - words % STRETCH_WORDS
    for first in range(0, whole, STRETCH_WORDS):
        if words_in_use(address(bitmap) + 8 * first) != _ZERO:
            for word in range(first, first + STRETCH_WORDS):
                bitmap[word] = _ZERO
    for word in range(whole, words):
        bitmap[word] = _ZERO
    return 0


@kernel("i8(u8[::1], i8)")
def find_word(bitmap: Words, count: int) -> int:
    """Find the word before which a bitmap has `count` pages.

    Parameters
    ----------
    bitmap
        uint64[words].
    count
        Number of pages.

    Returns
    -------
    int
        Smallest number of words, from the first, that have at least `count` bits set; the number of
        all words if there are fewer bits.
    """
    for word in range(len(bitmap)):
        if count <= 0:
            return word
        count -= count_ones(bitmap[word])
    return len(bitmap)


@kernel("i8(u8[::1])")
def popcount(bitmap: Words) -> int:
    """Count the bits that are set in a uint64[words]."""
    count = 0
    for word in range(len(bitmap)):
        count += count_ones(bitmap[word])
    return count
