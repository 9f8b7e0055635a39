"""Parsers and builders of Ethernet frames with ARP, IPv4, ICMP echo and TCP.

Formats: RFC 826 (ARP), RFC 791 (IPv4), RFC 792 (ICMP), RFC 9293 (TCP). Lengths in a frame from a
guest or a peer are checked against the frame's length before they are used. Other protocols are not
parsed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from colobench.errors import RemoteError

ETHERNET_HEADER, ARP_LENGTH, IPV4_HEADER, ICMP_HEADER, UDP_HEADER, TCP_HEADER = 14, 28, 20, 8, 8, 20
#: Bytes of the smallest and the largest Ethernet frame, without its check sequence.
FRAME_MIN, FRAME_MAX = 14, 1514
#: Bytes of payload of a TCP segment in the largest frame.
MSS = FRAME_MAX - ETHERNET_HEADER - IPV4_HEADER - TCP_HEADER
ETHERTYPE_IPV4, ETHERTYPE_ARP = 0x0800, 0x0806
ICMP, TCP, UDP = 1, 6, 17
ECHO_REPLY, ECHO_REQUEST = 0, 8
ARP_REQUEST, ARP_REPLY = 1, 2
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
BROADCAST = bytes([0xFF] * 6)
#: The addresses of QEMU's user network, and our guest's.
GUEST_MAC, GUEST_IP = bytes.fromhex("525400c01001"), bytes([10, 0, 2, 15])
HOST_MAC, HOST_IP = bytes.fromhex("52550a000202"), bytes([10, 0, 2, 2])
_TTL, _DO_NOT_FRAGMENT = 64, 0x4000
_ETHERNET = struct.Struct(">6s6sH")
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_TCP = struct.Struct(">HHIIBBHHH")
_ICMP = struct.Struct(">BBHHH")


class FrameError(RemoteError):
    """A malformed frame: its fields contradict its length, its checksum or each other."""


def checksum(data: bytes, start: int = 0) -> int:
    """Compute the Internet checksum (RFC 1071) of `data` and a sum `start` of 16-bit words.

    The one's complement sum of 16-bit words is the big-endian number of all of them, modulo 65535.
    """
    padded = data + b"\0" if len(data) % 2 else data
    total = (int.from_bytes(padded, "big") + start) % 0xFFFF
    # A sum is 0 only if every word is; otherwise remainder 0 stands for 0xFFFF.
    return 0xFFFF - (total or (0xFFFF if start or any(data) else 0))


def _pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """Sum the 16-bit words of RFC 9293's pseudo header."""
    return int.from_bytes(source, "big") + int.from_bytes(destination, "big") + protocol + length


class ConnectionKey(NamedTuple):
    """Addresses and ports of a TCP connection, as in a frame from source to destination."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int

    def reversed(self) -> ConnectionKey:
        """Return the same connection as in a frame of the opposite direction."""
        return ConnectionKey(*self[2:], *self[:2])

    def __str__(self) -> str:
        ends = [(self.source, self.source_port), (self.destination, self.destination_port)]
        return " > ".join(f"{'.'.join(map(str, host))}:{port}" for host, port in ends)


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 packet in an Ethernet frame.

    Attributes
    ----------
    destination_mac, source_mac
        Ethernet's addresses.
    source, destination, protocol, fragment
        IPv4's fields; `fragment` is True for a fragment of a larger packet.
    header
        Length of the IPv4 header, bytes.
    body
        Payload of the IPv4 packet, without Ethernet's padding.
    """

    destination_mac: bytes
    source_mac: bytes
    source: bytes
    destination: bytes
    protocol: int
    fragment: bool
    header: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment.

    Attributes
    ----------
    connection
        Its addresses and ports.
    seq, ack, flags, window
        Fields of the header; sequence numbers count modulo 2**32.
    payload
        The data.
    mss
        Maximum segment size that a SYN announces, bytes, or None.
    """

    connection: ConnectionKey
    seq: int
    ack: int
    flags: int
    window: int
    payload: bytes = b""
    mss: int | None = None

    @property
    def length(self) -> int:
        """Number of sequence numbers that it occupies: its bytes, one for SYN, one for FIN."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)

    @property
    def end(self) -> int:
        """Sequence number after the segment."""
        return (self.seq + self.length) % 2**32


def sequence_difference(left: int, right: int) -> int:
    """Compute the distance of `left` ahead of `right`, from -2**31 to 2**31 - 1 (RFC 1982)."""
    return (left - right + 2**31) % 2**32 - 2**31


def ethertype(frame: bytes) -> int:
    """Return the EtherType of a frame."""
    if len(frame) < FRAME_MIN:
        raise FrameError(f"frame: expected at least {FRAME_MIN} bytes, found {len(frame)}")
    return int.from_bytes(frame[12:14], "big")


def parse_ipv4(frame: bytes) -> Packet | None:
    """Parse the IPv4 packet in a frame; None for any other frame.

    Raises
    ------
    FrameError
        If its lengths contradict each other.
    """
    if ethertype(frame) != ETHERTYPE_IPV4:
        return None
    if len(frame) < ETHERNET_HEADER + IPV4_HEADER:
        raise FrameError(f"IPv4: expected a header of 20 bytes, found a frame of {len(frame)}")
    first, _, total, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(
        frame, ETHERNET_HEADER
    )
    header = (first & 15) * 4
    if first >> 4 != 4 or not IPV4_HEADER <= header <= total <= len(frame) - ETHERNET_HEADER:
        raise FrameError(
            f"IPv4: expected version 4 and a header within a packet within the frame's "
            f"{len(frame) - ETHERNET_HEADER} bytes, found version {first >> 4}, header {header}, "
            f"packet {total}"
        )
    return Packet(
        frame[:6],
        frame[6:12],
        source,
        destination,
        protocol,
        bool(fragment & 0x3FFF),
        header,
        frame[ETHERNET_HEADER + header : ETHERNET_HEADER + total],
    )


def parse_tcp(packet: Packet) -> Segment:
    """Parse the TCP segment in an IPv4 packet.

    Raises
    ------
    FrameError
        If there is no TCP segment, or its lengths contradict each other.
    """
    body = packet.body
    if packet.protocol != TCP or len(body) < TCP_HEADER:
        raise FrameError(f"TCP: expected a header of 20 bytes, found a body of {len(body)}")
    source_port, destination_port, seq, ack, offset, flags, window, _, _ = _TCP.unpack_from(body)
    header = (offset >> 4) * 4
    if not TCP_HEADER <= header <= len(body):
        raise FrameError(f"TCP: expected a header of 20 to {len(body)} bytes, found {header}")
    connection = ConnectionKey(packet.source, source_port, packet.destination, destination_port)
    mss = _mss_option(body[TCP_HEADER:header]) if flags & SYN else None
    return Segment(connection, seq, ack, flags, window, body[header:], mss)


def _mss_option(options: bytes) -> int | None:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            return None
        if options[at] == 2 and length == 4:
            return int.from_bytes(options[at + 2 : at + 4], "big")
        at += length
    return None


def checksums_correct(frame: bytes) -> bool:
    """Say whether a frame's checksums of IPv4 header and TCP or ICMP are right; True without any.

    Of a fragment, only the header can be checked.
    """
    packet = parse_ipv4(frame)
    if packet is None:
        return True
    if checksum(frame[ETHERNET_HEADER : ETHERNET_HEADER + packet.header]):
        return False
    if packet.fragment:
        return True
    if packet.protocol == TCP:
        start = _pseudo_header(packet.source, packet.destination, TCP, len(packet.body))
        return checksum(packet.body, start) == 0
    return packet.protocol != ICMP or checksum(packet.body) == 0


def build_ipv4(
    destination_mac: bytes,
    source_mac: bytes,
    source: bytes,
    destination: bytes,
    protocol: int,
    body: bytes,
    identification: int = 0,
) -> bytes:
    """Build a frame with an IPv4 packet and its header's checksum."""
    total = IPV4_HEADER + len(body)
    fields = [0x45, 0, total, identification, _DO_NOT_FRAGMENT, _TTL, protocol, 0]
    fields[7] = checksum(_IPV4.pack(*fields, source, destination))
    ethernet = _ETHERNET.pack(destination_mac, source_mac, ETHERTYPE_IPV4)
    return ethernet + _IPV4.pack(*fields, source, destination) + body


def build_tcp(destination_mac: bytes, source_mac: bytes, segment: Segment) -> bytes:
    """Build a frame with a TCP segment and both checksums."""
    source, source_port, destination, destination_port = segment.connection
    options = b"" if segment.mss is None else struct.pack(">BBH", 2, 4, segment.mss)
    offset = (TCP_HEADER + len(options)) // 4 << 4
    fields = [source_port, destination_port, segment.seq, segment.ack, offset, segment.flags]
    fields += [segment.window, 0, 0]
    body = _TCP.pack(*fields) + options + segment.payload
    fields[7] = checksum(body, _pseudo_header(source, destination, TCP, len(body)))
    body = _TCP.pack(*fields) + body[TCP_HEADER:]
    return build_ipv4(destination_mac, source_mac, source, destination, TCP, body)


@dataclass(frozen=True, slots=True)
class ARP:
    """An ARP message for IPv4 over Ethernet.

    Attributes
    ----------
    operation
        ARP_REQUEST or ARP_REPLY.
    sender_mac, sender, target_mac, target
        Ethernet and IPv4 addresses. In a gratuitous ARP, sender equals target (RFC 5227).
    """

    operation: int
    sender_mac: bytes
    sender: bytes
    target_mac: bytes
    target: bytes


def parse_arp(frame: bytes) -> ARP | None:
    """Parse the ARP message in a frame; None for any other frame."""
    if ethertype(frame) != ETHERTYPE_ARP or len(frame) < ETHERNET_HEADER + ARP_LENGTH:
        return None
    hardware, protocol, mac, ip, operation, *rest = _ARP.unpack_from(frame, ETHERNET_HEADER)
    if (hardware, protocol, mac, ip) != (1, ETHERTYPE_IPV4, 6, 4):
        return None
    return ARP(operation, *rest)


def build_arp(destination_mac: bytes, message: ARP) -> bytes:
    """Build a frame with an ARP message, padded to Ethernet's minimum of 60 bytes."""
    ethernet = _ETHERNET.pack(destination_mac, message.sender_mac, ETHERTYPE_ARP)
    body = _ARP.pack(
        1,
        ETHERTYPE_IPV4,
        6,
        4,
        message.operation,
        message.sender_mac,
        message.sender,
        message.target_mac,
        message.target,
    )
    return (ethernet + body).ljust(60, b"\0")


def build_echo(
    destination_mac: bytes,
    source_mac: bytes,
    source: bytes,
    destination: bytes,
    kind: int,
    identifier: int,
    sequence: int,
    payload: bytes,
) -> bytes:
    """Build a frame with an ICMP echo request or reply and both checksums."""
    sum_of = checksum(_ICMP.pack(kind, 0, 0, identifier, sequence) + payload)
    body = _ICMP.pack(kind, 0, sum_of, identifier, sequence) + payload
    return build_ipv4(destination_mac, source_mac, source, destination, ICMP, body)


class Echo(NamedTuple):
    """An ICMP echo: its kind, ECHO_REQUEST or ECHO_REPLY, and the fields that a reply repeats."""

    kind: int
    identifier: int
    sequence: int
    payload: bytes


def parse_echo(packet: Packet) -> Echo | None:
    """Parse the ICMP echo request or reply in an IPv4 packet; None for any other packet.

    Raises
    ------
    FrameError
        If an ICMP packet is shorter than ICMP's header.
    """
    if packet.protocol != ICMP or packet.fragment:
        return None
    if len(packet.body) < ICMP_HEADER:
        raise FrameError(f"ICMP: expected a header of 8 bytes, found {len(packet.body)}")
    kind, code, _, identifier, sequence = _ICMP.unpack_from(packet.body)
    if kind not in (ECHO_REPLY, ECHO_REQUEST) or code:
        return None
    return Echo(kind, identifier, sequence, packet.body[ICMP_HEADER:])
