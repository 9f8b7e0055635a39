"""The server's state of each client: an area of guest RAM before the store.

The area begins with a slot for each connection. The rest is a region like a store's, see
`colobench.guest.region`, but only its heap is used. Names, queued commands, and requests and
replies that do not fit into a connection's buffers are kept there in pieces. A piece is two words
of a slot: the address of a block of that heap, or 0, and the number of bytes in it. Both are
checked against the block whenever they are read.

`client` is the address of a slot, `pool` is RAM up to the end of the area, `area` the address of
the region in it.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import heap
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import is_store, make
from colobench.guest.region import (
    FREE,
    HEADER_BYTES,
    HEAP,
    apart,
    first_block,
    get_number,
    last_header,
    put_number,
    whole_block,
)
from colobench.guest.store import copy_bytes
from colobench.kernels.jit import Bytes, Words, inlined

#: Bytes of the area for each connection, including its slot.
BYTES_PER_CLIENT = 32768
SLOT_BYTES = 192
#: A slot's words: the client's number, or 0 for no client; its address and port and ours, as in
#: `colobench.guest.connections.KEY`; the second in which it connected, and that of its last
#: request; its version of RESP (0 is 2); the flags below; its last command; the number of queued
#: commands; of a request that is too large for the buffer, see `colobench.guest.large`, its stage
#: and the numbers of missing elements and of missing bytes in the current one; the number of bytes
#: of the waiting reply that were sent.
(
    ID, PEER, SINCE, LAST, PROTOCOL, FLAGS, COMMAND, QUEUED, STAGE, ELEMENTS_LEFT, BYTES_LEFT, SENT,
) = range(0, 96, 8)  # fmt: skip
#: Pieces: the name, the library's name and version, queued commands, the large request, the reply.
NAME, LIBRARY, VERSION, QUEUE, REQUEST, REPLY = range(96, 192, 16)
#: Flags: within MULTI; EXEC will fail because a command was refused; CLIENT NO-EVICT is on.
MULTI, REFUSED_COMMAND, NO_EVICT = 1, 2, 4
#: Stages of a large request: its bytes are kept; they are skipped for lack of memory; it is a line
#: whose end is missing; it is complete; it was skipped.
COLLECTING, SKIPPING, LINE, READY, SKIPPED = (np.int64(n) for n in range(1, 6))
#: Divisor of the area's heap that gives the longest value, so that four values fit at once.
SHARE = 4
#: The word of the area's superblock that counts clients.
NEXT_ID = 4864


@inlined
def slots_in(size: int) -> int:
    """Compute the number of clients for which an area of that size has room."""
    return size // BYTES_PER_CLIENT


@inlined
def area_in(clients: int, size: int) -> int:
    """Return the address of the region after an area's slots."""
    return clients + slots_in(size) * SLOT_BYTES


@inlined
def longest_value(pool: Bytes, area: int) -> int:
    """Return the limit of a value's length, bytes."""
    return (last_header(pool, area) - first_block(pool, area)) // SHARE


@inlined
def capacity(pool: Bytes, area: int, at: int) -> int:
    """Return the bytes that the block of a piece holds; 0 if there is no such block."""
    block = at - HEADER_BYTES
    size = whole_block(pool, area, block)
    if size == 0 or get_number(pool, block) & FREE:
        return 0
    return size - HEADER_BYTES


@inlined
def piece(pool: Bytes, area: int, place: int) -> tuple[int, int]:
    """Return the address and length of the piece whose two words are at `place`, or two zeros."""
    at, length = get_number(pool, place), get_number(pool, place + 8)
    if at == 0 or length < 0 or length > capacity(pool, area, at):
        return 0, 0
    return at, length


@inlined
def drop(pool: Bytes, bitmap: Words, area: int, place: int) -> int:
    """Free a piece."""
    apart()
    at = get_number(pool, place)
    if at != 0 and capacity(pool, area, at) > 0:
        heap.release(pool, bitmap, area + HEAP, at)
    put_number(pool, bitmap, place, ZERO)
    return put_number(pool, bitmap, place + 8, ZERO)


@inlined
def reserve(pool: Bytes, bitmap: Words, area: int, place: int, room: int) -> int:
    """Reserve room for a number of bytes in a piece.

    Returns its address, which may have changed; 0 if there is no memory, and then the piece stays
    as it was.
    """
    apart()
    at, length = piece(pool, area, place)
    if at == 0:
        at = heap.allocate(pool, bitmap, area + HEAP, room)
    elif capacity(pool, area, at) < room:
        at = heap.resize(pool, bitmap, area + HEAP, at, room, length)
    if at:
        put_number(pool, bitmap, place, at)
        put_number(pool, bitmap, place + 8, length)
    return at


@inlined
def grow(pool: Bytes, bitmap: Words, area: int, place: int, room: int) -> int:
    """Reserve room like `reserve`, and twice as much as before if there is memory."""
    apart()
    at, _ = piece(pool, area, place)
    has = capacity(pool, area, at) if at else 0
    if at and has >= room:
        return at
    at = ZERO
    if 2 * has > room:
        at = reserve(pool, bitmap, area, place, 2 * has)
    return at if at else reserve(pool, bitmap, area, place, room)


@inlined
def keep(pool: Bytes, bitmap: Words, area: int, place: int, begin: int, length: int) -> bool:
    """Replace a piece's contents by bytes of RAM; return False if there is no memory."""
    apart()
    drop(pool, bitmap, area, place)
    if length == 0:
        return True
    at = reserve(pool, bitmap, area, place, length)
    if at:
        copy_bytes(pool, bitmap, at, begin, length)
        put_number(pool, bitmap, place + 8, length)
    return at != 0


@inlined
def extend(pool: Bytes, bitmap: Words, area: int, place: int, begin: int, length: int) -> bool:
    """Append bytes of RAM to a piece; return False if there is no memory."""
    apart()
    _, before = piece(pool, area, place)
    at = grow(pool, bitmap, area, place, before + length)
    if at:
        copy_bytes(pool, bitmap, at + before, begin, length)
        put_number(pool, bitmap, place + 8, before + length)
    return at != 0


@inlined
def introduce(pool: Bytes, bitmap: Words, area: int, client: int, peer: int, now_us: int) -> int:
    """Make the slot of a new client."""
    apart()
    number = get_number(pool, area + NEXT_ID) + 1
    put_number(pool, bitmap, area + NEXT_ID, number)
    put_number(pool, bitmap, client + ID, number)
    put_number(pool, bitmap, client + PEER, peer)
    put_number(pool, bitmap, client + SINCE, now_us // 1_000_000)
    return put_number(pool, bitmap, client + LAST, now_us // 1_000_000)


@inlined
def dismiss(pool: Bytes, bitmap: Words, area: int, client: int) -> int:
    """Forget a client; its slot becomes free."""
    apart()
    for place in range(NAME, SLOT_BYTES, 16):
        drop(pool, bitmap, area, client + place)
    for word in range(0, NAME, 8):
        put_number(pool, bitmap, client + word, ZERO)
    return 0


@inlined
def speaks_resp3(memory: Bytes, client: int) -> bool:
    """Say whether a client's replies are in RESP3."""
    return get_number(memory, client + PROTOCOL) == 3


@inlined
def has_work(memory: Bytes, client: int) -> bool:
    """Say whether a client waits for a reply to, or the execution of, consumed bytes."""
    return get_number(memory, client + REPLY) != 0 or get_number(memory, client + STAGE) >= READY


@inlined
def is_area(pool: Bytes, area: int) -> bool:
    """Say whether `make_area` made the region."""
    return is_store(pool, area)


@inlined
def make_area(memory: Bytes, bitmap: Words, clients: int, size: int) -> int:
    """Make an area without clients of [clients, clients + size)."""
    for at in range(clients, area_in(clients, size), 8):
        put_number(memory, bitmap, at, ZERO)
    return make(memory[: clients + size], bitmap, area_in(clients, size))
