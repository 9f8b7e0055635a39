"""The host's TCP: bytes exact over channels that lose, repeat and reorder; both ends of each."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.net import frame as frames
from colobench.net.frame import ACK, FIN, PSH, RST, SYN, ConnectionKey, Segment
from colobench.net.tcp import (
    RECEIVE_BYTES,
    RTO_MIN,
    SEND_BYTES,
    SILENCE_LIMIT,
    TWICE_MSL,
    TCPConnection,
    refusal,
)
from colobench.net.tcp_states import TABLE, TCPEvent, TCPState
from colobench.protocol import table

CONNECTION = ConnectionKey(frames.HOST_IP, 50000, frames.GUEST_IP, 7)
MODULUS = 2**32
#: What may happen to a frame: how often it arrives, and how many seconds after it was sent.
Fate = Callable[[], list[float]]


def at_once() -> list[float]:
    return [0.001]


def never() -> list[float]:
    return []


class End:
    """A user of one end: sends `data`, then closes; takes what comes, `appetite` bytes a time."""

    def __init__(self, tcp: TCPConnection | None, data: bytes, appetite: int = 1 << 20) -> None:
        self.tcp = tcp
        self.data = data
        self.appetite = appetite
        self.received = b""
        self.closed = False

    def act(self, now: float) -> None:
        tcp = self.tcp
        if tcp is None:
            return
        if taken := bytes(tcp.inbox[: self.appetite]):
            self.received += taken
            tcp.consume(len(taken))
        if tcp.state is TCPState.CLOSED:
            return
        if count := min(tcp.room, len(self.data)):
            tcp.send(self.data[:count])
            self.data = self.data[count:]
        if not self.data and not self.closed:
            self.closed = True
            tcp.close(now)

    def hungry(self) -> bool:
        return self.tcp is not None and bool(self.tcp.inbox[: self.appetite])

    def done(self) -> bool:
        tcp = self.tcp
        if tcp is None or tcp.state not in (TCPState.CLOSED, TCPState.TIME_WAIT):
            return False
        return not (tcp.inbox or self.data)


class World:
    """Two ends, a channel that does to each segment what `fate` says, and a clock."""

    def __init__(self, host: End, guest: End, fate: Fate, guest_iss: int = 7) -> None:
        self.ends = (host, guest)
        self.fate = fate
        self.guest_iss = guest_iss
        self.now = 0.0
        self.listening = True
        self.crossed: list[tuple[float, int, Segment]] = []
        self._queue: list[tuple[float, int, int, Segment]] = []
        self._count = 0

    def emit(self, end: int) -> None:
        tcp = self.ends[end].tcp
        for segment in tcp.segments(self.now) if tcp is not None else []:
            self.cross(end, segment)

    def cross(self, end: int, segment: Segment) -> None:
        self.crossed.append((self.now, end, segment))
        for delay in self.fate():
            self._count += 1
            heapq.heappush(self._queue, (self.now + delay, self._count, 1 - end, segment))

    def deliver(self, end: int, segment: Segment) -> None:
        to = self.ends[end]
        if to.tcp is None and segment.flags & (SYN | ACK) == SYN and self.listening:
            to.tcp = TCPConnection.accept(segment, self.guest_iss, self.now)
        elif to.tcp is None or to.tcp.state is TCPState.CLOSED:
            answer = refusal(segment)
            if answer is not None:
                self.cross(end, answer)
        else:
            to.tcp.receive(segment, self.now)

    def turn(self) -> None:
        for number, end in enumerate(self.ends):
            end.act(self.now)
            self.emit(number)

    def step(self) -> bool:
        """Let the next thing happen; False if there is none."""
        times = [end.tcp.deadline for end in self.ends if end.tcp is not None]
        moments = [moment for moment in times if moment is not None]
        moments += [self._queue[0][0]] if self._queue else []
        moments += [self.now + 0.001 for end in self.ends if end.hungry()]
        if not moments:
            return False
        self.now = max(self.now, min(moments))
        while self._queue and self._queue[0][0] <= self.now:
            _, _, end, segment = heapq.heappop(self._queue)
            self.deliver(end, segment)
        for end in self.ends:
            if end.tcp is not None:
                end.tcp.tick(self.now)
        self.turn()
        return True

    def run(self, until: Callable[[], bool] | None = None, steps: int = 100_000) -> None:
        until = until or (lambda: all(end.done() for end in self.ends))
        self.turn()
        for _ in range(steps):
            if until():
                return
            if not self.step():
                break
        assert until(), [end.tcp and end.tcp.state for end in self.ends]


def opened(data: bytes = b"", iss: int = 100, appetite: int = 1 << 20) -> End:
    tcp = TCPConnection(CONNECTION, iss)
    tcp.open(0.0)
    return End(tcp, data, appetite)


class Open(End):
    """An end that does not close by itself."""

    def __init__(self, tcp: TCPConnection | None, data: bytes = b"") -> None:
        super().__init__(tcp, data)
        self.closed = True


def established(fate: Fate = at_once) -> tuple[World, End, End]:
    """Give two ends that are connected, and that neither sends nor closes by itself."""
    host, guest = Open(opened().tcp), Open(None)
    world = World(host, guest, at_once)
    world.run(lambda: all(end.tcp and end.tcp.state is TCPState.ESTABLISHED for end in world.ends))
    while world._queue:
        world.step()
    world.fate = fate
    world.crossed.clear()
    return world, host, guest


def pattern(length: int, first: int) -> bytes:
    return bytes((first + index * 7 + index // 251) % 256 for index in range(length))


def rough(seed: int, loss: float, repeats: float, delays: list[float]) -> Fate:
    """Make a channel that loses, repeats and reorders as often as it is told."""
    random = Random(seed)

    def fate() -> list[float]:
        count = 0 if random.random() < loss else 1 + (random.random() < repeats)
        return [random.choice(delays) for _ in range(count)]

    return fate


isses = st.one_of(st.integers(0, MODULUS - 1), st.sampled_from([0, MODULUS - 1, MODULUS - 9]))


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**16),
    loss=st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    repeats=st.sampled_from([0.0, 0.1, 0.5]),
    delays=st.lists(st.sampled_from([0.001, 0.002, 0.05, 0.7]), min_size=1, max_size=4),
    there=st.integers(0, 150_000),
    back=st.integers(0, 150_000),
    appetites=st.tuples(st.integers(900, 70_000), st.integers(900, 70_000)),
    numbers=st.tuples(isses, isses),
)
def test_every_byte_arrives_once_and_in_order_whatever_the_channel_does(
    seed: int,
    loss: float,
    repeats: float,
    delays: list[float],
    there: int,
    back: int,
    appetites: tuple[int, int],
    numbers: tuple[int, int],
) -> None:
    data, answer = pattern(there, 1), pattern(back, 100)
    host = opened(data, numbers[0], appetites[0])
    guest = End(None, answer, appetites[1])
    World(host, guest, rough(seed, loss, repeats, delays), numbers[1]).run()
    assert guest.received == data
    assert host.received == answer
    for end in (host, guest):
        assert end.tcp is not None
        assert not end.tcp.failure
        assert end.tcp.end_of_data


@settings(max_examples=60)
@given(
    moves=st.lists(st.integers(1, 60), max_size=6),
    seed=st.integers(0, 2**16),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_moves_in_the_middle_cost_no_byte(moves: list[int], seed: int, loss: float) -> None:
    data, answer = pattern(100_000, 3), pattern(100_000, 9)
    host, guest = opened(data), End(None, answer)
    world = World(host, guest, rough(seed, loss, 0.1, [0.001, 0.002]))
    world.turn()
    for steps in moves:
        for _ in range(steps):
            world.step()
        for number, end in enumerate(world.ends):
            if end.tcp is not None:
                end.tcp.connection_moved(world.now)
                world.emit(number)
    world.run()
    assert (guest.received, host.received) == (data, answer)


def test_refusal_breaks_the_connection_at_once() -> None:
    host = opened(b"hello")
    world = World(host, End(None, b""), at_once)
    world.listening = False
    world.run(lambda: host.tcp is not None and host.tcp.state is TCPState.CLOSED)
    assert host.tcp is not None
    assert host.tcp.failure == "reset"
    assert world.now < RTO_MIN


def test_silence_is_an_end_but_not_before_its_limit() -> None:
    host = opened(b"hello")
    assert host.tcp is not None
    world = World(host, End(None, b""), never)
    world.run(lambda: bool(host.tcp and host.tcp.failure))
    assert host.tcp.failure == "no answer"
    assert SILENCE_LIMIT <= world.now < SILENCE_LIMIT + 10


def test_connection_outlives_a_minute_without_a_frame() -> None:
    world, host, guest = established(never)
    host.data = b"said into the silence"
    guest.data = b"and back"
    world.run(lambda: world.now > 70)
    world.fate = at_once
    for number, end in enumerate(world.ends):
        assert end.tcp is not None
        end.tcp.connection_moved(world.now)
        world.emit(number)
    back_at = world.now
    world.run(lambda: guest.received == b"said into the silence" and host.received == b"and back")
    assert world.now - back_at < 0.01


def test_abort_resets_the_other_end() -> None:
    world, host, guest = established()
    assert host.tcp is not None
    assert guest.tcp is not None
    host.tcp.abort(world.now)
    world.run(lambda: bool(guest.tcp and guest.tcp.state is TCPState.CLOSED))
    assert guest.tcp.failure == "reset"
    assert not host.tcp.failure


def test_half_closed_connection_carries_data_the_other_way() -> None:
    world, host, guest = established()
    assert host.tcp is not None
    assert guest.tcp is not None
    host.tcp.close(world.now)
    world.run(lambda: bool(guest.tcp and guest.tcp.end_of_data))
    assert (host.tcp.state, guest.tcp.state) == (TCPState.FIN_WAIT_1, TCPState.CLOSE_WAIT)
    guest.data = pattern(200_000, 5)
    expected = guest.data
    world.run(lambda: len(host.received) == len(expected))
    assert host.received == expected
    assert host.tcp.room == 0
    guest.tcp.close(world.now)
    world.run(lambda: bool(guest.tcp and guest.tcp.state is TCPState.CLOSED))
    world.run(lambda: bool(host.tcp and host.tcp.state is TCPState.CLOSED))
    assert world.now >= TWICE_MSL


def test_close_before_the_connection_stands_happens_behind_the_data() -> None:
    host, guest = opened(b"all that there is"), End(None, b"")
    assert host.tcp is not None
    World(host, guest, at_once).run()
    assert guest.received == b"all that there is"


def test_three_duplicate_acks_bring_the_lost_segment_without_the_timer() -> None:
    world, host, guest = established()
    host.data = pattern(10 * frames.MSS, 0)
    expected = host.data
    lost: list[float] = []
    first = [True]

    def first_is_lost() -> list[float]:
        if first[0]:
            first[0] = False
            return lost
        return [0.001]

    world.fate = first_is_lost
    begun = world.now
    world.run(lambda: guest.received == expected)
    assert world.now - begun < RTO_MIN


def test_timer_sends_one_segment_again_and_not_the_whole_window() -> None:
    world, host, _ = established(never)
    assert host.tcp is not None
    host.data = pattern(10 * frames.MSS, 0)
    world.run(lambda: bool(host.tcp and host.tcp.retransmissions == 3))
    sent = [segment for _, end, segment in world.crossed if end == 0 and segment.payload]
    assert len(sent) == 10 + 3
    assert {segment.seq for segment in sent[10:]} == {sent[0].seq}


def test_time_between_retransmissions_doubles_up_to_its_limit() -> None:
    world, host, _ = established(never)
    host.data = b"x"
    world.run(lambda: len(world.crossed) == 8)
    times = [moment for moment, _, _ in world.crossed]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0])


def test_move_sends_all_that_is_unacknowledged_and_tells_what_is_here() -> None:
    world, host, _ = established(never)
    assert host.tcp is not None
    host.data = pattern(5 * frames.MSS, 0)
    world.turn()
    first = [segment for _, _, segment in world.crossed]
    world.crossed.clear()
    host.tcp.connection_moved(world.now)
    world.emit(0)
    again = [segment for _, _, segment in world.crossed]
    assert [(s.seq, s.payload) for s in again[:5]] == [(s.seq, s.payload) for s in first]
    assert [(s.flags, s.payload) for s in again[5:]] == [(ACK, b"")] * 3


def test_move_makes_the_peer_send_again_what_never_came() -> None:
    world, host, guest = established(never)
    guest.data = b"the answer that died with the primary"
    world.turn()
    assert host.tcp is not None
    world.fate = at_once
    host.tcp.connection_moved(world.now)
    world.emit(0)
    moved_at = world.now
    world.run(lambda: bool(host.received))
    assert world.now - moved_at < RTO_MIN


def test_closed_window_is_probed_and_the_rest_follows_when_it_opens() -> None:
    world, host, guest = established()
    assert guest.tcp is not None
    assert host.tcp is not None
    guest.appetite = 0
    data = host.data = pattern(3 * RECEIVE_BYTES, 0)
    world.run(lambda: world.now > 100)
    assert len(guest.tcp.inbox) == RECEIVE_BYTES
    assert len(host.data) == len(data) - SEND_BYTES - RECEIVE_BYTES
    assert host.tcp.state is TCPState.ESTABLISHED
    world.crossed.clear()
    world.run(lambda: len(world.crossed) > 20)
    probes = [segment for _, end, segment in world.crossed if end == 0]
    assert {len(segment.payload) for segment in probes} == {1}
    # While a probe is on its way; what opens the window is said at once, and acted on at once.
    world.fate = never
    world.run(lambda: bool(host.tcp and host.tcp._next > host.tcp._unacknowledged))
    world.fate = at_once
    guest.appetite = 1 << 20
    opened_at = world.now
    world.run(lambda: guest.received == data)
    assert world.now - opened_at < RTO_MIN


def test_window_that_opens_by_little_stays_closed_for_the_peer() -> None:
    _, host, _ = established()
    tcp = host.tcp
    assert tcp is not None
    ack = tcp._segment(tcp._max, ACK)
    back = CONNECTION.reversed()
    for begin in range(0, RECEIVE_BYTES, 1000):
        payload = bytes(min(1000, RECEIVE_BYTES - begin))
        tcp.receive(Segment(back, (ack.ack + begin) % MODULUS, ack.seq, ACK, 65535, payload), 1.0)
    assert [segment.window for segment in tcp.segments(1.0)] == [0]
    tcp.consume(frames.MSS - 1)
    tcp.receive(Segment(back, (ack.ack - 1) % MODULUS, ack.seq, ACK, 65535, b"?"), 2.0)
    assert [segment.window for segment in tcp.segments(2.0)] == [0]
    tcp.consume(3 * frames.MSS)
    assert [segment.window for segment in tcp.segments(3.0)] == [4 * frames.MSS - 1]


def test_small_window_is_not_filled_with_small_segments() -> None:
    _, host, _ = established()
    tcp = host.tcp
    assert tcp is not None
    tcp.send(bytes(10 * frames.MSS))
    sent = tcp.segments(1.0)
    back = CONNECTION.reversed()
    answer = Segment(back, sent[0].ack, sent[-1].end, ACK, 100)
    tcp.receive(answer, 1.0)
    tcp.send(bytes(1000))
    assert tcp.segments(1.0) == []
    assert tcp.deadline is not None
    tcp.tick(tcp.deadline)
    assert [len(segment.payload) for segment in tcp.segments(2.0)] == [100]


def test_round_trip_is_learnt_and_no_segment_sent_again_in_vain() -> None:
    slow = [0.4]
    world, host, guest = established(lambda: slow)
    assert host.tcp is not None
    for count in range(1, 20):
        host.data = bytes(100)
        world.run(lambda count=count: len(guest.received) == 100 * count)  # type: ignore[misc]
        world.run(lambda: host.tcp is not None and host.tcp.deadline is None)
    # The first estimate, of the handshake, was too short.
    assert host.tcp.retransmissions <= 6
    retransmissions = host.tcp.retransmissions
    slow[0] = 0.0005
    for count in range(20, 60):
        world.now += 1
        host.data = bytes(100)
        world.turn()
        world.run(lambda count=count: len(guest.received) == 100 * count)  # type: ignore[misc]
        world.run(lambda: host.tcp is not None and host.tcp.deadline is None)
    assert host.tcp.retransmissions == retransmissions
    host.data = bytes(100)
    world.turn()
    assert host.tcp.deadline == pytest.approx(world.now + RTO_MIN)


def test_reader_that_takes_little_opens_no_small_windows() -> None:
    world, host, guest = established()
    guest.appetite = 100
    data = host.data = pattern(2 * RECEIVE_BYTES, 0)
    world.run(lambda: guest.received == data)
    sent = [len(segment.payload) for _, end, segment in world.crossed if end == 0]
    assert sum(sent) / len([length for length in sent if length > 1]) > frames.MSS / 2


def test_each_turn_has_one_ack_for_all_that_came_and_none_beside_data() -> None:
    world, host, guest = established()
    assert host.tcp is not None
    assert guest.tcp is not None
    for piece in (b"one", b"two", b"three"):
        guest.tcp.send(piece)
        for segment in guest.tcp.segments(world.now):
            host.tcp.receive(segment, world.now)
    (ack,) = host.tcp.segments(world.now)
    assert (ack.flags, ack.payload) == (ACK, b"")
    guest.tcp.receive(ack, world.now)
    guest.tcp.send(b"four")
    for segment in guest.tcp.segments(world.now):
        host.tcp.receive(segment, world.now)
    host.tcp.send(b"an answer")
    (answer,) = host.tcp.segments(world.now)
    assert (answer.flags, answer.payload) == (ACK | PSH, b"an answer")
    assert answer.ack == (ack.ack + 4) % MODULUS


@pytest.mark.parametrize("off", [1, 1000, -1, 2**31])
def test_reset_that_is_not_exact_breaks_nothing(off: int) -> None:
    world, host, guest = established()
    assert host.tcp is not None
    assert guest.tcp is not None
    expected = host.tcp.segments(world.now) or [host.tcp._segment(host.tcp._max, ACK)]
    forged = Segment(CONNECTION.reversed(), (expected[0].ack + off) % MODULUS, 0, RST, 0)
    host.tcp.receive(forged, world.now)
    assert host.tcp.state is TCPState.ESTABLISHED
    host.tcp.receive(Segment(CONNECTION.reversed(), expected[0].ack, 0, RST, 0), world.now)
    assert (host.tcp.state, host.tcp.failure) == (TCPState.CLOSED, "reset")


def test_two_ends_that_disagree_do_not_answer_each_other_for_ever() -> None:
    world, host, guest = established()
    assert host.tcp is not None
    assert guest.tcp is not None
    # What a guest that lost its latest state would say: less than it has acknowledged before.
    earlier = guest.tcp._max - 5000
    guest.tcp._next = guest.tcp._max = guest.tcp._unacknowledged = guest.tcp._begin = earlier
    guest.tcp._receive_next -= 5000
    guest.tcp._edge -= 5000
    host.tcp.connection_moved(world.now)
    begun = world.now
    world.emit(0)
    for _ in range(200):
        if world.now > begun + 2 or not world.step():
            break
    assert len(world.crossed) < 20


def test_stale_connection_of_the_guest_is_reset_and_the_new_one_stands() -> None:
    _, _, guest = established()
    host = opened(b"new", iss=2**31)
    world = World(host, guest, at_once)
    assert guest.tcp is not None
    world.run(lambda: bool(guest.tcp and guest.tcp.state is TCPState.CLOSED))
    guest.tcp = None
    guest.closed = False
    world.run()
    assert guest.received == b"new"


def test_syn_again_is_answered_again() -> None:
    host = opened()
    assert host.tcp is not None
    (syn,) = host.tcp.segments(0.0)
    guest = TCPConnection.accept(syn, 5, 0.0)
    assert [segment.flags for segment in guest.segments(0.0)] == [SYN | ACK]
    guest.receive(syn, 0.1)
    assert [segment.flags for segment in guest.segments(0.1)] == [SYN | ACK]


def test_segments_respect_the_mss_that_the_peer_named() -> None:
    host = opened()
    assert host.tcp is not None
    (syn,) = host.tcp.segments(0.0)
    assert syn.mss == frames.MSS
    back = syn.connection.reversed()
    host.tcp.receive(Segment(back, 900, syn.seq + 1, SYN | ACK, 5000, b"", 100), 0.0)
    host.tcp.send(bytes(1000))
    assert {len(segment.payload) for segment in host.tcp.segments(0.0)} == {100}


segments = st.builds(
    Segment,
    st.just(CONNECTION.reversed()),
    st.one_of(st.integers(0, MODULUS - 1), st.integers(0, 40)),
    st.one_of(st.integers(0, MODULUS - 1), st.integers(95, 140)),
    st.integers(0, 0x3F),
    st.sampled_from([0, 1, 100, 65535]),
    st.binary(max_size=20),
    st.sampled_from([None, 0, 1, 1460, 65535]),
)


@given(
    st.booleans(),
    st.lists(
        st.one_of(segments, st.sampled_from(["send", "close", "abort", "moved", "tick", "take"])),
        max_size=30,
    ),
)
def test_no_segment_and_no_order_of_them_raises(passive: bool, steps: list[Segment | str]) -> None:
    now = 0.0
    if passive:
        tcp = TCPConnection.accept(Segment(CONNECTION.reversed(), 6, 0, SYN, 100), 100, now)
    else:
        tcp = TCPConnection(CONNECTION, 100)
        tcp.open(now)
    for step in steps:
        now += 0.1
        if isinstance(step, Segment):
            tcp.receive(step, now)
        elif step == "send" and tcp.room >= 10:
            tcp.send(bytes(10))
        elif step == "close" and tcp.room:
            tcp.close(now)
        elif step == "abort":
            tcp.abort(now)
        elif step == "moved":
            tcp.connection_moved(now)
        elif step == "tick" and tcp.deadline is not None:
            now = max(now, tcp.deadline)
            tcp.tick(now)
        elif step == "take":
            tcp.consume(len(tcp.inbox))
        for segment in tcp.segments(now):
            assert 0 <= segment.window <= 65535
            assert 0 <= segment.seq < MODULUS
        assert len(tcp.inbox) <= RECEIVE_BYTES


def test_misuse_is_refused() -> None:
    host = opened()
    assert host.tcp is not None
    with pytest.raises(LocalError, match="expected at most 65536 bytes, found 65537"):
        host.tcp.send(bytes(SEND_BYTES + 1))
    with pytest.raises(LocalError, match="found OPEN"):
        host.tcp.open(0.0)
    host.tcp.close(0.0)
    with pytest.raises(LocalError, match="expected at most 0 bytes"):
        host.tcp.send(b"x")


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        (Segment(CONNECTION, 5, 77, ACK, 0, b"abc"), (77, 0, RST)),
        (Segment(CONNECTION, 5, 0, SYN, 0), (0, 6, RST | ACK)),
        (Segment(CONNECTION, MODULUS - 1, 0, FIN, 0, b"abc"), (0, 3, RST | ACK)),
        (Segment(CONNECTION, 5, 77, RST | ACK, 0), None),
    ],
)
def test_segment_of_no_connection_is_refused_as_the_rfc_says(
    segment: Segment, expected: tuple[int, int, int] | None
) -> None:
    answer = refusal(segment)
    assert (answer and (answer.seq, answer.ack, answer.flags)) == expected


def test_table_prints_itself_and_each_state_can_be_reached_and_left() -> None:
    reached = {after for row in TABLE.values() for after, _ in row.values()}
    assert reached == set(TCPState) == set(TABLE)
    used = {event for row in TABLE.values() for event in row}
    assert used == set(TCPEvent)
    assert "FIN_WAIT_2" in table.text(TABLE)
    assert "SYN_SENT --> ESTABLISHED: SYN_ACK" in table.mermaid(TABLE, TCPState.CLOSED)
