"""Layout of a store in its region of guest RAM, and checks of words read from it.

RAM may come from a peer, or be torn, so no word that is read from it is used as an address before
it was compared with the region. The region extends from `kv` to the end of `memory`: `kv.execute`
passes all functions of the store a `memory` that ends with the store. The layout follows from those
two numbers alone, never from a word of RAM.

A check holds until something is written to the store, because in a broken heap two pieces of memory
may overlap. So an address is not read again after a write; it is kept, or checked again.

A function that finds damage calls `note_damage`, changes nothing more, and returns 0 as if there
were nothing. `kv.execute` then answers the request with an error in place of its reply, and closes
the connection; so a command need not check for damage itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from colobench.guest.store import get_word, put_word
from colobench.kernels.jit import Bytes, Words, inlined, instruction

#: Bytes before the table of chains.
SUPERBLOCK_BYTES = 8192
#: Offset of the heap's own words.
HEAP = 128
#: Bytes of the smallest store.
SMALLEST_STORE = 16384
#: Bytes of the region for each chain of the table, which has at most MOST_CHAINS.
BYTES_PER_CHAIN = 128
MOST_CHAINS = 1 << 24
_LEAST_CHAINS = SMALLEST_STORE // BYTES_PER_CHAIN

#: Bytes: unit of a block's size; size of the smallest block (its header, two links, and its size in
#: the last word); size of a header.
GRANULE, SMALLEST_BLOCK, HEADER_BYTES = 16, 32, 8
#: Flags in a block's header: this block is free; the one before it is free. The rest is its size.
FREE, AFTER_FREE = 1, 2
SIZE_MASK = ~15

#: Words of an entry, which begins after its block's header, and the offset of its key.
LINK, LENGTHS, EXPIRES, KEY = 0, 8, 16, 24
_LENGTH = (1 << 32) - 1

#: Offset of the word that names the damaged part; it is 0 except while a request is executed.
DAMAGE = 120
#: Its values, and the text for each in an error.
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
    """Count the bits above a word's highest set bit; 64 for 0."""
    return builder.ctlz(word, ir.IntType(1)(0))


@instruction(lambda: types.void())
def apart(builder: Any) -> None:
    """Keep LLVM from inlining the function that begins with this call.

    Inlining a long function would not make its callers quicker, only slower to compile.
    """
    builder.function.attributes.add("noinline")


@inlined
def get_number(memory: Bytes, at: int) -> int:
    """Read a word as an int64."""
    return np.int64(get_word(memory, at))


@inlined
def put_number(memory: Bytes, bitmap: Words, at: int, number: int) -> int:
    """Write an int64, unless RAM has this value already: then the page stays clean."""
    apart()
    if get_number(memory, at) != number:
        put_word(memory, bitmap, at, np.uint64(number))
    return 0


@inlined
def note_damage(memory: Bytes, bitmap: Words, kv: int, kind: int) -> int:
    """Note the damaged part, unless damage was noted already; return 0."""
    apart()
    if get_number(memory, kv + DAMAGE) == 0:
        put_number(memory, bitmap, kv + DAMAGE, kind)
    return 0


@inlined
def chains_in(size: int) -> int:
    """Return the number of chains in the table of a region of that size, a power of two."""
    wanted = max(size // BYTES_PER_CHAIN, _LEAST_CHAINS)
    highest_bit = 63 - leading_zeros(np.uint64(wanted))
    return min(1 << highest_bit, MOST_CHAINS)


@inlined
def first_block(memory: Bytes, kv: int) -> int:
    """Return the address of the heap's first block, which follows the table of chains."""
    return kv + SUPERBLOCK_BYTES + 8 * chains_in(len(memory) - kv)


@inlined
def last_header(memory: Bytes, kv: int) -> int:
    """Return the address of the header after all blocks, which is never free."""
    return kv + ((len(memory) - kv - HEADER_BYTES) & -GRANULE)


@inlined
def is_block(memory: Bytes, kv: int, block: int) -> bool:
    """Say whether the smallest block and a header after it fit into the region at an address.

    An address in the table of chains counts, too: to find its end would take longer, and no word
    there is the size of a block.
    """
    offset = block - kv
    last = last_header(memory, kv) - kv - SMALLEST_BLOCK
    return SUPERBLOCK_BYTES <= offset <= last and offset & (GRANULE - 1) == 0


@inlined
def whole_block(memory: Bytes, kv: int, block: int) -> int:
    """Return the size of a block if there is room for it and a header after it; 0 otherwise."""
    if not is_block(memory, kv, block):
        return 0
    size = get_number(memory, block) & SIZE_MASK
    return size if SMALLEST_BLOCK <= size <= last_header(memory, kv) - block else 0


@inlined
def is_entry(memory: Bytes, kv: int, entry: int) -> bool:
    """Say whether a used block begins before an address, and its entry's lengths fit into it."""
    block = entry - HEADER_BYTES
    size = whole_block(memory, kv, block)
    if size == 0 or get_number(memory, block) & FREE:
        return False
    lengths = get_number(memory, entry + LENGTHS)
    needed = HEADER_BYTES + KEY + (lengths & _LENGTH) + (lengths >> 32)
    return lengths >= 0 and needed <= size
