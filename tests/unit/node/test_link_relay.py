"""A link's relay: bytes in order and unchanged, never faster than the rate, and the end of both."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colobench.node.address import Address
from colobench.node.link_lane import Lane
from colobench.node.link_relay import DIRECTIONS, Forward
from colobench.settings.link import Link

TEN_SECONDS = 10.0
FAMILIES = ("unix", "tcp")
PROPERTIES = [
    Link(0, 500),
    Link(10**9),
    Link(10**10),
    Link(300_000_000, 1_000, 2_000),
]
Ends = tuple[socket.socket, socket.socket]


class Relayed:
    """A link with connections of the test on both sides."""

    def __init__(self, link: Link, family: str, directory: Path) -> None:
        self.lanes = [Lane(name, link) for name in DIRECTIONS]
        unix = family == "unix"
        at = {name: f"unix:{directory}/{name}" if unix else "tcp:127.0.0.1:0" for name in "ab"}
        self.listener, self.target = Address.parse(at["b"]).listen()
        self.listener.settimeout(TEN_SECONDS)
        self.forward = Forward(Address.parse(at["a"]), self.target, self.lanes)
        self.opened: list[socket.socket] = []

    def connect(self) -> Ends:
        near = self.forward.address.connect(TEN_SECONDS)
        far, _ = self.listener.accept()
        for end in (near, far):
            end.settimeout(TEN_SECONDS)
            self.opened.append(end)
        return near, far

    def close(self) -> None:
        for end in (*self.opened, self.listener):
            end.close()
        self.target.remove()
        self.forward.close()
        for lane in self.lanes:
            lane.close()


@contextmanager
def relayed(link: Link, family: str, directory: Path) -> Iterator[Relayed]:
    with ExitStack() as stack:
        made = Relayed(link, family, directory)
        stack.callback(made.close)
        yield made


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path: Path) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []


def receive_all(end: socket.socket) -> bytes:
    received = bytearray()
    while piece := end.recv(1 << 16):
        received += piece
    return bytes(received)


def send_pieces(end: socket.socket, pieces: list[bytes]) -> None:
    for piece in pieces:
        end.sendall(piece)
    end.shutdown(socket.SHUT_WR)


def send_for_ever(end: socket.socket) -> None:
    while True:
        end.sendall(bytes(1 << 20))


def cross(ways: list[tuple[socket.socket, socket.socket, list[bytes]]]) -> list[bytes]:
    """Send pieces from the first socket of each way to the second, all at once."""
    found = [b""] * len(ways)

    def take(number: int) -> None:
        found[number] = receive_all(ways[number][1])

    takers = [threading.Thread(target=take, args=(number,)) for number in range(len(ways))]
    givers = [threading.Thread(target=send_pieces, args=(source, p)) for source, _, p in ways]
    for thread in takers + givers:
        thread.start()
    for thread in takers + givers:
        thread.join()
    return found


@pytest.mark.parametrize("family", FAMILIES)
@given(
    link=st.sampled_from(PROPERTIES),
    connections=st.lists(
        st.tuples(*[st.lists(st.binary(min_size=1, max_size=1 << 12), max_size=8)] * 2),
        min_size=1,
        max_size=3,
    ),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_cross_in_order_and_unchanged_on_all_connections(
    family: str,
    link: Link,
    connections: list[tuple[list[bytes], list[bytes]]],
    tmp_path: Path,
) -> None:
    with relayed(link, family, tmp_path) as made:
        ways = []
        for there, back in connections:
            near, far = made.connect()
            ways += [(near, far, there), (far, near, back)]
        assert cross(ways) == [b"".join(pieces) for _, _, pieces in ways]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("link", [Link(10**9), Link(10**10), Link(10**8, 3_000)], ids=str)
def test_all_connections_together_are_never_faster_than_the_rate(
    link: Link, connections: int, family: str, tmp_path: Path
) -> None:
    each = min(8 << 20, link.rate // 8 // 50) // connections
    with relayed(link, family, tmp_path) as made:
        ends = [made.connect() for _ in range(connections)]
        begin = time.monotonic()
        found = cross([(near, far, [bytes(each)]) for near, far in ends])
        took = time.monotonic() - begin
        assert [len(each_found) for each_found in found] == [each] * connections
        assert took >= connections * each * 8 / link.rate + link.delay_us / 1e6
        there, back = made.lanes
        assert (there.pacing.bytes, back.pacing.bytes) == (connections * each, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_takes_a_round_trip_at_least(family: str, tmp_path: Path) -> None:
    link = Link(0, 4_000, 1_000)
    with relayed(link, family, tmp_path) as made:
        near, far = made.connect()
        for _ in range(5):
            begin = time.monotonic()
            near.sendall(b"question")
            assert far.recv(100) == b"question"
            far.sendall(b"answer")
            assert near.recv(100) == b"answer"
            assert time.monotonic() - begin >= 2 * link.delay_us / 1e6


@pytest.mark.parametrize("family", FAMILIES)
def test_a_receiver_that_does_not_read_stops_its_sender_and_nobody_else(
    family: str, tmp_path: Path
) -> None:
    with relayed(Link(10**10), family, tmp_path) as made:
        near, far = made.connect()
        other_near, other_far = made.connect()
        near.setblocking(False)
        stuck, sent = bytes(1 << 20), 0
        while sent < 256 << 20:
            try:
                sent += near.send(stuck)
            except BlockingIOError:
                crossed = made.lanes[0].pacing.bytes
                other_near.sendall(b"still moves")
                assert other_far.recv(100) == b"still moves"
                if made.lanes[0].pacing.bytes == crossed + len(b"still moves"):
                    break
        # The buffers of two sockets on each side, and what may be on its way.
        assert sent < 64 << 20
        assert far.recv(1) == b"\0"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dies", ["near", "far"])
def test_the_end_of_one_side_ends_the_other(family: str, dies: str, tmp_path: Path) -> None:
    with relayed(Link(10**9, 1_000), family, tmp_path) as made:
        near, far = made.connect()
        dead, other = (near, far) if dies == "near" else (far, near)
        dead.sendall(b"last words")
        dead.close()
        assert receive_all(other) == b"last words"
        with pytest.raises(OSError, match=r"pipe|reset"):
            send_for_ever(other)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_blocked_sender_finds_out_that_its_receiver_died(family: str, tmp_path: Path) -> None:
    with relayed(Link(10**9), family, tmp_path) as made:
        near, far = made.connect()
        found: list[OSError] = []

        def send() -> None:
            try:
                send_for_ever(near)
            except OSError as error:
                found.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        far.recv(1)
        far.close()
        sender.join()
        assert not isinstance(found[0], TimeoutError)


def test_a_connection_that_nobody_takes_is_ended(tmp_path: Path) -> None:
    with relayed(Link(10**9), "unix", tmp_path) as made:
        made.listener.close()
        near = made.forward.address.connect(TEN_SECONDS)
        made.opened.append(near)
        near.settimeout(TEN_SECONDS)
        assert near.recv(1) == b""
