"""Allocator of memory of any size in one region of guest RAM: two-level segregated fit.

The algorithm is that of Masmano, Ripoll, Crespo and Real, "TLSF: a new dynamic memory allocator for
real-time systems" (2004). Free blocks are in lists by size class, two levels of bits mark the lists
that are not empty, and adjacent free blocks are joined. So each operation takes a bounded time, and
freed memory can be used for any other size.

A block is a word, its header, and its contents; sizes are multiples of GRANULE. The header is the
block's size and two flags. In a free block the header is followed by the next and the previous
block of its list, and the last word repeats the size. A used block's size is the smallest of its
class, plus a rest that is too small to be a block; so a freed block fits its own size again.

`heap` is always the address of the heap's own words, HEAP_BYTES long. Addresses are those of RAM.
Blocks, sizes and lists are checked before they are followed, see `colobench.guest.region`; an
operation that finds damage notes it and changes nothing.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.region import (
    AFTER_FREE,
    BLOCK,
    FREE,
    FREE_LIST,
    GRANULE,
    HEADER_BYTES,
    HEAP,
    SIZE_MASK,
    SMALLEST_BLOCK,
    apart,
    first_block,
    get_number,
    is_block,
    last_header,
    leading_zeros,
    note_damage,
    put_number,
    whole_block,
)
from colobench.guest.store import copy_bytes, get_word
from colobench.kernels.jit import Bytes, Words, inlined
from colobench.kernels.raw import trailing_zeros

#: Number of size classes below LINEAR_BYTES, one for each size, and in each doubling above.
CLASSES = 16
LINEAR_BYTES = GRANULE * CLASSES
#: Number of doublings: the largest block is smaller than 1 TiB.
DOUBLINGS = 34
#: 0 as an argument, of NumPy's type: numba compiles a function again for each Python constant.
ZERO = np.int64(0)

#: The heap's own words: bytes in used blocks, bytes of all blocks, address of the first block, a
#: bit for each doubling with free blocks; then for each doubling a bit for each class with some.
USED_BYTES, TOTAL_BYTES, FIRST_BLOCK, DOUBLING_BITS, CLASS_BITS = (8 * n for n in range(5))
#: For each class the address of its first free block, valid if the class's bit is set.
LISTS = CLASS_BITS + 8 * DOUBLINGS
HEAP_BYTES = LISTS + 8 * DOUBLINGS * CLASSES
_NEXT, _PREVIOUS = 8, 16
#: A class that does not exist, and the bits of all classes of a doubling.
_NO_CLASS, _ALL_CLASSES = DOUBLINGS * CLASSES, np.uint64((1 << CLASSES) - 1)


@inlined
def size_class(size: int) -> int:
    """Return the class of a block's size: CLASSES times its doubling, plus the class in that."""
    if size < LINEAR_BYTES:
        return size >> 4
    top = 63 - leading_zeros(np.uint64(size))
    return ((top - 7) << 4) + ((size >> (top - 4)) & 15)


@inlined
def block_size(payload: int) -> int:
    """Return the size of the block for a number of bytes, the smallest of its class."""
    size = max(SMALLEST_BLOCK, (payload + HEADER_BYTES + GRANULE - 1) & -GRANULE)
    if size >= LINEAR_BYTES:
        step = 1 << (59 - leading_zeros(np.uint64(size)))
        size = (size + step - 1) & -step
    return size


@inlined
def _is_free(memory: Bytes, kv: int, block: int) -> bool:
    """Say whether there can be a free block at an address."""
    return whole_block(memory, kv, block) != 0 and get_number(memory, block) & FREE != 0


@inlined
def _insert(memory: Bytes, bitmap: Words, heap: int, block: int, size: int) -> int:
    """Make a block of the region free; its two neighbours must be in use."""
    apart()
    number = size_class(size)
    doubling, bit = number >> 4, 1 << (number & 15)
    bits = get_number(memory, heap + CLASS_BITS + 8 * doubling)
    head = get_number(memory, heap + LISTS + 8 * number) if bits & bit else 0
    if head and not _is_free(memory, heap - HEAP, head):
        return note_damage(memory, bitmap, heap - HEAP, FREE_LIST)
    put_number(memory, bitmap, block, size | FREE)
    put_number(memory, bitmap, block + _NEXT, head)
    put_number(memory, bitmap, block + _PREVIOUS, ZERO)
    put_number(memory, bitmap, block + size - 8, size)
    behind = get_number(memory, block + size)
    put_number(memory, bitmap, block + size, behind | AFTER_FREE)
    if head:
        put_number(memory, bitmap, head + _PREVIOUS, block)
    put_number(memory, bitmap, heap + LISTS + 8 * number, block)
    put_number(memory, bitmap, heap + CLASS_BITS + 8 * doubling, bits | bit)
    doublings = get_number(memory, heap + DOUBLING_BITS)
    put_number(memory, bitmap, heap + DOUBLING_BITS, doublings | (1 << doubling))
    return 0


@inlined
def _is_listed(memory: Bytes, heap: int, block: int) -> bool:
    """Say whether a block is free and correctly linked with its neighbours in its list."""
    kv = heap - HEAP
    if not _is_free(memory, kv, block):
        return False
    size = get_number(memory, block) & SIZE_MASK
    following = get_number(memory, block + _NEXT)
    previous = get_number(memory, block + _PREVIOUS)
    if following and not (
        is_block(memory, kv, following) and get_number(memory, following + _PREVIOUS) == block
    ):
        return False
    if previous:
        before = is_block(memory, kv, previous) and get_number(memory, previous + _NEXT) == block
    else:
        before = get_number(memory, heap + LISTS + 8 * size_class(size)) == block
    return before and get_number(memory, block + size - 8) == size


@inlined
def _take(memory: Bytes, bitmap: Words, heap: int, block: int) -> int:
    """Take a free block out of its list, and return its size; its header stays as it was.

    Returns 0 and changes nothing if there is no such block.
    """
    apart()
    if not _is_listed(memory, heap, block):
        return note_damage(memory, bitmap, heap - HEAP, FREE_LIST)
    size = get_number(memory, block) & SIZE_MASK
    number = size_class(size)
    following = get_number(memory, block + _NEXT)
    previous = get_number(memory, block + _PREVIOUS)
    if following:
        put_number(memory, bitmap, following + _PREVIOUS, previous)
    if previous:
        put_number(memory, bitmap, previous + _NEXT, following)
        return size
    put_number(memory, bitmap, heap + LISTS + 8 * number, following)
    if not following:
        doubling = number >> 4
        bits = get_number(memory, heap + CLASS_BITS + 8 * doubling) & ~(1 << (number & 15))
        put_number(memory, bitmap, heap + CLASS_BITS + 8 * doubling, bits)
        if not bits:
            doublings = get_number(memory, heap + DOUBLING_BITS) & ~(1 << doubling)
            put_number(memory, bitmap, heap + DOUBLING_BITS, doublings)
    return size


@inlined
def _use(
    memory: Bytes, bitmap: Words, heap: int, block: int, whole: int, size: int, flags: int
) -> int:
    """Make a block of `size` out of `whole` bytes, free the rest, and return the used bytes."""
    if whole - size >= SMALLEST_BLOCK:
        put_number(memory, bitmap, block, size | flags)
        _insert(memory, bitmap, heap, block + size, whole - size)
        return size
    put_number(memory, bitmap, block, whole | flags)
    behind = get_number(memory, block + whole)
    put_number(memory, bitmap, block + whole, behind & ~AFTER_FREE)
    return whole


@inlined
def _count(memory: Bytes, bitmap: Words, heap: int, difference: int) -> int:
    """Add to the bytes in use."""
    used = get_number(memory, heap + USED_BYTES)
    return put_number(memory, bitmap, heap + USED_BYTES, used + difference)


@inlined
def reset(memory: Bytes, bitmap: Words, heap: int) -> int:
    """Make the whole heap one free block, in a time that does not depend on its contents.

    The heap follows the table of chains, up to the end of `memory`.
    """
    begin = first_block(memory, heap - HEAP)
    total = last_header(memory, heap - HEAP) - begin
    put_number(memory, bitmap, heap + USED_BYTES, ZERO)
    put_number(memory, bitmap, heap + TOTAL_BYTES, total)
    put_number(memory, bitmap, heap + FIRST_BLOCK, begin)
    put_number(memory, bitmap, heap + DOUBLING_BITS, ZERO)
    for doubling in range(DOUBLINGS):
        put_number(memory, bitmap, heap + CLASS_BITS + 8 * doubling, ZERO)
    put_number(memory, bitmap, begin + total, ZERO)
    return _insert(memory, bitmap, heap, begin, total)


@inlined
def is_heap(memory: Bytes, heap: int) -> bool:
    """Say whether the heap's words have the place and the size that `reset` wrote."""
    begin, total = get_number(memory, heap + FIRST_BLOCK), get_number(memory, heap + TOTAL_BYTES)
    return begin == first_block(memory, heap - HEAP) and (
        total == last_header(memory, heap - HEAP) - begin
    )


@inlined
def _find_list(memory: Bytes, heap: int, number: int) -> int:
    """Return the first class from this one on with a free block; -1 if there is none.

    It is _NO_CLASS if bits contradict each other.
    """
    doubling = number >> 4
    bits = get_word(memory, heap + CLASS_BITS + 8 * doubling) & _ALL_CLASSES
    bits = bits >> np.uint64(number & 15)
    if bits != np.uint64(0):
        return number + trailing_zeros(bits)
    above = get_word(memory, heap + DOUBLING_BITS) >> np.uint64(doubling + 1)
    if above == np.uint64(0):
        return -1
    doubling += 1 + trailing_zeros(above)
    if doubling >= DOUBLINGS:
        return _NO_CLASS
    bits = get_word(memory, heap + CLASS_BITS + 8 * doubling) & _ALL_CLASSES
    if bits == np.uint64(0):
        return _NO_CLASS
    return (doubling << 4) + trailing_zeros(bits)


@inlined
def allocate(memory: Bytes, bitmap: Words, heap: int, payload: int) -> int:
    """Allocate a number of bytes, 64 KiB or a little more at most; return the address, or 0."""
    apart()
    size = block_size(payload)
    number = _find_list(memory, heap, size_class(size))
    if number < 0:
        return 0
    block = get_number(memory, heap + LISTS + 8 * number) if number < _NO_CLASS else 0
    if whole_block(memory, heap - HEAP, block) < size:
        return note_damage(memory, bitmap, heap - HEAP, FREE_LIST)
    whole = _take(memory, bitmap, heap, block)
    if whole == 0:
        return 0
    _count(memory, bitmap, heap, _use(memory, bitmap, heap, block, whole, size, ZERO))
    return block + HEADER_BYTES


@inlined
def release(memory: Bytes, bitmap: Words, heap: int, at: int) -> int:
    """Free memory that `allocate` returned."""
    apart()
    kv, block = heap - HEAP, at - HEADER_BYTES
    used = whole_block(memory, kv, block)
    if used == 0 or get_number(memory, block) & FREE:
        return note_damage(memory, bitmap, kv, BLOCK)
    before = block
    if get_number(memory, block) & AFTER_FREE:
        before -= get_number(memory, block - 8)
        if before + whole_block(memory, kv, before) != block:
            return note_damage(memory, bitmap, kv, BLOCK)
    size = used
    if get_number(memory, block + used) & FREE:
        behind = _take(memory, bitmap, heap, block + used)
        if behind == 0:
            return 0
        size += behind
    if before != block:
        # In a broken heap the next block may have been a part of this one.
        if before + _take(memory, bitmap, heap, before) != block:
            return note_damage(memory, bitmap, kv, BLOCK)
        size += block - before
    _count(memory, bitmap, heap, -used)
    return _insert(memory, bitmap, heap, before, size)


@inlined
def resize(memory: Bytes, bitmap: Words, heap: int, at: int, payload: int, keep: int) -> int:
    """Resize allocated memory, keep its first `keep` bytes, and return the new address.

    If there is no room, the result is 0 and nothing changes. The address stays the same if the size
    class does, or if there is room after the block.
    """
    apart()
    kv, block = heap - HEAP, at - HEADER_BYTES
    size = whole_block(memory, kv, block)
    header = get_number(memory, block) if size else FREE
    if header & FREE:
        return note_damage(memory, bitmap, kv, BLOCK)
    wanted = block_size(payload)
    if wanted <= size < wanted + SMALLEST_BLOCK:
        return at
    behind = block + size
    whole = size
    if get_number(memory, behind) & FREE:
        whole += whole_block(memory, kv, behind)
    if whole < wanted:
        to = allocate(memory, bitmap, heap, payload)
        if to:
            copy_bytes(memory, bitmap, to, at, keep)
            release(memory, bitmap, heap, at)
        return to
    if whole > size and _take(memory, bitmap, heap, behind) == 0:
        return 0
    used = _use(memory, bitmap, heap, block, whole, wanted, header & AFTER_FREE)
    _count(memory, bitmap, heap, used - size)
    return at
