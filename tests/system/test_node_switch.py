"""The switch as a process: real clients, real links, a guest that moves, and ends of all kinds."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from colobench.errors import LocalError
from colobench.net import frame as net
from colobench.net.frame import ARP, ConnectionKey
from colobench.net.link import FRAME_LIMIT, LinkDecoder, encode_frame
from colobench.net.tcp import RECEIVE_BYTES, SEND_BYTES, TCPConnection
from colobench.node.address import Address
from colobench.node.client import Backlog, Client
from colobench.node.hostfwd import HostForward
from colobench.node.port import QUEUE_BYTES
from colobench.node.switch import parse_switch_options
from colobench.processes.errors import NodeGone, QMPCommandError
from colobench.processes.process import NodeProcess
from echo_guest import EchoGuest

pytestmark = pytest.mark.usefixtures("nothing_left")

TIMEOUT = 30.0
#: What may wait on one way from a client to the guest: in both ends' TCP, and four kernel buffers.
#: Linux doubles a buffer's size, and tunes that of the test's own sockets up.
ON_ITS_WAY = SEND_BYTES + RECEIVE_BYTES + 16 * 1024 * 1024


class Switch:
    """A switch, what it says, and how to reach it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self.clients: list[socket.socket] = []
        self.link = f"unix:{directory}/net"
        options = ["--listen", self.link, "--hostfwd", "tcp:127.0.0.1:0-:7", *arguments]
        self.node = NodeProcess("switch", directory, options, self._on_event)
        self.node.connect(TIMEOUT)
        self.port: int = self.node.execute("query-hostfwd")[0]["host-port"]

    def _on_event(self, role: str, event: dict[str, Any]) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait for the `count`-th event of that name, and give its data."""

        def found() -> list[dict[str, Any]]:
            return [event["data"] for event in self.events if event["event"] == name]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, TIMEOUT), self.events
        return found()[count - 1]

    def query(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.node.execute("x-query-switch")
        return answer

    def client(self, port: int | None = None) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port or self.port), TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients.append(connection)
        return connection


@contextlib.contextmanager
def running(directory: Path, *arguments: str, silent: bool = True) -> Iterator[Switch]:
    switch = Switch(directory, *arguments)
    try:
        yield switch
    finally:
        switch.node.ask_to_quit()
        switch.node.end()
        for client in switch.clients:
            client.close()
        assert switch.node.process.returncode == 0
        assert not (directory / "net").exists()
        assert not switch.node.qmp_path.exists()
        assert not silent or switch.node.last_words() == ""


@contextlib.contextmanager
def guest_of(switch: Switch, seed: int = 0) -> Iterator[EchoGuest]:
    guest = EchoGuest(switch.link, seed)
    try:
        yield guest
    finally:
        guest.close()


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    with running(tmp_path) as process:
        yield process


@pytest.fixture
def guest(switch: Switch) -> Iterator[EchoGuest]:
    with guest_of(switch) as thread:
        yield thread


def pattern(length: int, first: int) -> bytes:
    return bytes((first + index * 7 + index // 251) % 256 for index in range(length))


def receive(client: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length and (piece := client.recv(length - len(received))):
        received += piece
    return received


def echo(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return receive(client, len(data))


def exchange(
    clients: list[socket.socket], data: list[bytes], at: Callable[[float], None]
) -> list[bytes]:
    """Send each client's data and receive as much; `at` is told how far all of them are, 0 to 1."""
    total, count = sum(map(len, data)), 0
    left, received = list(data), [b""] * len(data)
    with selectors.DefaultSelector() as selector:
        for number, client in enumerate(clients):
            client.setblocking(False)
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            selector.register(client, both, number)
        while count < total:
            happened = selector.select(TIMEOUT)
            assert happened
            for key, events in happened:
                number = key.data
                client = clients[number]
                if events & selectors.EVENT_WRITE and left[number]:
                    left[number] = left[number][client.send(left[number]) :]
                elif not left[number]:
                    selector.modify(client, selectors.EVENT_READ, number)
                if events & selectors.EVENT_READ:
                    piece = client.recv(1 << 16)
                    assert piece
                    received[number] += piece
                    count += len(piece)
            at(count / total)
    return received


def read_all(client: socket.socket) -> bytes:
    pieces = []
    while piece := client.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def test_every_byte_arrives_though_the_guest_moves_and_frames_are_lost(tmp_path: Path) -> None:
    pcap = tmp_path / "guest.pcap"
    with running(tmp_path, "--pcap", str(pcap)) as switch, guest_of(switch) as guest:
        clients = [switch.client() for _ in range(40)]
        data = [pattern(60_000 + 1000 * number, number) for number in range(len(clients))]
        moves = [0.75, 0.5, 0.25]
        guest.loss = 0.01

        def move(progress: float) -> None:
            if moves and progress > moves[-1]:
                moves.pop()
                guest.move(switch.link)

        received = exchange(clients, data, move)
        assert received == data
        guest.loss = 0
        for client in clients:
            client.close()
        guest.wait_for(lambda: not guest.connections)
        state = switch.query()
        assert (state["moves"], state["clients"], state["guest"]["port"]) == (3, 0, 4)
        assert state["retransmissions"] > 0
        assert [switch.wait_for("X_GUEST_MOVED", number)["port"] for number in (1, 2, 3)] == [
            2,
            3,
            4,
        ]
    check_with_tshark(pcap)


def check_with_tshark(pcap: Path) -> None:
    """Have tshark read a file with all checks; it must not find an error in it."""
    if shutil.which("tshark") is None:
        return
    checks = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    command = ["tshark", "-r", str(pcap), *checks]
    shown = subprocess.run(
        [*command, "-Y", "_ws.expert.severity == error"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert shown.stdout == ""
    protocols = subprocess.run(
        [*command, "-q", "-z", "io,phs"], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert "tcp" in protocols
    assert "arp" in protocols


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_finds_no_error_in_what_crosses_the_links(tmp_path: Path) -> None:
    pcap = tmp_path / "guest.pcap"
    options = ["--pcap", str(pcap), "--hostfwd", "tcp::0-:9"]
    with running(tmp_path, *options) as switch, guest_of(switch) as guest:
        with switch.client() as client:
            assert echo(client, pattern(100_000, 1)) == pattern(100_000, 1)
            switch.node.execute("x-ping")
            guest.move(switch.link)
            assert echo(client, b"again") == b"again"
        refused = switch.node.execute("query-hostfwd")[1]["host-port"]
        assert_refused(switch, refused)
        guest.wait_for(lambda: not guest.connections)
    check_with_tshark(pcap)


def test_hundreds_of_clients_are_served_at_once(switch: Switch, guest: EchoGuest) -> None:
    clients = [switch.client() for _ in range(300)]
    data = [pattern(500, number) for number in range(len(clients))]
    assert exchange(clients, data, lambda progress: None) == data
    assert switch.query()["connections"] == len(clients)
    for client in clients:
        client.close()
    guest.wait_for(lambda: not guest.connections)


def test_half_closed_client_still_gets_everything(switch: Switch, guest: EchoGuest) -> None:
    data = pattern(300_000, 3)
    with switch.client() as client:
        sender = threading.Thread(
            target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR))
        )
        sender.start()
        assert read_all(client) == data
        sender.join()


def test_client_that_closes_before_the_guest_is_there_has_said_what_it_said(
    switch: Switch,
) -> None:
    with switch.client() as client:
        client.sendall(b"said early")
        client.shutdown(socket.SHUT_WR)
        with guest_of(switch):
            assert read_all(client) == b"said early"


def assert_refused(switch: Switch, port: int) -> None:
    """Connect, and be reset: behind that, or so quickly that it looks like a part of it."""
    with pytest.raises(ConnectionResetError), switch.client(port) as client:
        client.recv(1)


def test_refusal_of_the_guests_resets_the_client(tmp_path: Path) -> None:
    with running(tmp_path, "--hostfwd", "tcp::0-10.0.2.15:9") as switch, guest_of(switch):
        forwards = switch.node.execute("query-hostfwd")
        assert [each["guest-port"] for each in forwards] == [7, 9]
        assert_refused(switch, forwards[1]["host-port"])
        with switch.client() as client:
            assert echo(client, b"the other one") == b"the other one"


def test_reset_of_a_clients_reaches_the_guest(switch: Switch, guest: EchoGuest) -> None:
    client = switch.client()
    assert echo(client, b"there") == b"there"
    (tcp,) = guest.connections.values()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
    client.close()
    guest.wait_for(lambda: not guest.connections)
    assert tcp.failure == "reset"


def send_until_nothing_moves(client: socket.socket) -> int:
    """Send as much as is taken; gives how many bytes that were."""
    client.settimeout(1.0)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += client.send(pattern_of(sent, 1 << 16))
    client.settimeout(TIMEOUT)
    return sent


def pattern_of(begin: int, length: int) -> bytes:
    """Give a piece of an endless pattern."""
    return b"".join(struct.pack(">Q", begin // 8 + word) for word in range(length // 8 + 2))[
        begin % 8 : begin % 8 + length
    ]


def test_guest_that_does_not_read_stops_the_client_and_loses_nothing(
    switch: Switch, guest: EchoGuest
) -> None:
    guest.hungry = False
    with switch.client() as client:
        sent = send_until_nothing_moves(client)
        # Nothing in between keeps more than its share.
        assert sent < 2 * ON_ITS_WAY
        assert psutil.Process(switch.node.pid).memory_info().rss < 150_000_000
        guest.do(lambda: setattr(guest, "hungry", True))
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == pattern_of(0, sent)


def test_client_may_send_everything_before_it_reads_anything(
    switch: Switch, guest: EchoGuest
) -> None:
    data = pattern_of(0, ON_ITS_WAY + (8 << 20))
    with switch.client() as client:
        client.sendall(data)
        with switch.client() as other:
            assert echo(other, b"not disturbed") == b"not disturbed"
        client.shutdown(socket.SHUT_WR)
        assert switch.query()["waiting-for-clients-bytes"] > 0
        assert read_all(client) == data
        assert switch.query()["waiting-for-clients-bytes"] == 0


def test_client_that_is_too_far_behind_is_reset_and_the_log_says_so(tmp_path: Path) -> None:
    limit = 1 << 20
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(
            running(tmp_path, "--client-output-limit", str(limit), silent=False)
        )
        stack.enter_context(guest_of(switch))
        with switch.client() as client:
            name = "client {}:{}".format(*client.getsockname())
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                client.sendall(bytes(1 << 28))
        state = switch.query()
        assert (state["waiting-for-clients-bytes"], state["clients"]) == (0, 0)
        with switch.client() as other:
            assert echo(other, b"not disturbed") == b"not disturbed"
        words = switch.node.last_words()
    reason = f"replies for a client that does not read: expected at most {limit} bytes, found "
    assert f"switch: {name}: {reason}" in words
    assert words.endswith("; reset")


def test_clients_together_are_limited_too() -> None:
    backlog = Backlog(limit=10, total_limit=25, waiting=20)
    assert backlog.refusal(4, 5) == ""
    assert "for a client" in backlog.refusal(6, 5)
    assert backlog.refusal(4, 6).endswith("expected at most 25 bytes, found 26")


def test_limit_of_what_waits_for_a_client_is_a_number_of_bytes() -> None:
    with pytest.raises(LocalError, match="client-output-limit: expected at least 1 byte, found 0"):
        parse_switch_options(["--qmp", "q", "--listen", "unix:l", "--client-output-limit", "0"])


def test_client_is_watched_only_for_what_can_be_dealt_with() -> None:
    tcp = TCPConnection(ConnectionKey(net.HOST_IP, 50000, net.GUEST_IP, 7), 1)
    tcp.open(0.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as there,
        selectors.DefaultSelector() as selector,
    ):
        here, _ = server.accept()
        backlog = Backlog()
        client = Client(here, tcp, selector, lambda tcp: None, backlog)
        assert selector.get_key(here).events == selectors.EVENT_READ
        tcp.send(bytes(tcp.room))
        client.deliver(0.0)
        # It would be ready to be read from all the time.
        assert selector.get_map() == {}
        tcp.inbox += bytes(1 << 24)
        client.deliver(0.0)
        assert not tcp.inbox
        assert selector.get_key(here).events == selectors.EVENT_WRITE
        assert 0 < client.behind == backlog.waiting < 1 << 24
        assert len(there.recv(1 << 16)) > 0
        client.close()
        assert selector.get_map() == {}
        assert backlog.waiting == 0


def test_clients_outlive_a_lost_link(switch: Switch) -> None:
    with switch.client() as client, guest_of(switch) as guest:
        assert echo(client, b"before") == b"before"
        guest.drop_link()
        switch.wait_for("X_LINK_DOWN")
        assert switch.query()["guest"] is None
        client.sendall(b"said while nobody was there")
        guest.move(switch.link, announce=False, close=False)
        expected = b"said while nobody was there"
        assert receive(client, len(expected)) == expected
        assert switch.wait_for("X_LINK_UP", 2) == {"port": 2, "pid": os.getpid()}


class Station:
    """Another station at a port of the switch, driven by the test."""

    MAC, IP = bytes.fromhex("020000000009"), bytes([10, 0, 2, 99])

    def __init__(self, switch: Switch) -> None:
        self.socket = Address.parse(switch.link).connect(TIMEOUT)
        self.decoder = LinkDecoder()

    def send(self, frame: bytes) -> None:
        self.socket.sendall(encode_frame(frame))

    def ask_for_the_host(self) -> None:
        """Ask the host's address, and wait for the answer: all that was sent before is done."""
        question = ARP(net.ARP_REQUEST, self.MAC, self.IP, bytes(6), net.HOST_IP)
        self.send(net.build_arp(net.BROADCAST, question))
        answer = ARP(net.ARP_REPLY, net.HOST_MAC, net.HOST_IP, self.MAC, self.IP)
        while answer not in map(net.parse_arp, self.decoder.feed(self.socket.recv(1 << 16))):
            pass


@pytest.fixture
def station(switch: Switch) -> Iterator[Station]:
    found = Station(switch)
    yield found
    found.socket.close()


def test_node_that_does_not_read_blocks_nobody_and_its_frames_are_dropped(
    switch: Switch, guest: EchoGuest, station: Station
) -> None:
    clients = [switch.client() for _ in range(20)]
    for client in clients:
        assert echo(client, b"awake") == b"awake"
    guest.do(lambda: setattr(guest, "mute", True))
    for client in clients:
        client.sendall(bytes(200_000))
    flood = (net.GUEST_MAC + Station.MAC + b"\x88\xb5").ljust(net.FRAME_MAX, b"x")
    for _ in range(3 * QUEUE_BYTES // len(flood)):
        station.send(flood)
    station.ask_for_the_host()
    figures = next(each for each in switch.query()["ports"] if each["port"] == 1)
    assert figures["dropped-frames"] > 0
    assert figures["waiting-bytes"] <= QUEUE_BYTES + 4 * figures["sent-frames"]


def test_garbage_on_a_link_ends_at_most_that_link(
    switch: Switch, guest: EchoGuest, station: Station
) -> None:
    addresses = net.HOST_MAC + Station.MAC
    garbage = [b"", b"x", addresses, addresses + b"\x08\x00", addresses + b"\x08\x00" + bytes(30)]
    for frame in garbage:
        station.send(frame)
    station.ask_for_the_host()
    figures = {each["port"]: each for each in switch.query()["ports"]}
    assert figures[2]["malformed-frames"] == len(garbage)
    assert figures[2]["received-frames"] == len(garbage) + 1
    station.socket.sendall(struct.pack(">I", FRAME_LIMIT + 1))
    assert switch.wait_for("X_LINK_DOWN") == {
        "port": 2,
        "reason": f"link: expected a frame of at most {FRAME_LIMIT} bytes, "
        f"found one of {FRAME_LIMIT + 1}",
    }
    with switch.client() as client:
        assert echo(client, b"still there") == b"still there"


def test_ping_takes_its_time_or_says_that_there_was_no_answer(switch: Switch) -> None:
    with pytest.raises(QMPCommandError, match=r"expected an answer from 10\.0\.2\.15 in 0\.05 s"):
        switch.node.execute("x-ping", timeout=0.05)
    with guest_of(switch):
        assert 0 < switch.node.execute("x-ping", timeout=10)["seconds"] < 10
    with pytest.raises(QMPCommandError, match="timeout: expected more than 0"):
        switch.node.execute("x-ping", timeout=0)


def test_link_may_be_tcp_and_there_may_be_several(tmp_path: Path) -> None:
    with running(tmp_path, "--listen", "tcp:127.0.0.1:0") as switch:
        uri = switch.query()["listen"][1]
        assert uri.startswith("tcp:127.0.0.1:")
        with guest_of(switch) as guest, switch.client() as client:
            assert echo(client, b"one") == b"one"
            guest.move(uri)
            assert echo(client, b"two") == b"two"
            assert [each["pid"] for each in switch.query()["ports"]] == [None]


def test_clients_wait_when_the_switch_has_no_descriptor_left(
    switch: Switch, guest: EchoGuest
) -> None:
    with switch.client() as client:
        assert echo(client, b"first") == b"first"
    used = psutil.Process(switch.node.pid).num_fds()
    limits = resource.prlimit(switch.node.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(switch.node.pid, resource.RLIMIT_NOFILE, (used + 10, limits[1]))
    clients = [switch.client() for _ in range(40)]
    for client in clients:
        client.sendall(b"in turn")
    for client in clients:
        assert receive(client, 7) == b"in turn"
        client.close()


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "colobench.node", "switch", "--qmp", f"{directory}/qmp"]
    return subprocess.Popen(
        [*command, *arguments], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "udp:x"], "expected unix:PATH or tcp:HOST:PORT"),
        (["--listen", "unix:/nowhere/net"], "listen on unix:/nowhere/net"),
        (["--listen", "unix:NET", "--hostfwd", "tcp:80"], "expected tcp:[hostaddr]:hostport-"),
        (["--listen", "unix:NET", "--pcap", "/nowhere/file"], "pcap file /nowhere/file"),
        (["--listen", "unix:NET", "--parent", "1"], "parent: expected process 1"),
    ],
)
def test_switch_that_cannot_begin_says_why(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    arguments = [each.replace("NET", f"{tmp_path}/net") for each in arguments]
    process = start(tmp_path, *arguments)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, words in errors) == (1, True), errors
    assert "Traceback" not in errors
    assert os.listdir(tmp_path) == []


def test_switch_ends_with_its_parent_and_in_order_when_its_input_ends(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, os\n"
        "command = [sys.executable, '-m', 'colobench.node', 'switch', '--parent',"
        " str(os.getpid()), *sys.argv[1:]]\n"
        "print(subprocess.Popen(command, stdin=subprocess.PIPE).pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    options = ["--qmp", f"{tmp_path}/qmp", "--listen", f"unix:{tmp_path}/net"]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=TIMEOUT)
    assert psutil.wait_procs([child], timeout=TIMEOUT)[1] == []

    with contextlib.suppress(FileNotFoundError):
        os.unlink(tmp_path / "net")
    node = NodeProcess("switch", tmp_path, options[2:], lambda role, event: None)
    node.connect(TIMEOUT)
    assert node.process.stdin is not None
    node.process.stdin.close()
    assert node.process.wait(TIMEOUT) == 0
    assert not (tmp_path / "net").exists()
    node.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_switch_ends_in_order_when_a_signal_says_so(tmp_path: Path, number: int) -> None:
    with running(tmp_path) as switch:
        with switch.client() as client:
            switch.node.process.send_signal(number)
            assert client.recv(1) == b""
        switch.wait_for("SHUTDOWN")


def test_switch_that_is_killed_is_gone_and_says_so(tmp_path: Path) -> None:
    node = NodeProcess(
        "switch", tmp_path, ["--listen", f"unix:{tmp_path}/net"], lambda role, event: None
    )
    node.connect(TIMEOUT)
    assert node.kill() == -signal.SIGKILL
    with pytest.raises(NodeGone):
        node.execute("x-query-switch")
    node.end()


def test_switch_imports_nothing_that_makes_it_start_slowly() -> None:
    code = (
        "import colobench.node.__main__, colobench.node.switch, sys; "
        "print(*{'numba', 'numpy', 'llvmlite', 'colobench.guest.numba.machine'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("rule", "meaning"),
    [
        ("tcp:127.0.0.1:6379-:6379", "tcp:127.0.0.1:6379-10.0.2.15:6379"),
        ("tcp::0-:7", "tcp:127.0.0.1:0-10.0.2.15:7"),
        ("tcp:localhost:80-10.0.2.15:8080", "tcp:127.0.0.1:80-10.0.2.15:8080"),
    ],
)
def test_hostfwd_rules_are_qemus(rule: str, meaning: str) -> None:
    assert str(HostForward.parse(rule)) == meaning


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "tcp:127.0.0.1:6379",
        "udp::53-:53",
        "tcp:127.0.0.1:6379-:",
        "tcp:127.0.0.1:6379-:0",
        "tcp:127.0.0.1:6379-:65536",
        "tcp:127.0.0.1:65536-:80",
        "tcp:127.0.0.1:٦-:80",
        "tcp:192.0.2.1:6379-:6379",
        "tcp:127.0.0.1:6379-10.0.2.16:6379",
        "tcp:127.0.0.1:6379-:6379\n",
    ],
)
def test_hostfwd_rules_that_lead_nowhere_are_refused(rule: str) -> None:
    with pytest.raises(LocalError, match=r"hostfwd|address"):
        HostForward.parse(rule)
