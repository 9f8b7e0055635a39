"""Where a store's parts lie in its region of guest RAM, and whether what RAM says is inside of it.

RAM may come from a peer, or be torn, so nothing that is read from it leads to an address before it
was compared with the region. The region goes from `kv` to the end of `memory`: `kv.execute` gives
all functions of the store a `memory` that ends with the store. Where its parts lie follows from
those two numbers alone, never from a word of RAM.

What was checked is good until something is written to the store: in a broken heap two pieces of
memory may be the same. So behind a write nothing is read again that leads to an address; it is
known already, or checked anew.

A function that finds what cannot be calls `note_damage`, changes nothing more, and gives 0 as if
there were nothing. `kv.execute` then answers the request with an error, in place of its reply, and
closes the connection; so a command need not ask whether the store is damaged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from colobench.guest.store import get_word, put_word
from colobench.kernels.jit import Bytes, Words, inlined, instruction

#: Bytes in front of the table of chains.
SUPERBLOCK_BYTES = 8192
#: The heap's own words are at this offset.
HEAP = 128
#: The smallest region that can be a store.
SMALLEST_STORE = 16384
#: The table has a chain for so many bytes of the region, but MOST_CHAINS at most.
BYTES_PER_CHAIN = 128
MOST_CHAINS = 1 << 24
_LEAST_CHAINS = SMALLEST_STORE // BYTES_PER_CHAIN

#: Bytes that every block's size is a multiple of; those of the smallest block: its header, two
#: links, and its size in the last word; those of the header.
GRANULE, SMALLEST_BLOCK, HEADER_BYTES = 16, 32, 8
#: Flags in a block's header: this block is free; the one before it is. The rest is its size.
FREE, AFTER_FREE = 1, 2
SIZE_MASK = ~15

#: An entry begins behind its block's header. Its words, and where its key begins.
LINK, LENGTHS, EXPIRES, KEY = 0, 8, 16, 24
_LENGTH = (1 << 32) - 1

#: The offset of the word that says what is damaged; it is 0 but while a request is executed.
DAMAGE = 120
#: Its values, and what an error says of each.
HEADER, CHAIN, ENTRY, BLOCK, FREE_LIST, QUEUED_COMMANDS = (np.int64(n) for n in range(1, 7))
DAMAGE_TEXTS = (
    b"its header is not that of a store of this place and size",
    b"a chain of keys leads out of it, or in a circle",
    b"the lengths of a key and its value exceed their memory",
    b"a block of its memory has an impossible size",
    b"a list of its free memory leads astray",
    b"commands that were queued for EXEC are none",
)


@instruction(lambda _: types.int64(types.uint64))
def leading_zeros(builder: Any, word: Any) -> Any:
    """Count the bits above a word's highest bit that is set; 64 for 0."""
    return builder.ctlz(word, ir.IntType(1)(0))


@instruction(lambda: types.void())
def apart(builder: Any) -> None:
    """Keep the function that begins with this call as one, instead of a copy at each of its calls.

    Copies of a long function would make its callers no quicker, only long to compile.
    """
    builder.function.attributes.add("noinline")


@inlined
def get_number(memory: Bytes, at: int) -> int:
    """Read a word as an int64."""
    return np.int64(get_word(memory, at))


@inlined
def put_number(memory: Bytes, bitmap: Words, at: int, number: int) -> int:
    """Write an int64, unless it is there already: then the page stays clean."""
    apart()
    if get_number(memory, at) != number:
        put_word(memory, bitmap, at, np.uint64(number))
    return 0


@inlined
def note_damage(memory: Bytes, bitmap: Words, kv: int, kind: int) -> int:
    """Note what is damaged, unless that was noted already; gives 0."""
    apart()
    if get_number(memory, kv + DAMAGE) == 0:
        put_number(memory, bitmap, kv + DAMAGE, kind)
    return 0


@inlined
def chains_in(size: int) -> int:
    """Say how many chains the table of a region of that size has, a power of two."""
    wanted = max(size // BYTES_PER_CHAIN, _LEAST_CHAINS)
    highest_bit = 63 - leading_zeros(np.uint64(wanted))
    return min(1 << highest_bit, MOST_CHAINS)


@inlined
def first_block(memory: Bytes, kv: int) -> int:
    """Give the address of the heap's first block; in front of it is the table of chains."""
    return kv + SUPERBLOCK_BYTES + 8 * chains_in(len(memory) - kv)


@inlined
def last_header(memory: Bytes, kv: int) -> int:
    """Give the address of the header behind all blocks, which is never free."""
    return kv + ((len(memory) - kv - HEADER_BYTES) & -GRANULE)


@inlined
def is_block(memory: Bytes, kv: int, block: int) -> bool:
    """Tell whether the smallest block, and a header behind it, are in the region at an address.

    A place in the table of chains counts, too: to know where that ends would take longer, and what
    is there has no block's size.
    """
    offset = block - kv
    last = last_header(memory, kv) - kv - SMALLEST_BLOCK
    return SUPERBLOCK_BYTES <= offset <= last and offset & (GRANULE - 1) == 0


@inlined
def whole_block(memory: Bytes, kv: int, block: int) -> int:
    """Give the size of a block, if there is room for it and a header behind it; 0 otherwise."""
    if not is_block(memory, kv, block):
        return 0
    size = get_number(memory, block) & SIZE_MASK
    return size if SMALLEST_BLOCK <= size <= last_header(memory, kv) - block else 0


@inlined
def is_entry(memory: Bytes, kv: int, entry: int) -> bool:
    """Tell whether a block that is in use begins before an address, and its lengths fit into it."""
    block = entry - HEADER_BYTES
    size = whole_block(memory, kv, block)
    if size == 0 or get_number(memory, block) & FREE:
        return False
    lengths = get_number(memory, entry + LENGTHS)
    needed = HEADER_BYTES + KEY + (lengths & _LENGTH) + (lengths >> 32)
    return lengths >= 0 and needed <= size
