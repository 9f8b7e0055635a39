"""TCP segments that the guest sends, for its connections and as resets to other peers.

There is no congestion control, no Nagle algorithm and no fast retransmission. After a timeout only
the first segment is sent again; once the peer acknowledges something, all missing data are.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.connections import (
    ACK_NOW,
    CLOSE_WAIT,
    DEADLINE,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    FLAGS,
    HELD,
    KEY,
    LAST_ACK,
    LEAST_MSS,
    LEAVING,
    MAC,
    MSS,
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
    SND_WND,
    STATE,
    SYN_RECEIVED,
    TCP_HEADER,
    TIME_WAIT,
    make_ready,
    receive_buffer,
    set_timer,
)
from colobench.guest.ipv4 import (
    BODY,
    GUEST_IP,
    TCP,
    fold,
    number,
    put_network_word,
    send_ipv4,
    sum_address,
    sum_bytes,
)
from colobench.guest.rings import (
    NOW_MS,
    RESETS_SENT,
    WINDOW_PROBES,
    count,
    get,
    next_frame,
    put,
    transmit_room,
)
from colobench.guest.store import copy_bytes, put_big_endian
from colobench.kernels.jit import Bytes, Words, inlined

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
#: Maximum segment size of a peer that announces none, bytes (RFC 9293).
DEFAULT_MSS = 536
#: Milliseconds of the first retransmission timeout, and limit of the doubled ones (RFC 6298,
#: sections 2.1, 2.5 and 5.5, without estimating round-trip times).
RTO_MS, RTO_MAX_MS = 200, 60_000
_MSS_OPTION = (2 << 24) | (4 << 16) | MSS


@inlined
def ahead(left: int, right: int) -> int:
    """Compute the distance of one sequence number ahead of another, -2**31 to 2**31 - 1."""
    return ((left - right + 0x80000000) & SEQUENCE) - 0x80000000


@inlined
def put_segment(
    memory: Bytes,
    bitmap: Words,
    ram: int,
    mac: int,
    key: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    data: int,
    length: int,
) -> int:
    """Send a segment with `length` bytes at `data`; the transmit ring must have room."""
    at = next_frame(memory, ram) + BODY
    ip = (key >> 32) & 0xFFFFFFFF
    header = TCP_HEADER
    ports = ((key & 0xFFFF) << 48) | (((key >> 16) & 0xFFFF) << 32)
    put_network_word(memory, bitmap, at, ports | (seq & SEQUENCE))
    if flags & SYN:
        header += 4
        put_big_endian(memory, bitmap, at + TCP_HEADER, 4, np.uint64(_MSS_OPTION))
    controls = ((header >> 2) << 28) | (flags << 16) | window
    put_network_word(memory, bitmap, at + 8, ((ack & SEQUENCE) << 32) | controls)
    put_big_endian(memory, bitmap, at + 16, 4, np.uint64(0))
    copy_bytes(memory, bitmap, at + header, data, length)
    total = header + length
    check = sum_bytes(memory, at, total) + TCP + total + sum_address(GUEST_IP) + sum_address(ip)
    put_big_endian(memory, bitmap, at + 16, 2, np.uint64(fold(check) ^ 0xFFFF))
    return send_ipv4(memory, bitmap, ram, mac, ip, TCP, total)


@inlined
def refuse(
    memory: Bytes, bitmap: Words, ram: int, mac: int, key: int, seq: int, ack: int, flags: int,
    length: int,
) -> int:  # fmt: skip
    """Answer a segment that belongs to no connection with RST (RFC 9293, section 3.10.7.1).

    seq, ack, flags and length are the segment's; its length counts SYN and FIN.
    """
    if flags & RST:
        return 0
    count(memory, bitmap, ram, RESETS_SENT, 1)
    if flags & ACK:
        return put_segment(memory, bitmap, ram, mac, key, ack, 0, RST, 0, 0, 0)
    return put_segment(memory, bitmap, ram, mac, key, 0, seq + length, RST | ACK, 0, 0, 0)


@inlined
def free_room(memory: Bytes, block: int) -> int:
    """Return the number of bytes that a connection takes in.

    That is the room in its receive buffer. Data that no service will read need no room, but the
    window does not grow then.
    """
    if get(memory, block + FLAGS) & LEAVING:
        return get(memory, block + RCV_WND)
    waiting = get(memory, block + RECEIVED_END) - get(memory, block + RECEIVED_BEGIN)
    return BUFFER_BYTES - waiting


@inlined
def send_segment(
    memory: Bytes, bitmap: Words, ram: int, block: int, seq: int, flags: int, data: int, length: int
) -> int:
    """Send a segment of a connection, which acknowledges the data received so far."""
    window = free_room(memory, block)
    mac, key = get(memory, block + MAC), get(memory, block + KEY)
    put_segment(
        memory, bitmap, ram, mac, key, seq, get(memory, block + RCV_NXT), flags | ACK, window, data,
        length,
    )  # fmt: skip
    put(memory, bitmap, block + RCV_WND, window)
    put(memory, bitmap, block + FLAGS, get(memory, block + FLAGS) & ~ACK_NOW)
    end = (seq + length + (flags & FIN) + ((flags & SYN) >> 1)) & SEQUENCE
    if ahead(end, get(memory, block + SND_MAX)) > 0:
        put(memory, bitmap, block + SND_MAX, end)
    return 0


@inlined
def reset(memory: Bytes, bitmap: Words, ram: int, block: int) -> int:
    """Send RST to a connection's peer; the transmit ring must have room."""
    count(memory, bitmap, ram, RESETS_SENT, 1)
    mac, key = get(memory, block + MAC), get(memory, block + KEY)
    seq, ack = get(memory, block + SND_MAX), get(memory, block + RCV_NXT)
    return put_segment(memory, bitmap, ram, mac, key, seq, ack, RST | ACK, 0, 0, 0)


@inlined
def ask_for_numbers(memory: Bytes, bitmap: Words, ram: int, block: int) -> int:
    """Make the peer of a broken connection answer, so that it can be reset.

    An unexpected sequence number makes it answer, and its answer belongs to no connection.
    """
    mac, key = get(memory, block + MAC), get(memory, block + KEY)
    seq, ack = get(memory, block + SND_UNA) - 1, get(memory, block + RCV_NXT)
    return put_segment(memory, bitmap, ram, mac, key, seq, ack, ACK, 0, 0, 0)


@inlined
def send_syn(memory: Bytes, bitmap: Words, ram: int, block: int) -> int:
    """Answer a connection's SYN, for the first time or again."""
    return send_segment(memory, bitmap, ram, block, get(memory, block + SND_UNA), SYN, 0, 0)


@inlined
def sendable(memory: Bytes, block: int) -> int:
    """Return the number of bytes of replies that may be sent, or were."""
    held = get(memory, block + HELD)
    return get(memory, block + REPLY_END) - get(memory, block + REPLY_BEGIN) - held


@inlined
def has_unacknowledged(memory: Bytes, block: int) -> bool:
    """Say whether data or a FIN that may be sent is not acknowledged yet."""
    state = get(memory, block + STATE)
    leaving = get(memory, block + FLAGS) & LEAVING != 0 and get(memory, block + HELD) == 0
    return (
        get(memory, block + SND_UNA) != get(memory, block + SND_MAX)
        or sendable(memory, block) != 0
        or (leaving and state in (ESTABLISHED, CLOSE_WAIT))
    )


@inlined
def timeout(memory: Bytes, block: int) -> int:
    """Return the retransmission timeout in ms, with the exponential back-off."""
    retries = max(0, min(get(memory, block + RETRIES), 16))
    return min(RTO_MS << retries, RTO_MAX_MS)


@inlined
def send_part(memory: Bytes, bitmap: Words, ram: int, block: int, part: int, fin: bool) -> int:
    """Send `part` bytes from SND.NXT on, and FIN if it follows them."""
    begin = get(memory, block + REPLY_BEGIN)
    length = get(memory, block + REPLY_END) - begin
    nxt = get(memory, block + SND_NXT)
    offset = (nxt - get(memory, block + SND_UNA)) & SEQUENCE
    flags = PSH if part > 0 and offset + part == length else 0
    if fin:
        flags |= FIN
    data = receive_buffer(ram, block) + BUFFER_BYTES + begin + offset
    put(memory, bitmap, block + SND_NXT, (nxt + part + (flags & FIN)) & SEQUENCE)
    send_segment(memory, bitmap, ram, block, nxt, flags, data, part)
    if fin and get(memory, block + STATE) == ESTABLISHED:
        put(memory, bitmap, block + STATE, FIN_WAIT_1)
    elif fin and get(memory, block + STATE) == CLOSE_WAIT:
        put(memory, bitmap, block + STATE, LAST_ACK)
    return 0


@inlined
def sends_fin(memory: Bytes, block: int) -> bool:
    """Say whether a FIN follows the last byte and is not acknowledged yet."""
    state = get(memory, block + STATE)
    leaving = get(memory, block + FLAGS) & LEAVING != 0 and get(memory, block + HELD) == 0
    return leaving and state != FIN_WAIT_2 and state != TIME_WAIT


@inlined
def send_all(memory: Bytes, bitmap: Words, ram: int, block: int) -> int:
    """Send the data that the peer's window allows, while the transmit ring has room."""
    while get(memory, block + RETRIES) == 0 and transmit_room(memory, ram) > 0:
        length, window = sendable(memory, block), get(memory, block + SND_WND)
        offset = (get(memory, block + SND_NXT) - get(memory, block + SND_UNA)) & SEQUENCE
        part = min(min(length, window) - offset, get(memory, block + SND_MSS))
        part = max(0, min(part, MSS))
        fin = sends_fin(memory, block) and offset + part == length and length < window
        if part == 0 and not fin:
            break
        send_part(memory, bitmap, ram, block, part, fin)
    return 0


@inlined
def output(memory: Bytes, bitmap: Words, ram: int, block: int, host: Words) -> int:
    """Send what is due on a connection; the rest when the transmit ring has room again."""
    state = get(memory, block + STATE)
    if state > SYN_RECEIVED:
        send_all(memory, bitmap, ram, block)
    if get(memory, block + FLAGS) & ACK_NOW and transmit_room(memory, ram) > 0:
        seq = get(memory, block + SND_MAX)
        if state > SYN_RECEIVED:
            una = get(memory, block + SND_UNA)
            seq = (una + min(ahead(seq, una), get(memory, block + SND_WND))) & SEQUENCE
        send_segment(memory, bitmap, ram, block, seq, 0, 0, 0)
    if transmit_room(memory, ram) <= 0:
        make_ready(memory, bitmap, ram, block, np.int64(host[NOW_MS]))
    if get(memory, block + DEADLINE) == 0 and has_unacknowledged(memory, block):
        set_timer(memory, bitmap, ram, block, host, timeout(memory, block))
    return 0


@inlined
def send_again(memory: Bytes, bitmap: Words, ram: int, block: int) -> int:
    """Resend the first unacknowledged segment, or one byte if the peer's window is closed."""
    length, window = sendable(memory, block), get(memory, block + SND_WND)
    part = max(0, min(min(length, MSS), min(get(memory, block + SND_MSS), max(window, 1))))
    put(memory, bitmap, block + SND_NXT, get(memory, block + SND_UNA))
    if window == 0:
        count(memory, bitmap, ram, WINDOW_PROBES, 1)
    fin = sends_fin(memory, block) and part == length
    return send_part(memory, bitmap, ram, block, part, fin)


@inlined
def mss_option(memory: Bytes, at: int, length: int) -> int:
    """Find a SYN's maximum segment size among `length` bytes of options."""
    end = at + length
    while at < end and memory[at] != 0:
        if memory[at] == 1:
            at += 1
            continue
        size = np.int64(memory[at + 1]) if at + 1 < end else 0
        if size < 2 or at + size > end:
            break
        if memory[at] == 2 and size == 4:
            return max(LEAST_MSS, min(number(memory, at + 2, 2), MSS))
        at += size
    return DEFAULT_MSS
