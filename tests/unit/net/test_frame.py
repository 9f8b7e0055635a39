"""Frames: there and back again, in agreement with dpkt, and never an exception of another kind."""

from __future__ import annotations

from contextlib import suppress

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.net import frame as net
from colobench.net.frame import ARP, ConnectionKey, FrameError, Segment

macs = st.binary(min_size=6, max_size=6)
addresses = st.binary(min_size=4, max_size=4)
shorts = st.integers(0, 2**16 - 1)
words = st.integers(0, 2**32 - 1)
#: Payloads that sum to anything, among them to zero.
payloads = st.one_of(
    st.binary(max_size=net.MSS - 4),
    st.binary(max_size=20).map(lambda data: data + bytes(7)),
    st.integers(0, 300).map(bytes),
    st.integers(0, 300).map(lambda count: b"\xff" * count),
)
connections = st.builds(ConnectionKey, addresses, shorts, addresses, shorts)
segments = st.builds(
    Segment,
    connections,
    words,
    words,
    st.integers(0, 0x1F).map(lambda flags: flags & ~net.SYN),
    shorts,
    payloads,
)
syns = st.builds(
    Segment,
    connections,
    words,
    words,
    st.integers(0, 0x1F).map(lambda flags: flags | net.SYN),
    shorts,
    st.binary(max_size=10),
    st.one_of(st.none(), shorts),
)
arps = st.builds(ARP, shorts, macs, addresses, macs, addresses)


def naive_checksum(data: bytes) -> int:
    """Sum 16-bit words with end-around carry, as RFC 1071 explains it."""
    total = 0
    padded = data + b"\0" * (len(data) % 2)
    for at in range(0, len(padded), 2):
        total += padded[at] << 8 | padded[at + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@given(payloads)
def test_checksum_is_the_one_of_the_rfc(data: bytes) -> None:
    assert net.checksum(data) == naive_checksum(data) == dpkt.in_cksum(data)


@given(payloads, shorts)
def test_data_with_its_checksum_sums_to_zero(data: bytes, start: int) -> None:
    even = data + b"\0" * (len(data) % 2)
    sealed = even + net.checksum(even, start).to_bytes(2, "big")
    assert net.checksum(sealed, start) in (0, 0xFFFF if not (start or any(even)) else 0)


@given(macs, macs, st.one_of(segments, syns))
def test_segments_come_back_as_they_were(to: bytes, source: bytes, segment: Segment) -> None:
    frame = net.build_tcp(to, source, segment)
    packet = net.parse_ipv4(frame)
    assert packet is not None
    assert (packet.destination_mac, packet.source_mac) == (to, source)
    assert not packet.fragment
    assert net.parse_tcp(packet) == segment
    assert net.checksums_correct(frame)
    # Ethernet's padding is no part of it.
    padded = net.parse_ipv4(frame.ljust(60, b"\x55"))
    assert padded is not None
    assert net.parse_tcp(padded) == segment
    assert net.checksums_correct(frame.ljust(60, b"\x55"))


@given(st.one_of(segments, syns))
def test_dpkt_reads_our_segments_and_finds_the_same_checksums(segment: Segment) -> None:
    frame = net.build_tcp(net.GUEST_MAC, net.HOST_MAC, segment)
    ethernet = dpkt.ethernet.Ethernet(frame)
    ip, tcp = ethernet.data, ethernet.data.data
    assert (ethernet.dst, ethernet.src) == (net.GUEST_MAC, net.HOST_MAC)
    assert ConnectionKey(ip.src, tcp.sport, ip.dst, tcp.dport) == segment.connection
    assert (tcp.seq, tcp.ack, tcp.flags, tcp.win) == (
        segment.seq,
        segment.ack,
        segment.flags,
        segment.window,
    )
    assert tcp.data == segment.payload
    options = dict(dpkt.tcp.parse_opts(tcp.opts))
    mss = options.get(dpkt.tcp.TCP_OPT_MSS)
    assert (mss and int.from_bytes(mss, "big")) == segment.mss
    # dpkt computes a checksum that is zero.
    assert len(ip) == ip.len
    found = ip.sum, tcp.sum
    ip.sum = tcp.sum = 0
    rebuilt = dpkt.ethernet.Ethernet(bytes(ethernet)).data
    assert [value % 0xFFFF for value in (rebuilt.sum, rebuilt.data.sum)] == [
        value % 0xFFFF for value in found
    ]


@given(st.one_of(segments, syns))
def test_we_read_segments_that_dpkt_made(segment: Segment) -> None:
    option = b"" if segment.mss is None else b"\x01\x01\x02\x04" + segment.mss.to_bytes(2, "big")
    tcp = dpkt.tcp.TCP(
        sport=segment.connection.source_port,
        dport=segment.connection.destination_port,
        seq=segment.seq,
        ack=segment.ack,
        flags=segment.flags,
        win=segment.window,
        opts=option.ljust((len(option) + 3) // 4 * 4, b"\0"),
        data=segment.payload,
    )
    tcp.off = (20 + len(tcp.opts)) // 4
    ip = dpkt.ip.IP(
        src=segment.connection.source,
        dst=segment.connection.destination,
        p=dpkt.ip.IP_PROTO_TCP,
        data=tcp,
    )
    frame = bytes(dpkt.ethernet.Ethernet(dst=net.HOST_MAC, src=net.GUEST_MAC, data=ip))
    packet = net.parse_ipv4(frame)
    assert packet is not None
    assert net.parse_tcp(packet) == segment
    assert net.checksums_correct(frame)


@given(macs, arps)
def test_arp_comes_back_and_dpkt_agrees(to: bytes, message: ARP) -> None:
    frame = net.build_arp(to, message)
    assert len(frame) == 60
    assert net.parse_arp(frame) == message
    found = dpkt.ethernet.Ethernet(frame).data
    assert ARP(found.op, found.sha, found.spa, found.tha, found.tpa) == message


@given(shorts, shorts, payloads, st.sampled_from([net.ECHO_REQUEST, net.ECHO_REPLY]))
def test_echo_comes_back_and_dpkt_agrees(
    identifier: int, sequence: int, payload: bytes, kind: int
) -> None:
    macs_and_hosts = (net.GUEST_MAC, net.HOST_MAC, net.HOST_IP, net.GUEST_IP)
    frame = net.build_echo(*macs_and_hosts, kind, identifier, sequence, payload)
    packet = net.parse_ipv4(frame)
    assert packet is not None
    assert net.parse_echo(packet) == net.Echo(kind, identifier, sequence, payload)
    assert net.checksums_correct(frame)
    found = dpkt.ethernet.Ethernet(frame).data.data
    assert (found.type, found.code) == (kind, 0)
    assert (found.data.id, found.data.seq, found.data.data) == (identifier, sequence, payload)


@given(st.one_of(segments, syns), st.integers(14, 2000), st.integers(1, 255))
def test_any_changed_byte_of_a_segment_makes_a_checksum_wrong(
    segment: Segment, at: int, change: int
) -> None:
    frame = bytearray(net.build_tcp(net.GUEST_MAC, net.HOST_MAC, segment))
    at = 14 + (at - 14) % (len(frame) - 14)
    frame[at] ^= change
    try:
        packet = net.parse_ipv4(bytes(frame))
        correct = net.checksums_correct(bytes(frame))
    except FrameError:
        return
    # One that is no TCP any more has no checksum that could be checked, but for its header's.
    assert packet is not None
    assert not correct


def everything(frame: bytes) -> None:
    """Take a frame apart in all ways."""
    net.ethertype(frame)
    net.checksums_correct(frame)
    net.parse_arp(frame)
    packet = net.parse_ipv4(frame)
    if packet is not None:
        net.parse_echo(packet)
        net.parse_tcp(packet)


built = st.one_of(
    st.builds(net.build_tcp, macs, macs, st.one_of(segments, syns)),
    st.builds(net.build_arp, macs, arps),
    st.builds(
        net.build_echo, macs, macs, addresses, addresses, st.just(8), shorts, shorts, payloads
    ),
)


@given(
    st.one_of(st.binary(max_size=120), built),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), max_size=5),
    st.integers(0, 1600),
)
def test_malformed_frames_are_frame_errors_or_nothing(
    frame: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    changed = bytearray(frame)
    for at, value in changes:
        if changed:
            changed[at % len(changed)] = value
    for data in (bytes(changed), bytes(changed[:length])):
        with suppress(FrameError):
            everything(data)


@pytest.mark.parametrize(
    ("options", "mss"),
    [
        (b"\x02\x04\x05\xb4", 1460),
        (b"\x01\x01\x01\x02\x04\x05\xb4\x00", 1460),
        (b"\x00\x02\x04\x05", None),
        (b"\x03\x00\x00\x00", None),
        (b"\x01\x01\x01\x02", None),
        (b"\x02\x03\x05\x00", None),
    ],
)
def test_mss_option_is_found_and_nonsense_is_not(options: bytes, mss: int | None) -> None:
    segment = Segment(ConnectionKey(net.HOST_IP, 1, net.GUEST_IP, 2), 0, 0, net.SYN, 0)
    frame = bytearray(net.build_tcp(net.GUEST_MAC, net.HOST_MAC, segment))
    frame[46] = (20 + len(options)) // 4 << 4
    frame[16:18] = (40 + len(options)).to_bytes(2, "big")
    packet = net.parse_ipv4(bytes(frame) + options)
    assert packet is not None
    assert net.parse_tcp(packet).mss == mss


@given(words, st.integers(-(2**31), 2**31 - 1))
def test_sequence_numbers_are_compared_around_their_wrap(seq: int, ahead: int) -> None:
    assert net.sequence_difference((seq + ahead) % 2**32, seq) == ahead


def test_connection_is_the_same_both_ways() -> None:
    connection = ConnectionKey(net.HOST_IP, 50000, net.GUEST_IP, 6379)
    assert connection.reversed().reversed() == connection
    assert str(connection) == "10.0.2.2:50000 > 10.0.2.15:6379"


@pytest.mark.parametrize("field", [0x2000, 0x0001, 0x1FFF])
def test_part_of_a_packet_is_known_as_such(field: int) -> None:
    segment = Segment(ConnectionKey(net.HOST_IP, 1, net.GUEST_IP, 2), 0, 0, net.ACK, 0, b"x" * 40)
    frame = bytearray(net.build_tcp(net.GUEST_MAC, net.HOST_MAC, segment))
    frame[20:22] = field.to_bytes(2, "big")
    frame[24:26] = b"\0\0"
    frame[24:26] = net.checksum(bytes(frame[14:34])).to_bytes(2, "big")
    packet = net.parse_ipv4(bytes(frame))
    assert packet is not None
    assert packet.fragment
    # What its checksum covers is not here: nothing of it is wrong.
    frame[-1] ^= 1
    assert net.checksums_correct(bytes(frame))
