"""filter_rewriter, and all of output commit around it: two guests, clients, kills, checkpoints."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.net import frame as net
from colobench.net.compare import ColoCompare
from colobench.net.frame import (
    ACK,
    FIN,
    GUEST_IP,
    HOST_IP,
    PSH,
    RST,
    SYN,
    ConnectionKey,
    Segment,
    sequence_difference,
)
from colobench.net.mirror import MARK, EpochGate
from colobench.net.outcome import Miscompare
from colobench.net.rewriter import FilterRewriter, Rewritten, _moved
from colobench.settings.compare import Quirk
from share import amount

CONNECTION = ConnectionKey(HOST_IP, 40000, GUEST_IP, 7)
M = 2**32


def to_guest(seq, ack=0, flags=ACK, payload=b"", connection=CONNECTION):
    segment = Segment(connection, seq % M, ack % M, flags, 1000, payload)
    return net.build_tcp(net.GUEST_MAC, net.HOST_MAC, segment)


def from_guest(seq, ack=0, flags=ACK, payload=b"", connection=CONNECTION):
    segment = Segment(connection.reversed(), seq % M, ack % M, flags, 1000, payload)
    return net.build_tcp(net.HOST_MAC, net.GUEST_MAC, segment)


def segment_of(frame):
    assert net.checksums_correct(frame)
    return net.parse_tcp(net.parse_ipv4(frame))


def answer(request):
    """Give what the guests answer: as many bytes, and others."""
    return bytes(byte ^ 0x55 for byte in request)


@dataclass
class Server:
    """A guest's side of a connection: SYN_RECEIVED until its SYN is acknowledged."""

    client_isn: int
    isn: int
    received: int = 0  # Bytes of the client.
    sent: bytes = b""
    acked: int = -1  # Of its own bytes; -1: the SYN is not.
    ended: bool = False

    @property
    def ack(self):
        return self.client_isn + 1 + self.received + self.ended


@dataclass
class Guest:
    """A small passive TCP: answers in order, cuts at random, sends again when told."""

    seed: int
    connections: dict[ConnectionKey, Server] = field(default_factory=dict)
    inbox: list[bytes] = field(default_factory=list)
    resets: int = 0

    def __post_init__(self):
        self.random = random.Random(self.seed)

    def copy_for(self, other):
        """Give what a checkpoint brings to another guest, whose random numbers are its own."""
        new = Guest(other.seed, copy.deepcopy(self.connections), list(self.inbox), other.resets)
        new.random = other.random
        return new

    def step(self):
        """Read one frame and give the frames that answer it."""
        frame = self.inbox.pop(0)
        segment = segment_of(frame)
        key, server = segment.connection, self.connections.get(segment.connection)
        if segment.flags & SYN:
            if server is None or (server.client_isn != segment.seq and server.ended):
                isn = self.random.choice([self.random.randrange(M), M - 1, M - 3, 0])
                self.connections[key] = server = Server(segment.seq, isn)
            return (
                self.again(key) if server.acked < 0 else [self.say(key, server, len(server.sent))]
            )
        if server is None or segment.flags & RST:
            return []
        acked = sequence_difference(segment.ack, server.isn + 1)
        if not 0 <= acked <= len(server.sent) + server.ended:
            self.resets += 1
            return [from_guest(segment.ack, 0, RST, connection=key)]
        server.acked = max(server.acked, acked)
        begin, known = len(server.sent), sequence_difference(server.ack, segment.seq)
        new = segment.payload[known:] if known >= 0 else b""
        server.received += len(new)
        server.sent += answer(new)
        in_order = sequence_difference(server.ack, segment.seq + len(segment.payload)) == 0
        ends = bool(segment.flags & FIN) and in_order and not server.ended
        server.ended |= ends
        frames = self.cut(key, server, begin, ends)
        return frames or ([self.say(key, server, begin)] if segment.length else [])

    def cut(self, key, server, begin, ends):
        frames = []
        while begin < len(server.sent):
            end = self.random.randint(begin + 1, len(server.sent))
            frames.append(self.say(key, server, begin, server.sent[begin:end]))
            begin = end
        if ends:
            frames.append(self.say(key, server, begin, b"", FIN))
        return frames

    def again(self, key):
        """Send what is not acknowledged, as if a timer had run out."""
        server = self.connections[key]
        if server.acked < 0:
            return [from_guest(server.isn, server.client_isn + 1, SYN | ACK, connection=key)]
        return self.cut(
            key, server, server.acked, server.ended and server.acked <= len(server.sent)
        )

    def say(self, key, server, begin, payload=b"", flags=0):
        flags |= ACK | PSH * bool(payload)
        return from_guest(server.isn + 1 + begin, server.ack, flags, payload, key)


@dataclass
class Client:
    """A client that sends requests, reads answers, and at last closes."""

    connection: ConnectionKey
    isn: int
    requests: bytes
    sent: int = -1  # Bytes; -1: the SYN is not acknowledged.
    received: bytes = b""
    peer_isn: int | None = None
    acked: int = 0
    closing: bool = False
    ended: bool = False

    def say(self, begin, payload=b"", flags=0):
        ack = self.peer_isn + 1 + len(self.received) + self.ended
        return to_guest(self.isn + 1 + begin, ack, flags | ACK, payload, self.connection)

    def again(self):
        """Send what is not acknowledged."""
        if self.peer_isn is None:
            return [to_guest(self.isn, 0, SYN, connection=self.connection)]
        frames = [self.say(self.acked, self.requests[self.acked : self.sent])]
        if self.closing:
            frames.append(self.say(self.sent, b"", FIN))
        return frames

    def send(self, count):
        """Send some more bytes, or FIN when there are none left."""
        if self.peer_isn is None:
            return self.again()
        begin, self.sent = self.sent, min(self.sent + count, len(self.requests))
        if begin == self.sent:
            self.closing = True
            return [self.say(self.sent, b"", FIN)]
        return [self.say(begin, self.requests[begin : self.sent])]

    def read(self, frame):
        segment = segment_of(frame)
        assert not segment.flags & RST
        if segment.flags & SYN:
            assert segment.ack == (self.isn + 1) % M
            if self.peer_isn is None:
                self.peer_isn, self.sent = segment.seq, 0
            # Else it may be a survivor's, with another number: challenged (RFC 5961).
            return [self.say(self.sent)]
        assert self.peer_isn is not None
        acked = sequence_difference(segment.ack, self.isn + 1)
        assert acked <= self.sent + self.closing
        self.acked = max(self.acked, min(acked, self.sent))
        known = sequence_difference(self.peer_isn + 1 + len(self.received), segment.seq)
        new = segment.payload[known:] if known >= 0 else b""
        self.received += new
        behind = self.peer_isn + 1 + len(self.received)
        if segment.flags & FIN and sequence_difference(segment.end, behind + 1) == 0:
            self.ended = True
        assert self.received == answer(self.requests[: len(self.received)])
        return [self.say(self.sent + self.closing)] if new or segment.flags & FIN else []


class Node:
    """A guest with its rewriter, and the gate in front of both."""

    def __init__(self, seed):
        self.guest = Guest(seed)
        self.rewriter = FilterRewriter()
        self.gate = EpochGate()

    def take(self, frame):
        """Take a frame from the link."""
        for passed in self.gate.frame(frame):
            self.guest.inbox += self.rewriter.to_guest(passed)

    def out(self, frames):
        """Give what the others see of what the guest says."""
        seen = []
        for frame in frames:
            outside, inside = self.rewriter.from_guest(frame)
            seen += outside
            self.guest.inbox += inside
        return seen


class World:
    """A client, a primary, a secondary, and the links between them; a scheduler decides."""

    def __init__(self, seed, quirks=frozenset(), clients=2):
        self.random = random.Random(seed)
        self.quirks = quirks
        self.seeds = iter(range(seed, seed + 10))
        self.clients = {}
        for port in range(clients):
            connection = CONNECTION._replace(source_port=40000 + port)
            isn = self.random.choice([5, M - 2, self.random.randrange(M)])
            requests = self.random.randbytes(self.random.randint(1, 40))
            self.clients[connection] = Client(connection, isn, requests)
        self.primary = Node(next(self.seeds))
        self.primary.rewriter.failover()
        self.causes = []
        self.join()

    def join(self):
        """Let a new secondary join: it becomes a copy of the primary by a checkpoint."""
        self.secondary = Node(next(self.seeds))
        self.compare = ColoCompare(quirks=self.quirks)
        self.mirror, self.redirect, self.now = [], [], 0.0
        self.checkpoint()

    def checkpoint(self):
        self.redirect.append(MARK)
        self.mirror.append(MARK)
        self.secondary.guest = self.primary.guest.copy_for(self.secondary.guest)
        self.secondary.rewriter.load(self.primary.rewriter.state())
        self.to_client(self.compare.checkpoint())
        for frame in self.secondary.gate.checkpoint():
            self.secondary.guest.inbox += self.secondary.rewriter.to_guest(frame)

    def to_primary(self, frames):
        for frame in frames:
            self.primary.take(frame)
            if self.secondary is not None:
                self.mirror.append(frame)

    def to_client(self, frames):
        for frame in frames:
            self.to_primary(self.clients[segment_of(frame).connection.reversed()].read(frame))

    def outcome(self, outcome):
        self.to_client(outcome.frames)
        if outcome.cause is not None:
            self.causes.append(outcome.cause)
            self.checkpoint()

    def primary_says(self, frames):
        for frame in self.primary.out(frames):
            if self.secondary is None:
                self.to_client([frame])
            else:
                self.outcome(self.compare.primary(frame, self.now))

    def secondary_says(self, frames):
        self.redirect += self.secondary.out(frames)

    def failover(self):
        """Kill the primary: of what is on the way to the secondary the end is lost."""
        for frame in self.mirror[: self.random.randint(0, len(self.mirror))]:
            self.secondary.take(frame)
        self.primary, self.secondary = self.secondary, None
        for frame in self.primary.gate.failover():
            self.primary.guest.inbox += self.primary.rewriter.to_guest(frame)
        self.primary.rewriter.failover()

    def possible(self):
        """Name what can happen now."""
        client = self.random.choice(list(self.clients.values()))
        yield lambda: self.to_primary(client.send(self.random.randint(1, 9)))
        yield lambda: self.to_primary(client.again())
        if self.primary.guest.inbox:
            yield lambda: self.primary_says(self.primary.guest.step())
        if client.connection in self.primary.guest.connections:
            yield lambda: self.primary_says(self.primary.guest.again(client.connection))
        if self.secondary is None:
            return
        if self.mirror:
            yield lambda: self.secondary.take(self.mirror.pop(0))
        if self.secondary.guest.inbox:
            yield lambda: self.secondary_says(self.secondary.guest.step())
        if client.connection in self.secondary.guest.connections:
            yield lambda: self.secondary_says(self.secondary.guest.again(client.connection))
        if self.redirect:
            yield lambda: self.outcome(self.compare.secondary(self.redirect.pop(0), self.now))

    def run(self, steps):
        for _ in range(steps):
            self.random.choice(list(self.possible()))()

    def done(self):
        """Say whether each client has had all of its answers, and closed."""
        return all(
            client.ended and len(client.received) == len(client.requests)
            for client in self.clients.values()
        )

    def finish(self):
        """Let things go on in order until the clients are done."""
        for _ in range(500):
            if self.done():
                return
            for client in self.clients.values():
                self.to_primary(client.again() + client.send(9))
            for _ in range(3):
                self.drain()
            self.now += 1.0
            if self.secondary is not None:
                self.outcome(self.compare.scan(self.now))
        assert self.done()

    def drain(self):
        while self.primary.guest.inbox:
            self.primary_says(self.primary.guest.step())
        for key in list(self.primary.guest.connections):
            self.primary_says(self.primary.guest.again(key))
        while self.secondary is not None and (
            self.mirror or self.redirect or self.secondary.guest.inbox
        ):
            if self.mirror:
                self.secondary.take(self.mirror.pop(0))
            if self.secondary.guest.inbox:
                self.secondary_says(self.secondary.guest.step())
            if self.redirect:
                self.outcome(self.compare.secondary(self.redirect.pop(0), self.now))


@settings(max_examples=amount(50, 300))
@given(st.integers(0, 2**64))
def test_guests_that_answer_alike_never_miscompare_whatever_numbers_they_choose(seed):
    """Without a checkpoint after the first: the secondary's own connections, rewritten."""
    world = World(seed)
    world.run(150)
    world.finish()
    assert world.causes == []
    assert world.primary.guest.resets == world.secondary.guest.resets == 0


def live(world, lives):
    """Kill the primary as many times; the survivor goes on and is protected again, or not."""
    for _ in range(lives):
        for _ in range(world.random.randint(0, 3)):
            world.run(world.random.randint(0, 40))
            world.checkpoint()
        world.run(world.random.randint(0, 60))
        world.failover()
        world.run(world.random.randint(0, 30))
        if world.random.random() < 0.3:
            break
        world.join()
        world.run(world.random.randint(0, 30))
    world.finish()


@settings(max_examples=amount(50, 300))
@given(st.integers(0, 2**64), st.integers(1, 3))
def test_a_client_keeps_its_connection_and_all_answers_over_checkpoints_and_kills(seed, lives):
    world = World(seed)
    live(world, lives)
    assert world.primary.guest.resets == 0
    assert not any(isinstance(cause, Miscompare) for cause in world.causes)


def test_empty_at_once_quirk_loses_what_clients_believe_delivered_when_the_primary_is_killed():
    lost = 0
    for seed in range(100):
        try:
            live(World(seed, frozenset({Quirk.EMPTY_AT_ONCE})), 1)
        except AssertionError:
            lost += 1
    assert lost > 0


@settings(max_examples=amount(50, 200))
@given(st.integers(0, 2**64))
def test_the_clients_third_segment_may_come_before_the_secondarys_syn(seed):
    """QEMU lets a SYN out at once: so the rewriter must hold what the client answers."""
    world = World(seed, frozenset({Quirk.EMPTY_AT_ONCE}))
    world.run(150)
    assert world.secondary.guest.resets == 0
    assert world.secondary.rewriter.dropped == 0


def established(rewriter, client_isn=10, primary_isn=1000, secondary_isn=5000):
    assert rewriter.to_guest(to_guest(client_isn, 0, SYN)) != []
    rewriter.from_guest(from_guest(secondary_isn, client_isn + 1, SYN | ACK))
    (ack,) = rewriter.to_guest(to_guest(client_isn + 1, primary_isn + 1))
    assert segment_of(ack).ack == (secondary_isn + 1) % M


@given(*[st.integers(0, M - 1)] * 4, st.binary(max_size=40))
def test_numbers_are_moved_both_ways_and_nothing_else(client, primary, secondary, at, payload):
    rewriter = FilterRewriter()
    established(rewriter, client, primary, secondary)
    frame = from_guest(secondary + at, client + 3, ACK | PSH, payload)
    (moved,), waiting = rewriter.from_guest(frame)
    assert waiting == []
    assert moved == from_guest(primary + at, client + 3, ACK | PSH, payload)
    (back,) = rewriter.to_guest(to_guest(client + 1, primary + at, ACK, payload))
    assert back == to_guest(client + 1, secondary + at, ACK, payload)
    reset = from_guest(secondary + at, 0, RST)
    assert rewriter.from_guest(reset) == ([from_guest(primary + at, 0, RST)], [])


@given(st.binary(min_size=20, max_size=60), st.integers(0, M - 1), st.sampled_from([4, 8]))
def test_a_moved_checksum_is_as_wrong_as_before(payload, by, where):
    """It is brought up to date, not made anew: damage on the way stays visible."""
    frame = from_guest(1, 2, ACK, payload)
    moved = _moved(frame, 34, where, by)
    assert net.checksums_correct(moved)
    damaged = frame[:-1] + bytes([frame[-1] ^ 1])
    assert not net.checksums_correct(_moved(damaged, 34, where, by))


def test_a_checksum_of_nothing_is_written_as_zero():
    frame = from_guest(1, 2, ACK, b"payload")
    by = int.from_bytes(frame[50:52], "big")
    moved = _moved(frame, 34, 4, by)
    assert moved == from_guest(1 + by, 2, ACK, b"payload")
    assert moved[50:52] == bytes(2)


def test_what_comes_before_the_guests_syn_waits_for_it():
    rewriter = FilterRewriter(max_waiting=2)
    rewriter.to_guest(to_guest(10, 0, SYN))
    for payload in (b"", b"a", b"too many"):
        assert rewriter.to_guest(to_guest(11, 1001, ACK, payload)) == []
    syn = from_guest(5000, 11, SYN | ACK)
    waiting = [to_guest(11, 5001), to_guest(11, 5001, ACK, b"a")]
    # The client's answer has told the primary's number, so the SYN is moved as well.
    moved = from_guest(1000, 11, SYN | ACK)
    assert rewriter.from_guest(syn) == ([moved], waiting)
    assert rewriter.dropped == 1
    assert rewriter.from_guest(syn) == ([moved], [])


def test_a_syn_that_comes_again_changes_nothing():
    rewriter = FilterRewriter()
    established(rewriter)
    for _ in range(2):
        assert rewriter.to_guest(to_guest(10, 0, SYN)) == [to_guest(10, 0, SYN)]
        assert rewriter.to_guest(to_guest(11, 1001)) == [to_guest(11, 5001)]


def test_a_syn_of_an_older_connection_changes_nothing():
    """The guest answers that it knows better; the client's segments pass as before."""
    rewriter = FilterRewriter()
    established(rewriter)
    rewriter.to_guest(to_guest(10 - 500, 0, SYN))
    early = to_guest(11, 1001, ACK, b"x")
    assert rewriter.to_guest(early) == []
    seen, waiting = rewriter.from_guest(from_guest(5001, 11))
    assert (seen, waiting) == ([from_guest(1001, 11)], [to_guest(11, 5001, ACK, b"x")])
    assert rewriter.to_guest(early) == [to_guest(11, 5001, ACK, b"x")]


def test_a_connection_that_is_opened_again_gets_an_offset_of_its_own():
    """The guest's last words in the old one, read after the new SYN, are still the old one's."""
    rewriter = FilterRewriter()
    established(rewriter)
    rewriter.to_guest(to_guest(90000, 0, SYN))
    assert rewriter.from_guest(from_guest(5001, 11))[0] == [from_guest(1001, 11)]
    assert rewriter.to_guest(to_guest(11, 1001)) == [to_guest(11, 5001)]
    early = to_guest(90001, 20001)
    assert rewriter.to_guest(early) == []
    syn = from_guest(70000, 90001, SYN | ACK)
    waiting = rewriter.from_guest(syn)[1]
    assert waiting == rewriter.to_guest(early) == [to_guest(90001, 70001)]
    assert rewriter.from_guest(from_guest(70001, 90001))[0] == [from_guest(20001, 90001)]


def test_an_older_connections_segment_teaches_nothing():
    rewriter = FilterRewriter()
    rewriter.to_guest(to_guest(10, 0, SYN))
    rewriter.from_guest(from_guest(5000, 11, SYN | ACK))
    for stale in (to_guest(10 - 1, 77), to_guest(11 + 2**16, 77)):
        assert rewriter.to_guest(stale) == [stale]
    assert rewriter.to_guest(to_guest(11, 1001)) == [to_guest(11, 5001)]


def test_a_refused_connection_leaves_its_frames_alone():
    rewriter = FilterRewriter()
    established(rewriter)
    rewriter.to_guest(to_guest(90000, 0, SYN))
    refused = from_guest(0, 90001, RST | ACK)
    assert rewriter.from_guest(refused) == ([refused], [])
    assert len(rewriter) == 0


def test_a_client_that_gives_up_while_its_syn_waits_is_not_waited_for():
    rewriter = FilterRewriter()
    rewriter.to_guest(to_guest(10, 0, SYN))
    reset = to_guest(11, 0, RST)
    assert rewriter.to_guest(reset) == [reset]
    assert rewriter.to_guest(to_guest(11, 5)) == [to_guest(11, 5)]


def test_a_connection_that_the_guest_opens_is_rewritten_too():
    rewriter = FilterRewriter()
    syn = from_guest(5000, 0, SYN)
    for _ in range(2):
        assert rewriter.from_guest(syn) == ([syn], [])
    accepted = to_guest(77, 1001, SYN | ACK)
    assert rewriter.to_guest(accepted) == [to_guest(77, 5001, SYN | ACK)]
    assert rewriter.from_guest(from_guest(5001, 78)) == ([from_guest(1001, 78)], [])


def test_a_syn_that_a_checkpoint_brought_is_answered_with_a_number_to_learn():
    """It was in the primary's network card at the cut: it never comes by the rewriter again."""
    rewriter = FilterRewriter()
    rewriter.from_guest(from_guest(5000, 11, SYN | ACK))
    assert rewriter.to_guest(to_guest(11, 1001)) == [to_guest(11, 5001)]


def test_a_syn_that_comes_again_behind_what_a_checkpoint_brought_teaches_nothing():
    """The client's answer to it was in the network card; the numbers are the primary's."""
    rewriter = FilterRewriter()
    rewriter.from_guest(from_guest(1000, 11, SYN | ACK))
    data = from_guest(1001, 11, ACK, b"banner")
    assert rewriter.from_guest(data) == ([data], [])
    assert rewriter.to_guest(to_guest(11, 1007)) == [to_guest(11, 1007)]


def test_a_checkpoint_makes_all_offsets_nothing():
    rewriter = FilterRewriter()
    established(rewriter)
    rewriter.to_guest(to_guest(10, 0, SYN, connection=CONNECTION._replace(source_port=1)))
    rewriter.checkpoint()
    for frame in (
        to_guest(11, 1001),
        to_guest(11, 1, connection=CONNECTION._replace(source_port=1)),
    ):
        assert rewriter.to_guest(frame) == [frame]
    assert rewriter.from_guest(from_guest(1001, 11)) == ([from_guest(1001, 11)], [])


def test_a_survivor_rewrites_what_has_an_offset_and_nothing_else():
    rewriter = FilterRewriter()
    established(rewriter)
    same = CONNECTION._replace(source_port=1)
    for frame in (to_guest(10, 0, SYN, b"", same), to_guest(11, 8001, ACK, b"", same)):
        rewriter.to_guest(frame)
        rewriter.from_guest(from_guest(8000, 11, SYN | ACK, b"", same))
    pending = CONNECTION._replace(source_port=2)
    rewriter.to_guest(to_guest(10, 0, SYN, b"", pending))
    rewriter.from_guest(from_guest(600, 11, SYN | ACK, b"", pending))
    rewriter.failover()
    assert rewriter.state() == [
        Rewritten(CONNECTION, 10, 5000, 4000),
        Rewritten(pending, 10, 600, None),
    ]
    assert rewriter.from_guest(from_guest(5009, 11))[0] == [from_guest(1009, 11)]
    # The client may know the primary's SYN of a connection whose third segment died with it.
    assert rewriter.to_guest(to_guest(11, 101, ACK, b"", pending)) == [
        to_guest(11, 601, ACK, b"", pending)
    ]
    new = CONNECTION._replace(source_port=3)
    rewriter.to_guest(to_guest(10, 0, SYN, b"", new))
    rewriter.from_guest(from_guest(40, 11, SYN | ACK, b"", new))
    assert rewriter.to_guest(to_guest(11, 41, ACK, b"", new)) == [to_guest(11, 41, ACK, b"", new)]
    assert [each.connection for each in rewriter.state()] == [CONNECTION, pending]
    assert len(rewriter) == 2
    copy_of = FilterRewriter()
    copy_of.load(rewriter.state())
    assert copy_of.from_guest(from_guest(5009, 11))[0] == [from_guest(1009, 11)]
    assert copy_of.state() == rewriter.state()


def test_a_connection_whose_port_is_used_again_does_not_travel_any_more():
    survivor = FilterRewriter()
    survivor.load([Rewritten(CONNECTION, 10, 5000, 4000)])
    survivor.failover()
    assert survivor.state() == [Rewritten(CONNECTION, 10, 5000, 4000)]
    survivor.to_guest(to_guest(90, 0, SYN))
    # The guest's own SYN is held until the checkpoint, with which this travels.
    assert survivor.state() == []
    assert survivor.from_guest(from_guest(7000, 91, SYN | ACK)) == (
        [from_guest(7000, 91, SYN | ACK)],
        [],
    )
    assert survivor.to_guest(to_guest(91, 7001, ACK)) == [to_guest(91, 7001, ACK)]


def test_ended_connections_are_forgotten_first_and_the_number_is_bounded():
    rewriter = FilterRewriter(max_connections=3)
    for port in range(8):
        connection = CONNECTION._replace(source_port=port)
        rewriter.to_guest(to_guest(10, 0, SYN, b"", connection))
        rewriter.from_guest(from_guest(5000, 11, SYN | ACK, b"", connection))
        rewriter.to_guest(to_guest(11, 1001, ACK, b"", connection))
        if port != 0:
            rewriter.to_guest(to_guest(11, 1001, FIN | ACK, b"", connection))
            last = rewriter.from_guest(from_guest(5001, 12, FIN | ACK, b"", connection))[0]
            assert last == [from_guest(1001, 12, FIN | ACK, b"", connection)]
    assert len(rewriter) == 3
    assert rewriter.state()[0].connection.source_port == 0
    assert rewriter.forgotten == 0
    for port in range(20, 30):
        rewriter.to_guest(to_guest(10, 0, SYN, b"", CONNECTION._replace(source_port=port)))
    assert len(rewriter._opening) <= 3


@pytest.mark.parametrize("flags", [FIN, RST])
def test_an_ended_connection_is_rewritten_until_it_is_forgotten(flags):
    rewriter = FilterRewriter()
    established(rewriter)
    rewriter.from_guest(from_guest(5001, 11, flags | ACK))
    assert rewriter.to_guest(to_guest(11, 1002, flags | ACK)) == [to_guest(11, 5002, flags | ACK)]


@given(st.binary(max_size=80), st.integers(0, 60), st.booleans())
def test_a_frame_that_cannot_be_read_passes_as_it_is(junk, at, inwards):
    rewriter = FilterRewriter()
    frame = to_guest(1, 2, ACK, b"payload")
    frame = frame[:at] + junk + frame[at + len(junk) :]
    if inwards:
        assert rewriter.to_guest(frame) in ([frame], [])
    else:
        assert rewriter.from_guest(frame)[0] == [frame]
