"""The guest's TCP (RFC 9293, passive open), and `serve`, the whole of its network stack.

Port 7 echoes (RFC 862), port 6379 is the key-value server. All state is in guest RAM, so a machine
with a copy of it continues every connection, exact to the byte. Timers count guest time, which
stops with the guest.

It lacks active open, congestion control, the sender's silly window avoidance, round-trip times,
fast retransmission, window scaling, selective acknowledgments, timestamps, urgent data and
keep-alives. Data out of order are dropped, and the peer sends them again.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import kv
from colobench.guest.append_only_file import (
    ACTIVE,
    ALWAYS,
    APPENDED,
    FLUSHED,
    POLICY,
    RELEASE,
    STATUS,
    is_logging,
    log_of,
)
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.bugs import DOUBLE_EXECUTION, LOST_RETRANSMISSION
from colobench.guest.clients import SLOT_BYTES, has_work
from colobench.guest.connections import (
    ACK_NOW,
    CLOSE_WAIT,
    CLOSED,
    DEADLINE,
    ESTABLISHED,
    FIN_WAIT_2,
    FLAGS,
    HELD,
    HELD_UNTIL,
    KEY,
    LEAVING,
    LONGEST_TIMER_MS,
    MSS,
    PEER_CLOSED,
    RCV_WND,
    RECEIVED_BEGIN,
    RECEIVED_END,
    REPLY_BEGIN,
    REPLY_END,
    RETRIES,
    SND_MAX,
    SND_UNA,
    STATE,
    SYN_RECEIVED,
    TIME_WAIT,
    block_at,
    connection_at,
    draw,
    has_buffers,
    has_bug,
    initialize_table,
    make_ready,
    number_of_block,
    ready_count,
    receive_buffer,
    remove,
    set_timer,
    take_ready,
)
from colobench.guest.frame_queue import NIC_FRAME_SIZE
from colobench.guest.ipv4 import (
    BROADCAST,
    ETHERNET_HEADER,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    GUEST_MAC,
    ICMP,
    TCP,
    check_ipv4,
    number,
    receive_arp,
    receive_icmp,
)
from colobench.guest.repair import check_rings, repair
from colobench.guest.rings import (
    ADDRESS,
    BUGS,
    CLOSE,
    CLOSED_ORDERLY,
    CONSUMED,
    CONTRADICTED,
    EXECUTE,
    FRAME_ROOM,
    FRAMES_RECEIVED,
    GIVEN_UP,
    JITTER_US,
    LACKS_ROOM,
    MALFORMED,
    MINIMUM_BYTES,
    NEXT_DEADLINE,
    NOW_MS,
    NOW_US,
    OPENED,
    PROTOCOL,
    RANDOM,
    REQUESTS,
    RESET,
    RETRANSMISSIONS,
    RING_FRAMES,
    RX_FRAMES,
    RX_LENGTHS,
    RX_TAKEN,
    WRITTEN,
    clients_begin,
    clients_bytes,
    connections_in,
    count,
    get,
    put,
    receive_frames,
    receive_room,
    store_begin,
    transmit_frames,
    transmit_room,
)
from colobench.guest.store import copy_bytes, move_down
from colobench.guest.tcp_input import ECHO_PORT, receive_segment
from colobench.guest.tcp_output import (
    free_room,
    has_unacknowledged,
    output,
    send_again,
    send_syn,
    timeout,
)
from colobench.kernels.atomics import load_acquire
from colobench.kernels.jit import Bytes, Words, by_address, inlined, kernel

#: Number of unanswered retransmissions after which a connection is given up: 0.2 s * (2**9 - 1) =
#: 102 s (RFC 9293, section 3.8.3, requires at least 100 s); in SYN-RECEIVED 12.6 s.
RETRIES_MAX, SYN_RETRIES_MAX = 8, 5
#: Bytes by which the receive window must grow before the peer is told.
WINDOW_STEP = 2 * MSS
#: Limit of the frames that one call of `serve` takes in.
FRAMES_PER_CALL = RING_FRAMES
JITTER_MAX_US = 1_000_000
_call_execute = by_address(kv.execute)


@inlined
def receive_frame(
    memory: Bytes, bitmap: Words, ram: int, size: int, frame: int, length: int, host: Words
) -> int:
    """Take in a frame of `length` bytes; return the counter of a drop, or 0."""
    if length < ETHERNET_HEADER or length > NIC_FRAME_SIZE:
        return MALFORMED
    destination, ethertype = number(memory, frame, 6), number(memory, frame + 12, 2)
    if ethertype == ETHERTYPE_ARP and destination in (GUEST_MAC, BROADCAST):
        return receive_arp(memory, bitmap, ram, frame, length)
    if destination != GUEST_MAC:
        return ADDRESS
    if ethertype != ETHERTYPE_IPV4:
        return PROTOCOL
    reason = check_ipv4(memory, frame, length)
    if reason != 0:
        return reason
    header = (np.int64(memory[frame + 14]) & 15) * 4
    body, protocol = number(memory, frame + 16, 2) - header, memory[frame + 23]
    if protocol == ICMP:
        return receive_icmp(memory, bitmap, ram, frame, header, body)
    if protocol == TCP:
        at = frame + ETHERNET_HEADER + header
        return receive_segment(memory, bitmap, ram, size, frame, at, body, host)
    return PROTOCOL


@inlined
def take_frame(memory: Bytes, bitmap: Words, ram: int, size: int, host: Words) -> int:
    """Take the next frame out of the receive ring, which must not be empty."""
    taken = get(memory, ram + RX_TAKEN)
    slot = taken & (RING_FRAMES - 1)
    length = get(memory, ram + RX_LENGTHS + 8 * slot)
    frame = ram + RX_FRAMES + slot * FRAME_ROOM
    count(memory, bitmap, ram, FRAMES_RECEIVED, 1)
    reason = receive_frame(memory, bitmap, ram, size, frame, length, host)
    if reason != 0:
        count(memory, bitmap, ram, reason, 1)
    return put(memory, bitmap, ram + RX_TAKEN, taken + 1)


@inlined
def echo(
    memory: Bytes, bitmap: Words, begin: int, end: int, out: int, out_end: int, host: Words
) -> int:
    """Send back what was received (RFC 862); the interface is that of `kv.execute`."""
    length = min(end - begin, out_end - out)
    copy_bytes(memory, bitmap, out, begin, length)
    host[CONSUMED] = host[WRITTEN] = np.uint64(length)
    host[CLOSE] = np.uint64(0)
    host[LACKS_ROOM] = np.uint64(length < end - begin)
    return 1


@inlined
def connected(memory: Bytes, ram: int) -> int:
    """Return the number of connections."""
    gone = (
        get(memory, ram + CLOSED_ORDERLY)
        + get(memory, ram + RESET)
        + get(memory, ram + GIVEN_UP)
        + get(memory, ram + CONTRADICTED)
    )
    return get(memory, ram + OPENED) - gone


@inlined
def execute_once(memory: Bytes, bitmap: Words, ram: int, size: int, block: int, host: Words) -> int:
    """Let a connection's service execute received requests; return their number."""
    begin, end = get(memory, block + RECEIVED_BEGIN), get(memory, block + RECEIVED_END)
    reply_end = get(memory, block + REPLY_END)
    received = receive_buffer(ram, block)
    replies = received + BUFFER_BYTES
    store = store_begin(ram, size)
    if get(memory, block + KEY) & 0xFFFF == ECHO_PORT:
        requests = echo(
            memory, bitmap, received + begin, received + end, replies + reply_end,
            replies + BUFFER_BYTES, host,
        )  # fmt: skip
    else:
        requests = _call_execute(
            host[EXECUTE], memory, bitmap, store, ram + size - store, clients_begin(ram, size),
            clients_bytes(size), number_of_block(ram, block), received + begin, received + end,
            replies + reply_end, replies + BUFFER_BYTES, host[NOW_US], connected(memory, ram),
            get(memory, ram + OPENED), host,
        )  # fmt: skip
    begin = min(begin + max(0, np.int64(host[CONSUMED])), end)
    reply_end = min(reply_end + max(0, np.int64(host[WRITTEN])), BUFFER_BYTES)
    put(memory, bitmap, block + RECEIVED_BEGIN, 0 if begin == end else begin)
    put(memory, bitmap, block + RECEIVED_END, 0 if begin == end else end)
    put(memory, bitmap, block + REPLY_END, reply_end)
    return requests


@inlined
def has_rest(memory: Bytes, ram: int, size: int, block: int) -> bool:
    """Say whether a connection's service has work to do without new data."""
    if get(memory, block + KEY) & 0xFFFF == ECHO_PORT:
        return False
    return has_work(memory, clients_begin(ram, size) + number_of_block(ram, block) * SLOT_BYTES)


@inlined
def move_replies(memory: Bytes, bitmap: Words, ram: int, block: int) -> int:
    """Move unsent replies to the beginning of the send buffer."""
    begin, end = get(memory, block + REPLY_BEGIN), get(memory, block + REPLY_END)
    replies = receive_buffer(ram, block) + BUFFER_BYTES
    move_down(memory, bitmap, replies, replies + begin, end - begin)
    put(memory, bitmap, block + REPLY_BEGIN, 0)
    return put(memory, bitmap, block + REPLY_END, end - begin)


@inlined
def execute(memory: Bytes, bitmap: Words, ram: int, size: int, block: int, host: Words) -> int:
    """Execute all complete requests whose replies have room, and close after the last one.

    Returns the number of requests. The last one is a request that ends the connection, or the last
    one before the peer's FIN. A request that fills the receive buffer, and that the service cannot
    take, will never be complete.
    """
    requests, lacks_room, close = 0, False, False
    for _ in range(2):
        waiting = get(memory, block + RECEIVED_END) - get(memory, block + RECEIVED_BEGIN)
        begin = get(memory, block + REPLY_BEGIN)
        rest = waiting > 0 or has_rest(memory, ram, size, block)
        if not rest or (lacks_room and begin == 0):
            break
        if lacks_room or BUFFER_BYTES - get(memory, block + REPLY_END) < begin:
            move_replies(memory, bitmap, ram, block)
        requests += execute_once(memory, bitmap, ram, size, block, host)
        lacks_room = host[LACKS_ROOM] != np.uint64(0)
        stuck = waiting == BUFFER_BYTES and host[CONSUMED] == np.uint64(0)
        close = host[CLOSE] != np.uint64(0) or (stuck and not lacks_room)
        if close or not lacks_room:
            break
    flags = get(memory, block + FLAGS)
    if close or (flags & PEER_CLOSED and not lacks_room):
        put(memory, bitmap, block + FLAGS, flags | LEAVING)
        put(memory, bitmap, block + RECEIVED_BEGIN, 0)
        put(memory, bitmap, block + RECEIVED_END, 0)
    if requests > 0:
        count(memory, bitmap, ram, REQUESTS, requests)
    return requests


@inlined
def waits_for_flush(memory: Bytes, log: int) -> bool:
    """Say whether replies are held until the append-only file is flushed (appendfsync always)."""
    return (
        is_logging(memory, log)
        and get(memory, log + ACTIVE) != 0
        and get(memory, log + POLICY) == ALWAYS
        and get(memory, log + APPENDED) > get(memory, log + FLUSHED)
    )


@inlined
def execute_and_hold(
    memory: Bytes, bitmap: Words, ram: int, size: int, block: int, host: Words
) -> int:
    """Execute a connection's requests like `execute`; replies that await a flush are held.

    Answers to reads await it, too, because they may show what is not flushed yet. Only after an
    error, when the store takes no writes, they do not.
    """
    log = log_of(memory, store_begin(ram, size))
    if log < 0 or get(memory, block + KEY) & 0xFFFF == ECHO_PORT:
        return execute(memory, bitmap, ram, size, block, host)
    if get(memory, block + HELD) != 0:
        return 0
    before = get(memory, block + REPLY_END) - get(memory, block + REPLY_BEGIN)
    appended = get(memory, log + APPENDED)
    requests = execute(memory, bitmap, ram, size, block, host)
    new = get(memory, block + REPLY_END) - get(memory, block + REPLY_BEGIN) - before
    wrote = get(memory, log + APPENDED) != appended
    if new > 0 and waits_for_flush(memory, log) and (wrote or get(memory, log + STATUS) == 0):
        put(memory, bitmap, block + HELD, new)
        put(memory, bitmap, block + HELD_UNTIL, get(memory, log + APPENDED))
    return requests


@inlined
def release_held(memory: Bytes, bitmap: Words, ram: int, size: int, host: Words) -> int:
    """Serve the connections again that have waited for the append-only file, if it has gone on."""
    log = log_of(memory, store_begin(ram, size))
    if log < 0 or get(memory, log + RELEASE) == 0:
        return 0
    put(memory, bitmap, log + RELEASE, 0)
    waits, flushed = waits_for_flush(memory, log), get(memory, log + FLUSHED)
    for number_of in range(connections_in(size)):
        block = block_at(ram, size, number_of)
        if get(memory, block + STATE) == CLOSED:
            continue
        held = get(memory, block + HELD)
        if held != 0 and (not waits or get(memory, block + HELD_UNTIL) <= flushed):
            held = put(memory, bitmap, block + HELD, 0)
            make_ready(memory, bitmap, ram, block, np.int64(host[NOW_MS]))
        waiting = get(memory, block + RECEIVED_END) != get(memory, block + RECEIVED_BEGIN)
        if held == 0 and (waiting or has_rest(memory, ram, size, block)):
            make_ready(memory, bitmap, ram, block, np.int64(host[NOW_MS]))
    return 0


@inlined
def attend(memory: Bytes, bitmap: Words, ram: int, size: int, block: int, host: Words) -> int:
    """Execute a connection's requests and send its replies; return the number of requests."""
    state, requests = get(memory, block + STATE), 0
    if state == CLOSED:
        return 0
    if state in (ESTABLISHED, CLOSE_WAIT) and not (get(memory, block + FLAGS) & LEAVING):
        requests = execute_and_hold(memory, bitmap, ram, size, block, host)
    known = get(memory, block + RCV_WND)
    more = free_room(memory, block) - known
    flags = get(memory, block + FLAGS)
    if flags & PEER_CLOSED == 0 and (more >= WINDOW_STEP or (known == 0 and more > 0)):
        put(memory, bitmap, block + FLAGS, flags | ACK_NOW)
    output(memory, bitmap, ram, block, host)
    return requests


@inlined
def attend_ready(
    memory: Bytes, bitmap: Words, ram: int, size: int, host: Words, shuffled: bool
) -> int:
    """Serve ready connections until the transmit ring is full; return the number of requests."""
    requests = 0
    for _ in range(ready_count(memory, ram)):
        if transmit_room(memory, ram) <= 0:
            break
        block = take_ready(memory, bitmap, ram, size, host, shuffled)
        if block != 0:
            requests += attend(memory, bitmap, ram, size, block, host)
    return requests


@inlined
def expire(memory: Bytes, bitmap: Words, ram: int, size: int, block: int, host: Words) -> int:
    """Handle the end of a timer: resend, or remove the connection; needs room in the ring."""
    state, retries = get(memory, block + STATE), get(memory, block + RETRIES)
    in_flight = get(memory, block + SND_UNA) != get(memory, block + SND_MAX)
    put(memory, bitmap, block + DEADLINE, 0)
    if state in (TIME_WAIT, FIN_WAIT_2):
        return remove(memory, bitmap, ram, size, block, CLOSED_ORDERLY)
    if state == CLOSED or not has_unacknowledged(memory, block):
        return 0
    if retries >= (SYN_RETRIES_MAX if state == SYN_RECEIVED else RETRIES_MAX):
        return remove(memory, bitmap, ram, size, block, GIVEN_UP)
    if not (in_flight and has_bug(host, LOST_RETRANSMISSION)):
        put(memory, bitmap, block + RETRIES, retries + 1)
        if in_flight:
            count(memory, bitmap, ram, RETRANSMISSIONS, 1)
        if state == SYN_RECEIVED:
            send_syn(memory, bitmap, ram, block)
        else:
            send_again(memory, bitmap, ram, block)
    return set_timer(memory, bitmap, ram, block, host, timeout(memory, block))


@inlined
def scan_timers(memory: Bytes, bitmap: Words, ram: int, size: int, host: Words) -> int:
    """Handle all timers that have ended, if one can have, and find the next one to end."""
    now, soonest = np.int64(host[NOW_MS]), get(memory, ram + NEXT_DEADLINE)
    if soonest == 0 or now < soonest <= now + LONGEST_TIMER_MS:
        return 0
    soonest = 0
    for number_of in range(connections_in(size)):
        block = block_at(ram, size, number_of)
        deadline = get(memory, block + DEADLINE)
        if get(memory, block + STATE) == CLOSED or deadline == 0:
            continue
        if connection_at(memory, bitmap, ram, size, number_of) == 0:
            continue
        if not now < deadline <= now + LONGEST_TIMER_MS:
            if transmit_room(memory, ram) > 0:
                expire(memory, bitmap, ram, size, block, host)
                deadline = get(memory, block + DEADLINE)
            else:
                deadline = now + 1
        if deadline > 0 and (soonest == 0 or deadline < soonest):
            soonest = deadline
    return put(memory, bitmap, ram + NEXT_DEADLINE, soonest)


@inlined
def execute_again(memory: Bytes, bitmap: Words, ram: int, size: int, host: Words) -> int:
    """Execute the bytes at the beginning of receive buffers again (DOUBLE_EXECUTION)."""
    for number_of in range(connections_in(size)):
        block = block_at(ram, size, number_of)
        if get(memory, block + KEY) & 0xFFFF == ECHO_PORT or not has_buffers(memory, block):
            continue
        received = receive_buffer(ram, block)
        replies = received + BUFFER_BYTES
        store = store_begin(ram, size)
        _call_execute(
            host[EXECUTE], memory, bitmap, store, ram + size - store, clients_begin(ram, size),
            clients_bytes(size), number_of, received, replies,
            replies + get(memory, block + REPLY_END), replies + BUFFER_BYTES, host[NOW_US],
            connected(memory, ram), get(memory, ram + OPENED), host,
        )  # fmt: skip
    return 0


@kernel("i8(u1[::1], u8[::1], i8, i8)")
def initialize(memory: Bytes, bitmap: Words, ram: int, size: int) -> int:
    """Make a network stack and an empty store; return the number of connections it can have.

    Parameters
    ----------
    memory
        uint8[bytes], all of RAM.
    bitmap
        uint64[pages / 64], in which written pages are marked, or empty.
    ram, size
        Address and length of pc.ram in bytes, multiples of 4096. If the length is less than
        MINIMUM_BYTES, nothing is done and 0 is returned.
    """
    if size < MINIMUM_BYTES:
        return 0
    store = store_begin(ram, size)
    kv.initialize_clients(memory, bitmap, clients_begin(ram, size), clients_bytes(size))
    kv.initialize(memory, bitmap, store, ram + size - store)
    return initialize_table(memory, bitmap, ram, size)


@kernel(
    "i8(u1[::1], u8[::1], i8, i8, u8[::1], u8[::1], u1[::1], u8[::1], u8[::1], u1[::1],"
    " u8, u8, u8, u8, u8, u8, u8[::1])"
)
def serve(
    memory: Bytes,
    bitmap: Words,
    ram: int,
    size: int,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    now_ms: np.uint64,
    now_us: np.uint64,
    random: np.uint64,
    jitter: np.uint64,
    shuffle: np.uint64,
    bugs: np.uint64,
    host: Words,
) -> int:
    """Take in received frames, answer them, and handle timers; return the number of requests.

    Without jitter and shuffle, each frame is handled completely before the next one. So the bytes
    of all connections are a function of the sequence of frames, except for the initial sequence
    numbers. A call takes in at most FRAMES_PER_CALL frames.

    Parameters
    ----------
    memory, bitmap, ram, size
        As in `initialize`.
    in_ends, in_lengths, in_frames, out_ends, out_lengths, out_frames
        The NIC's receive and transmit queues, as in `colobench.guest.frame_queue.FrameQueue`.
    now_ms
        Guest time in milliseconds.
    now_us
        The host's clock in microseconds, for the key-value server.
    random
        Fresh random bits, for initial sequence numbers (RFC 6528), jitter and shuffle.
    jitter
        Limit of the random delay of service, µs; 0 to JITTER_MAX_US.
    shuffle
        Number of calls in 1000 in which the connections are served in random order.
    bugs
        Bits of the planted bugs, see LOST_RETRANSMISSION and DOUBLE_EXECUTION.
    host
        uint64[HOST_SLOTS], scratch, but for the word EXECUTE, the address of `kv.execute`; without
        it no request is executed. Afterwards it holds: [0] frames taken in; [1] frames put out;
        [2] 1 if a further call has something to do at once.
    """
    if size < MINIMUM_BYTES:
        return 0
    host[RANDOM], host[NOW_MS], host[NOW_US], host[BUGS] = random, now_ms, now_us, bugs
    host[JITTER_US] = min(jitter, np.uint64(JITTER_MAX_US))
    shuffled = shuffle > np.uint64(0) and draw(host, 1000) < np.int64(shuffle)
    in_order = not shuffled and jitter == np.uint64(0)
    if has_bug(host, DOUBLE_EXECUTION):
        execute_again(memory, bitmap, ram, size, host)
    requests, received, sent = 0, 0, 0
    check_rings(memory, bitmap, ram)
    release_held(memory, bitmap, ram, size, host)
    for _ in range(FRAMES_PER_CALL):
        received += receive_frames(memory, bitmap, ram, in_ends, in_lengths, in_frames)
        if not shuffled:
            requests += attend_ready(memory, bitmap, ram, size, host, False)
        sent += transmit_frames(memory, bitmap, ram, out_ends, out_lengths, out_frames)
        if transmit_room(memory, ram) <= 0:
            break
        if in_order and ready_count(memory, ram) > 0:
            continue
        if receive_room(memory, ram) >= RING_FRAMES:
            break
        take_frame(memory, bitmap, ram, size, host)
    requests += attend_ready(memory, bitmap, ram, size, host, shuffled)
    scan_timers(memory, bitmap, ram, size, host)
    repair(memory, bitmap, ram, size, host)
    store = store_begin(ram, size)
    kv.sweep_expired(memory, bitmap, store, ram + size - store, now_us, np.int64(now_ms))
    sent += transmit_frames(memory, bitmap, ram, out_ends, out_lengths, out_frames)
    waits = receive_room(memory, ram) < RING_FRAMES or load_acquire(in_ends, 1) != in_ends[0]
    waits = waits or (jitter == np.uint64(0) and ready_count(memory, ram) > 0)
    host[0], host[1] = np.uint64(received), np.uint64(sent)
    host[2] = np.uint64(waits and transmit_room(memory, ram) > 0)
    return requests
