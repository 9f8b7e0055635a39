"""The table of TCP connections in guest RAM: blocks, a hash table, and the ring of ready ones.

A free block is in a list, a used block in the chain of its head in the hash table. Both link by the
block's number plus 1, with 0 for the end. The ring has the numbers of the blocks whose connections
are to be served, each at most once. A block may have been given to another connection since; then
that one is served without need.

Links, numbers and the words of blocks are read from RAM, so they are checked before they are used.
A block that contradicts itself is noted (DAMAGED) and ignored, until `colobench.guest.repair`
rebuilds the table from the sound connections.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.frame_queue import NIC_FRAME_SIZE
from colobench.guest.ipv4 import BODY
from colobench.guest.kv import forget
from colobench.guest.rings import (
    BLOCK_BYTES,
    BLOCKS_AT,
    BUCKETS,
    BUCKETS_AT,
    BUFFERS_AT,
    BUGS,
    DAMAGED,
    FREE,
    JITTER_US,
    MAX_CONNECTIONS,
    NEXT_DEADLINE,
    NOW_MS,
    RANDOM,
    READY_AT,
    READY_FILLED,
    READY_TAKEN,
    clients_begin,
    clients_bytes,
    connections_in,
    count,
    get,
    put,
    store_begin,
)
from colobench.guest.store import clear_bytes
from colobench.kernels.jit import Bytes, Words, inlined

#: Words of a block, as offsets. They are RFC 9293's variables, in order of their lines: state;
#: identity of the peer (IP << 32 | port << 16 | our port, and MAC); link of list or chain;
#: sending; receiving; used ranges of the two buffers; timer; others; the number of replies' last
#: bytes that are not sent yet, and the position of the append-only file that is to be flushed first
#: (`colobench.guest.append_only_file.FLUSHED`).
(
    STATE, KEY, MAC, LINK,
    SND_UNA, SND_NXT, SND_MAX, SND_WND, SND_WL1, SND_WL2, SND_MSS,
    IRS, RCV_NXT, RCV_WND,
    RECEIVED_BEGIN, RECEIVED_END, REPLY_BEGIN, REPLY_END,
    DEADLINE, RETRIES, FLAGS, DUE, CHALLENGED,
    HELD, HELD_UNTIL,
) = range(0, 8 * 25, 8)  # fmt: skip

#: States of RFC 9293. A connection without a block is CLOSED, or in LISTEN if its port has a
#: service.
(
    CLOSED, SYN_RECEIVED, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK,
    TIME_WAIT,
) = range(9)  # fmt: skip

#: Bits of FLAGS: an acknowledgment is due; the block is in the ring; the peer sent FIN; the service
#: has closed its side and reads no more, and FIN follows the last reply.
ACK_NOW, QUEUED, PEER_CLOSED, LEAVING = 1, 2, 4, 8

TCP_HEADER = 20
#: Payload of a segment in the longest frame, and the least MSS accepted from a peer, bytes.
MSS, LEAST_MSS = NIC_FRAME_SIZE - BODY - TCP_HEADER, 64
SEQUENCE = 0xFFFFFFFF
#: Longest timer, and longest wait for service, ms; a greater word in RAM is wrong.
LONGEST_TIMER_MS, LONGEST_WAIT_MS = 60_000, 1_002

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_27, _30, _31 = np.uint64(27), np.uint64(30), np.uint64(31)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inlined
def mix(word: np.uint64) -> np.uint64:
    """Mix 64 bits, as splitmix64 does (Steele, Lea, Flood 2014)."""
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)


@inlined
def draw(host: Words, limit: int) -> int:
    """Draw a number from 0 to ``limit - 1``."""
    host[RANDOM] += _GOLDEN
    return np.int64(mix(host[RANDOM]) % np.uint64(limit))


@inlined
def number_of_block(ram: int, block: int) -> int:
    """Return the number of a block."""
    return (block - ram - BLOCKS_AT) // BLOCK_BYTES


@inlined
def receive_buffer(ram: int, block: int) -> int:
    """Return the address of a connection's receive buffer; the send buffer follows it."""
    return ram + BUFFERS_AT + number_of_block(ram, block) * 2 * BUFFER_BYTES


@inlined
def block_at(ram: int, size: int, number: int) -> int:
    """Return the address of the block with that number; 0 if there is none."""
    return ram + BLOCKS_AT + number * BLOCK_BYTES if 0 <= number < connections_in(size) else 0


@inlined
def _below_zero_if_outside(memory: Bytes, block: int, begin: int, end: int) -> int:
    """Return a negative number if the used range that two words give is outside of the buffer."""
    first, last = get(memory, block + begin), get(memory, block + end)
    return first | last | (last - first) | (BUFFER_BYTES - last)


@inlined
def has_buffers(memory: Bytes, block: int) -> bool:
    """Say whether the used ranges of a connection's two buffers are inside of them."""
    received = _below_zero_if_outside(memory, block, RECEIVED_BEGIN, RECEIVED_END)
    return (received | _below_zero_if_outside(memory, block, REPLY_BEGIN, REPLY_END)) >= 0


@inlined
def is_sound(memory: Bytes, block: int) -> bool:
    """Say whether a block is a connection's, with words that this stack can have written.

    This runs for each segment, so it has few branches: `high` collects bits that must not be set,
    and `room` becomes negative if a number is too small or too large.
    """
    una, nxt = get(memory, block + SND_UNA), get(memory, block + SND_NXT)
    most, mss = get(memory, block + SND_MAX), get(memory, block + SND_MSS)
    high = una | nxt | most | get(memory, block + SND_WL1) | get(memory, block + SND_WL2)
    high = (high | get(memory, block + IRS) | get(memory, block + RCV_NXT)) >> 32
    high |= (get(memory, block + SND_WND) | get(memory, block + RCV_WND)) >> 16
    high |= (get(memory, block + RETRIES) | get(memory, block + FLAGS)) >> 4
    high |= get(memory, block + MAC) >> 48
    # Replies, and SYN or FIN, are on their way.
    replies = get(memory, block + REPLY_END) - get(memory, block + REPLY_BEGIN)
    room = (replies + 1 - ((nxt - una) & SEQUENCE)) | (replies + 1 - ((most - una) & SEQUENCE))
    room |= (mss - LEAST_MSS) | (MSS - mss)
    held = get(memory, block + HELD)
    room |= held | (replies - held)
    state = get(memory, block + STATE)
    room |= (state - SYN_RECEIVED) | (TIME_WAIT - state)
    return high == 0 and room >= 0 and has_buffers(memory, block)


@inlined
def note_damage(memory: Bytes, bitmap: Words, ram: int) -> int:
    """Request that the table be rebuilt soon; return 0."""
    return put(memory, bitmap, ram + DAMAGED, 1)


@inlined
def connection_at(memory: Bytes, bitmap: Words, ram: int, size: int, number: int) -> int:
    """Return the address of a connection's block; 0, and note damage, if there is no sound one."""
    block = block_at(ram, size, number)
    if block == 0 or not is_sound(memory, block):
        return note_damage(memory, bitmap, ram)
    return block


@inlined
def _head(ram: int, key: int) -> int:
    """Return the address of the head of a connection's chain."""
    return ram + BUCKETS_AT + 8 * np.int64(mix(np.uint64(key)) % np.uint64(BUCKETS))


@inlined
def find(memory: Bytes, bitmap: Words, ram: int, size: int, key: int) -> int:
    """Return the address of a connection's block, or 0."""
    link = get(memory, _head(ram, key))
    for _ in range(connections_in(size)):
        if link == 0:
            return 0
        block = block_at(ram, size, link - 1)
        if block == 0:
            break
        if get(memory, block + KEY) == key:
            return connection_at(memory, bitmap, ram, size, link - 1)
        link = get(memory, block + LINK)
    # A link leads to no block, or there are more links than blocks.
    return note_damage(memory, bitmap, ram) if link else 0


@inlined
def put_into_chain(memory: Bytes, bitmap: Words, ram: int, block: int) -> int:
    """Put a block into the chain of its key."""
    head = _head(ram, get(memory, block + KEY))
    put(memory, bitmap, block + LINK, get(memory, head))
    return put(memory, bitmap, head, number_of_block(ram, block) + 1)


@inlined
def put_into_free_list(memory: Bytes, bitmap: Words, ram: int, block: int) -> int:
    """Put a block into the list of free ones."""
    put(memory, bitmap, block + STATE, CLOSED)
    put(memory, bitmap, block + DEADLINE, 0)
    put(memory, bitmap, block + LINK, get(memory, ram + FREE))
    return put(memory, bitmap, ram + FREE, number_of_block(ram, block) + 1)


@inlined
def add(memory: Bytes, bitmap: Words, ram: int, size: int, key: int) -> int:
    """Take a block for a connection; return its address, or 0 if all are used."""
    link = get(memory, ram + FREE)
    if link == 0:
        return 0
    block = block_at(ram, size, link - 1)
    if block == 0 or get(memory, block + STATE) != CLOSED:
        return note_damage(memory, bitmap, ram)
    put(memory, bitmap, ram + FREE, get(memory, block + LINK))
    flags = get(memory, block + FLAGS) & QUEUED
    clear_bytes(memory, bitmap, block, BLOCK_BYTES)
    put(memory, bitmap, block + FLAGS, flags)
    put(memory, bitmap, block + KEY, key)
    put_into_chain(memory, bitmap, ram, block)
    return block


@inlined
def forget_peer(memory: Bytes, bitmap: Words, ram: int, size: int, number: int) -> int:
    """Delete the key-value server's state of a connection."""
    store = store_begin(ram, size)
    return forget(
        memory, bitmap, store, ram + size - store, clients_begin(ram, size), clients_bytes(size),
        number,
    )  # fmt: skip


@inlined
def remove(memory: Bytes, bitmap: Words, ram: int, size: int, block: int, counter: int) -> int:
    """Remove a connection, and count the reason."""
    link = number_of_block(ram, block) + 1
    at = _head(ram, get(memory, block + KEY))
    for _ in range(connections_in(size)):
        other = get(memory, at)
        if other == link:
            put(memory, bitmap, at, get(memory, block + LINK))
            break
        before = block_at(ram, size, other - 1)
        if before == 0:
            note_damage(memory, bitmap, ram)
            break
        at = before + LINK
    forget_peer(memory, bitmap, ram, size, link - 1)
    put_into_free_list(memory, bitmap, ram, block)
    return count(memory, bitmap, ram, counter, 1)


@inlined
def initialize_table(memory: Bytes, bitmap: Words, ram: int, size: int) -> int:
    """Make all blocks free; return their number."""
    connections = connections_in(size)
    clear_bytes(memory, bitmap, ram, READY_AT + 8 * MAX_CONNECTIONS)
    clear_bytes(memory, bitmap, ram + BLOCKS_AT, connections * BLOCK_BYTES)
    for number in range(connections - 1):
        put(memory, bitmap, ram + BLOCKS_AT + number * BLOCK_BYTES + LINK, number + 2)
    put(memory, bitmap, ram + FREE, 1)
    return connections


@inlined
def set_timer(memory: Bytes, bitmap: Words, ram: int, block: int, host: Words, ms: int) -> int:
    """Set a connection's timer to a number of milliseconds of guest time."""
    deadline = np.int64(host[NOW_MS]) + ms
    put(memory, bitmap, block + DEADLINE, deadline)
    soonest = get(memory, ram + NEXT_DEADLINE)
    if soonest == 0 or deadline < soonest:
        put(memory, bitmap, ram + NEXT_DEADLINE, deadline)
    return 0


@inlined
def ready_count(memory: Bytes, ram: int) -> int:
    """Return the number of connections in the ring."""
    waiting = get(memory, ram + READY_FILLED) - get(memory, ram + READY_TAKEN)
    return max(0, min(waiting, MAX_CONNECTIONS))


@inlined
def _ready_slot(ram: int, place: int) -> int:
    return ram + READY_AT + 8 * (place & (MAX_CONNECTIONS - 1))


@inlined
def make_ready(memory: Bytes, bitmap: Words, ram: int, block: int, due: int) -> int:
    """Put a connection into the ring, due at that time (guest ms), if it is not in it yet."""
    flags = get(memory, block + FLAGS)
    if not flags & QUEUED:
        put(memory, bitmap, block + FLAGS, flags | QUEUED)
        put(memory, bitmap, block + DUE, due)
        filled = get(memory, ram + READY_FILLED)
        number = number_of_block(ram, block)
        put(memory, bitmap, _ready_slot(ram, filled), number)
        put(memory, bitmap, ram + READY_FILLED, filled + 1)
    return 0


@inlined
def due_time(memory: Bytes, block: int, host: Words) -> int:
    """Compute the time at which a connection is to be served, in guest milliseconds.

    Received data may be delayed by up to the jitter. A fraction of a millisecond is rounded up or
    down at random, so that the mean is right.
    """
    due = np.int64(host[NOW_MS])
    waits = get(memory, block + RECEIVED_BEGIN) != get(memory, block + RECEIVED_END)
    if waits and host[JITTER_US] != np.uint64(0):
        due += (draw(host, np.int64(host[JITTER_US]) + 1) + draw(host, 1000)) // 1000
    return due


@inlined
def take_ready(
    memory: Bytes, bitmap: Words, ram: int, size: int, host: Words, shuffled: bool
) -> int:
    """Take the connection that waits longest, or a random one, from the ring, not empty.

    Returns its block, or 0 if the connection is not due yet and stays.
    """
    taken = get(memory, ram + READY_TAKEN)
    place = taken
    if shuffled:
        place += draw(host, max(1, ready_count(memory, ram)))
    number = get(memory, _ready_slot(ram, place))
    if place != taken:
        put(memory, bitmap, _ready_slot(ram, place), get(memory, _ready_slot(ram, taken)))
    put(memory, bitmap, ram + READY_TAKEN, taken + 1)
    block = block_at(ram, size, number)
    if block != 0 and get(memory, block + STATE) == CLOSED:
        put(memory, bitmap, block + FLAGS, get(memory, block + FLAGS) & ~QUEUED)
        return 0
    block = connection_at(memory, bitmap, ram, size, number)
    if block != 0:
        flags = get(memory, block + FLAGS) & ~QUEUED
        put(memory, bitmap, block + FLAGS, flags)
        wait = get(memory, block + DUE) - np.int64(host[NOW_MS])
        if 0 < wait <= LONGEST_WAIT_MS:
            make_ready(memory, bitmap, ram, block, get(memory, block + DUE))
            return 0
    return block


@inlined
def has_bug(host: Words, bug: int) -> bool:
    """Say whether a bug is planted."""
    return np.int64(host[BUGS]) & bug != 0
