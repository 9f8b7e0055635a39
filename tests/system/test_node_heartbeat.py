"""The heartbeat on real sockets: silence alone is a sign of death, and our own pauses are not."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.node.heartbeat import DatagramAddress, Heartbeat
from colobench.protocol.heartbeat import BEAT_BYTES, Beat, decode_beat, encode_beat, sender_digest
from places import CLONE

PAIRING, NODE, PEER = "a pairing", "primary", "secondary"
#: Silence that nobody waits for, and one that tests wait for.
NEVER, SOON = 1000.0, 0.2
WAIT = 60.0

#: A node that beats beside so many busy threads, says when it lost its peer, and answers each line
#: that it is sent with its statistics.
CHILD = """
import json, sys, threading
from colobench.node.heartbeat import DatagramAddress, Heartbeat

own, peer, interval, limit, busy = sys.argv[1:]

def spin():
    while True:
        pass

for _ in range(int(busy)):
    threading.Thread(target=spin, daemon=True).start()
heartbeat = Heartbeat(
    DatagramAddress.parse(own), "a pairing", "secondary", "primary",
    lambda: print("lost", flush=True), interval=float(interval), limit=float(limit),
)
heartbeat.start(DatagramAddress.parse(peer))
for line in sys.stdin:
    print(json.dumps(heartbeat.statistics()), flush=True)
heartbeat.stop()
"""


class Child:
    """A process that beats."""

    def __init__(
        self, own: str, peer: str, *, interval: float, limit: float, busy: int = 0
    ) -> None:
        arguments = [own, peer, str(interval), str(limit), str(busy)]
        package = str(CLONE)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": package},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout

    def line(self) -> str:
        return self._stdout.readline().strip()

    def statistics(self) -> dict[str, Any]:
        self._stdin.write("statistics\n")
        self._stdin.flush()
        found: dict[str, Any] = json.loads(self.line())
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._stdout.close()
        self._stdin.close()


class Peer:
    """The other node, by hand."""

    def __init__(self, uri: str, *, node: str = PEER) -> None:
        self._node = node
        address = DatagramAddress.parse(uri)
        self.socket = socket.socket(address.family, socket.SOCK_DGRAM)
        self.socket.settimeout(WAIT)
        self.socket.bind(address.target)
        self.address = DatagramAddress(address.family, self.socket.getsockname())

    def beat(self, to: DatagramAddress, sequence: int, *, pairing: str = PAIRING) -> None:
        datagram = encode_beat(Beat(sender_digest(pairing, self._node), sequence))
        self.socket.sendto(datagram, to.target)

    def hear(self) -> Beat:
        return decode_beat(self.socket.recv(BEAT_BYTES + 1))

    def hears_nothing(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(BEAT_BYTES)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self.socket.close()
        if isinstance(self.address.target, str):
            os.unlink(self.address.target)


def until(condition: Callable[[], bool]) -> None:
    """Look again and again until something that another thread does has happened."""
    never = threading.Event()
    while not condition():
        never.wait(0.001)


class Heartbeats:
    """Makes heartbeats, and knows what to clean up."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[Heartbeat | Peer | Child] = []
        self.lost = threading.Event()
        self.calls: list[str] = []

    def uri(self, kind: str, name: str) -> str:
        return f"unix:{self._directory}/{name}" if kind == "unix" else "udp:127.0.0.1:0"

    def on_lost(self) -> None:
        self.calls.append(threading.current_thread().name)
        self.lost.set()

    def heartbeat(
        self, kind: str = "unix", *, limit: float = NEVER, name: str = "own"
    ) -> Heartbeat:
        address = DatagramAddress.parse(self.uri(kind, name))
        made = Heartbeat(address, PAIRING, NODE, PEER, self.on_lost, interval=0.01, limit=limit)
        self._made.append(made)
        return made

    def peer(self, kind: str = "unix", *, name: str = "peer", node: str = PEER) -> Peer:
        made = Peer(self.uri(kind, name), node=node)
        self._made.append(made)
        return made

    def child(self, **arguments: Any) -> Child:
        made = Child(self.uri("unix", "child"), self.uri("unix", "own"), **arguments)
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            if isinstance(made, Heartbeat):
                made.stop()
            elif isinstance(made, Peer):
                made.close()
            else:
                made.kill()


@pytest.fixture
def heartbeats(tmp_path: Path) -> Iterator[Heartbeats]:
    descriptors, threads = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    made = Heartbeats(tmp_path)
    yield made
    made.close()
    # What others have left may end meanwhile.
    assert set(os.listdir("/proc/self/fd")) <= descriptors
    assert set(threading.enumerate()) <= threads
    assert [path for path in tmp_path.iterdir() if path.name != "child"] == []


KINDS = pytest.mark.parametrize("kind", ["unix", "udp"])


@KINDS
def test_beats_come_in_order_and_carry_pairing_and_sender(
    heartbeats: Heartbeats, kind: str
) -> None:
    peer, own = heartbeats.peer(kind), heartbeats.heartbeat(kind)
    own.start(peer.address)
    heard = [peer.hear() for _ in range(5)]
    assert {beat.sender for beat in heard} == {sender_digest(PAIRING, NODE)}
    assert [beat.sequence for beat in heard] == [0, 1, 2, 3, 4]


@KINDS
def test_lost_is_said_once_in_the_heartbeats_own_thread_and_ends_the_beating(
    heartbeats: Heartbeats, kind: str
) -> None:
    peer, own = heartbeats.peer(kind), heartbeats.heartbeat(kind, limit=SOON)
    own.start(peer.address)
    assert heartbeats.lost.wait(WAIT)
    until(lambda: all(thread.name != "heartbeat" for thread in threading.enumerate()))
    assert heartbeats.calls == ["heartbeat"]
    assert own.statistics()["lost"]
    # It has beaten before, and whatever it sent is there by now; the last of it was the last.
    sent = own.statistics()["sent"]
    assert [peer.hear().sequence for _ in range(sent)] == list(range(sent))
    assert peer.hears_nothing()


@KINDS
def test_silence_is_told_and_broken_by_a_beat_of_the_peer_alone(
    heartbeats: Heartbeats, kind: str
) -> None:
    peer, own = heartbeats.peer(kind), heartbeats.heartbeat(kind)
    assert own.silence == 0
    own.start(peer.address)
    until(lambda: own.silence > 0.05)
    peer.socket.sendto(b"who are you?", own.address.target)
    peer.socket.sendto(b"x" * 5000, own.address.target)
    peer.beat(own.address, 7, pairing="an old pairing")
    for sequence in (3, 3, 2):
        peer.beat(own.address, sequence)
    until(lambda: own.statistics()["repeated"] == 2)
    counted = own.statistics()
    assert (counted["malformed"], counted["foreign"], counted["beats"]) == (2, 1, 1)
    assert 0 <= own.silence < WAIT
    assert not counted["lost"]


def test_two_heartbeats_hear_each_other_until_one_stops(tmp_path: Path) -> None:
    lost = {name: threading.Event() for name in "ab"}
    a, b = (
        Heartbeat(
            DatagramAddress.parse(f"unix:{tmp_path}/{own}"),
            PAIRING,
            own,
            peer,
            lost[own].set,
            interval=0.01,
            limit=1,
        )
        for own, peer in ("ab", "ba")
    )
    a.start(b.address)
    b.start(a.address)
    until(lambda: a.statistics()["beats"] > 2 and b.statistics()["beats"] > 2)
    assert not a.statistics()["lost"]
    assert not b.statistics()["lost"]
    b.stop()
    assert lost["a"].wait(WAIT)
    a.stop()
    assert not lost["b"].is_set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", ["never there", "socket closed", "socket removed"])
def test_address_where_nobody_listens_is_silence_and_no_more(
    heartbeats: Heartbeats, tmp_path: Path, gone: str
) -> None:
    own = heartbeats.heartbeat()
    path = tmp_path / "peer"
    if gone != "never there":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(str(path))
        if gone == "socket removed":
            path.unlink()
    own.start(DatagramAddress.parse(f"unix:{path}"))
    until(lambda: bool(own.statistics()["unsent"] > 5))
    assert not own.statistics()["lost"]
    # Who comes late is heard, and hears us.
    path.unlink(missing_ok=True)
    peer = heartbeats.peer()
    assert peer.hear().sequence > 5
    peer.beat(own.address, 0)
    until(lambda: bool(own.statistics()["beats"] == 1))


def test_closed_port_is_silence_and_no_more(heartbeats: Heartbeats) -> None:
    own = heartbeats.heartbeat("udp")
    dead = heartbeats.peer("udp")
    dead.socket.close()
    own.start(dead.address)
    until(lambda: bool(own.statistics()["sent"] + own.statistics()["unsent"] > 5))
    assert not own.statistics()["lost"]


def test_peer_that_does_not_read_its_beats_does_not_hold_up_ours(heartbeats: Heartbeats) -> None:
    peer, own = heartbeats.peer(), heartbeats.heartbeat()
    own.start(peer.address)
    until(lambda: bool(own.statistics()["unsent"] > 5))
    peer.beat(own.address, 0)
    until(lambda: bool(own.statistics()["beats"] == 1))


def test_killed_process_is_lost_by_its_silence(heartbeats: Heartbeats) -> None:
    own = heartbeats.heartbeat(limit=SOON)
    child = heartbeats.child(interval=0.01, limit=NEVER)
    assert child.statistics()["sent"] >= 0
    own.start(DatagramAddress.parse(heartbeats.uri("unix", "child")))
    until(lambda: bool(own.statistics()["beats"] > 0) or heartbeats.lost.is_set())
    child.process.kill()
    assert heartbeats.lost.wait(WAIT)


def test_stopped_process_is_lost_and_does_not_blame_its_peer_when_it_goes_on(
    heartbeats: Heartbeats,
) -> None:
    limit = 1.0
    # Our own heartbeat is only to tell when the child was silent for longer than its limit: it
    # beats towards nobody, so that nothing waits for the child in its socket.
    own = heartbeats.heartbeat(limit=1.5 * limit)
    voice = heartbeats.peer(name="voice", node=NODE)
    child = heartbeats.child(interval=0.02, limit=limit)
    assert child.statistics()["sent"] >= 0
    own.start(DatagramAddress.parse(heartbeats.uri("unix", "nobody")))
    address = DatagramAddress.parse(heartbeats.uri("unix", "child"))
    voice.beat(address, 0)
    until(lambda: bool(child.statistics()["beats"] == 1))
    until(lambda: bool(own.statistics()["beats"] > 0))
    # On a busy machine the child may have paused by itself, and may do so again.
    pauses = child.statistics()["pauses"]
    child.stop()
    assert heartbeats.lost.wait(WAIT)
    own.stop()
    peer = heartbeats.peer(name="own", node=NODE)
    child.go_on()
    for sequence in range(1, 20):
        peer.hear()
        peer.beat(address, sequence)
    counted = child.statistics()
    assert counted["pauses"] > pauses
    assert not counted["lost"]
    # It was one more limit, not pardon for ever.
    assert child.line() == "lost"


def test_busy_threads_do_not_keep_it_from_beating(heartbeats: Heartbeats) -> None:
    peer = heartbeats.peer(name="own", node=NODE)
    child = heartbeats.child(interval=0.02, limit=NEVER, busy=4)
    assert [peer.hear().sequence for _ in range(30)] == list(range(30))
    assert child.process.poll() is None


def test_stop_ends_everything_at_once_and_may_be_said_again(
    heartbeats: Heartbeats, tmp_path: Path
) -> None:
    own = Heartbeat(
        DatagramAddress.parse(f"unix:{tmp_path}/own"),
        PAIRING,
        NODE,
        PEER,
        heartbeats.on_lost,
        # Stopping waits for none of these.
        interval=NEVER,
        limit=2 * NEVER,
    )
    own.start(heartbeats.peer().address)
    own.stop()
    own.stop()
    assert not (tmp_path / "own").exists()
    assert heartbeats.calls == []
    with pytest.raises(LocalError, match="never started nor stopped"):
        own.start(own.address)


def test_stop_without_start_leaves_nothing(heartbeats: Heartbeats, tmp_path: Path) -> None:
    heartbeats.heartbeat().stop()
    assert list(tmp_path.iterdir()) == []


def test_stop_from_within_on_lost_and_beside_it(heartbeats: Heartbeats, tmp_path: Path) -> None:
    stopped = threading.Event()

    def on_lost() -> None:
        own.stop()
        stopped.set()

    own = Heartbeat(
        DatagramAddress.parse(f"unix:{tmp_path}/own"),
        PAIRING,
        NODE,
        PEER,
        on_lost,
        interval=0.01,
        limit=0.02,
    )
    own.start(heartbeats.peer().address)
    assert stopped.wait(WAIT)
    own.stop()
    until(lambda: all(thread.name != "heartbeat" for thread in threading.enumerate()))


def test_failure_of_on_lost_is_logged_not_swallowed(
    heartbeats: Heartbeats, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def on_lost() -> None:
        raise KeyError("surprise")

    own = Heartbeat(
        DatagramAddress.parse(f"unix:{tmp_path}/own"),
        PAIRING,
        NODE,
        PEER,
        on_lost,
        interval=0.01,
        limit=0.02,
    )
    own.start(heartbeats.peer().address)
    until(lambda: "surprise" in caplog.text)
    own.stop()


def test_only_the_owner_may_send(heartbeats: Heartbeats, tmp_path: Path) -> None:
    heartbeats.heartbeat()
    assert stat.S_IMODE(os.stat(tmp_path / "own").st_mode) == 0o600


def test_address_that_is_taken_is_our_own_mistake_and_stays_usable(
    heartbeats: Heartbeats, tmp_path: Path
) -> None:
    heartbeats.heartbeat()
    with pytest.raises(LocalError, match="Address already in use"):
        heartbeats.heartbeat()
    assert (tmp_path / "own").exists()
    udp = heartbeats.heartbeat("udp")
    with pytest.raises(LocalError, match="Address already in use"):
        Heartbeat(udp.address, PAIRING, NODE, PEER, heartbeats.on_lost)


@pytest.mark.parametrize(
    "uri",
    ["", "unix:", "tcp:127.0.0.1:1", "udp:127.0.0.1", "udp:8.8.8.8:9", "udp:[::1]:9", "udp::65536"],
)
def test_bad_address_is_named(uri: str) -> None:
    with pytest.raises(LocalError, match="heartbeat address: expected unix:PATH or udp:HOST:PORT"):
        DatagramAddress.parse(uri)


def test_addresses_are_written_as_they_are_read() -> None:
    for uri in ("unix:/run/heart", "udp:127.0.0.1:4000"):
        assert str(DatagramAddress.parse(uri)) == uri
    assert str(DatagramAddress.parse("udp::4000")) == "udp:127.0.0.1:4000"


def test_arguments_that_cannot_work_are_refused_before_anything_is_opened(
    heartbeats: Heartbeats, tmp_path: Path
) -> None:
    address = DatagramAddress.parse(f"unix:{tmp_path}/own")
    with pytest.raises(LocalError, match="expected two names, found 'primary' twice"):
        Heartbeat(address, PAIRING, NODE, NODE, heartbeats.on_lost)
    with pytest.raises(LocalError, match="at least two intervals"):
        Heartbeat(address, PAIRING, NODE, PEER, heartbeats.on_lost, interval=1, limit=1.5)
    long_path = DatagramAddress.parse(f"unix:{tmp_path}/{'x' * 200}")
    with pytest.raises(LocalError, match="too long"):
        Heartbeat(long_path, PAIRING, NODE, PEER, heartbeats.on_lost)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LocalError, match=r"peer's address like unix:.*found udp:"):
        heartbeats.heartbeat().start(DatagramAddress.parse("udp::1"))
