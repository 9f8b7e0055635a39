"""Pages of guest memory: the test for zero pages, gather, and the flush of the RAM cache."""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Pages, Words, inlined, kernel
from colobench.kernels.raw import CHUNK, any_bit, copy, fence, stream, trailing_zeros

PAGE_SIZE = 4096
_ZERO = np.uint64(0)


@inlined
def is_zero_page(page_address: int) -> bool:
    """Tell whether the 4096 bytes at an address are all 0; most that are not show it at once."""
    for offset in range(0, PAGE_SIZE, CHUNK):  # noqa: SIM110 - numba knows no generators
        if any_bit(page_address + offset) != _ZERO:
            return False
    return True


@kernel("i8(u1[::1], i4[::1], i8, u1[::1])")
def gather(memory: Bytes, pages: Pages, count: int, out: Bytes) -> int:
    """Copy pages one behind the other.

    Parameters
    ----------
    memory
        uint8[bytes], whole pages of 4096 bytes.
    pages
        int32; the first `count` are the pages to copy, ascending or not.
    count
        How many.
    out
        uint8, room for ``4096 * count`` bytes; not overlapping `memory`.

    Returns
    -------
    int
        The bytes copied.
    """
    done = 0
    while done < count:
        run = 1
        while done + run < count and pages[done + run] == pages[done] + run:
            run += 1
        source = address(memory) + pages[done] * PAGE_SIZE
        copy(address(out) + done * PAGE_SIZE, source, run * PAGE_SIZE)
        done += run
    return count * PAGE_SIZE


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
        The pages copied.
    """
    copied = 0
    for word in range(len(bitmap)):
        bits = bitmap[word]
        bitmap[word] = _ZERO
        page = 64 * word
        while bits != _ZERO:
            skipped = trailing_zeros(bits)
            run = trailing_zeros(~(bits >> np.uint64(skipped)))
            begin = (page + skipped) * PAGE_SIZE
            stream(address(ram) + begin, address(cache) + begin, run * PAGE_SIZE)
            copied += run
            if skipped + run == 64:
                break
            bits = bits >> np.uint64(skipped + run)
            page += skipped + run
    fence()
    return copied
