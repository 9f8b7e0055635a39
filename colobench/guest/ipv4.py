"""IPv4 over Ethernet in guest RAM: checksums (RFC 1071), headers, answers to ARP and ICMP echo.

A frame is in a slot of a ring, which is longer than any frame, so reads at fixed offsets stay in
the slot. Fragments are not reassembled; options are skipped.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.rings import (
    ADDRESS,
    CHECKSUM,
    FRAGMENT,
    MALFORMED,
    PROTOCOL,
    next_frame,
    put,
    send_frame,
)
from colobench.guest.store import copy_bytes, get_big_endian, get_word, put_big_endian, put_byte
from colobench.kernels.jit import Bytes, Words, inlined
from colobench.kernels.raw import swap_bytes

#: The guest's addresses, those of QEMU's user network.
GUEST_MAC, GUEST_IP = 0x525400C01001, 0x0A00020F
BROADCAST = 0xFFFFFFFFFFFF
ETHERTYPE_IPV4, ETHERTYPE_ARP = 0x0800, 0x0806
ICMP, TCP = 1, 6
ETHERNET_HEADER, IPV4_HEADER = 14, 20
#: Offset of IPv4's payload in the frames that we send.
BODY = ETHERNET_HEADER + IPV4_HEADER
_ARP_REQUEST, _ARP_REPLY, _ARP_LENGTH, _ARP_FRAME = 1, 2, 28, 60
#: Hardware type Ethernet, protocol IPv4, and the lengths of their addresses.
_ARP_KIND = 0x0001_0800_06_04
_ECHO_REPLY, _ECHO_REQUEST, _ICMP_HEADER = 0, 8, 8
_TTL, _DO_NOT_FRAGMENT = 64, 0x4000
_FRAGMENT_BITS = 0x3FFF
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@inlined
def number(memory: Bytes, at: int, length: int) -> int:
    """Read a number of up to 7 bytes in network byte order."""
    return np.int64(get_big_endian(memory, at, length))


@inlined
def put_network_word(memory: Bytes, bitmap: Words, at: int, word: int) -> int:
    """Write a word in network byte order."""
    return put(memory, bitmap, at, np.int64(swap_bytes(np.uint64(word))))


@inlined
def fold(total: int) -> int:
    """Fold a sum of 16-bit words into the one's complement sum of 16 bits."""
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


@inlined
def sum_bytes(memory: Bytes, at: int, length: int) -> int:
    """Return the one's complement sum of the bytes as 16-bit words in network byte order.

    The bytes are added as words of the machine's order, and the two bytes of the sum are swapped at
    the end (RFC 1071, section 2 (B)).
    """
    total = np.int64(0)
    end = at + length
    while at + 8 <= end:
        word = get_word(memory, at)
        total += np.int64(word & _LOW) + np.int64(word >> _32)
        at += 8
    for i in range(end - at):
        total += np.int64(memory[at + i]) << (8 * (i & 1))
    total = fold(total)
    return ((total & 0xFF) << 8) | (total >> 8)


@inlined
def sum_address(ip: int) -> int:
    """Add the two 16-bit words of an IPv4 address."""
    return ((ip >> 16) & 0xFFFF) + (ip & 0xFFFF)


@inlined
def send_ipv4(
    memory: Bytes, bitmap: Words, ram: int, mac: int, ip: int, protocol: int, length: int
) -> int:
    """Write both headers before the `length` bytes at `next_frame` + BODY, and send the frame."""
    at = next_frame(memory, ram)
    total = IPV4_HEADER + length
    life = (_TTL << 8) | protocol
    check = 0x4500 + total + _DO_NOT_FRAGMENT + life + sum_address(GUEST_IP) + sum_address(ip)
    check = fold(check) ^ 0xFFFF
    put_network_word(memory, bitmap, at, (mac << 16) | (GUEST_MAC >> 32))
    second = ((GUEST_MAC & 0xFFFFFFFF) << 32) | (ETHERTYPE_IPV4 << 16) | 0x4500
    put_network_word(memory, bitmap, at + 8, second)
    put_network_word(
        memory, bitmap, at + 16, (total << 48) | (_DO_NOT_FRAGMENT << 16) | life
    )  # fmt: skip
    put_big_endian(memory, bitmap, at + 24, 2, np.uint64(check))
    put_big_endian(memory, bitmap, at + 26, 4, np.uint64(GUEST_IP))
    put_big_endian(memory, bitmap, at + 30, 4, np.uint64(ip))
    return send_frame(memory, bitmap, ram, BODY + length)


@inlined
def check_ipv4(memory: Bytes, frame: int, length: int) -> int:
    """Return the counter of the reason to drop an IPv4 packet, or 0 if it is for us."""
    if length < BODY:
        return MALFORMED
    first = np.int64(memory[frame + 14])
    header = (first & 15) * 4
    total = number(memory, frame + 16, 2)
    if (
        first >> 4 != 4
        or header < IPV4_HEADER
        or header > total
        or total > length - ETHERNET_HEADER
    ):
        return MALFORMED
    if sum_bytes(memory, frame + ETHERNET_HEADER, header) != 0xFFFF:
        return CHECKSUM
    if number(memory, frame + 20, 2) & _FRAGMENT_BITS:
        return FRAGMENT
    # RFC 1122, section 3.2.1.3: a source must not be this network, loopback, or more than one host.
    source = np.int64(memory[frame + 26])
    if source == 0 or source == 127 or source >= 224 or number(memory, frame + 30, 4) != GUEST_IP:
        return ADDRESS
    return 0


@inlined
def receive_arp(memory: Bytes, bitmap: Words, ram: int, frame: int, length: int) -> int:
    """Answer a request for our address (RFC 826); return the counter of a drop, or 0."""
    at = frame + ETHERNET_HEADER
    if length < ETHERNET_HEADER + _ARP_LENGTH or number(memory, at, 6) != _ARP_KIND:
        return MALFORMED
    if number(memory, at + 6, 2) != _ARP_REQUEST or number(memory, at + 24, 4) != GUEST_IP:
        return ADDRESS
    mac, ip = number(memory, at + 8, 6), number(memory, at + 14, 4)
    to = next_frame(memory, ram)
    for word in range(0, _ARP_FRAME + 4, 8):
        put(memory, bitmap, to + word, 0)
    put_big_endian(memory, bitmap, to, 6, np.uint64(mac))
    put_big_endian(memory, bitmap, to + 6, 6, np.uint64(GUEST_MAC))
    put_big_endian(memory, bitmap, to + 12, 2, np.uint64(ETHERTYPE_ARP))
    to += ETHERNET_HEADER
    put_big_endian(memory, bitmap, to, 6, np.uint64(_ARP_KIND))
    put_big_endian(memory, bitmap, to + 6, 2, np.uint64(_ARP_REPLY))
    put_big_endian(memory, bitmap, to + 8, 6, np.uint64(GUEST_MAC))
    put_big_endian(memory, bitmap, to + 14, 4, np.uint64(GUEST_IP))
    put_big_endian(memory, bitmap, to + 18, 6, np.uint64(mac))
    put_big_endian(memory, bitmap, to + 24, 4, np.uint64(ip))
    send_frame(memory, bitmap, ram, _ARP_FRAME)
    return 0


@inlined
def receive_icmp(
    memory: Bytes, bitmap: Words, ram: int, frame: int, header: int, length: int
) -> int:
    """Answer an echo request (RFC 792); return the counter of a drop, or 0.

    `header` is the length of the IPv4 header, `length` that of the ICMP message.
    """
    at = frame + ETHERNET_HEADER + header
    if length < _ICMP_HEADER:
        return MALFORMED
    if sum_bytes(memory, at, length) != 0xFFFF:
        return CHECKSUM
    if memory[at] != _ECHO_REQUEST or memory[at + 1] != 0:
        return PROTOCOL
    to = next_frame(memory, ram) + BODY
    copy_bytes(memory, bitmap, to, at, length)
    put_byte(memory, bitmap, to, _ECHO_REPLY)
    put_big_endian(memory, bitmap, to + 2, 2, np.uint64(0))
    check = sum_bytes(memory, to, length) ^ 0xFFFF
    put_big_endian(memory, bitmap, to + 2, 2, np.uint64(check))
    mac, ip = number(memory, frame + 6, 6), number(memory, frame + 26, 4)
    send_ipv4(memory, bitmap, ram, mac, ip, ICMP, length)
    return 0
