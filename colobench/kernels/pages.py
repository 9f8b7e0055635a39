"""Kernels on pages of guest memory: gather, the RAM cache's flush, comparison, digests."""

from __future__ import annotations

from typing import Any

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.bitmap import clear, popcount
from colobench.kernels.digest import derive_secret, digest_page, digest_room
from colobench.kernels.jit import Bytes, Pages, Words, inlined, kernel
from colobench.kernels.raw import (
    CHUNK,
    LINE,
    STRETCH_WORDS,
    any_bit,
    any_difference,
    copy,
    count_ones,
    fence,
    fetch,
    fetch_line,
    load_word,
    stream,
    stream_beside,
    trailing_zeros,
    words_in_use,
)

PAGE_SIZE = 4096
#: Bytes from which on a copy bypasses the CPU's cache, because it would only evict other data.
_LARGE = 1 << 20
_ZERO, _ONE = np.uint64(0), np.uint64(1)


@inlined
def is_zero_page(page_address: int) -> bool:
    """Say whether the 4096 bytes at an address are all 0; in most pages the first bytes decide."""
    middle = load_word(page_address + PAGE_SIZE // 2)
    if load_word(page_address) | middle | load_word(page_address + PAGE_SIZE - 8) != _ZERO:
        return False
    for offset in range(0, PAGE_SIZE, CHUNK):  # noqa: SIM110 - numba knows no generators
        if any_bit(page_address + offset) != _ZERO:
            return False
    return True


@inlined
def _same_page(page: int, other: int, ahead: int) -> bool:
    """Say whether the 4096 bytes at two addresses are the same; prefetch those `ahead` bytes on."""
    if load_word(page) != load_word(other):
        return False
    for offset in range(0, PAGE_SIZE, CHUNK):
        if any_difference(page + offset, other + offset) != _ZERO:
            return False
        fetch(page + offset + ahead)
        fetch(other + offset + ahead)
    return True


@inlined
def _stream_pages(
    to: int,
    source: int,
    next_to: int,
    next_source: int,
    to_2: int,
    source_2: int,
    next_to_2: int,
    next_source_2: int,
) -> None:
    """Stream a page at two places, and prefetch the next two pages."""
    fetch_line(next_to)
    fetch_line(next_to_2)
    for at in range(0, PAGE_SIZE, CHUNK):
        stream_beside(
            to + at,
            source + at,
            next_source + at,
            to_2 + at,
            source_2 + at,
            next_source_2 + at,
        )


@kernel("i8(u1[::1], i4[::1], i8, u1[::1])")
def gather(memory: Bytes, pages: Pages, count: int, out: Bytes) -> int:
    """Copy pages one after another into an array.

    Parameters
    ----------
    memory
        uint8[bytes], whole pages of 4096 bytes.
    pages
        int32; the first `count` are the pages to copy, in any order.
    count
        Number of pages.
    out
        uint8, room for ``4096 * count`` bytes; not overlapping `memory`.

    Returns
    -------
    int
        Number of bytes copied.

    Notes
    -----
    From 1 MiB on the copies bypass the CPU's cache, two pages at once.
    """
    begin, to = address(memory), address(out)
    if count * PAGE_SIZE < _LARGE or to % LINE:
        for i in range(count):
            copy(to + i * PAGE_SIZE, begin + pages[i] * PAGE_SIZE, PAGE_SIZE)
        return count * PAGE_SIZE
    half = count // 2
    for i in range(half):
        ahead = min(i + 1, half - 1)
        _stream_pages(
            to + i * PAGE_SIZE,
            begin + pages[i] * PAGE_SIZE,
            to + ahead * PAGE_SIZE,
            begin + pages[ahead] * PAGE_SIZE,
            to + (half + i) * PAGE_SIZE,
            begin + pages[half + i] * PAGE_SIZE,
            to + (half + ahead) * PAGE_SIZE,
            begin + pages[half + ahead] * PAGE_SIZE,
        )
    for i in range(2 * half, count):
        stream(to + i * PAGE_SIZE, begin + pages[i] * PAGE_SIZE, PAGE_SIZE)
    fence()
    return count * PAGE_SIZE


@inlined
def _find_mark(bitmap: Words, word: int, bits: Any) -> Any:
    """Return the next word with a mark, and its bits; of the first word only `bits` count.

    There must be one.
    """
    while bits == _ZERO:
        word += 1
        skipped = STRETCH_WORDS
        while skipped == STRETCH_WORDS and word + STRETCH_WORDS <= len(bitmap):
            skipped = trailing_zeros(words_in_use(address(bitmap) + 8 * word))
            word += skipped
        bits = bitmap[word]
    return word, bits


@inlined
def _skip_marks(bitmap: Words, count: int) -> Any:
    """Skip `count` marks; return the word reached and its remaining bits, which must not be 0."""
    word = 0
    while count_ones(bitmap[word]) <= count:
        count -= count_ones(bitmap[word])
        word += 1
    bits = bitmap[word]
    for _ in range(count):
        bits &= bits - _ONE
    return word, bits


@kernel("i8(u1[::1], u1[::1], u8[::1])")
def flush(ram: Bytes, cache: Bytes, bitmap: Words) -> int:
    """Copy the marked pages of the RAM cache into RAM, and clear the marks.

    Parameters
    ----------
    ram, cache
        uint8[4096 * 64 * words], not overlapping.
    bitmap
        uint64[words]; bit i of word w is page 64 w + i.

    Returns
    -------
    int
        Number of pages copied.

    Notes
    -----
    Threads may flush at the same time, each with its own part of all three arrays. The copies
    bypass the CPU's cache, two pages at once, one from each half of the marks.
    """
    to, begin = address(ram), address(cache)
    marked: int = popcount(bitmap)
    if marked == 0:
        return 0
    half = marked // 2
    word, bits = _find_mark(bitmap, 0, bitmap[0])
    word_2, bits_2 = _skip_marks(bitmap, half)
    at = (64 * word + trailing_zeros(bits)) * PAGE_SIZE
    at_2 = (64 * word_2 + trailing_zeros(bits_2)) * PAGE_SIZE
    for i in range(half):
        ahead, ahead_2 = at, at_2
        # With an odd number of marks, the second half has one more mark.
        if i + 1 < marked - half:
            word_2, bits_2 = _find_mark(bitmap, word_2, bits_2 & (bits_2 - _ONE))
            ahead_2 = (64 * word_2 + trailing_zeros(bits_2)) * PAGE_SIZE
            word, bits = _find_mark(bitmap, word, bits & (bits - _ONE))
            ahead = (64 * word + trailing_zeros(bits)) * PAGE_SIZE
        if to % LINE:
            copy(to + at, begin + at, PAGE_SIZE)
            copy(to + at_2, begin + at_2, PAGE_SIZE)
        else:
            _stream_pages(
                to + at,
                begin + at,
                to + ahead,
                begin + ahead,
                to + at_2,
                begin + at_2,
                to + ahead_2,
                begin + ahead_2,
            )
        at, at_2 = ahead, ahead_2
    if marked % 2:
        stream(to + at_2, begin + at_2, PAGE_SIZE)
    fence()
    clear(bitmap)
    return marked


@kernel("i8(u1[::1], u8[::1])")
def zero_pages(memory: Bytes, bitmap: Words) -> int:
    """Find the pages that are all 0.

    Parameters
    ----------
    memory
        uint8[4096 * pages].
    bitmap
        uint64, room for `pages` bits, overwritten: bit i of word w is set if page 64 w + i is all
        0. Bits and words after the last page are 0.

    Returns
    -------
    int
        Number of such pages.
    """
    found = 0
    pages = len(memory) // PAGE_SIZE
    for word in range(len(bitmap)):
        bits = _ZERO
        for bit in range(min(64, pages - 64 * word)):
            zero = is_zero_page(address(memory) + (64 * word + bit) * PAGE_SIZE)
            bits |= np.uint64(zero) << np.uint64(bit)
        bitmap[word] = bits
        found += count_ones(bits)
    return found


@kernel("i8(u1[::1], u1[::1], u8[::1])")
def different_pages(memory: Bytes, other: Bytes, bitmap: Words) -> int:
    """Find the pages that differ between two memories.

    Parameters
    ----------
    memory, other
        uint8[4096 * pages].
    bitmap
        uint64, room for `pages` bits; bit i of word w is set if page 64 w + i differs. Bits
        that are set stay.

    Returns
    -------
    int
        Number of pages that differ.
    """
    found = 0
    pages = len(memory) // PAGE_SIZE
    same = False
    for word in range((pages + 63) // 64):
        bits = _ZERO
        for bit in range(min(64, pages - 64 * word)):
            at = (64 * word + bit) * PAGE_SIZE
            # After an equal page, the next one is likely to be read to its end, too.
            ahead = PAGE_SIZE if same else 0
            same = _same_page(address(memory) + at, address(other) + at, ahead)
            bits |= np.uint64(not same) << np.uint64(bit)
        bitmap[word] |= bits
        found += count_ones(bits)
    return found


@kernel("i8(u1[::1], i8, u8[::1])")
def hash_pages(memory: Bytes, seed: int, hashes: Words) -> int:
    """Digest each page separately.

    Parameters
    ----------
    memory
        uint8[4096 * pages].
    seed
        XXH3's seed, 64 bits.
    hashes
        uint64[pages], set to the pages' digests: XXH3_64bits_withSeed of 4096 bytes each.

    Returns
    -------
    int
        Number of pages.
    """
    room = digest_room()
    derive_secret(room, seed)
    pages = len(memory) // PAGE_SIZE
    for page in range(pages):
        hashes[page] = digest_page(room, address(memory) + page * PAGE_SIZE)
    return pages
