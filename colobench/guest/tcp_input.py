"""Handling of received TCP segments: "SEGMENT ARRIVES" (RFC 9293, section 3.10.7)."""

from __future__ import annotations

import numpy as np

from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.connections import (
    ACK_NOW,
    CHALLENGED,
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    DEADLINE,
    DUE,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    FLAGS,
    IRS,
    KEY,
    LAST_ACK,
    LEAVING,
    MAC,
    PEER_CLOSED,
    RCV_NXT,
    RCV_WND,
    RECEIVED_BEGIN,
    RECEIVED_END,
    REPLY_BEGIN,
    REPLY_END,
    RETRIES,
    SEQUENCE,
    SND_MAX,
    SND_MSS,
    SND_NXT,
    SND_UNA,
    SND_WL1,
    SND_WL2,
    SND_WND,
    STATE,
    SYN_RECEIVED,
    TCP_HEADER,
    TIME_WAIT,
    add,
    block_at,
    due_time,
    find,
    is_sound,
    make_ready,
    mix,
    number_of_block,
    receive_buffer,
    remove,
    set_timer,
)
from colobench.guest.ipv4 import ETHERNET_HEADER, TCP, fold, number, sum_bytes
from colobench.guest.kv import meet
from colobench.guest.repair import repair
from colobench.guest.rings import (
    CHECKSUM,
    CLOSED_ORDERLY,
    MALFORMED,
    NOW_MS,
    NOW_US,
    OPENED,
    OUT_OF_ORDER,
    RANDOM,
    REFUSED,
    RESET,
    UNACCEPTABLE,
    UNEXPECTED,
    clients_begin,
    clients_bytes,
    connections_in,
    count,
    get,
    put,
)
from colobench.guest.store import copy_bytes, move_down
from colobench.guest.tcp_output import (
    ACK,
    FIN,
    RST,
    RTO_MS,
    SYN,
    ahead,
    free_room,
    has_unacknowledged,
    mss_option,
    output,
    refuse,
    reset,
    send_syn,
)
from colobench.kernels.jit import Bytes, Words, inlined

ECHO_PORT, KV_PORT = 7, 6379
#: Limit of the back-off between probes of a closed window, while the peer answers them.
PROBE_RETRIES_MAX = 6
#: Milliseconds: 2 MSL on one network segment (RFC 9293 has 4 minutes); longest wait for a FIN.
TIME_WAIT_MS, FIN_WAIT_2_MS = 1_000, 60_000
#: RFC 6528: the clock in initial sequence numbers ticks every 4 µs.
_TICKS_PER_MS = 250


@inlined
def evict(memory: Bytes, bitmap: Words, ram: int, size: int) -> bool:
    """Remove the connection in TIME-WAIT or FIN-WAIT-2 that would end first; False if none."""
    oldest, soonest = 0, 0
    for number_of in range(connections_in(size)):
        block = block_at(ram, size, number_of)
        if get(memory, block + STATE) in (TIME_WAIT, FIN_WAIT_2) and is_sound(memory, block):
            deadline = get(memory, block + DEADLINE)
            if oldest == 0 or deadline < soonest:
                oldest, soonest = block, deadline
    if oldest != 0:
        remove(memory, bitmap, ram, size, oldest, CLOSED_ORDERLY)
    return oldest != 0


@inlined
def listen(
    memory: Bytes, bitmap: Words, ram: int, size: int, frame: int, at: int, header: int, key: int,
    host: Words,
) -> int:  # fmt: skip
    """Take in a segment at `at` that belongs to no connection: open one, or refuse it.

    `header` is the length of its TCP header. Returns the counter of a drop, or 0.
    """
    port = key & 0xFFFF
    seq, ack = number(memory, at + 4, 4), number(memory, at + 8, 4)
    flags, mac = np.int64(memory[at + 13]), number(memory, frame + 6, 6)
    controls = flags & (SYN | ACK | RST)
    block = 0
    if port in (ECHO_PORT, KV_PORT):
        if controls == 0:
            return UNEXPECTED
        if controls == SYN:
            block = add(memory, bitmap, ram, size, key)
            if block == 0 and repair(memory, bitmap, ram, size, host):
                block = add(memory, bitmap, ram, size, key)
            if block == 0 and evict(memory, bitmap, ram, size):
                block = add(memory, bitmap, ram, size, key)
            if block == 0:
                count(memory, bitmap, ram, REFUSED, 1)
    if block == 0:
        # Length of the data, without Ethernet's padding.
        data = number(memory, frame + 16, 2) - (at - frame - ETHERNET_HEADER) - header
        length = data + (flags & FIN) + ((flags & SYN) >> 1)
        refuse(memory, bitmap, ram, mac, key, seq, ack, flags, length)
        return UNEXPECTED
    count(memory, bitmap, ram, OPENED, 1)
    secret = mix(np.uint64(key) ^ mix(host[RANDOM]))
    clock = np.int64(host[NOW_MS]) * _TICKS_PER_MS
    iss = (clock + np.int64(secret & np.uint64(SEQUENCE))) & SEQUENCE
    put(memory, bitmap, block + STATE, SYN_RECEIVED)
    put(memory, bitmap, block + MAC, mac)
    put(memory, bitmap, block + SND_UNA, iss)
    put(memory, bitmap, block + SND_NXT, (iss + 1) & SEQUENCE)
    put(memory, bitmap, block + SND_MAX, iss)
    put(memory, bitmap, block + SND_MSS, mss_option(memory, at + TCP_HEADER, header - TCP_HEADER))
    put(memory, bitmap, block + IRS, seq)
    put(memory, bitmap, block + RCV_NXT, (seq + 1) & SEQUENCE)
    if port == KV_PORT:
        meet(
            memory, bitmap, clients_begin(ram, size), clients_bytes(size),
            number_of_block(ram, block), key, host[NOW_US],
        )  # fmt: skip
    send_syn(memory, bitmap, ram, block)
    set_timer(memory, bitmap, ram, block, host, RTO_MS)
    return 0


@inlined
def is_acceptable(memory: Bytes, block: int, seq: int, length: int) -> bool:
    """Say whether a segment is at least partly in the window (RFC 9293, section 3.10.7.4).

    A segment with the expected sequence number is accepted even if the window is closed: its data
    do not fit, but its acknowledgment counts.
    """
    window = max(0, get(memory, block + RCV_WND))
    begin = ahead(seq, get(memory, block + RCV_NXT))
    last = begin + max(length, 1) - 1
    return begin == 0 or 0 <= begin < window or 0 <= last < window


@inlined
def acknowledge_unacceptable(
    memory: Bytes, bitmap: Words, block: int, length: int, host: Words
) -> int:
    """Answer an unacceptable segment with an acknowledgment.

    Segments without data get one answer in a millisecond, so that two sides that disagree do not
    answer each other for ever (RFC 5961, section 7).
    """
    now = np.int64(host[NOW_MS])
    if length > 0 or get(memory, block + CHALLENGED) != now:
        put(memory, bitmap, block + FLAGS, get(memory, block + FLAGS) | ACK_NOW)
    if length == 0:
        put(memory, bitmap, block + CHALLENGED, now)
    return 0


@inlined
def take_window(memory: Bytes, bitmap: Words, block: int, seq: int, ack: int, window: int) -> int:
    """Take over the peer's window, unless the segment is older than that of the last window."""
    newer = ahead(seq, get(memory, block + SND_WL1))
    if newer < 0 or (newer == 0 and ahead(ack, get(memory, block + SND_WL2)) < 0):
        return 0
    before = get(memory, block + SND_WND)
    put(memory, bitmap, block + SND_WND, window)
    put(memory, bitmap, block + SND_WL1, seq)
    put(memory, bitmap, block + SND_WL2, ack)
    if window == 0:
        retries = min(get(memory, block + RETRIES), PROBE_RETRIES_MAX)
        put(memory, bitmap, block + RETRIES, retries)
    elif before == 0:
        # The peer did not take the byte of the window probe.
        put(memory, bitmap, block + RETRIES, 0)
        put(memory, bitmap, block + SND_NXT, get(memory, block + SND_UNA))
    return 0


@inlined
def take_acknowledgment(
    memory: Bytes, bitmap: Words, ram: int, block: int, ack: int, host: Words
) -> int:
    """Drop the data that the peer has acknowledged; return 1 if our FIN is among it."""
    una = get(memory, block + SND_UNA)
    acknowledged = ahead(ack, una)
    begin, end = get(memory, block + REPLY_BEGIN), get(memory, block + REPLY_END)
    if acknowledged <= 0:
        return 0
    fin = acknowledged > end - begin
    begin = min(begin + acknowledged, end)
    put(memory, bitmap, block + REPLY_BEGIN, 0 if begin == end else begin)
    put(memory, bitmap, block + REPLY_END, 0 if begin == end else end)
    put(memory, bitmap, block + SND_UNA, ack)
    if ahead(ack, get(memory, block + SND_NXT)) > 0:
        put(memory, bitmap, block + SND_NXT, ack)
    put(memory, bitmap, block + RETRIES, 0)
    put(memory, bitmap, block + DEADLINE, 0)
    if has_unacknowledged(memory, block):
        set_timer(memory, bitmap, ram, block, host, RTO_MS)
    return 1 if fin else 0


@inlined
def close_after_fin(
    memory: Bytes, bitmap: Words, ram: int, size: int, block: int, host: Words
) -> int:
    """Change the state after the ACK of our FIN; return 1 if the connection is removed."""
    state = get(memory, block + STATE)
    if state == LAST_ACK:
        remove(memory, bitmap, ram, size, block, CLOSED_ORDERLY)
        return 1
    if state == FIN_WAIT_1:
        put(memory, bitmap, block + STATE, FIN_WAIT_2)
        set_timer(memory, bitmap, ram, block, host, FIN_WAIT_2_MS)
    elif state == CLOSING:
        put(memory, bitmap, block + STATE, TIME_WAIT)
        set_timer(memory, bitmap, ram, block, host, TIME_WAIT_MS)
    return 0


@inlined
def take_data(
    memory: Bytes, bitmap: Words, ram: int, block: int, seq: int, data: int, length: int
) -> int:
    """Take in the expected bytes of the `length` at `data` that have room; return 1 if all have."""
    nxt = get(memory, block + RCV_NXT)
    skipped = ahead(nxt, seq)
    put(memory, bitmap, block + FLAGS, get(memory, block + FLAGS) | ACK_NOW)
    if skipped < 0:
        count(memory, bitmap, ram, OUT_OF_ORDER, 1)
        return 0
    fresh = max(0, length - skipped)
    part = min(fresh, free_room(memory, block))
    if not get(memory, block + FLAGS) & LEAVING and part > 0:
        begin, end = get(memory, block + RECEIVED_BEGIN), get(memory, block + RECEIVED_END)
        buffer = receive_buffer(ram, block)
        if end + part > BUFFER_BYTES:
            move_down(memory, bitmap, buffer, buffer + begin, end - begin)
            put(memory, bitmap, block + RECEIVED_BEGIN, 0)
            end -= begin
        copy_bytes(memory, bitmap, buffer + end, data + skipped, part)
        put(memory, bitmap, block + RECEIVED_END, end + part)
    put(memory, bitmap, block + RCV_NXT, (nxt + part) & SEQUENCE)
    put(memory, bitmap, block + RCV_WND, max(0, get(memory, block + RCV_WND) - part))
    return 1 if part == fresh else 0


@inlined
def take_fin(memory: Bytes, bitmap: Words, ram: int, block: int, host: Words) -> int:
    """Take in the peer's FIN."""
    state = get(memory, block + STATE)
    put(memory, bitmap, block + RCV_NXT, (get(memory, block + RCV_NXT) + 1) & SEQUENCE)
    put(memory, bitmap, block + FLAGS, get(memory, block + FLAGS) | PEER_CLOSED | ACK_NOW)
    if state == ESTABLISHED:
        put(memory, bitmap, block + STATE, CLOSE_WAIT)
    elif state == FIN_WAIT_1:
        put(memory, bitmap, block + STATE, CLOSING)
    elif state == FIN_WAIT_2:
        put(memory, bitmap, block + STATE, TIME_WAIT)
        set_timer(memory, bitmap, ram, block, host, TIME_WAIT_MS)
    return 0


@inlined
def arrive(
    memory: Bytes, bitmap: Words, ram: int, size: int, block: int, at: int, header: int,
    length: int, host: Words,
) -> int:  # fmt: skip
    """Take in a segment of a connection: "SEGMENT ARRIVES" (RFC 9293, section 3.10.7.4).

    It is at `at`, and has `header` bytes of header and `length` bytes in all. Returns the counter
    of a drop, or 0.
    """
    seq, ack = number(memory, at + 4, 4), number(memory, at + 8, 4)
    flags, window = np.int64(memory[at + 13]), number(memory, at + 14, 2)
    state, data = get(memory, block + STATE), length - header
    occupied = data + (flags & FIN) + ((flags & SYN) >> 1)
    again = flags & (SYN | ACK | RST) == SYN and seq == get(memory, block + IRS)
    if state == SYN_RECEIVED and again:
        send_syn(memory, bitmap, ram, block)
        return 0
    if flags & RST:
        if seq != get(memory, block + RCV_NXT):
            # RFC 5961: a number within the window, but not exact, is challenged by an ACK.
            if is_acceptable(memory, block, seq, occupied):
                acknowledge_unacceptable(memory, bitmap, block, 0, host)
            return UNACCEPTABLE
        remove(memory, bitmap, ram, size, block, RESET)
        return 0
    if flags & SYN or not is_acceptable(memory, block, seq, occupied):
        if state == TIME_WAIT:
            set_timer(memory, bitmap, ram, block, host, TIME_WAIT_MS)
        acknowledge_unacceptable(memory, bitmap, block, occupied, host)
        return UNACCEPTABLE
    if not flags & ACK:
        return UNEXPECTED
    if state == SYN_RECEIVED and ack != get(memory, block + SND_MAX):
        mac, key = get(memory, block + MAC), get(memory, block + KEY)
        refuse(memory, bitmap, ram, mac, key, seq, ack, flags, occupied)
        return UNEXPECTED
    if ahead(ack, get(memory, block + SND_MAX)) > 0:
        acknowledge_unacceptable(memory, bitmap, block, occupied, host)
        return UNACCEPTABLE
    if state == SYN_RECEIVED:
        put(memory, bitmap, block + STATE, ESTABLISHED)
        put(memory, bitmap, block + SND_UNA, ack)
        put(memory, bitmap, block + RETRIES, 0)
        put(memory, bitmap, block + DEADLINE, 0)
        put(memory, bitmap, block + SND_WND, window)
        put(memory, bitmap, block + SND_WL1, seq)
        put(memory, bitmap, block + SND_WL2, ack)
    fin = take_acknowledgment(memory, bitmap, ram, block, ack, host)
    if ahead(ack, get(memory, block + SND_UNA)) == 0:
        take_window(memory, bitmap, block, seq, ack, window)
    if fin and close_after_fin(memory, bitmap, ram, size, block, host):
        return 0
    if data > 0 and get(memory, block + STATE) == FIN_WAIT_2:
        # Data after our close are answered with a reset (RFC 9293, section 3.10.7.4, and RFC 1122,
        # section 4.2.2.13).
        reset(memory, bitmap, ram, block)
        remove(memory, bitmap, ram, size, block, RESET)
        return UNEXPECTED
    if occupied > 0 and get(memory, block + FLAGS) & PEER_CLOSED == 0:
        whole = take_data(memory, bitmap, ram, block, seq, at + header, data)
        if whole and flags & FIN:
            take_fin(memory, bitmap, ram, block, host)
    return 0


@inlined
def receive_segment(
    memory: Bytes, bitmap: Words, ram: int, size: int, frame: int, at: int, length: int, host: Words
) -> int:
    """Take in a frame's TCP segment, `length` bytes at `at`; return the counter of a drop, or 0."""
    if length < TCP_HEADER:
        return MALFORMED
    header = (np.int64(memory[at + 12]) >> 4) * 4
    if header < TCP_HEADER or header > length:
        return MALFORMED
    check = sum_bytes(memory, at, length) + sum_bytes(memory, frame + 26, 8) + TCP + length
    if fold(check) != 0xFFFF:
        return CHECKSUM
    key = (
        (number(memory, frame + 26, 4) << 32)
        | (number(memory, at, 2) << 16)
        | number(memory, at + 2, 2)
    )
    block = find(memory, bitmap, ram, size, key)
    if block == 0 and repair(memory, bitmap, ram, size, host):
        block = find(memory, bitmap, ram, size, key)
    if block != 0 and get(memory, block + STATE) == TIME_WAIT:
        controls = memory[at + 13] & (SYN | ACK | RST)
        seq = number(memory, at + 4, 4)
        if controls == SYN and ahead(seq, get(memory, block + RCV_NXT)) >= 0:
            remove(memory, bitmap, ram, size, block, CLOSED_ORDERLY)
            block = 0
    if block == 0:
        return listen(memory, bitmap, ram, size, frame, at, header, key, host)
    mac = number(memory, frame + 6, 6)
    if get(memory, block + MAC) != mac:
        put(memory, bitmap, block + MAC, mac)
    reason = arrive(memory, bitmap, ram, size, block, at, header, length, host)
    if get(memory, block + STATE) != CLOSED:
        make_ready(memory, bitmap, ram, block, due_time(memory, block, host))
        if get(memory, block + DUE) > np.int64(host[NOW_MS]):
            # The service's reply comes later; the acknowledgment does not wait for it.
            output(memory, bitmap, ram, block, host)
    return reason
