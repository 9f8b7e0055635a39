"""What the switch decides: where the guest is, who gets which frame, and what moves with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.net import frame as net
from colobench.net.frame import ARP, ConnectionKey, Segment
from colobench.net.switch import (
    ASK_INTERVAL,
    FIRST_PORT,
    LAST_PORT,
    GuestMoved,
    PingAnswered,
    Switch,
)
from colobench.net.tcp import TWICE_MSL, TCPConnection
from colobench.net.tcp_states import TCPState

PLENTY = 1 << 40
OTHER_MAC, OTHER_IP = bytes.fromhex("020000000009"), bytes([10, 0, 2, 99])
GRATUITOUS = net.build_arp(
    net.BROADCAST, ARP(net.ARP_REQUEST, net.GUEST_MAC, net.GUEST_IP, bytes(6), net.GUEST_IP)
)
GUEST_ANSWERS = net.build_arp(
    net.HOST_MAC, ARP(net.ARP_REPLY, net.GUEST_MAC, net.GUEST_IP, net.HOST_MAC, net.HOST_IP)
)


def ports(count: int = 2) -> Switch:
    switch = Switch()
    for number in range(1, count + 1):
        switch.link_up(number)
    return switch


def output(switch: Switch, now: float) -> list[tuple[int, bytes]]:
    """Give what the switch sends now."""
    switch.transmit(now, PLENTY)
    out = list(switch.output)
    switch.output.clear()
    return out


def segments(out: list[tuple[int, bytes]]) -> list[tuple[int, Segment]]:
    found = []
    for number, frame in out:
        packet = net.parse_ipv4(frame)
        if packet is not None and packet.protocol == net.TCP:
            assert net.checksums_correct(frame)
            assert (packet.source_mac, packet.destination_mac) == (net.HOST_MAC, net.GUEST_MAC)
            found.append((number, net.parse_tcp(packet)))
    return found


def questions(out: list[tuple[int, bytes]]) -> Iterator[tuple[int, ARP]]:
    for number, frame in out:
        message = net.parse_arp(frame)
        if message is not None and message.operation == net.ARP_REQUEST:
            yield number, message


def from_guest(segment: Segment) -> bytes:
    return net.build_tcp(net.HOST_MAC, net.GUEST_MAC, segment)


def connect(switch: Switch, number: int, now: float) -> tuple[TCPConnection, TCPConnection]:
    """Connect to the guest, which is at that port; gives both ends."""
    if switch.guest_port != number:
        switch.receive(number, GRATUITOUS, now)
    output(switch, now)
    tcp = switch.open(7, 1000, now)
    ((_, syn),) = segments(output(switch, now))
    guest = TCPConnection.accept(syn, 5, now)
    exchange(switch, number, guest, now)
    assert tcp.state is guest.state is TCPState.ESTABLISHED
    return tcp, guest


def exchange(switch: Switch, number: int, guest: TCPConnection, now: float) -> None:
    """Let the guest and the switch talk until both are silent."""
    while out := guest.segments(now):
        for segment in out:
            switch.receive(number, from_guest(segment), now)
        for at, segment in segments(output(switch, now)):
            assert at == number
            guest.receive(segment, now)


def test_guest_is_asked_for_and_the_connection_opens_with_its_answer() -> None:
    switch = ports(2)
    switch.open(7, 1000, 0.0)
    asked = list(questions(output(switch, 0.0)))
    assert [number for number, _ in asked] == [1, 2]
    assert {message.target for _, message in asked} == {net.GUEST_IP}
    assert switch.undeliverable == 1
    assert switch.deadline() == pytest.approx(ASK_INTERVAL)
    switch.tick(ASK_INTERVAL)
    assert len(list(questions(output(switch, ASK_INTERVAL)))) == 2
    switch.receive(2, GUEST_ANSWERS, 0.15)
    assert [(number, s.flags, s.connection) for number, s in segments(output(switch, 0.15))] == [
        (2, net.SYN, ConnectionKey(net.HOST_IP, FIRST_PORT, net.GUEST_IP, 7))
    ]
    # The first place is no move.
    assert (switch.moves, switch.events) == (0, [])


def test_arp_for_the_host_is_answered_to_whoever_asks() -> None:
    switch = ports(2)
    question = ARP(net.ARP_REQUEST, OTHER_MAC, OTHER_IP, bytes(6), net.HOST_IP)
    switch.receive(2, net.build_arp(net.BROADCAST, question), 0.0)
    out = dict(output(switch, 0.0))
    assert net.parse_arp(out[2]) == ARP(
        net.ARP_REPLY, net.HOST_MAC, net.HOST_IP, OTHER_MAC, OTHER_IP
    )
    assert net.parse_arp(out[1]) == question


def test_move_is_noticed_and_everything_unacknowledged_goes_to_the_new_port_at_once() -> None:
    switch = ports(2)
    both = [connect(switch, 1, 0.0) for _ in range(3)]
    for number, (tcp, _) in enumerate(both):
        tcp.send(bytes([number]) * 3000)
        switch.ready[tcp] = None
    lost = segments(output(switch, 1.0))
    assert {number for number, _ in lost} == {1}
    switch.receive(2, GRATUITOUS, 3.0)
    again = segments(output(switch, 3.0))
    assert {number for number, _ in again} == {2}
    sent = [segment.payload for _, segment in lost]
    assert [segment.payload for _, segment in again if segment.payload] == sent
    assert switch.retransmissions == len(lost)
    assert switch.events == [GuestMoved(2, 3.0)]
    assert (switch.moves, switch.guest_port, switch.guest_since) == (1, 2, 3.0)


def test_any_frame_of_the_guests_shows_where_it_is() -> None:
    switch = ports(2)
    tcp, guest = connect(switch, 1, 0.0)
    guest.send(b"from the other port")
    for segment in guest.segments(1.0):
        switch.receive(2, from_guest(segment), 1.0)
    assert (switch.guest_port, switch.moves) == (2, 1)
    assert tcp.inbox == b"from the other port"
    assert {number for number, _ in segments(output(switch, 1.0))} == {2}


def test_announcement_from_the_same_port_sends_again_too() -> None:
    switch = ports(1)
    tcp, _ = connect(switch, 1, 0.0)
    tcp.send(b"lost")
    switch.ready[tcp] = None
    output(switch, 1.0)
    switch.receive(1, GRATUITOUS, 1.1)
    assert b"lost" in [segment.payload for _, segment in segments(output(switch, 1.1))]
    assert switch.moves == 0


def test_lost_link_makes_the_switch_ask_and_what_was_sent_meanwhile_follows() -> None:
    switch = ports(2)
    tcp, guest = connect(switch, 1, 0.0)
    switch.link_down(1)
    tcp.send(b"into the void")
    switch.ready[tcp] = None
    asked = list(questions(output(switch, 1.0)))
    assert [number for number, _ in asked] == [2]
    assert switch.guest_port is None
    for _ in range(100):
        due = switch.deadline()
        assert due is not None
        switch.tick(due)
        output(switch, due)
    switch.link_up(3)
    switch.receive(3, GUEST_ANSWERS, 70.0)
    out = segments(output(switch, 70.0))
    assert {number for number, _ in out} == {3}
    for _, segment in out:
        guest.receive(segment, 70.0)
    assert guest.inbox == b"into the void"
    assert switch.events == [GuestMoved(3, 70.0)]


def test_refused_connection_is_let_go() -> None:
    switch = ports(1)
    switch.receive(1, GRATUITOUS, 0.0)
    tcp = switch.open(9, 1000, 0.0)
    ((_, syn),) = segments(output(switch, 0.0))
    back = syn.connection.reversed()
    refused = Segment(back, 0, syn.seq + 1, net.RST | net.ACK, 0)
    switch.receive(1, from_guest(refused), 0.1)
    assert list(switch.ready) == [tcp]
    assert tcp.failure == "reset"
    assert output(switch, 0.1) == []
    assert switch.connections == {}


def test_segment_of_no_connection_is_refused() -> None:
    switch = ports(1)
    switch.receive(1, GRATUITOUS, 0.0)
    stale = Segment(ConnectionKey(net.GUEST_IP, 7, net.HOST_IP, 50000), 10, 77, net.ACK, 100)
    switch.receive(1, from_guest(stale), 0.1)
    ((_, answer),) = segments(output(switch, 0.1))
    assert (answer.seq, answer.flags) == (77, net.RST)
    tcp, _ = connect(switch, 1, 0.2)
    other = tcp.connection.reversed()._replace(source_port=8)
    switch.receive(1, from_guest(Segment(other, 10, 77, net.RST, 100)), 0.3)
    assert tcp.state is TCPState.ESTABLISHED


def test_connection_ends_after_its_wait_and_its_port_is_used_last() -> None:
    switch = ports(1)
    tcp, guest = connect(switch, 1, 0.0)
    tcp.close(1.0)
    switch.ready[tcp] = None
    for _, segment in segments(output(switch, 1.0)):
        guest.receive(segment, 1.0)
    guest.close(1.0)
    exchange(switch, 1, guest, 1.0)
    assert (guest.state, tcp.state) == (TCPState.CLOSED, TCPState.TIME_WAIT)
    while (due := switch.deadline()) is not None:
        switch.tick(due)
        output(switch, due)
    assert due is None
    assert switch.connections == {}
    assert tcp.state is TCPState.CLOSED
    again = switch.open(7, 1000, 2 + TWICE_MSL)
    assert again.connection.source_port == FIRST_PORT + 1


def test_connection_that_is_gone_takes_no_other_with_it() -> None:
    switch = Switch(FIRST_PORT)
    switch.link_up(1)
    old, _ = connect(switch, 1, 0.0)
    old.abort(1.0)
    switch.ready[old] = None
    output(switch, 1.0)
    switch._next_port = FIRST_PORT
    new, _ = connect(switch, 1, 2.0)
    assert new.connection == old.connection
    # Its user still had data to take from it.
    switch.ready[old] = None
    output(switch, 3.0)
    assert switch.connections == {FIRST_PORT: new}


def test_ports_of_the_host_are_used_in_turn_and_run_out() -> None:
    switch = Switch(LAST_PORT)
    count = LAST_PORT - FIRST_PORT + 1
    used = [switch.open(7, 0, 0.0).connection.source_port for _ in range(count)]
    assert used[:2] == [LAST_PORT, FIRST_PORT]
    assert len(set(used)) == count
    with pytest.raises(LocalError, match="expected fewer than"):
        switch.open(7, 0, 0.0)


def test_connections_wait_for_a_port_that_is_full() -> None:
    switch = ports(1)
    ends = [connect(switch, 1, 0.0)[0] for _ in range(5)]
    for tcp in ends:
        tcp.send(bytes(4000))
        switch.ready[tcp] = None
    switch.transmit(0.1, 5000)
    assert len(segments(switch.output)) == 2 * 3
    assert list(switch.ready) == ends[2:]
    switch.transmit(0.1, 0)
    assert list(switch.ready) == ends[2:]
    switch.output.clear()
    assert len(segments(output(switch, 0.2))) == 3 * 3


def test_ping_is_answered_and_timed_and_follows_the_guest() -> None:
    switch = ports(2)
    switch.ping(1, 0.0)
    assert [number for number, _ in questions(output(switch, 0.0))] == [1, 2]
    switch.receive(1, GUEST_ANSWERS, 0.1)
    ((number, frame),) = output(switch, 0.1)
    switch.receive(2, GRATUITOUS, 0.2)
    moved_to = [at for at, each in output(switch, 0.2) if each == frame]
    assert (number, moved_to) == (1, [2])
    packet = net.parse_ipv4(frame)
    assert packet is not None
    echo = net.parse_echo(packet)
    assert echo is not None
    for kind in (net.ECHO_REPLY, net.ECHO_REPLY):
        answer = (kind, echo.identifier, echo.sequence, echo.payload)
        addresses = (net.HOST_MAC, net.GUEST_MAC, net.GUEST_IP, net.HOST_IP)
        switch.receive(2, net.build_echo(*addresses, *answer), 0.25)
    answered = [event for event in switch.events if isinstance(event, PingAnswered)]
    assert answered == [PingAnswered(1, 0.25)]
    switch.ping(2, 1.0)
    switch.forget_ping(2)
    assert switch.deadline() is None


def test_guests_ping_is_answered() -> None:
    switch = ports(1)
    addresses = (net.HOST_MAC, net.GUEST_MAC, net.GUEST_IP, net.HOST_IP)
    switch.receive(1, net.build_echo(*addresses, net.ECHO_REQUEST, 3, 4, b"who"), 0.0)
    ((_, frame),) = output(switch, 0.0)
    packet = net.parse_ipv4(frame)
    assert packet is not None
    assert net.parse_echo(packet) == net.Echo(net.ECHO_REPLY, 3, 4, b"who")
    assert net.checksums_correct(frame)


def test_frames_go_to_the_port_of_their_station_and_to_all_if_it_is_unknown() -> None:
    switch = ports(3)

    def ethernet(to: bytes, source: bytes) -> bytes:
        return to + source + b"\x88\xb5" + b"something else"

    first = ethernet(OTHER_MAC, net.GUEST_MAC)
    switch.receive(1, first, 0.0)
    assert output(switch, 0.0) == [(2, first), (3, first)]
    back = ethernet(net.GUEST_MAC, OTHER_MAC)
    switch.receive(2, back, 0.0)
    assert output(switch, 0.0) == [(1, back)]
    switch.receive(1, first, 0.0)
    assert output(switch, 0.0) == [(2, first)]
    here = ethernet(OTHER_MAC, net.GUEST_MAC)
    switch.receive(2, here, 0.0)
    assert output(switch, 0.0) == []
    everyone = ethernet(net.BROADCAST, OTHER_MAC)
    switch.receive(2, everyone, 0.0)
    assert output(switch, 0.0) == [(1, everyone), (3, everyone)]
    switch.link_down(2)
    switch.receive(1, first, 0.0)
    assert output(switch, 0.0) == [(3, first)]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(13),
        bytes(net.FRAME_MAX + 1),
        net.HOST_MAC + net.HOST_MAC + b"\x08\x00" + bytes(40),
        net.HOST_MAC + net.BROADCAST + b"\x08\x00" + bytes(40),
        net.HOST_MAC + net.GUEST_MAC + b"\x08\x00" + bytes(40),
        net.build_arp(net.BROADCAST, ARP(1, net.GUEST_MAC, net.GUEST_IP, bytes(6), net.HOST_IP))
        .replace(net.GUEST_MAC, OTHER_MAC, 1),
    ],
    ids=["empty", "short", "long", "ours", "multicast", "zeros", "two addresses"],
)  # fmt: skip
def test_malformed_frame_is_counted_and_changes_nothing(frame: bytes) -> None:
    switch = ports(2)
    switch.receive(1, frame, 0.0)
    assert switch.ports[1].malformed == 1
    assert output(switch, 0.0) == []
    assert switch.guest_port is None


def test_wrong_checksum_is_a_malformed_frame() -> None:
    switch = ports(1)
    tcp, guest = connect(switch, 1, 0.0)
    guest.send(b"damaged on its way")
    (segment,) = guest.segments(0.1)
    frame = bytearray(from_guest(segment))
    frame[-1] ^= 1
    switch.receive(1, bytes(frame), 0.1)
    assert (switch.ports[1].malformed, tcp.inbox) == (1, b"")


def test_frames_and_bytes_are_counted_per_port() -> None:
    switch = ports(2)
    switch.receive(1, GRATUITOUS, 0.0)
    assert (switch.ports[1].received_frames, switch.ports[1].received_bytes) == (1, 60)
    assert (switch.ports[2].sent_frames, switch.ports[2].sent_bytes) == (1, 60)


connections = st.builds(
    ConnectionKey,
    st.just(net.GUEST_IP),
    st.sampled_from([7, 8]),
    st.sampled_from([net.HOST_IP, OTHER_IP]),
    st.integers(FIRST_PORT - 1, FIRST_PORT + 3),
)
plausible = st.one_of(
    st.builds(
        net.build_tcp,
        st.sampled_from([net.HOST_MAC, OTHER_MAC]),
        st.sampled_from([net.GUEST_MAC, OTHER_MAC]),
        st.builds(
            Segment,
            connections,
            st.integers(0, 20),
            st.integers(995, 1010),
            st.integers(0, 0x3F),
            st.integers(0, 65535),
            st.binary(max_size=10),
        ),
    ),
    st.sampled_from([GRATUITOUS, GUEST_ANSWERS]),
    st.binary(max_size=80),
    st.binary(max_size=60).map(lambda rest: net.HOST_MAC + net.GUEST_MAC + b"\x08\x00" + rest),
    st.binary(max_size=60).map(lambda rest: net.BROADCAST + net.GUEST_MAC + b"\x08\x06" + rest),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["frame", "open", "send", "close", "up", "down", "tick", "ping"]),
            st.integers(0, 3),
            plausible,
            st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=3),
        ),
        max_size=40,
    )
)
def test_no_frame_and_no_order_of_events_raises(
    steps: list[tuple[str, int, bytes, list[tuple[int, int]]]],
) -> None:
    switch = ports(2)
    last, now = 2, 0.0
    for what, number, frame, changes in steps:
        now += 0.05
        present = list(switch.ports)
        opened = list(switch.connections.values())
        if what == "frame" and present:
            changed = bytearray(frame)
            for at, value in changes:
                if changed:
                    changed[at % len(changed)] = value
            switch.receive(present[number % len(present)], bytes(changed), now)
        elif what == "open":
            switch.open(7, 1000, now)
        elif what == "send" and opened:
            tcp = opened[number % len(opened)]
            tcp.send(b"data"[: tcp.room])
            switch.ready[tcp] = None
        elif what == "close" and opened and opened[number % len(opened)].room:
            opened[number % len(opened)].close(now)
        elif what == "up":
            last += 1
            switch.link_up(last)
        elif what == "down" and present:
            switch.link_down(present[number % len(present)])
        elif what == "tick":
            now = max(now, switch.deadline() or now)
            switch.tick(now)
        elif what == "ping":
            switch.ping(number, now)
        present = list(switch.ports)
        for at, _ in output(switch, now):
            assert at in present or what == "down"
        assert not switch.ready
