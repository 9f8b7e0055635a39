"""colo_compare: what a client sees, the secondary has said; and equal guests need no checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.net import frame as net
from colobench.net.compare import CLOSED_LINGER, ColoCompare
from colobench.net.compare_packets import first_difference
from colobench.net.frame import ACK, FIN, GUEST_IP, HOST_IP, PSH, RST, SYN, ConnectionKey, Segment
from colobench.net.mirror import MARK
from colobench.net.outcome import FRAGMENTS, Miscompare, Outcome, Overflow, Timeout
from colobench.settings.compare import Quirk

CONNECTION = ConnectionKey(GUEST_IP, 6379, HOST_IP, 40000)
CLIENT_ISN = 7000


def tcp(seq, ack=CLIENT_ISN + 1, flags=ACK, payload=b"", connection=CONNECTION, window=1000):
    """Give a frame of the guest."""
    segment = Segment(connection, seq % 2**32, ack % 2**32, flags, window, payload)
    return net.build_tcp(net.HOST_MAC, net.GUEST_MAC, segment)


def segment_of(frame):
    return net.parse_tcp(net.parse_ipv4(frame))


def udp(payload, port=53, body=None):
    header = port.to_bytes(2, "big") + bytes([0x10, 0]) + (8 + len(payload)).to_bytes(2, "big")
    return ip(net.UDP, header + bytes(2) + payload if body is None else body)


def ip(protocol, body):
    return net.build_ipv4(net.HOST_MAC, net.GUEST_MAC, GUEST_IP, HOST_IP, protocol, body)


# What a guest says on one connection, as places in its stream: the SYN is -1, data begins at 0.


@dataclass(frozen=True)
class Saying:
    """A segment by places; `ack` counts the client's bytes."""

    begin: int
    payload: bytes
    ack: int
    fin: bool = False
    syn: bool = False

    @property
    def end(self):
        return self.begin + len(self.payload) + self.fin + self.syn

    def frame(self, isn):
        flags = ACK | FIN * self.fin | SYN * self.syn | PSH * bool(self.payload)
        return tcp(isn + 1 + self.begin, CLIENT_ISN + 1 + self.ack, flags, self.payload)


@st.composite
def sayings(draw, data, closes, acks):
    """Draw how a guest says `data`: cuts, retransmissions, acknowledgements, bare segments."""
    said = [Saying(-1, b"", 0, syn=True)]
    at = ack = 0
    fin = False
    while at < len(data) or (closes and not fin):
        ack = draw(st.integers(ack, acks))
        kind = draw(st.sampled_from(["new", "new", "new", "again", "bare", "syn"]))
        if kind == "syn" and at == 0:
            said.append(said[0])
        elif kind == "again" and at:
            begin = draw(st.integers(0, at - 1))
            end = draw(st.integers(begin + 1, at))
            said.append(Saying(begin, data[begin:end], ack))
        elif kind == "bare":
            said.append(Saying(at, b"", ack))
        else:
            end = draw(st.integers(at, len(data)))
            fin = closes and end == len(data)
            if end > at or fin:
                said.append(Saying(at, data[at:end], ack, fin))
                at = end
    said.append(Saying(at + fin, b"", acks))
    return said


@st.composite
def guests(draw, equal=True):
    """Draw what two guests say, in which order it comes, and the primary's ISN."""
    data = draw(st.binary(max_size=24))
    other, closes, other_closes = data, draw(st.booleans()), None
    if not equal:
        kind = draw(st.sampled_from(["byte", "length", "end"]))
        place = draw(st.integers(0, len(data)))
        if kind == "byte" and data:
            place = min(place, len(data) - 1)
            other = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        elif kind == "length":
            other = data[:place]
        other_closes = draw(st.booleans())
    acks = draw(st.integers(0, 5))
    primary = draw(sayings(data, closes, acks))
    secondary = draw(sayings(other, closes if other_closes is None else other_closes, acks))
    steps = draw(st.permutations([True] * len(primary) + [False] * len(secondary)))
    isn = draw(st.sampled_from([0, 100, 2**31 - 5, 2**32 - 1, 2**32 - 9]))
    return primary, secondary, steps, isn


@dataclass
class Naive:
    """The twin of ColoCompare for one connection: all that was said, in dicts."""

    primary_said: dict[int, int] = field(default_factory=dict)
    secondary_said: dict[int, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    ack: int = -1
    held: list[Saying] = field(default_factory=list)
    syn = False
    difference: tuple[int, str] | None = None

    def compared(self):
        at = 0
        while at in self.primary_said and self.primary_said[at] == self.secondary_said.get(at):
            at += 1
        return at

    def confirmed(self):
        """Give the place behind all that both have said, FIN included."""
        at = self.compared()
        return at + (self.ends == {"primary": at, "secondary": at})

    def look(self):
        at = self.compared()
        if self.syn and self.difference is None:
            if at in self.primary_said and at in self.secondary_said:
                self.difference = (at, "payload")
            elif at in self.primary_said.keys() | self.secondary_said.keys() and (
                at in self.ends.values()
            ):
                self.difference = (at, "end")

    def primary(self, saying):
        repeats = self.note(saying, self.primary_said, "primary")
        if (
            repeats
            and self.held
            and (saying.begin >= self.confirmed() or (saying.syn and self.held[-1].syn))
            and saying.ack == self.held[-1].ack
        ):
            return []
        self.held.append(saying)
        return self.release()

    def secondary(self, saying):
        self.syn |= saying.syn
        self.ack = max(self.ack, saying.ack)
        if not saying.syn and self.difference is None:
            self.note(saying, self.secondary_said, "secondary")
        return self.release()

    def note(self, saying, said, side):
        new = {saying.begin + at: byte for at, byte in enumerate(saying.payload)}
        repeats = (new.keys() <= said.keys()) and not (saying.fin and side not in self.ends)
        said.update(new)
        if saying.fin:
            self.ends[side] = saying.end - 1
        return repeats and bool(saying.payload or saying.fin or saying.syn)

    def release(self):
        self.look()
        released = []
        while self.held and self.syn:
            head = self.held[0]
            if head.end > self.confirmed() or head.ack > self.ack:
                break
            released.append(self.held.pop(0))
        return released


def run(compare, primary, secondary, steps, isn):
    """Give the frames of each step to a compare, and yield what it answers, with what was said."""
    left, right = iter(primary), iter(secondary)
    for at, is_primary in enumerate(steps):
        saying = next(left if is_primary else right)
        # The secondary's SYN has its own number; all else was rewritten.
        frame = saying.frame(isn + 999 if saying.syn and not is_primary else isn)
        outcome = (compare.primary if is_primary else compare.secondary)(frame, at / 1000)
        yield is_primary, saying, outcome


@given(guests())
def test_equal_streams_never_ask_and_all_leaves_in_order(drawn):
    primary, secondary, steps, isn = drawn
    compare, released = ColoCompare(), []
    for _, _, outcome in run(compare, primary, secondary, steps, isn):
        assert outcome.cause is None
        released += outcome.frames
    counters = compare.counters()
    assert counters["held"] == counters["dropped_primary"] == 0
    left = iter(saying.frame(isn) for saying in primary)
    assert all(frame in left for frame in released)
    assert len(released) + counters["frames_absorbed"] == len(primary)
    whole = max(saying.end for saying in primary)
    assert max(net.sequence_difference(segment_of(f).end, isn + 1) for f in released) == whole
    assert compare.scan(100.0) == Outcome()
    assert compare.checkpoint() == []


@given(st.booleans().flatmap(guests))
def test_the_same_as_the_naive_twin(drawn):
    primary, secondary, steps, isn = drawn
    compare, naive, asked = ColoCompare(), Naive(), None
    for is_primary, saying, outcome in run(compare, primary, secondary, steps, isn):
        expected = (naive.primary if is_primary else naive.secondary)(saying)
        assert list(outcome.frames) == [each.frame(isn) for each in expected]
        if outcome.cause is not None:
            assert asked is None
            asked = outcome.cause
        found = None if asked is None else (asked.offset, asked.what)
        assert found == naive.difference
    assert compare.counters()["held"] == len(naive.held)


@given(guests(equal=False))
def test_what_has_left_the_secondary_has_said_and_acknowledged(drawn):
    primary, secondary, steps, isn = drawn
    compare, said, ends, ack = ColoCompare(), {}, set(), -1
    for is_primary, saying, outcome in run(compare, primary, secondary, steps, isn):
        if not is_primary:
            new = {saying.begin + at: byte for at, byte in enumerate(saying.payload)}
            said |= new
            ack = max(ack, saying.ack)
            ends |= {saying.end} if saying.fin else set()
        for frame in outcome.frames:
            segment = segment_of(frame)
            begin = net.sequence_difference(segment.seq, isn + 1)
            assert net.sequence_difference(segment.ack, CLIENT_ISN + 1) <= ack
            if not segment.flags & SYN:
                assert all(said.get(begin + at) == byte for at, byte in enumerate(segment.payload))
            if segment.flags & FIN:
                assert begin + segment.length in ends


@given(guests(), st.data())
def test_the_first_byte_that_differs_is_named_and_stays_in(drawn, data):
    primary, _, _, isn = drawn
    stream = {s.begin + at: byte for s in primary for at, byte in enumerate(s.payload)}
    if not stream:
        return
    place = data.draw(st.integers(0, len(stream) - 1))
    compare, causes, released = ColoCompare(), [], []
    flip = [
        replace(s, payload=bytes(b ^ (s.begin + at == place) for at, b in enumerate(s.payload)))
        for s in primary
    ]
    for frames, take in ((flip, compare.secondary), (primary, compare.primary)):
        for saying in frames:
            outcome = take(saying.frame(isn), 0.0)
            released += outcome.frames
            causes += [outcome.cause] if outcome.cause else []
    assert causes == [Miscompare(net.TCP, CONNECTION, place, "payload")]
    assert all(
        net.sequence_difference(segment_of(frame).end, isn + 1) <= place for frame in released
    )
    held = compare.checkpoint()
    left = iter(saying.frame(isn) for saying in primary)
    assert all(frame in left for frame in released + held)
    counters = compare.counters()
    assert counters["frames_released_checkpoint"] == len(held)
    assert (counters["miscompares"], counters["checkpoints_requested"]) == (1, 1)


@given(guests(equal=False), st.integers(0, 40))
def test_after_a_checkpoint_both_go_on_from_the_primarys_state(drawn, cut):
    """The primary's words up to a cut leave; from there on equal words leave without asking."""
    primary, secondary, steps, isn = drawn
    compare, released = ColoCompare(), []
    said = 0
    for at, (is_primary, _, outcome) in enumerate(run(compare, primary, secondary, steps, isn)):
        said += is_primary
        released += outcome.frames
        if at == cut:
            break
    compare.secondary(MARK, 0.0)
    released += compare.checkpoint()
    assert compare.counters()["held"] == 0
    for saying in primary[said:]:
        for take in (compare.secondary, compare.primary):
            outcome = take(saying.frame(isn), 50.0)
            assert outcome.cause is None
            released += outcome.frames
    assert compare.counters()["held"] == 0
    assert len(released) + compare.counters()["frames_absorbed"] == len(primary)


def test_after_a_checkpoint_the_secondary_has_acknowledged_and_ended_what_the_primary_has():
    compare = opened()
    frames = [
        tcp(103, CLIENT_ISN + 9, payload=b"behind a gap"),
        tcp(120, CLIENT_ISN + 9, FIN | ACK),
        tcp(121, CLIENT_ISN + 9),
    ]
    assert all(compare.primary(frame, 0.0) == Outcome() for frame in frames)
    assert compare.checkpoint() == frames
    assert [compare.primary(frame, 0.0).frames for frame in frames] == [(f,) for f in frames]


def opened(quirks=frozenset(), **options):
    """Give a compare on whose connection both guests have sent their SYN; data begins at 101."""
    compare = ColoCompare(quirks=quirks, **options)
    compare.primary(tcp(100, flags=SYN | ACK), 0.0)
    compare.secondary(tcp(55555, flags=SYN | ACK), 0.0)
    return compare


def test_a_syn_waits_for_the_secondarys_whose_number_is_another():
    compare = ColoCompare()
    syn = tcp(100, flags=SYN | ACK)
    assert compare.primary(syn, 0.0) == Outcome()
    assert compare.secondary(tcp(55555, CLIENT_ISN + 2, SYN | ACK), 0.0) == Outcome()
    assert compare.secondary(tcp(55555, flags=SYN | ACK), 0.0) == Outcome((syn,))


def test_an_acknowledgement_waits_until_the_secondary_has_the_bytes_too():
    compare = opened()
    ack = tcp(101, CLIENT_ISN + 50)
    assert compare.primary(ack, 0.0) == Outcome()
    assert compare.secondary(tcp(101, CLIENT_ISN + 49), 0.0) == Outcome()
    assert compare.secondary(tcp(101, CLIENT_ISN + 50), 0.0) == Outcome((ack,))


def test_a_window_update_passes_at_once():
    compare = opened()
    update = tcp(101, window=0)
    assert compare.primary(update, 0.0) == Outcome((update,))


def test_fin_waits_for_fin_and_more_data_is_a_difference():
    compare = opened()
    fin = tcp(101, flags=FIN | ACK)
    assert compare.primary(fin, 0.0) == Outcome()
    outcome = compare.secondary(tcp(101, payload=b"more"), 0.0)
    assert outcome == Outcome((), Miscompare(net.TCP, CONNECTION, 0, "end"))
    other = opened()
    other.primary(fin, 0.0)
    assert other.secondary(fin, 0.0) == Outcome((fin,))


def test_rst_waits_for_an_rst_at_the_same_place():
    compare = opened()
    reset = tcp(101, flags=RST)
    assert compare.primary(reset, 0.0) == Outcome()
    assert compare.secondary(tcp(102, flags=RST), 0.0) == Outcome()
    assert compare.secondary(reset, 0.0) == Outcome((reset,))
    assert compare.primary(reset, 0.0) == Outcome((reset,))


def test_a_refused_connection_is_equal_too():
    compare, reset = ColoCompare(), tcp(0, flags=RST | ACK)
    assert compare.secondary(reset, 0.0) == Outcome()
    assert compare.primary(reset, 0.0) == Outcome((reset,))
    assert compare.scan(10.0) == Outcome()


def test_a_connection_that_is_opened_again_is_a_new_one():
    """Old words of either side do not count for it, whichever of the guests is first."""
    compare = opened()
    compare.primary(tcp(101, payload=b"old"), 0.0)
    syn, answer = tcp(9000, 80001, SYN | ACK), tcp(9001, 80001, payload=b"new")
    assert compare.primary(syn, 0.0) == Outcome()
    assert compare.secondary(tcp(101, payload=b"old"), 0.0) == Outcome()
    assert compare.secondary(tcp(1, 80001, SYN | ACK), 0.0) == Outcome((syn,))
    assert compare.primary(answer, 0.0) == Outcome()
    assert compare.secondary(answer, 0.0) == Outcome((answer,))
    assert compare.counters()["dropped_primary"] == 1
    late, again = tcp(9004, 80001, payload=b"x"), tcp(77, 90001, SYN | ACK)
    assert compare.secondary(tcp(2, 90001, SYN | ACK), 0.0) == Outcome()
    assert compare.primary(late, 0.0) == Outcome()
    assert compare.primary(again, 0.0) == Outcome((again,))


def test_a_retransmission_that_overlaps_what_has_left_waits_for_the_rest_only():
    compare = opened()
    first, both = tcp(101, payload=b"abcd"), tcp(101, payload=b"abcdef")
    compare.secondary(first, 0.0)
    assert compare.primary(first, 0.0) == Outcome((first,))
    assert compare.primary(both, 0.0) == Outcome()
    assert compare.primary(first, 0.0) == Outcome()  # Behind the one that waits: order is kept.
    assert compare.secondary(tcp(105, payload=b"ef"), 0.0) == Outcome((both, first))


def test_a_storm_of_retransmissions_takes_no_room():
    compare = opened(max_queue_size=4)
    data = tcp(101, payload=b"abcd")
    for _ in range(100):
        assert compare.primary(data, 0.0) == Outcome()
        assert compare.primary(tcp(102, payload=b"bc"), 0.0) == Outcome()
    assert compare.counters()["held"] == 1
    newer = tcp(101, CLIENT_ISN + 9, payload=b"abcd")
    compare.primary(newer, 0.0)
    assert compare.secondary(newer, 0.0) == Outcome((data, newer))


def test_a_connection_that_is_older_than_the_compare_waits_for_the_secondarys_word():
    compare = ColoCompare()
    data = tcp(500, payload=b"data")
    compare.secondary(tcp(498, payload=b"..data"), 0.0)
    assert compare.primary(data, 0.0) == Outcome((data,))
    outcome = compare.primary(tcp(504, payload=b"A"), 0.0)
    outcome = compare.secondary(tcp(504, payload=b"B"), 0.0)
    assert outcome.cause == Miscompare(net.TCP, CONNECTION, 4)


def test_bytes_behind_a_gap_wait_for_it():
    compare = opened()
    frames = [tcp(101, payload=b"ab"), tcp(103, payload=b"cd"), tcp(105, payload=b"ef")]
    for frame in (frames[2], frames[1], frames[0]):
        assert compare.secondary(frame, 0.0) == Outcome()
    assert [compare.primary(frame, 0.0).frames for frame in frames] == [(f,) for f in frames]
    assert compare.primary(tcp(109, payload=b"x"), 0.0) == Outcome()
    assert compare.checkpoint() != []


def test_part_of_a_segment_leaves_after_a_while_so_that_the_other_guest_can_go_on():
    """Nagle's algorithm on the secondary: it says the rest when the client has the beginning."""
    compare = opened()
    whole = tcp(101, CLIENT_ISN + 30, ACK | PSH | FIN, b"abcdef")
    compare.secondary(tcp(101, CLIENT_ISN + 10, payload=b"abc"), 0.0)
    assert compare.primary(whole, 0.0) == Outcome()
    assert compare.scan(0.5) == Outcome()
    (part,) = compare.scan(1.0).frames
    assert net.checksums_correct(part)
    segment = segment_of(part)
    assert (segment.seq, segment.payload) == (101, b"abc")
    assert (segment.ack, segment.flags) == (CLIENT_ISN + 10, ACK)
    assert compare.scan(2.0) == Outcome()
    rest = tcp(104, CLIENT_ISN + 30, ACK | FIN, b"def")
    assert compare.secondary(rest, 2.0) == Outcome((whole,))
    assert compare.counters()["frames_eased"] == 1


def test_equal_data_is_not_held_for_ever_by_what_it_acknowledges():
    """The secondary's send buffer is full, so it reads no more: the client must see this data."""
    compare = opened()
    for at in range(3):
        compare.secondary(tcp(101 + at, CLIENT_ISN + 10, payload=b"x"), 0.0)
        compare.primary(tcp(101 + at, CLIENT_ISN + 20, payload=b"x"), 0.0)
    parts = [segment_of(frame) for frame in compare.scan(1.0).frames]
    assert [(part.seq, part.ack) for part in parts] == [
        (101 + n, CLIENT_ISN + 10) for n in (0, 1, 2)
    ]
    assert len(compare.secondary(tcp(104, CLIENT_ISN + 20), 1.1).frames) == 3


@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_what_waits_too_long_asks_once(side):
    compare = opened()
    getattr(compare, side)(tcp(101, payload=b"x"), 5.0)
    assert compare.scan(7.9).cause is None
    assert compare.scan(8.5).cause == Timeout(net.TCP, CONNECTION, 3.5)
    assert compare.scan(9.5).cause is None
    compare.checkpoint()
    compare.secondary(MARK, 9.5)
    assert compare.scan(99.0) == Outcome()
    getattr(compare, side)(tcp(102, payload=b"y"), 100.0)
    assert compare.scan(103.0).cause == Timeout(net.TCP, CONNECTION, 3.0)
    assert compare.counters()["timeouts"] == 2


def test_udp_and_icmp_are_compared_by_payload_in_any_order_that_the_secondary_was_first_in():
    compare = ColoCompare()
    one, two = udp(b"one"), udp(b"two")
    compare.secondary(one, 0.0)
    compare.secondary(two, 0.0)
    assert compare.primary(two, 0.0) == Outcome((two,))
    assert compare.primary(one, 0.0) == Outcome((one,))
    assert compare.primary(one, 0.0) == Outcome()
    cause = compare.secondary(udp(b"ons"), 0.0).cause
    assert cause == Miscompare(net.UDP, ConnectionKey(GUEST_IP, 53, HOST_IP, 4096), 2)
    macs_and_addresses = (net.HOST_MAC, net.GUEST_MAC, GUEST_IP, HOST_IP)
    echo = net.build_echo(*macs_and_addresses, net.ECHO_REPLY, 1, 2, b"ping")
    assert compare.primary(echo, 0.0) == Outcome()
    assert compare.secondary(echo, 0.0) == Outcome((echo,))


def test_other_protocols_and_fragments_are_compared_too():
    compare = ColoCompare()
    packet = ip(132, b"sctp")
    fragment = bytearray(ip(net.TCP, b"part"))
    fragment[20:22] = b"\x20\x01"
    compare.secondary(packet, 0.0)
    assert compare.primary(packet, 0.0) == Outcome((packet,))
    assert compare.primary(bytes(fragment), 0.0) == Outcome()
    fragment[21] = 2
    assert compare.secondary(bytes(fragment), 0.0).cause == Miscompare(
        FRAGMENTS, ConnectionKey(GUEST_IP, 0, HOST_IP, 0), 2
    )


def test_arp_of_the_primary_passes_and_the_secondarys_does_not():
    compare = ColoCompare()
    arp = net.build_arp(net.BROADCAST, net.ARP(1, net.GUEST_MAC, GUEST_IP, bytes(6), HOST_IP))
    assert compare.primary(arp, 0.0) == Outcome((arp,))
    assert compare.secondary(arp, 0.0) == Outcome()


BROKEN = [
    b"",
    b"short",
    tcp(1)[:20],
    tcp(1)[:40],
    udp(b"", body=b"\0" * 5),
    udp(b"x", body=b"\xff" * 9),
]


@pytest.mark.parametrize("frame", BROKEN, ids=len)
def test_a_frame_that_contradicts_itself_waits_for_a_checkpoint(frame):
    compare = ColoCompare()
    assert compare.primary(frame, 0.0) == Outcome()
    assert compare.secondary(frame, 0.0) == Outcome()
    assert compare.scan(3.0).cause == Timeout(0, None, 3.0)
    assert compare.checkpoint() == [frame]
    assert compare.counters()["malformed"] == 2


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=70), st.integers(0, 80)), max_size=20))
def test_no_frame_breaks_it_and_none_is_lost(steps):
    """Frames with whatever in them: each of the primary's leaves, at last by a checkpoint."""
    compare, came, left = ColoCompare(), [], []
    for is_primary, junk, at in steps:
        frame = tcp(101, payload=b"0123456789")
        frame = frame[:at] + junk + frame[at + len(junk) :]
        if is_primary:
            came.append(frame)
            left += compare.primary(frame, 0.0).frames
        else:
            left += compare.secondary(frame, 0.0).frames
    left += compare.checkpoint()
    counters = compare.counters()
    lost = counters["frames_absorbed"] + counters["dropped_primary"]
    assert len(left) + lost == len(came)
    assert all(frame in came for frame in left)


@pytest.mark.parametrize(("side", "other"), [("primary", "secondary"), ("secondary", "primary")])
def test_a_full_queue_asks_for_a_checkpoint_and_loses_nothing(side, other):
    compare = opened(max_queue_size=2)
    frames = [tcp(101 + n, payload=b"x") for n in range(6)]
    causes = [getattr(compare, side)(frame, 0.0).cause for frame in frames]
    assert causes == [None, None, Overflow(net.TCP, CONNECTION, side), None, None, None]
    released = [f for frame in frames for f in getattr(compare, other)(frame, 0.0).frames]
    assert released + compare.checkpoint() == frames


def test_a_checkpoint_releases_all_connections_in_the_order_in_which_frames_came():
    compare = ColoCompare()
    frames = [
        tcp(n, payload=b"x", connection=CONNECTION._replace(source_port=n % 3)) for n in range(9)
    ]
    frames += [udp(b"x"), b"broken", udp(b"y")]
    for frame in frames:
        compare.primary(frame, 0.0)
    assert compare.counters()["queue_high_water"] == 12
    assert compare.checkpoint() == frames
    assert compare.checkpoint() == []


def test_a_failover_releases_all_and_then_everything_passes():
    compare = opened()
    held = tcp(101, payload=b"x")
    compare.primary(held, 0.0)
    assert compare.failover() == [held]
    assert compare.primary(held, 0.0) == Outcome((held,))
    assert compare.secondary(held, 0.0) == Outcome()
    assert compare.scan(100.0) == Outcome()


def test_closed_connections_are_forgotten():
    compare = opened()
    fin = tcp(101, flags=FIN | ACK)
    compare.primary(fin, 1.0)
    compare.secondary(fin, 1.0)
    last = tcp(102, CLIENT_ISN + 2)
    compare.primary(last, 2.0)
    assert compare.secondary(last, 2.0) == Outcome((last,))
    compare.scan(2.0 + CLOSED_LINGER / 2)
    assert compare.counters()["connections"] == 1
    compare.scan(2.0 + CLOSED_LINGER)
    assert compare.counters()["connections"] == 0


def test_the_number_of_connections_is_bounded():
    compare = ColoCompare(max_connections=3)
    for port in range(10):
        frame = tcp(5, connection=CONNECTION._replace(destination_port=port))
        compare.primary(frame, 0.0)
        assert compare.secondary(frame, 0.0).frames == (frame,)
    assert compare.counters()["connections"] == 3
    for port in range(20, 24):
        frame = tcp(5, connection=CONNECTION._replace(destination_port=port))
        cause = compare.primary(frame, 0.0).cause
    assert isinstance(cause, Overflow)
    assert cause.side == "connections"
    assert len(compare.checkpoint()) == 4


def test_what_the_secondary_said_before_a_checkpoint_does_not_count_after_it():
    """It may have been overtaken; what it says from the new state may be early as well."""
    compare = opened()
    data, more = tcp(101, payload=b"a"), tcp(102, payload=b"b")
    compare.primary(data, 0.0)
    assert compare.checkpoint() == [data]
    stale = tcp(101, CLIENT_ISN + 90, payload=b"ab")
    assert compare.secondary(stale, 0.0) == Outcome()
    assert compare.primary(more, 0.0) == Outcome()
    compare.secondary(MARK, 0.0)
    assert compare.secondary(more, 0.0) == Outcome((more,))
    compare.secondary(MARK, 0.0)
    early = tcp(103, payload=b"c")
    assert compare.secondary(early, 0.0) == Outcome()
    compare.checkpoint()
    assert compare.primary(early, 0.0) == Outcome((early,))


def test_stale_quirk_releases_what_the_secondary_never_said():
    compare = opened({Quirk.STALE})
    compare.checkpoint()
    compare.secondary(MARK, 0.0)
    answer = tcp(101, CLIENT_ISN + 90, payload=b"ab")
    compare.secondary(answer, 0.0)  # Said before the checkpoint; that state is gone.
    assert compare.primary(answer, 0.0) == Outcome((answer,))


def test_empty_at_once_quirk_loses_bytes_that_a_client_believes_delivered():
    """The bare acknowledgement leaves; the secondary has not seen those bytes. Then a kill."""
    request_read = tcp(101, CLIENT_ISN + 1000)
    assert opened({"empty-at-once"}).primary(request_read, 0.0) == Outcome((request_read,))
    assert opened().primary(request_read, 0.0) == Outcome()
    fin = tcp(101, flags=FIN | ACK)
    quirky = opened({"empty-at-once"})
    assert quirky.primary(fin, 0.0) == Outcome((fin,))
    assert quirky.secondary(tcp(101, payload=b"more"), 0.0).cause is None


def test_ack_unchecked_quirk_loses_them_with_data():
    for quirks, expected in ((set(), 0), ({"ack-unchecked"}, 1)):
        compare = opened(quirks)
        compare.secondary(tcp(101, CLIENT_ISN + 1, payload=b"x"), 0.0)
        outcome = compare.primary(tcp(101, CLIENT_ISN + 1000, payload=b"x"), 0.0)
        assert len(outcome.frames) == expected


def test_ack_ahead_quirk_asks_for_a_checkpoint_where_waiting_is_enough():
    for quirks, asks in ((set(), False), ({"ack-ahead-differs"}, True)):
        compare = opened(quirks)
        compare.secondary(tcp(101, CLIENT_ISN + 1, payload=b"x"), 0.0)
        cause = compare.primary(tcp(101, CLIENT_ISN + 2, payload=b"x"), 0.0).cause
        assert cause == (Miscompare(net.TCP, CONNECTION, 0, "ack") if asks else None)


def test_latest_ack_quirk_forgets_what_the_secondary_has_acknowledged():
    for quirks, expected in ((set(), 1), ({"latest-ack"}, 0)):
        compare = opened(quirks)
        compare.secondary(tcp(101, CLIENT_ISN + 9), 0.0)
        compare.secondary(tcp(101, CLIENT_ISN + 5), 0.0)
        assert len(compare.primary(tcp(101, CLIENT_ISN + 9), 0.0).frames) == expected


def test_segments_quirk_asks_where_only_the_cuts_differ():
    for quirks, asks in ((set(), False), ({"segments"}, True)):
        compare = opened(quirks)
        compare.secondary(tcp(101, payload=b"abc"), 0.0)
        cause = compare.primary(tcp(101, payload=b"abcd"), 0.0).cause
        assert (cause is not None) == asks
        same = opened(quirks)
        same.secondary(tcp(101, payload=b"abc"), 0.0)
        assert len(same.primary(tcp(101, payload=b"abc"), 0.0).frames) == 1


def test_semaphore_quirk_asks_again_for_each_frame_of_a_stream_that_differs():
    for quirks, asked in ((set(), 1), ({"semaphore"}, 4)):
        compare = opened(quirks)
        compare.secondary(tcp(101, payload=b"abc"), 0.0)
        frames = [tcp(101 + 3 * n, payload=b"xyz") for n in range(4)]
        causes = [compare.primary(frame, 0.0).cause for frame in frames]
        assert sum(each is not None for each in causes) == asked


def test_newest_first_quirk_asks_where_the_secondary_only_is_late():
    one, two = udp(b"one"), udp(b"two")
    for quirks, asks in ((set(), False), ({"newest-first"}, True)):
        compare = ColoCompare(quirks=quirks)
        compare.primary(one, 0.0)
        compare.primary(two, 0.0)
        assert (compare.secondary(one, 0.0).cause is not None) == asks


def test_drop_overflow_quirk_loses_frames_without_a_word():
    compare = opened({"drop-overflow"}, max_queue_size=2)
    frames = [tcp(101 + n, payload=b"x") for n in range(6)]
    assert all(compare.primary(frame, 0.0) == Outcome() for frame in frames)
    assert compare.checkpoint() == frames[:3]
    assert compare.counters()["dropped_primary"] == 3
    packets = ColoCompare(quirks={"drop-overflow"}, max_queue_size=2)
    assert all(packets.primary(udp(bytes([n])), 0.0) == Outcome() for n in range(6))
    assert len(packets.checkpoint()) == 3


def test_a_quirk_that_nobody_knows_is_refused():
    with pytest.raises(LocalError, match=r"expected names out of .*stale.*, found .*kindness"):
        ColoCompare(quirks={"kindness"})


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_first_difference(left, right):
    same = [a == b for a, b in zip(left, right, strict=False)]
    expected = same.index(False) if False in same else len(same)
    assert first_difference(left, right) == expected
