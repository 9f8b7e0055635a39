"""Layout of pc.ram for the network stack, and the rings of frames in it.

=========  =======  ==============================================================================
offset     bytes
=========  =======  ==============================================================================
0          4 KiB    superblock: the words and counters below, then lengths of the rings' frames
4 KiB      8 KiB    heads of the hash table of connections
12 KiB     8 KiB    ring of the connections that are to be served
20 KiB     128 KiB  receive ring: 64 frames
148 KiB    128 KiB  transmit ring: 64 frames
276 KiB    256 KiB  connection blocks, see `colobench.guest.connections`
532 KiB             64 KiB for each connection: its receive buffer, its send buffer
then                32 KiB for each connection: the clients' area, see `colobench.guest.clients`
then                the key-value store, in all the rest
=========  =======  ==============================================================================

All places follow from the address and the size of pc.ram. A word read from RAM is checked or
limited before it is used as an address: a guest may be broken (a torn checkpoint, a planted bug),
but it must not write outside of its RAM. All numbers are int64; unsigned words of RAM keep their
bits.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.clients import BYTES_PER_CLIENT
from colobench.guest.frame_queue import NIC_FRAME_SIZE
from colobench.guest.store import get_word, keep_bytes, mark_bytes, put_word
from colobench.kernels.atomics import address, load_acquire, store_release
from colobench.kernels.jit import Bytes, Words, inlined
from colobench.kernels.raw import copy

#: Words of the superblock, as offsets. A ring has two counters: entries taken out, entries put in.
#: DAMAGED is 1 if the table of connections is to be rebuilt.
(
    RX_TAKEN, RX_FILLED, TX_TAKEN, TX_FILLED, READY_TAKEN, READY_FILLED, FREE, NEXT_DEADLINE,
    DAMAGED,
) = range(0, 72, 8)  # fmt: skip
#: Offset of the superblock's counters, which are in the order of their words.
COUNTERS_AT = 256
COUNTERS = (
    "frames_received",
    "frames_sent",
    "dropped_malformed",
    "dropped_checksum",
    "dropped_fragment",
    "dropped_address",
    "dropped_protocol",
    "dropped_unexpected",
    "segments_out_of_order",
    "segments_unacceptable",
    "connections_opened",
    "connections_closed",
    "connections_refused",
    "connections_reset",
    "connections_given_up",
    "connections_damaged",
    "resets_sent",
    "retransmissions",
    "window_probes",
    "requests",
)
(
    FRAMES_RECEIVED, FRAMES_SENT,
    MALFORMED, CHECKSUM, FRAGMENT, ADDRESS, PROTOCOL, UNEXPECTED,
    OUT_OF_ORDER, UNACCEPTABLE,
    OPENED, CLOSED_ORDERLY, REFUSED, RESET, GIVEN_UP, CONTRADICTED,
    RESETS_SENT, RETRANSMISSIONS, WINDOW_PROBES, REQUESTS,
) = range(COUNTERS_AT, COUNTERS_AT + 8 * len(COUNTERS), 8)  # fmt: skip
RX_LENGTHS, TX_LENGTHS = 1024, 2048

RING_FRAMES, FRAME_ROOM = 64, 2048
#: Limit of the number of connections, in any RAM; number of heads in the hash table.
MAX_CONNECTIONS, BUCKETS = 1024, 1024
BLOCK_BYTES = 256
BUCKETS_AT = 4096
READY_AT = BUCKETS_AT + 8 * BUCKETS
RX_FRAMES = READY_AT + 8 * MAX_CONNECTIONS
TX_FRAMES = RX_FRAMES + RING_FRAMES * FRAME_ROOM
BLOCKS_AT = TX_FRAMES + RING_FRAMES * FRAME_ROOM
BUFFERS_AT = BLOCKS_AT + MAX_CONNECTIONS * BLOCK_BYTES
#: Bytes of RAM for each connection; its buffers are a quarter of that.
BYTES_PER_CONNECTION = 4 * 2 * BUFFER_BYTES
#: Least size of pc.ram with which the stack works, bytes.
MINIMUM_BYTES = 1 << 20

# Slots of `host`: words of the host that are not part of the guest's state.
# EXECUTE is the address of the kernel `colobench.guest.kv.execute`.
(
    CONSUMED, WRITTEN, CLOSE, LACKS_ROOM, RANDOM, NOW_MS, NOW_US, BUGS, JITTER_US, EXECUTE,
) = range(10)  # fmt: skip
HOST_SLOTS = 16

_ETHERNET_HEADER = 14


@inlined
def get(memory: Bytes, at: int) -> int:
    """Read a word of RAM."""
    return np.int64(get_word(memory, at))


@inlined
def put(memory: Bytes, bitmap: Words, at: int, value: int) -> int:
    """Write a word of RAM."""
    return put_word(memory, bitmap, at, np.uint64(value))


@inlined
def count(memory: Bytes, bitmap: Words, ram: int, counter: int, more: int) -> int:
    """Add to a counter of the superblock."""
    return put(memory, bitmap, ram + counter, get(memory, ram + counter) + more)


@inlined
def connections_in(size: int) -> int:
    """Return the number of connections for which pc.ram of that size has room."""
    return min(MAX_CONNECTIONS, size // BYTES_PER_CONNECTION)


@inlined
def clients_begin(ram: int, size: int) -> int:
    """Return the address of the clients' area."""
    return ram + BUFFERS_AT + connections_in(size) * 2 * BUFFER_BYTES


@inlined
def clients_bytes(size: int) -> int:
    """Return the length of the clients' area, bytes."""
    return connections_in(size) * BYTES_PER_CLIENT


@inlined
def store_begin(ram: int, size: int) -> int:
    """Return the address of the key-value store, which extends to the end of pc.ram."""
    return clients_begin(ram, size) + clients_bytes(size)


@inlined
def receive_room(memory: Bytes, ram: int) -> int:
    """Return the number of frames that have room in the receive ring."""
    return RING_FRAMES - (get(memory, ram + RX_FILLED) - get(memory, ram + RX_TAKEN))


@inlined
def transmit_room(memory: Bytes, ram: int) -> int:
    """Return the number of frames that have room in the transmit ring."""
    return RING_FRAMES - (get(memory, ram + TX_FILLED) - get(memory, ram + TX_TAKEN))


@inlined
def receive_frames(
    memory: Bytes, bitmap: Words, ram: int, ends: Words, lengths: Words, frames: Bytes
) -> int:
    """Move frames from the device's receive queue into the ring; return their number.

    ends, lengths and frames are `colobench.guest.frame_queue.FrameQueue`'s.
    """
    moved = 0
    room = min(receive_room(memory, ram), RING_FRAMES)
    while moved < room and load_acquire(ends, 1) != ends[0]:
        source = np.int64(ends[0] % np.uint64(len(lengths)))
        length = min(np.int64(lengths[source]), NIC_FRAME_SIZE)
        filled = get(memory, ram + RX_FILLED)
        slot = filled & (RING_FRAMES - 1)
        if length > 0:
            to = ram + RX_FRAMES + slot * FRAME_ROOM
            begin = np.int64(address(frames)) + source * NIC_FRAME_SIZE
            keep_bytes(memory, bitmap, to, length)
            copy(np.int64(address(memory)) + to, begin, np.int64(length))
            mark_bytes(bitmap, to, length)
        put(memory, bitmap, ram + RX_LENGTHS + 8 * slot, length)
        put(memory, bitmap, ram + RX_FILLED, filled + 1)
        store_release(ends, 0, ends[0] + np.uint64(1))
        moved += 1
    return moved


@inlined
def transmit_frames(
    memory: Bytes, bitmap: Words, ram: int, ends: Words, lengths: Words, frames: Bytes
) -> int:
    """Move frames from the ring into the device's transmit queue; return their number."""
    moved = 0
    for _ in range(RING_FRAMES):
        taken = get(memory, ram + TX_TAKEN)
        room = len(lengths) - np.int64(ends[1] - load_acquire(ends, 0))
        if transmit_room(memory, ram) >= RING_FRAMES or room <= 0:
            break
        slot = taken & (RING_FRAMES - 1)
        length = get(memory, ram + TX_LENGTHS + 8 * slot)
        put(memory, bitmap, ram + TX_TAKEN, taken + 1)
        if _ETHERNET_HEADER <= length <= NIC_FRAME_SIZE:
            to = np.int64(ends[1] % np.uint64(len(lengths)))
            source = np.int64(address(memory)) + ram + TX_FRAMES + slot * FRAME_ROOM
            copy(np.int64(address(frames)) + to * NIC_FRAME_SIZE, source, length)
            lengths[to] = np.uint64(length)
            store_release(ends, 1, ends[1] + np.uint64(1))
            moved += 1
    return moved


@inlined
def next_frame(memory: Bytes, ram: int) -> int:
    """Return the address for the stack's next frame; the ring must have room."""
    slot = get(memory, ram + TX_FILLED) & (RING_FRAMES - 1)
    return ram + TX_FRAMES + slot * FRAME_ROOM


@inlined
def send_frame(memory: Bytes, bitmap: Words, ram: int, length: int) -> int:
    """Hand over the frame at `next_frame`."""
    filled = get(memory, ram + TX_FILLED)
    put(memory, bitmap, ram + TX_LENGTHS + 8 * (filled & (RING_FRAMES - 1)), length)
    put(memory, bitmap, ram + TX_FILLED, filled + 1)
    return count(memory, bitmap, ram, FRAMES_SENT, 1)


def counters(memory: Bytes, ram: int) -> dict[str, int]:
    """Read the counters of a stack whose pc.ram begins at byte `ram` of `memory`."""
    words = memory[ram + COUNTERS_AT :][: 8 * len(COUNTERS)].view(np.uint64)
    return dict(zip(COUNTERS, map(int, words), strict=True))
