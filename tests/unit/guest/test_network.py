"""What the guest says to ARP, ICMP and IPv4; no frame, and no broken RAM, leads it astray."""

from __future__ import annotations

import random

import dpkt
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from colobench.guest import ipv4, rings, tcp
from colobench.net import frame as net
from colobench.net.frame import ACK, ARP, Segment
from tcp_peer import MIB, Client, Guest, connect

OTHER_MAC, OTHER_IP = bytes.fromhex("020000000001"), bytes([10, 0, 2, 77])


def request(target: bytes = net.GUEST_IP, operation: int = net.ARP_REQUEST) -> bytes:
    message = ARP(operation, OTHER_MAC, OTHER_IP, bytes(6), target)
    return net.build_arp(net.BROADCAST, message)


def ping(payload: bytes, identifier: int = 7, sequence: int = 9) -> bytes:
    return net.build_echo(
        net.GUEST_MAC, OTHER_MAC, OTHER_IP, net.GUEST_IP, net.ECHO_REQUEST, identifier, sequence,
        payload,
    )  # fmt: skip


def with_checksums(frame: bytearray) -> bytes:
    """Mend both checksums where the lengths allow it, so that what else is wrong is looked at."""
    if len(frame) < 34:
        return bytes(frame)
    header = (frame[14] & 15) * 4
    frame[24:26] = bytes(2)
    frame[24:26] = net.checksum(frame[14 : 14 + header]).to_bytes(2, "big")
    begin, end = 14 + header, 14 + int.from_bytes(frame[16:18], "big")
    at = begin + {net.TCP: 16, net.ICMP: 2}.get(frame[23], len(frame))
    if at + 2 <= end <= len(frame):
        frame[at : at + 2] = bytes(2)
        start = 0
        if frame[23] == net.TCP:
            start = int.from_bytes(frame[26:30], "big") + int.from_bytes(frame[30:34], "big")
            start += net.TCP + end - begin
        frame[at : at + 2] = net.checksum(bytes(frame[begin:end]), start).to_bytes(2, "big")
    return bytes(frame)


def test_the_guest_has_the_addresses_that_the_network_gives_it() -> None:
    assert ipv4.GUEST_MAC.to_bytes(6, "big") == net.GUEST_MAC
    assert ipv4.GUEST_IP.to_bytes(4, "big") == net.GUEST_IP


@pytest.mark.parametrize(("mib", "least"), [(1, 4), (16, 48), (64, 256), (256, 1024), (512, 1024)])
def test_the_table_of_connections_scales_with_ram(mib: int, least: int) -> None:
    size = mib * MIB
    assert tcp.initialize(np.zeros(size, np.uint8), np.zeros(0, np.uint64), 0, size) >= least


def test_less_ram_than_the_stack_needs_is_left_alone() -> None:
    memory = np.zeros(rings.MINIMUM_BYTES - 4096, np.uint8)
    assert tcp.initialize(memory, np.zeros(0, np.uint64), 0, len(memory)) == 0
    assert not memory.any()


def test_who_asks_for_our_address_is_told() -> None:
    (answer,) = Guest().exchange(request())
    expected = ARP(net.ARP_REPLY, net.GUEST_MAC, net.GUEST_IP, OTHER_MAC, OTHER_IP)
    assert answer == net.build_arp(OTHER_MAC, expected)
    parsed = dpkt.ethernet.Ethernet(answer).data
    assert (parsed.op, parsed.sha, parsed.spa) == (2, net.GUEST_MAC, net.GUEST_IP)


@given(st.binary(max_size=1472), st.integers(0, 65535), st.integers(0, 65535))
def test_an_echo_request_comes_back(payload: bytes, identifier: int, sequence: int) -> None:
    (answer,) = Guest().exchange(ping(payload, identifier, sequence))
    assert answer == net.build_echo(
        OTHER_MAC, net.GUEST_MAC, net.GUEST_IP, OTHER_IP, net.ECHO_REPLY, identifier, sequence,
        payload,
    )  # fmt: skip


def patched(frame: bytes, at: int, value: bytes, mend: bool = True) -> bytes:
    changed = bytearray(frame)
    changed[at : at + len(value)] = value
    return with_checksums(changed) if mend else bytes(changed)


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (request(target=OTHER_IP), "dropped_address"),
        (request(operation=net.ARP_REPLY), "dropped_address"),
        (request()[:40], "dropped_malformed"),
        (patched(request(), 14, b"\0\6", mend=False), "dropped_malformed"),
        (patched(ping(b""), 0, OTHER_MAC), "dropped_address"),
        (patched(ping(b""), 30, OTHER_IP), "dropped_address"),
        (patched(ping(b""), 26, b"\xe0"), "dropped_address"),
        (patched(ping(b""), 12, b"\x86\xdd", mend=False), "dropped_protocol"),
        (patched(ping(b""), 23, bytes([net.UDP])), "dropped_protocol"),
        (patched(ping(b""), 34, bytes([net.ECHO_REPLY])), "dropped_protocol"),
        (patched(ping(b""), 14, b"\x65"), "dropped_malformed"),
        (patched(ping(b""), 14, b"\x44"), "dropped_malformed"),
        (patched(ping(b""), 14, b"\x4f"), "dropped_malformed"),
        (patched(ping(b""), 16, (29).to_bytes(2, "big")), "dropped_malformed"),
        (patched(ping(b""), 16, (27).to_bytes(2, "big")), "dropped_malformed"),
        (ping(b"")[:30], "dropped_malformed"),
        (patched(ping(b""), 22, b"\1", mend=False), "dropped_checksum"),
        (patched(ping(b"data"), 44, b"\1", mend=False), "dropped_checksum"),
        (patched(ping(b""), 20, b"\x20\0"), "dropped_fragment"),
        (patched(ping(b""), 20, b"\0\1"), "dropped_fragment"),
        (patched(Client().syn(), 38, b"x", mend=False), "dropped_checksum"),
        (patched(Client().syn(), 46, b"\x40"), "dropped_malformed"),
        (patched(Client().syn(), 46, b"\x70"), "dropped_malformed"),
        (patched(Client().syn(), 16, (39).to_bytes(2, "big")), "dropped_malformed"),
    ],
)
def test_what_is_wrong_is_dropped_and_counted(frame: bytes, counter: str) -> None:
    guest = Guest()
    assert guest.exchange(frame) == []
    assert guest.counter(counter) == guest.counter("frames_received") == 1
    assert guest.counter("frames_sent") == 0


def test_another_reader_agrees_with_what_is_said() -> None:
    guest, client = Guest(), Client()
    frames = guest.exchange(client.syn())
    client.hear(frames)
    client.out, client.fin = bytes(range(256)) * 17, True
    frames += guest.exchange(*client.say())
    for frame in frames:
        packet = dpkt.ethernet.Ethernet(frame).data
        sums = packet.sum, packet.data.sum
        packet.sum = packet.data.sum = 0
        again = dpkt.ip.IP(bytes(packet))
        assert (again.sum, again.data.sum) == sums
        assert (packet.src, packet.dst) == (net.GUEST_IP, net.HOST_IP)
        assert (packet.data.sport, packet.data.dport) == (7, 40_000)
    first = dpkt.ethernet.Ethernet(frames[0]).data.data
    assert dpkt.tcp.parse_opts(first.opts) == [(dpkt.tcp.TCP_OPT_MSS, b"\x05\xb4")]
    data = [dpkt.ethernet.Ethernet(frame).data.data.data for frame in frames]
    assert b"".join(data) == client.out


# ---- frames that lie ----

ports = st.sampled_from([7, 6379, 80, 40_000, 40_001])
near = st.integers(-70_000, 70_000) | st.sampled_from([-(2**31), 2**31 - 1])


@st.composite
def odd_segments(draw: st.DrawFn) -> tuple[int, int, int, int, int, int, bytes, int | None]:
    """A client's number, sequence numbers beside the right ones, and any flags, data and MSS."""
    return (
        draw(st.integers(0, 2)), draw(near), draw(near), draw(st.integers(0, 255)),
        draw(st.integers(0, 65535)), draw(st.integers(0, 400)), draw(st.binary(max_size=40)),
        draw(st.none() | st.integers(0, 65535)),
    )  # fmt: skip


patches = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3)


@settings(max_examples=150)
@given(st.lists(st.tuples(odd_segments(), patches, st.booleans()), max_size=30))
def test_segments_that_lie_do_no_harm(segments_and_patches: list) -> None:
    """Whatever comes, marks are right, nothing is written outside, and a good client goes on."""
    guest = Guest()
    clients = [
        connect(guest, Client(40_000 + n, service)) for n, service in enumerate((7, 7, 6379))
    ]
    good = connect(guest, Client(40_010))
    for (number, seq, ack, flags, window, repeat, data, mss), changes, mend in segments_and_patches:
        client = clients[number]
        segment = Segment(
            client.connection, (client.una + seq) % 2**32, ((client.rcv or 0) + ack) % 2**32,
            flags, window, (data * repeat)[:1400], mss,
        )  # fmt: skip
        frame = bytearray(net.build_tcp(net.GUEST_MAC, net.HOST_MAC, segment))
        for at, value in changes:
            if at < len(frame):
                frame[at] = value
        guest.exchange(with_checksums(frame) if mend else bytes(frame))
        guest.tick(30)
    good.out = b"still here"
    good.hear(guest.exchange(*good.say()))
    assert good.heard == b"still here"


@given(st.lists(st.binary(min_size=14, max_size=1514), max_size=8), st.booleans())
@example([bytes(1514)], True)
@example([b"\xff" * 1514], True)
def test_any_bytes_do_no_harm(frames: list[bytes], addressed: bool) -> None:
    guest = Guest()
    for frame in frames:
        if addressed:
            frame = net.GUEST_MAC + frame[6:12] + b"\x08\0\x45" + frame[15:]
        guest.exchange(with_checksums(bytearray(frame)))
    assert len(guest.exchange(ping(b"are you there?"))) == 1


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_broken_ram_leads_to_no_write_outside_of_it(seed: int) -> None:
    """A torn checkpoint, or a planted bug, may break a guest; it must not break the node."""
    source = random.Random(seed)
    guest = Guest()
    guest.jitter, guest.shuffle = source.choice([(0, 0), (5_000, 300)])
    clients = [connect(guest, Client(40_000 + n, source.choice([7, 6379]))) for n in range(3)]
    words = guest.inside().view(np.uint64)
    # Where connections and counters are; frames' and buffers' bytes may be anything anyway.
    places = [*range(512), *range(rings.READY_AT // 8, rings.RX_FRAMES // 8)]
    places += range(rings.BLOCKS_AT // 8, rings.BLOCKS_AT // 8 + 4 * rings.BLOCK_BYTES // 8)
    for _ in range(source.randint(1, 12)):
        for _ in range(source.randint(1, 20)):
            value = source.choice(
                [0, 1, 2, 5, 255, 2**16, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1,
                 source.getrandbits(64), source.randrange(70_000)]
            )  # fmt: skip
            words[source.choice(places)] = value
        client = source.choice(clients)
        client.out = source.randbytes(source.randint(1, 5_000))
        for frame in [*client.say(), client.syn(), client.frame(ACK, client.una)]:
            guest.receive.put(frame)
            before = guest.memory.copy()
            guest.now += source.choice([0, 1, 300])
            guest_calls(guest, before)


def guest_calls(guest: Guest, before: np.ndarray) -> None:
    """Call a broken guest, whose frames are not looked at."""
    queues = []
    for queue in (guest.receive, guest.transmit):
        queues += [queue.ends, queue.lengths, queue.frames]
    words = map(np.uint64, (guest.now, 0, 5, guest.jitter, guest.shuffle, 0))
    guest.frozen.freeze()
    tcp.serve(guest.memory, guest.marks, guest.ram, guest.size, *queues, *words, guest.host)
    guest._check(before)
    assert all(14 <= len(frame) <= 1514 for frame in guest.transmit.take_all())
