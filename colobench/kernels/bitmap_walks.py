"""Three ways through a dirty bitmap, as an ablation: page by page, and by runs of pages.

None is used by a node: `colobench.kernels.pages.flush` takes whole words. They take the place of
QEMU's `colo_flush_ram_cache` before and after Lei Rao's series "Optimized the performance of flush"
of 2021, without the copies of pages. All return the number of pages, and leave the bitmap empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from colobench.kernels.jit import Words, inlined, kernel
from colobench.kernels.raw import trailing_zeros

_ZERO, _ONE = np.uint64(0), np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@inlined
def _find(bitmap: Words, page: int, flip: Any) -> int:
    """Find the next page from one on whose bit is set, or with all bits flipped, is not."""
    word = page >> 6
    if word >= len(bitmap):
        return 64 * len(bitmap)
    bits = (bitmap[word] ^ flip) & (_ALL << np.uint64(page & 63))
    while bits == _ZERO:
        word += 1
        if word >= len(bitmap):
            return 64 * len(bitmap)
        bits = bitmap[word] ^ flip
    found: int = 64 * word + trailing_zeros(bits)
    return found


@inlined
def _clear_page(bitmap: Words, page: int) -> None:
    """Clear the bit of a page."""
    bitmap[page >> 6] &= ~(_ONE << np.uint64(page & 63))


@inlined
def _clear_run(bitmap: Words, begin: int, end: int) -> None:
    """Clear the bits of the pages from `begin` to `end`, which is not among them."""
    first, last = begin >> 6, (end - 1) >> 6
    head, tail = _ALL << np.uint64(begin & 63), _ALL >> np.uint64(63 - ((end - 1) & 63))
    if first == last:
        bitmap[first] &= ~(head & tail)
        return
    bitmap[first] &= ~head
    for word in range(first + 1, last):
        bitmap[word] = _ZERO
    bitmap[last] &= ~tail


@kernel("i8(u8[::1])")
def walk_pages(bitmap: Words) -> int:
    """Find each page by itself, and clear its bit.

    Parameters
    ----------
    bitmap
        uint64[words]; bit i of word w is page 64 w + i.

    Returns
    -------
    int
        Number of pages.
    """
    found, page = 0, _find(bitmap, 0, _ZERO)
    while page < 64 * len(bitmap):
        _clear_page(bitmap, page)
        found += 1
        page = _find(bitmap, page + 1, _ZERO)
    return found


@kernel("i8(u8[::1])")
def walk_runs(bitmap: Words) -> int:
    """Find runs of pages, and clear their bits page by page; parameters as of `walk_pages`."""
    found, begin = 0, _find(bitmap, 0, _ZERO)
    while begin < 64 * len(bitmap):
        end = _find(bitmap, begin, _ALL)
        for page in range(begin, end):
            _clear_page(bitmap, page)
        found += end - begin
        begin = _find(bitmap, end, _ZERO)
    return found


@kernel("i8(u8[::1])")
def walk_and_clear_runs(bitmap: Words) -> int:
    """Find runs of pages, and clear their bits by words; parameters as of `walk_pages`."""
    found, begin = 0, _find(bitmap, 0, _ZERO)
    while begin < 64 * len(bitmap):
        end = _find(bitmap, begin, _ALL)
        _clear_run(bitmap, begin, end)
        found += end - begin
        begin = _find(bitmap, end, _ZERO)
    return found
