"""Repair of rings and connections in guest RAM that contradict themselves.

A ring with impossible counters is emptied: its frames are lost, as on any network, and TCP sends
them again. The table of connections is rebuilt from the sound ones. The others are removed, and
their peers are sent a segment; their answers belong to no connection, so they are reset.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.connections import (
    CLOSED,
    FLAGS,
    QUEUED,
    STATE,
    block_at,
    forget_peer,
    is_sound,
    make_ready,
    note_damage,
    put_into_chain,
    put_into_free_list,
)
from colobench.guest.rings import (
    BLOCK_BYTES,
    BUCKETS,
    BUCKETS_AT,
    CONTRADICTED,
    DAMAGED,
    FREE,
    MAX_CONNECTIONS,
    NEXT_DEADLINE,
    NOW_MS,
    READY_FILLED,
    READY_TAKEN,
    RING_FRAMES,
    RX_FILLED,
    RX_TAKEN,
    TX_FILLED,
    TX_TAKEN,
    connections_in,
    count,
    get,
    put,
    transmit_room,
)
from colobench.guest.store import clear_bytes
from colobench.guest.tcp_output import ask_for_numbers
from colobench.kernels.jit import Bytes, Words, inlined


@inlined
def holds(memory: Bytes, ram: int, taken: int, filled: int, most: int) -> bool:
    """Say whether a ring's counters, given by their offsets, mean 0 to `most` entries."""
    return 0 <= get(memory, ram + filled) - get(memory, ram + taken) <= most


@inlined
def check_rings(memory: Bytes, bitmap: Words, ram: int) -> int:
    """Empty the rings of frames that have impossible counters."""
    if not holds(memory, ram, RX_TAKEN, RX_FILLED, RING_FRAMES):
        put(memory, bitmap, ram + RX_TAKEN, get(memory, ram + RX_FILLED))
    if not holds(memory, ram, TX_TAKEN, TX_FILLED, RING_FRAMES):
        put(memory, bitmap, ram + TX_TAKEN, get(memory, ram + TX_FILLED))
    if not holds(memory, ram, READY_TAKEN, READY_FILLED, MAX_CONNECTIONS):
        note_damage(memory, bitmap, ram)
    return 0


@inlined
def repair(memory: Bytes, bitmap: Words, ram: int, size: int, host: Words) -> bool:
    """Rebuild the table of connections if damage was noted; say whether it was."""
    if get(memory, ram + DAMAGED) == 0:
        return False
    now = np.int64(host[NOW_MS])
    clear_bytes(memory, bitmap, ram + BUCKETS_AT, 8 * BUCKETS)
    for word in (DAMAGED, FREE, READY_TAKEN, READY_FILLED):
        put(memory, bitmap, ram + word, 0)
    # This makes the stack check all timers.
    put(memory, bitmap, ram + NEXT_DEADLINE, now)
    for number in range(connections_in(size)):
        block = block_at(ram, size, number)
        state = get(memory, block + STATE)
        if state != CLOSED and is_sound(memory, block):
            put(memory, bitmap, block + FLAGS, get(memory, block + FLAGS) & ~QUEUED)
            put_into_chain(memory, bitmap, ram, block)
            make_ready(memory, bitmap, ram, block, now)
            continue
        if state != CLOSED:
            count(memory, bitmap, ram, CONTRADICTED, 1)
            if transmit_room(memory, ram) > 0:
                ask_for_numbers(memory, bitmap, ram, block)
        forget_peer(memory, bitmap, ram, size, number)
        clear_bytes(memory, bitmap, block, BLOCK_BYTES)
        put_into_free_list(memory, bitmap, ram, block)
    return True
