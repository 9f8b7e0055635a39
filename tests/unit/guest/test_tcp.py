"""The guest's TCP against a client that is driven by hand, and a wire that loses and mixes up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.guest import bugs, connections, tcp, tcp_input
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.frame_queue import NIC_QUEUE_LENGTH
from colobench.net import frame as net
from colobench.net.frame import ACK, FIN, PSH, RST, SYN, Segment
from tcp_peer import MIB, Client, Guest, connect, segments

PING, PONG, QUIT = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", b"*1\r\n$4\r\nQUIT\r\n"
OTHER_MAC = bytes.fromhex("020000000001")


def send(guest: Guest, client: Client, flags: int, seq: int, payload: bytes = b"") -> list[Segment]:
    """Let the guest hear a segment that the client does not know of."""
    return segments(guest.exchange(client.frame(flags, seq % 2**32, payload)))


def echo(guest: Guest, client: Client, data: bytes) -> None:
    """Say something and hear it again."""
    before = client.heard
    client.out += data
    while client.out or len(client.heard) < len(before) + len(data):
        client.hear(guest.exchange(*client.say()))
    assert client.heard == before + data
    assert guest.exchange(client.acknowledge()) == []


# ---- opening ----


def test_a_syn_is_answered_with_the_largest_segment_and_the_window() -> None:
    guest, client = Guest(), Client(iss=2**32 - 1)
    (answer,) = segments(guest.exchange(client.syn()))
    assert (answer.flags, answer.ack, answer.mss) == (SYN | ACK, 0, net.MSS)
    assert answer.window == BUFFER_BYTES
    client.hear(guest.exchange(client.syn()))
    assert guest.exchange(client.acknowledge()) == []
    assert guest.state(client.connection) == connections.ESTABLISHED
    echo(guest, client, b"hello")


def test_two_machines_choose_different_initial_sequence_numbers() -> None:
    one = Guest()
    two = one.copy()
    client = Client()
    answers = [segments(guest.exchange(client.syn()))[0].seq for guest in (one, two)]
    again = segments(one.exchange(Client(40_001).syn()))[0].seq
    assert len({*answers, again}) == 3


def test_an_answer_to_a_syn_that_was_lost_comes_again_and_not_for_ever() -> None:
    guest, client = Guest(), Client()
    first = guest.exchange(client.syn())
    assert guest.exchange(client.syn()) == first
    times = [at for at, _ in guest.timeline(20_000)]
    assert times == [200, 600, 1400, 3000, 6200]
    assert guest.counter("connections_given_up") == 1
    assert guest.state(client.connection) == connections.CLOSED


@pytest.mark.parametrize("flags", [0, FIN, PSH])
def test_what_says_nothing_to_a_service_without_a_connection_has_no_answer(flags: int) -> None:
    guest, client = Guest(), Client()
    assert send(guest, client, flags, 7) == []


@pytest.mark.parametrize(
    ("flags", "seq", "ack", "answer"),
    [
        (SYN, 0, 112, RST | ACK),
        (FIN, 0, 112, RST | ACK),
        (0, 0, 111, RST | ACK),
        (ACK, 4_000, 0, RST),
        (SYN | ACK, 4_000, 0, RST),
        (RST, None, None, None),
        (RST | ACK, None, None, None),
    ],
)
def test_a_port_without_a_service_resets(
    flags: int, seq: int | None, ack: int | None, answer: int | None
) -> None:
    guest, client = Guest(), Client(service=80)
    client.rcv = 4_000
    answers = send(guest, client, flags, 100, b"hello, port")
    if answer is None:
        assert answers == []
    else:
        assert [(a.flags, a.seq, a.ack) for a in answers] == [(answer, seq, ack)]
        assert guest.counter("resets_sent") == 1


def test_a_service_resets_an_acknowledgment_of_nothing() -> None:
    guest, client = Guest(), Client()
    client.rcv = 77
    assert [(a.flags, a.seq) for a in send(guest, client, ACK, 5)] == [(RST, 77)]
    guest.exchange(client.syn())
    client.rcv = 99
    (answer,) = send(guest, client, ACK, client.iss + 1)
    assert (answer.flags, answer.seq) == (RST, 99)
    assert guest.state(client.connection) == connections.SYN_RECEIVED


@pytest.mark.parametrize(("said", "believed"), [(1, 64), (100, 100), (536, 536), (9000, 1460)])
def test_segments_are_not_longer_than_the_peer_takes(said: int, believed: int) -> None:
    guest, client = Guest(), Client(mss=said)
    connect(guest, client)
    client.out = bytes(1400)
    answers = segments(guest.exchange(*client.say(lambda limit: 1400)))
    assert max(len(answer.payload) for answer in answers) == min(believed, 1400)


def test_hundreds_of_connections_and_the_next_is_refused() -> None:
    guest = Guest(64 * MIB)
    guest.checked = False
    assert guest.connections >= 256
    clients = [Client(1_000 + 7 * n) for n in range(guest.connections)]
    for client in clients:
        connect(guest, client)
    late = Client(900)
    (answer,) = send(guest, late, SYN, 0)
    assert answer.flags == RST | ACK
    assert guest.counter("connections_refused") == 1
    for n, client in enumerate(clients):
        echo(guest, client, b"I am %d" % n)
    for client in clients[::3]:
        client.fin = True
        client.hear(guest.exchange(*client.say()))
        assert client.peer_fin
        guest.exchange(client.acknowledge())
        assert guest.state(client.connection) == connections.CLOSED
    connect(guest, late)
    echo(guest, late, b"now there is room")
    for n, client in enumerate(clients):
        if n % 3:
            echo(guest, client, b"and still %d" % n)
    opened = guest.counter("connections_opened")
    closed = guest.counter("connections_closed")
    assert (opened, closed) == (len(clients) + 1, len(clients[::3]))


def test_info_tells_how_many_are_connected_and_ever_were() -> None:
    guest = Guest(4 * MIB)
    gone, *stay = [connect(guest, Client(40_000 + n, service=6379)) for n in range(3)]
    gone.fin = True
    gone.hear(guest.exchange(*gone.say()))
    guest.exchange(gone.acknowledge())
    stay[0].out = b"INFO clients stats\r\n"
    stay[0].hear(guest.exchange(*stay[0].say()))
    assert b"\r\nconnected_clients:2\r\n" in stay[0].heard
    assert b"\r\ntotal_connections_received:3\r\n" in stay[0].heard


@pytest.mark.parametrize("leaves", [True, False])
def test_connections_that_only_wait_make_room_for_new_ones(leaves: bool) -> None:
    guest = Guest(4 * MIB)
    for n in range(3 * guest.connections):
        client = connect(guest, Client(1_000 + n, service=6379))
        client.out = QUIT
        client.hear(guest.exchange(*client.say()))
        guest.exchange(client.acknowledge())
        assert client.peer_fin
        client.fin = leaves
        guest.exchange(*client.say())
        waits = connections.TIME_WAIT if leaves else connections.FIN_WAIT_2
        assert guest.state(client.connection) == waits
    assert guest.counter("connections_refused") == 0
    assert guest.counter("connections_closed") == 2 * guest.connections


# ---- data ----


def test_one_segment_acknowledges_and_answers() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    client.out = b"hello"
    (segment,) = segments(guest.exchange(*client.say()))
    assert (segment.ack, segment.payload) == (client.una + 5, b"hello")
    assert segment.flags == ACK | PSH


def test_requests_are_executed_whole_and_in_order() -> None:
    guest, client = Guest(), Client(service=6379)
    connect(guest, client)
    client.out = PING[:5]
    client.hear(guest.exchange(*client.say()))
    assert (client.heard, client.out) == (b"", b"")
    client.out = PING[5:] + PING * 9 + PING[:1]
    client.hear(guest.exchange(*client.say()))
    assert client.heard == PONG * 10
    assert guest.requests == guest.counter("requests") == 10
    client.out = PING[1:] + QUIT + PING
    client.hear(guest.exchange(*client.say()))
    assert client.heard == PONG * 11 + b"+OK\r\n"
    assert client.peer_fin
    assert guest.requests == 12


def test_data_out_of_order_is_asked_for_again() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    start = client.una
    (answer,) = send(guest, client, ACK, start + 3, b"lo")
    assert (answer.ack, answer.payload) == (start, b"")
    assert guest.counter("segments_out_of_order") == 1
    client.out = b"hello"
    client.hear(guest.exchange(*client.say()))
    # What was received already is acknowledged again, and only the rest is new.
    answers = guest.exchange(client.frame(ACK, start, b"hello!"))
    client.out = b"!"
    client.hear(answers)
    assert client.una == start + 6
    (answer,) = send(guest, client, ACK, start, b"hello!")
    assert (answer.ack, answer.payload) == (start + 6, b"")
    assert client.heard == b"hello!"


def test_an_acknowledgment_of_what_was_not_said_yet_does_no_harm() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    assert client.rcv is not None
    client.rcv += 5
    (answer,) = send(guest, client, ACK, client.una, b"evil")
    client.rcv -= 5
    assert (answer.ack, answer.payload) == (client.una, b"")
    echo(guest, client, b"fine")


def test_what_is_not_acknowledged_is_sent_again_ever_later_and_then_given_up() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    client.out = b"hello"
    said = guest.exchange(*client.say())
    timeline = guest.timeline(103_000)
    assert all(frames == said for _, frames in timeline)
    times = [at for at, _ in timeline]
    assert times == [200 * (2**n - 1) for n in range(1, tcp.RETRIES_MAX + 1)]
    assert guest.counter("retransmissions") == tcp.RETRIES_MAX
    assert guest.counter("connections_given_up") == 1
    assert guest.state(client.connection) == connections.CLOSED
    guest.exchange(*client.say())


def test_after_a_timeout_the_first_segment_goes_alone_and_then_the_rest() -> None:
    guest, client = Guest(), Client(mss=1000)
    connect(guest, client)
    client.out = bytes(range(250)) * 16
    assert len(segments(guest.exchange(*client.say()))) == 4
    again = segments(guest.tick(200))
    assert [len(s.payload) for s in again] == [1000]
    client.out = b""
    client.una += 4000
    assert client.rcv is not None
    client.rcv += 1000
    rest = segments(guest.exchange(client.acknowledge()))
    assert [len(s.payload) for s in rest] == [1000] * 3
    assert rest[0].seq == client.rcv


def test_the_planted_bug_never_sends_anything_again() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    guest.bugs = bugs.LOST_RETRANSMISSION
    client.out = b"hello"
    assert guest.exchange(*client.say())
    assert guest.tick(200_000) == []
    assert guest.counter("retransmissions") == 0
    guest.bugs = 0
    assert guest.tick(60_000)


def test_a_closed_window_is_probed_and_what_waits_goes_on_when_it_opens() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    client.window = 0
    client.out = b"hello"
    answers = segments(guest.exchange(*client.say()))
    assert [a.payload for a in answers] == [b""]
    client.una, client.out = client.una + 5, b""
    steps = []
    for _ in range(20):
        waited = 0
        while not (probes := segments(guest.tick(200))):
            waited += 200
        assert [probe.payload for probe in probes] == [b"h"]
        steps.append(waited + 200)
        assert guest.exchange(client.acknowledge()) == []
    assert steps[:4] == [200, 400, 800, 1600]
    assert max(steps) == steps[-1] == 200 << (tcp_input.PROBE_RETRIES_MAX + 1)
    assert guest.state(client.connection) == connections.ESTABLISHED
    client.window = 3
    client.hear(guest.exchange(client.acknowledge()))
    assert client.heard == b"hel"
    client.hear(guest.exchange(client.acknowledge()))
    assert client.heard == b"hello"


def test_an_acknowledgment_is_acceptable_while_the_window_is_closed() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    client.window = 0
    client.out = b"held"
    client.hear(guest.exchange(*client.say()))
    # A probe is a byte beyond the window, and nobody has taken it in.
    (probe,) = segments(guest.tick(200))
    assert len(probe.payload) == 1
    (answer,) = send(guest, client, ACK, client.una, b"more")
    # RFC 9293, 3.10.7.4: with a window of zero only this sequence number is.
    assert (answer.seq, answer.ack) == (client.rcv, client.una + 4)


def test_a_peer_that_is_gone_while_its_window_is_closed_is_given_up() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    client.window = 0
    client.out = b"hello"
    guest.exchange(*client.say())
    guest.tick(200_000)
    assert guest.state(client.connection) == connections.CLOSED


def test_the_window_is_the_room_in_the_receive_buffer() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    client.window = 0
    said = bytes(i % 251 for i in range(3 * BUFFER_BYTES))
    client.out = said
    client.peer_window = 10 * BUFFER_BYTES
    client.hear(guest.exchange(*client.say()))
    # The service took a buffer of data, whose echo waits; as much more waits for the service.
    assert client.peer_window == 0
    assert len(client.out) == BUFFER_BYTES
    # More is not taken, until there is room.
    client.hear(guest.exchange(*client.say()))
    assert len(client.out) == BUFFER_BYTES
    client.window = 20_000
    for _ in range(50):
        client.hear(guest.exchange(*client.say()))
    assert client.heard == said
    assert client.peer_window == BUFFER_BYTES


# ---- closing ----


def test_a_peer_that_closes_first_still_hears_the_rest() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    client.window = 4
    client.out, client.fin = b"hello, half-closed", True
    answers = guest.exchange(*client.say())
    assert segments(answers)[0].payload == b"hell"
    client.hear(answers)
    assert guest.state(client.connection) == connections.CLOSE_WAIT
    for _ in range(9):
        client.hear(guest.exchange(client.acknowledge()))
    assert client.heard == b"hello, half-closed"
    assert client.peer_fin
    assert guest.state(client.connection) == connections.CLOSED
    assert guest.counter("connections_closed") == 1


def test_fin_alone_is_answered_with_fin() -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    client.fin = True
    answers = guest.exchange(*client.say())
    assert [s.flags for s in segments(answers)] == [ACK | FIN]
    assert guest.state(client.connection) == connections.LAST_ACK
    assert [s.flags for s in segments(guest.tick(200))] == [ACK | FIN]
    # Our FIN came, the peer's acknowledgment did not: it says its own again.
    (answer,) = segments(guest.exchange(*client.say()))
    assert answer.flags == ACK
    client.hear(answers)
    assert guest.exchange(client.acknowledge()) == []
    assert guest.state(client.connection) == connections.CLOSED


def quitting(guest: Guest) -> tuple[Client, list[bytes]]:
    """Let the guest close first; gives its last words, which the client has not heard."""
    client = connect(guest, Client(service=6379))
    client.out = QUIT
    answers = guest.exchange(*client.say())
    client.una, client.out = client.una + len(QUIT), b""
    assert [s.flags for s in segments(answers)] == [ACK | PSH | FIN]
    assert guest.state(client.connection) == connections.FIN_WAIT_1
    return client, answers


def test_closing_first_ends_in_time_wait() -> None:
    guest = Guest()
    client, answers = quitting(guest)
    client.hear(answers)
    assert guest.exchange(client.acknowledge()) == []
    assert guest.state(client.connection) == connections.FIN_WAIT_2
    (answer,) = send(guest, client, ACK | FIN, client.una)
    assert (answer.flags, answer.ack) == (ACK, client.una + 1)
    assert guest.state(client.connection) == connections.TIME_WAIT
    guest.tick(tcp_input.TIME_WAIT_MS - 1)
    # The acknowledgment was lost: the peer says FIN again, and the time begins anew.
    (again,) = send(guest, client, ACK | FIN, client.una)
    assert (again.flags, again.ack) == (ACK, answer.ack)
    guest.tick(tcp_input.TIME_WAIT_MS - 1)
    assert guest.state(client.connection) == connections.TIME_WAIT
    guest.tick(1)
    assert guest.state(client.connection) == connections.CLOSED


def test_who_knows_that_nobody_reads_any_more_and_sends_on_is_reset() -> None:
    guest = Guest()
    client, answers = quitting(guest)
    client.hear(answers)
    assert guest.exchange(client.acknowledge()) == []
    # What acknowledges our FIN alone is no data; the same with data is.
    (answer,) = send(guest, client, ACK, client.una, b"more")
    assert answer.flags == RST | ACK
    assert answer.seq == client.rcv
    assert guest.state(client.connection) == connections.CLOSED
    assert guest.counter("resets_sent") == 1
    (answer,) = send(guest, client, ACK, client.una + 4, b"and more")
    assert (answer.flags, answer.seq) == (RST, client.rcv)


def test_who_has_not_heard_of_the_end_may_say_what_was_asked_for_and_no_more() -> None:
    guest = Guest()
    client, answers = quitting(guest)
    asked = BUFFER_BYTES - len(QUIT)
    sent = 0
    while sent < asked:
        length = min(1460, asked - sent)
        (answer,) = send(guest, client, ACK, client.una + sent, bytes(length))
        sent += length
        assert (answer.ack, answer.window) == (client.una + sent, asked - sent)
    (answer,) = send(guest, client, ACK, client.una + sent, bytes(1))
    assert (answer.flags, answer.ack, answer.window) == (ACK, client.una + sent, 0)
    client.una += sent
    client.hear(answers)
    assert client.peer_fin
    (answer,) = send(guest, client, ACK, client.una, bytes(1))
    assert answer.flags == RST | ACK
    assert guest.state(client.connection) == connections.CLOSED


def test_a_fin_that_acknowledges_ours_ends_in_time_wait_at_once() -> None:
    guest = Guest()
    client, answers = quitting(guest)
    client.hear(answers)
    (answer,) = send(guest, client, ACK | FIN, client.una)
    assert answer.flags == ACK
    assert guest.state(client.connection) == connections.TIME_WAIT


def test_both_may_close_at_the_same_time() -> None:
    guest = Guest()
    client, answers = quitting(guest)
    # The peer has not heard our FIN yet when it says its own.
    (answer,) = segments(guest.exchange(client.frame(ACK | FIN, client.una)))
    assert (answer.flags, answer.ack) == (ACK, client.una + 1)
    assert guest.state(client.connection) == connections.CLOSING
    client.una += 1
    client.hear(answers)
    assert guest.exchange(client.acknowledge()) == []
    assert guest.state(client.connection) == connections.TIME_WAIT


def test_a_new_connection_may_follow_one_in_time_wait() -> None:
    guest = Guest()
    client, answers = quitting(guest)
    client.hear(answers)
    send(guest, client, ACK | FIN, client.una)
    old = Client(service=6379, iss=client.una - 50)
    (answer,) = segments(guest.exchange(old.syn()))
    assert answer.flags == ACK
    connect(guest, Client(service=6379, iss=client.una + 50))


def test_a_peer_that_never_closes_is_forgotten() -> None:
    guest = Guest()
    client, answers = quitting(guest)
    client.hear(answers)
    guest.exchange(client.acknowledge())
    guest.tick(tcp_input.FIN_WAIT_2_MS)
    assert guest.state(client.connection) == connections.CLOSED


@pytest.mark.parametrize(
    ("offset", "flags", "state", "answers"),
    [
        (0, RST, connections.CLOSED, 0),
        (0, RST | ACK, connections.CLOSED, 0),
        (1, RST, connections.ESTABLISHED, 1),  # RFC 5961: in the window, but not the next
        (BUFFER_BYTES - 1, RST, connections.ESTABLISHED, 1),
        (BUFFER_BYTES, RST, connections.ESTABLISHED, 0),
        (-1, RST, connections.ESTABLISHED, 0),
        (0, SYN, connections.ESTABLISHED, 1),
        (-9_999, SYN, connections.ESTABLISHED, 1),
        (BUFFER_BYTES, ACK, connections.ESTABLISHED, 1),
        (-1, ACK, connections.ESTABLISHED, 1),
        (0, 0, connections.ESTABLISHED, 0),
    ],
)
def test_what_does_not_fit_changes_nothing(
    offset: int, flags: int, state: int, answers: int
) -> None:
    guest, client = Guest(), Client()
    connect(guest, client)
    heard = segments(guest.exchange(client.frame(flags, (client.una + offset) % 2**32)))
    assert len(heard) == answers
    for answer in heard:
        assert (answer.flags, answer.seq, answer.ack) == (ACK, client.rcv, client.una)
    assert guest.state(client.connection) == state
    if state == connections.ESTABLISHED:
        echo(guest, client, b"still here")
    else:
        assert guest.counter("connections_reset") == 1


def test_a_reset_ends_a_connection_that_is_not_open_yet() -> None:
    guest, client = Guest(), Client()
    guest.exchange(client.syn())
    assert guest.exchange(client.frame(RST, client.iss + 1)) == []
    assert guest.state(client.connection) == connections.CLOSED
    connect(guest, Client())


# ---- a wire that loses and mixes up, and machines that take over ----


class Wire:
    """Loses, doubles and reorders frames, until it is mended."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loss = self.random.choice([0.0, 0.1, 0.25])
        self.doubled = self.random.choice([0.0, 0.2])
        self.mixed = self.random.random() < 0.5

    def mend(self) -> None:
        self.loss = self.doubled = 0.0
        self.mixed = False

    def carry(self, frames: list[bytes]) -> list[bytes]:
        carried = [frame for frame in frames if self.random.random() >= self.loss]
        carried += [frame for frame in carried if self.random.random() < self.doubled]
        if self.mixed:
            self.random.shuffle(carried)
        return carried


def talk(guest: Guest, clients: list[Client], seed: int, takeovers: bool) -> Guest:
    """Let the clients say all that they have, and close; gives the machine that is left."""
    wire = Wire(seed)
    expected = [client.out for client in clients]
    for attempt in range(200):
        if attempt == 100:
            wire.mend()
        frames = [
            frame
            for client in clients
            for frame in wire.carry(client.say(lambda limit: wire.random.randint(1, limit)))
        ]
        answers = guest.exchange(*frames)
        answers += guest.tick(wire.random.randint(1, 400 if attempt < 100 else 60_000))
        heard = wire.carry(answers)
        for client in clients:
            client.hear(heard)
        if takeovers and wire.random.random() < 0.3:
            guest = guest.copy()
        if all(client.peer_fin and not client.fin for client in clients):
            wire.mend()
            if all(guest.state(client.connection) == 0 for client in clients):
                break
    assert [client.heard for client in clients] == expected
    assert not any(client.reset for client in clients)
    assert all(guest.state(client.connection) == 0 for client in clients)
    return guest


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 60_000), min_size=1, max_size=3))
def test_every_byte_comes_back_once_and_in_order(seed: int, lengths: list[int]) -> None:
    guest, source = Guest(), random.Random(seed)
    guest.jitter, guest.shuffle = source.choice([(0, 0), (3_000, 0), (0, 500), (20_000, 1000)])
    clients = []
    for n, length in enumerate(lengths):
        client = Client(40_000 + n, iss=source.randrange(2**32), mss=source.choice([200, 1460]))
        client.window = source.choice([1_000, 65_535])
        client.out, client.fin = source.randbytes(length), True
        clients.append(client)
    talk(guest, clients, seed, takeovers=False)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 60_000))
def test_a_machine_with_a_copy_of_ram_goes_on_at_the_byte(seed: int, length: int) -> None:
    client = Client(iss=seed % 2**32)
    client.out, client.fin = random.Random(seed).randbytes(length), True
    talk(Guest(), [client], seed, takeovers=True)


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_the_same_frames_have_the_same_answers(seed: int) -> None:
    """The bytes of all connections are a function of the frames, in whatever calls they come."""
    source = random.Random(seed)
    clients = [Client(40_000 + n, source.choice([7, 6379])) for n in range(4)]
    guest = Guest()
    for client in clients:
        connect(guest, client)
    other = guest.copy()
    frames = []
    for _ in range(30):
        client = source.choice(clients)
        client.out += PING * source.randint(1, 200) if source.random() < 0.8 else PING[:5]
        frames += source.sample(client.say(), 1)
        client.fin = source.random() < 0.1
        if source.random() < 0.5:
            client.out = b""
    together = guest.exchange(*frames)
    apart: list[bytes] = []
    for frame in frames:
        apart += other.exchange(frame)
    assert together == apart
    assert (guest.inside() == other.inside()).all()


def test_served_in_random_order_each_connection_has_its_own_bytes() -> None:
    guest = Guest(4 * MIB)
    clients = [connect(guest, Client(40_000 + n)) for n in range(guest.connections)]
    guest.shuffle = 1000
    orders = set()
    for _ in range(8):
        for client in clients:
            client.out += b"%d" % client.connection.source_port
        answers = guest.exchange(*[frame for client in clients for frame in client.say()])
        orders.add(tuple(s.connection.destination_port for s in segments(answers) if s.payload))
        for client in clients:
            client.hear(answers)
        guest.exchange(*[client.acknowledge() for client in clients])
    assert len(orders) > 1
    assert [client.heard for client in clients] == [
        b"%d" % client.connection.source_port * 8 for client in clients
    ]


def test_jitter_delays_the_service_and_not_the_acknowledgment() -> None:
    guest = Guest()
    client = connect(guest, Client())
    guest.jitter = 50_000
    delays = set()
    for n in range(10):
        client.out = b"?"
        answers = segments(guest.exchange(*client.say()))
        assert answers[0].ack == client.una + 1
        client.una, client.out, begin = client.una + 1, b"", guest.now
        while len(client.heard) <= n and not answers[0].payload:
            client.hear(guest.tick(1))
        delays.add(guest.now - begin)
        guest.exchange(client.acknowledge())
        assert guest.now - begin <= 51
    assert len(delays) > 3


# ---- a NIC that nobody empties ----


def test_output_that_has_no_room_waits_and_nothing_is_lost() -> None:
    guest = Guest(8 * MIB)
    clients = [connect(guest, Client(40_000 + n)) for n in range(24)]
    for client in clients:
        client.out = bytes([client.connection.source_port & 255]) * 30_000
        client.peer_window = BUFFER_BYTES
    frames = [frame for client in clients for frame in client.say()]
    held = 0
    while not held == len(guest.transmit) == len(guest.receive) == NIC_QUEUE_LENGTH:
        while guest.receive.put(frames[0]):
            frames.pop(0)
        held = len(guest.transmit)
        guest.serve(take=False)
    # Everything is full, down to the wire: nothing is dropped, and nothing goes on.
    assert guest.host[2] == 0
    received = guest.counter("frames_received")
    guest.serve(take=False)
    assert guest.counter("frames_received") == received
    answers = guest.transmit.take_all()
    while frames or answers:
        for client in clients:
            client.hear(answers)
        answers = guest.exchange(*frames)
        frames = [client.acknowledge() for client in clients] if answers else []
    for client in clients:
        while client.out:
            client.hear(guest.exchange(*client.say()))
        assert client.heard == bytes([client.connection.source_port & 255]) * 30_000


def test_a_call_does_a_bounded_amount_of_work() -> None:
    guest = Guest()
    assert not guest.serve()
    assert guest.host[2] == 0
    echo_request = net.build_echo(
        net.GUEST_MAC, net.HOST_MAC, net.HOST_IP, net.GUEST_IP, net.ECHO_REQUEST, 1, 1, b""
    )
    while guest.receive.put(echo_request):
        pass
    frames = tcp.FRAMES_PER_CALL
    assert len(guest.serve()) == frames
    assert guest.counter("frames_received") == guest.counter("frames_sent") == frames
    before = guest.memory.copy()
    guest.serve()
    assert (guest.memory == before).all()
