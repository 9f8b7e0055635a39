"""A peer that gives or takes a little now and then is given up; one that is merely slow is not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.node import watchdog as watchdog_module
from colobench.node.address import Address
from colobench.node.channel import Channel
from colobench.node.connection import PeerLost, PeerStalled
from colobench.node.wait import Wait
from colobench.node.watchdog import MINIMUM_RATE, DueTransfer, Reckoning
from colobench.processes.process import NodeProcess
from colobench.wire.messages import message
from colobench.wire.reading import sized_bytes
from node_arguments import node_arguments

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 60.0
STALL = 1.6


class Pace:
    """A link between two nodes: as fast as it can be, or so many bytes in so many seconds."""

    def __init__(self, directory: Path, connections: int) -> None:
        self._listener, _ = Address.parse(f"unix:{directory}/link").listen()
        self._to = Address.parse(f"unix:{directory}/colo")
        self._connections = connections
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="link")]
        #: By the number of the connection and the direction: bytes and seconds.
        self.pace: dict[tuple[int, str], tuple[int, float]] = {}
        self._sockets: list[socket.socket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        with self._listener:
            for number in range(self._connections):
                primary, _ = self._listener.accept()
                secondary = self._to.connect(WAIT)
                self._sockets += [primary, secondary]
                for key, source, to in (
                    ((number, "P→S"), primary, secondary),
                    ((number, "S→P"), secondary, primary),
                ):
                    thread = threading.Thread(target=self._carry, args=(key, source, to))
                    self._threads.append(thread)
                    thread.start()

    def _carry(self, key: tuple[int, str], source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                count, seconds = self.pace.get(key, (1 << 18, 0.0))
                data = source.recv(count)
                # A pace that was set meanwhile counts for what has come, too.
                count, seconds = self.pace.get(key, (len(data) or 1, 0.0))
                for begin in range(0, len(data), count):
                    to.sendall(data[begin : begin + count])
                    self._ended.wait(seconds)
                if not data:
                    break
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


class Pair:
    """A primary and a secondary with a link between them whose pace is set."""

    def __init__(self, directory: Path, settings: dict[str, Any], connections: int) -> None:
        self._said = threading.Condition()
        self._events: list[tuple[str, dict[str, Any]]] = []
        arguments = node_arguments(**{"ram": "1M", "stall_timeout": STALL} | settings)
        incoming = ["--incoming", f"unix:{directory}/colo"]
        self.nodes = {
            "primary": NodeProcess("primary", directory, arguments, self._hear),
            "secondary": NodeProcess("secondary", directory, arguments + incoming, self._hear),
        }
        for node in self.nodes.values():
            node.connect(WAIT * 3)
            node.execute(
                "migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": True}]
            )
        self.link = Pace(directory, connections)
        self.nodes["primary"].execute("migrate-set-parameters", x_checkpoint_delay=2**32 - 1)

    def migrate(self, directory: Path) -> None:
        self.nodes["primary"].execute("migrate", uri=f"unix:{directory}/link")

    def _hear(self, role: str, event: dict[str, Any]) -> None:
        with self._said:
            self._events.append((role, event))
            self._said.notify_all()

    def wait_for(self, role: str, name: str, **data: Any) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [
                event["data"]
                for who, event in list(self._events)
                if (who, event["event"]) == (role, name) and data.items() <= event["data"].items()
            ]

        with self._said:
            assert self._said.wait_for(found, WAIT), self._events
        return found()[0]

    def close(self) -> None:
        for node in self.nodes.values():
            node.ask_to_quit()
        for node in self.nodes.values():
            node.end()
        self.link.close()


@contextlib.contextmanager
def paired(directory: Path, connections: int = 1, **settings: Any) -> Iterator[Pair]:
    pair = Pair(directory, settings, connections)
    try:
        yield pair
    finally:
        pair.close()


#: A message's four bytes take longer than the stall timeout, and each one less than half of it.
TRICKLE = (1, 0.7)
MULTIFD = {"transport": "multifd", "multifd_channels": 1}
#: Settings, connections, which of them trickles and which way, and who gives the other up.
TRICKLES = {
    "pages and devices": ({}, 1, (0, "P→S"), "secondary"),
    "one buffer": ({"layout": "buffered"}, 1, (0, "P→S"), "secondary"),
    "page channel": (MULTIFD, 2, (1, "P→S"), "secondary"),
    "messages": ({}, 1, (0, "S→P"), "primary"),
}


@pytest.mark.parametrize("case", TRICKLES)
def test_peer_that_trickles_is_given_up(tmp_path: Path, case: str) -> None:
    settings, connections, key, gives_up = TRICKLES[case]
    with paired(tmp_path, connections, **settings) as pair:
        pair.migrate(tmp_path)
        for role in pair.nodes:
            pair.wait_for(role, "MIGRATION", status="colo")
        pair.link.pace[key] = TRICKLE
        pair.nodes["primary"].execute("x-colo-checkpoint")
        why = pair.wait_for(gives_up, "COLO_EXIT", reason="error")["x-why"]
        assert f"expected {MINIMUM_RATE} bytes/s after {STALL:g} s, found" in why


def test_primary_that_trickles_in_precopy_is_given_up(tmp_path: Path) -> None:
    with paired(tmp_path) as pair:
        pair.link.pace[0, "P→S"] = TRICKLE
        pair.migrate(tmp_path)
        secondary = pair.nodes["secondary"]
        assert secondary.process.wait(WAIT) == 1
        assert f"expected {MINIMUM_RATE} bytes/s" in secondary.last_words()


def test_link_that_is_slow_but_moves_is_borne_with(tmp_path: Path) -> None:
    # Ten times the rate that is asked for; RAM takes longer than the stall timeout.
    with paired(tmp_path, layout="buffered", ram="8M") as pair:
        pair.link.pace[0, "P→S"] = (MINIMUM_RATE, 0.1)
        pair.migrate(tmp_path)
        for role in pair.nodes:
            pair.wait_for(role, "MIGRATION", status="colo")
        pair.nodes["primary"].execute("x-colo-checkpoint")
        for role in pair.nodes:
            pair.wait_for(role, "X_COLO_CHECKPOINT", checkpoint=1)


@contextlib.contextmanager
def connected(stall_timeout: float) -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, stall_timeout)
    with theirs:
        yield channel, theirs
    channel.close()


def test_reader_that_takes_a_little_now_and_then_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdog_module, "MINIMUM_RATE", 64 << 20)
    ended = threading.Event()
    with connected(1.0) as (channel, reader):

        def sip() -> None:
            while not ended.wait(0.05) and reader.recv(1 << 17):
                pass

        thread = threading.Thread(target=sip)
        thread.start()
        with pytest.raises(PeerStalled, match=r"send: expected 67108864 bytes/s after 1 s"):
            channel.send_in_time(bytes(64 << 20))
        ended.set()
        thread.join()


def test_writer_of_a_message_byte_by_byte_is_given_up() -> None:
    ended = threading.Event()
    with connected(1.5) as (channel, writer):

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.7):
                    writer.send(b"\0")

        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(PeerStalled, match=r"found [123] bytes in"):
            channel.parse(message(channel.buffer))
        ended.set()
        thread.join()


def test_more_than_is_due_buys_no_more_time() -> None:
    ended = threading.Event()
    with connected(1.0) as (channel, writer):

        def flood() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.01):
                    writer.sendall(bytes(1 << 16))

        thread = threading.Thread(target=flood)
        thread.start()
        with pytest.raises(PeerStalled, match="bytes/s"):
            channel.parse(sized_bytes(1 << 50), at_most=1 << 10)
        ended.set()
        writer.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_time_in_which_this_process_stood_still_is_not_the_peers() -> None:
    part, now = DueTransfer(), 0.0
    reckoning = Reckoning(1.0, 0.1, now)
    assert not reckoning.look(now, part, 0)
    for _ in range(5):
        now += 3600
        assert not reckoning.look(now, part, 0)
    for _ in range(2):
        assert not reckoning.look(now, part, 0)
        now += 0.1
    assert "go on in 1 s, found silence" in reckoning.look(now, part, 0)


@given(
    rate=st.integers(0, 4 * MINIMUM_RATE),
    timeout=st.floats(0.01, 10),
    steps=st.integers(1, 400),
)
def test_who_keeps_to_the_rate_has_time_and_who_does_not_has_little(
    rate: int, timeout: float, steps: int
) -> None:
    part, now, period = DueTransfer(), 0.0, timeout / 8
    reckoning = Reckoning(timeout, period, now)
    reckoning.look(now, part, 7)
    for _ in range(steps):
        now += period
        late = bool(reckoning.look(now, part, 7 + int(rate * now)))
        if rate >= MINIMUM_RATE:
            assert not late
        elif late:
            break
    allowed = (timeout + 2 * period) / (1 - rate / MINIMUM_RATE) if rate < MINIMUM_RATE else now
    assert now <= allowed + 2 * period


@pytest.mark.parametrize("ends", ["main connection", "told to end", "time"])
def test_connecting_ends_with_what_it_depends_on(tmp_path: Path, ends: str) -> None:
    address = Address.parse(f"unix:{tmp_path}/full")
    main, other_end = socket.socketpair()
    reader, writer = socket.socketpair()
    waiting = []
    with main, other_end, reader, writer, address.listen()[0] as listener:
        # The queue of connections is full: a connect would wait for ever.
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(address.target)
        wait = Wait("a peer", 0.3 if ends == "time" else 1e6, main, reader.fileno())
        timer = threading.Timer(0.2, other_end.close if ends == "main connection" else writer.close)
        if ends != "time":
            timer.start()
        started = time.monotonic()
        with pytest.raises(Exception, match=r"expected a peer|timed out") as caught:
            address.connect_while(wait)
        assert isinstance(caught.value, PeerLost) == (ends != "time")
        assert time.monotonic() - started < WAIT
        if ends != "time":
            timer.join()
    for each in waiting:
        each.close()
