"""Dirty bitmaps: uint64 words, bit i of word w is page 64 w + i.

Kernels that mark and kernels that collect may run at once in different threads.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address, exchange, load_acquire, store_release
from colobench.kernels.jit import Pages, Words, kernel
from colobench.kernels.raw import CHUNK, any_bit, count_ones, trailing_zeros

_ZERO, _ONE, _ALL = np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
_CHUNK_WORDS = CHUNK // 8


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
    One thread may mark. Beside `collect` in another thread no mark is lost: that the bit is set
    already is no reason not to store it, for it may just have been collected, before the write to
    the page could be seen. A word that was collected between the load and the store comes back, and
    its pages are collected twice.
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
        uint64[words]; each word that is not 0 is exchanged with 0 at once.
    into
        uint64[words]; bits that are set stay.

    Returns
    -------
    int
        How many bits were moved.
    """
    words = len(source)
    moved = 0
    start = 0
    while start < words:
        stop = min(start + _CHUNK_WORDS, words)
        if stop - start == _CHUNK_WORDS and any_bit(address(source) + 8 * start) == _ZERO:
            start = stop
            continue
        for word in range(start, stop):
            if source[word] != _ZERO:
                bits = exchange(source, word, _ZERO)
                moved += count_ones(bits)
                into[word] |= bits
        start = stop
    return moved


@kernel("i8(u8[::1], i4[::1])")
def list_pages(bitmap: Words, pages: Pages) -> int:
    """List the pages of a bitmap that nobody writes meanwhile.

    Parameters
    ----------
    bitmap
        uint64[words].
    pages
        int32, room for ``64 * words``; gets the pages, ascending.

    Returns
    -------
    int
        How many pages there are.
    """
    words = len(bitmap)
    count = 0
    start = 0
    while start < words:
        stop = min(start + _CHUNK_WORDS, words)
        if stop - start == _CHUNK_WORDS and any_bit(address(bitmap) + 8 * start) == _ZERO:
            start = stop
            continue
        for word in range(start, stop):
            bits = bitmap[word]
            if bits == _ALL:
                for bit in range(64):
                    pages[count + bit] = 64 * word + bit
                count += 64
                continue
            while bits != _ZERO:
                pages[count] = 64 * word + trailing_zeros(bits)
                count += 1
                bits &= bits - _ONE
        start = stop
    return count


@kernel("i8(u8[::1], u8[::1])")
def union(into: Words, other: Words) -> int:
    """Set in `into` the bits of `other`, both uint64[words]; 0."""
    for word in range(len(into)):
        into[word] |= other[word]
    return 0


@kernel("i8(u8[::1])")
def clear(bitmap: Words) -> int:
    """Clear all bits of a uint64[words]; 0."""
    for word in range(len(bitmap)):
        bitmap[word] = _ZERO
    return 0


@kernel("i8(u8[::1], i8)")
def find_word(bitmap: Words, count: int) -> int:
    """Find the word before which a bitmap has so many pages.

    Parameters
    ----------
    bitmap
        uint64[words].
    count
        How many pages.

    Returns
    -------
    int
        The smallest number of words, from the first, that have `count` bits set or more; all words
        if there are fewer bits.
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
