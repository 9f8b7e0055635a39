"""The relay: nothing changes on the way, everything is kept, and it stops at the exact byte."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from colobench.errors import LocalError
from colobench.lab.session.relay import Direction, Relay
from colobench.node.address import Address

TEN_SECONDS = 10.0
DIRECTIONS: tuple[Direction, Direction] = ("P→S", "S→P")


class Ends(NamedTuple):
    """A relay with a socket of the test on either side."""

    relay: Relay
    primary: socket.socket
    secondary: socket.socket

    def of(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        if direction == "P→S":
            return self.primary, self.secondary
        return self.secondary, self.primary


Join = Callable[..., Ends]


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path: Path) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert not (tmp_path / "relay").exists()


def addresses(kind: str, directory: Path) -> tuple[str, str]:
    if kind == "unix":
        return f"unix:{directory}/relay", f"unix:{directory}/secondary"
    return "tcp:127.0.0.1:0", "tcp:127.0.0.1:0"


@pytest.fixture(params=["unix", "tcp"])
def join(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Join]:
    opened: list[Ends] = []

    def join(**options: int) -> Ends:
        listen, connect = addresses(request.param, tmp_path)
        listener, target = Address.parse(connect).listen()
        with listener:
            relay = Relay(listen, str(target), **options)
            primary = Address.parse(relay.address).connect(TEN_SECONDS)
            secondary, _ = listener.accept()
        target.remove()
        secondary.settimeout(TEN_SECONDS)
        opened.append(Ends(relay, primary, secondary))
        return opened[-1]

    yield join
    for relay, primary, secondary in opened:
        relay.close()
        primary.close()
        secondary.close()


def receive_all(end: socket.socket) -> bytes:
    received = b""
    while data := end.recv(1 << 16):
        received += data
    return received


def receive(end: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        data = end.recv(length - len(received))
        assert data, f"expected {length} bytes, found the end after {len(received)}"
        received += data
    return received


def send_in_background(end: socket.socket, data: bytes) -> threading.Thread:
    def send() -> None:
        # The relay may cut it off.
        with suppress(ConnectionError):
            end.sendall(data)
        with suppress(OSError):
            end.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def send_for_ever(end: socket.socket) -> NoReturn:
    while True:
        end.sendall(b"x" * 100_000)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    messages=strategies.lists(
        strategies.tuples(strategies.sampled_from(DIRECTIONS), strategies.binary(min_size=1))
    )
)
def test_all_bytes_cross_unchanged_and_are_kept(
    join: Join, messages: list[tuple[Direction, bytes]]
) -> None:
    ends = join()
    for direction, data in messages:
        sender, receiver = ends.of(direction)
        sender.sendall(data)
        assert receive(receiver, len(data)) == data
    for direction in DIRECTIONS:
        sent = b"".join(data for way, data in messages if way == direction)
        assert ends.relay.data(direction) == sent
        assert ends.relay.crossed(direction) == len(sent)
        offset = 0
        for chunk in ends.relay.chunks:
            if chunk.direction == direction:
                assert chunk.offset == offset
                offset += len(chunk.data)
    times = [chunk.time for chunk in ends.relay.chunks]
    assert times == sorted(times)
    assert not ends.relay.truncated
    ends.relay.close()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_end_of_one_stream_is_passed_on_and_the_other_goes_on(
    join: Join, direction: Direction
) -> None:
    ends = join()
    sender, receiver = ends.of(direction)
    sender.sendall(b"last")
    sender.shutdown(socket.SHUT_WR)
    assert receive_all(receiver) == b"last"
    receiver.sendall(b"answer")
    receiver.close()
    assert receive_all(sender) == b"answer"


def test_a_sender_learns_that_its_receiver_is_gone(join: Join) -> None:
    ends = join()
    ends.secondary.close()
    assert receive_all(ends.primary) == b""
    with pytest.raises(ConnectionError):
        send_for_ever(ends.primary)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 65536, 65537, 299_999])
def test_a_cut_lets_exactly_that_many_bytes_pass(
    join: Join, direction: Direction, offset: int
) -> None:
    ends = join()
    sender, receiver = ends.of(direction)
    sent = os.urandom(300_000)
    ends.relay.cut_after(direction, offset)
    thread = send_in_background(sender, sent)
    assert receive_all(receiver) == sent[:offset]
    assert ends.relay.reached.wait(TEN_SECONDS)
    assert ends.relay.crossed(direction) == offset
    assert ends.relay.data(direction) == sent[:offset]
    thread.join()
    with pytest.raises(ConnectionError):
        send_for_ever(sender)


def test_a_cut_at_the_present_byte_is_made_at_once(join: Join) -> None:
    ends = join()
    ends.primary.sendall(b"before")
    assert receive(ends.secondary, 6) == b"before"
    ends.relay.cut_after("P→S", ends.relay.crossed("P→S"))
    assert ends.relay.reached.wait(TEN_SECONDS)
    assert receive_all(ends.secondary) == b""
    assert receive_all(ends.primary) == b""


def test_what_has_passed_cannot_be_stopped(join: Join) -> None:
    ends = join()
    ends.primary.sendall(b"before")
    assert receive(ends.secondary, 6) == b"before"
    for stop in (ends.relay.cut_after, ends.relay.stall_after):
        with pytest.raises(LocalError, match="expected an offset from 6 on, found 5"):
            stop("P→S", 5)
    ends.primary.sendall(b"more")
    assert receive(ends.secondary, 4) == b"more"


@pytest.mark.parametrize("offset", [0, 1, 65536, 65537])
def test_a_stall_lets_exactly_that_many_bytes_pass_and_holds_back_the_end(
    join: Join, offset: int
) -> None:
    ends = join()
    sent = os.urandom(70_000)
    ends.relay.stall_after("P→S", offset)
    thread = send_in_background(ends.primary, sent)
    assert ends.relay.reached.wait(TEN_SECONDS)
    assert receive(ends.secondary, offset) == sent[:offset]
    # The other direction is not stalled.
    ends.secondary.sendall(b"still there?")
    assert receive(ends.primary, 12) == b"still there?"
    ends.secondary.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.secondary.recv(1)
    ends.relay.cut()
    ends.secondary.settimeout(TEN_SECONDS)
    assert receive_all(ends.secondary) == b""
    assert ends.relay.data("P→S") == sent[:offset]
    thread.join()


def test_keeps_no_more_than_its_limit_but_counts_on(join: Join) -> None:
    ends = join(limit=100)
    ends.primary.sendall(b"x" * 99)
    receive(ends.secondary, 99)
    assert (ends.relay.crossed("P→S"), ends.relay.truncated) == (99, False)
    ends.secondary.sendall(b"yz")
    receive(ends.primary, 2)
    assert (ends.relay.crossed("S→P"), ends.relay.truncated) == (2, True)
    ends.primary.sendall(b"x")
    receive(ends.secondary, 1)
    assert (ends.relay.data("P→S"), ends.relay.data("S→P")) == (b"x" * 99, b"y")
    assert (ends.relay.crossed("P→S"), ends.relay.crossed("S→P")) == (100, 2)


def test_forgets_and_keeps_anew(join: Join) -> None:
    ends = join(limit=4)
    ends.primary.sendall(b"precopy")
    receive(ends.secondary, 7)
    ends.relay.forget()
    assert (ends.relay.chunks, ends.relay.truncated) == ([], False)
    ends.primary.sendall(b"COLO")
    receive(ends.secondary, 4)
    assert ends.relay.data("P→S") == b"COLO"
    assert ends.relay.chunks[0].offset == 7
    assert not ends.relay.truncated


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_without_a_secondary_the_primary_is_cut_off(tmp_path: Path, kind: str) -> None:
    listen, connect = addresses(kind, tmp_path)
    listener, nobody = Address.parse(connect).listen()
    listener.close()
    nobody.remove()
    with Relay(listen, str(nobody)) as relay:
        with Address.parse(relay.address).connect(TEN_SECONDS) as primary:
            assert receive_all(primary) == b""
        assert str(nobody) in str(relay.error)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_closing_needs_no_connection(tmp_path: Path, kind: str) -> None:
    relay = Relay(*addresses(kind, tmp_path))
    relay.close()
    relay.close()
    with pytest.raises(LocalError):
        Address.parse(relay.address).connect(TEN_SECONDS)


def test_closing_ends_a_transfer_that_nobody_reads(join: Join) -> None:
    ends = join()
    threads = [send_in_background(end, b"x" * 30_000_000) for end in (ends.primary, ends.secondary)]
    assert receive(ends.secondary, 1) == b"x"
    ends.relay.close()
    for thread in threads:
        thread.join()


def test_an_address_in_use_is_our_own_mistake(tmp_path: Path) -> None:
    listen, connect = addresses("unix", tmp_path)
    with Relay(listen, connect), pytest.raises(LocalError, match="Address already in use"):
        Relay(listen, connect)
