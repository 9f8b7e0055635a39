"""A node whose peer does not keep to the protocol: it says so, stays commandable, and survives.

The peer here is this test, on a raw socket. What is expected is what QEMU 7.2 was seen to do in
each case, except where QEMU waits for ever: there a node gives up after its stall timeout.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from colobench.guest.numba.machine import MACHINE_TYPE
from colobench.guest.settings import block_sizes
from colobench.memory.ram import lay_out
from colobench.net.link import encode_frame
from colobench.net.mirror import MARK
from colobench.node.monitor import Monitor
from colobench.node.network import MIRRORED_LIMIT
from colobench.processes.process import NodeProcess
from colobench.settings.settings import Settings
from colobench.wire import savevm
from colobench.wire.format import MigrationCommand, SectionType
from colobench.wire.messages import Message, encode_message
from colobench.wire.multifd import handshake, sync_packet
from node_arguments import node_arguments

pytestmark = pytest.mark.usefixtures("nothing_left")

#: A node that gives up nobody who is only late, on a busy machine, and one that soon does.
SMALL: dict[str, Any] = {"ram": "1M", "stall_timeout": 300}
IMPATIENT = {"stall_timeout": 1.5}


class Watched:
    """A node, and a way to wait for what it says."""

    def __init__(self, role: str, directory: Path, *own: str, **settings: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        arguments = node_arguments(*own, **SMALL | settings)
        self.node = NodeProcess(role, directory, arguments, self._on_event)
        self.node.connect(60)
        self.node.execute(
            "migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": True}]
        )

    def _on_event(self, role: str, event: dict[str, Any]) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, name: str, **data: Any) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            for event in self.events:
                if event["event"] == name and data.items() <= event["data"].items():
                    return dict(event["data"])
            return None

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, 30), self.events
        result = found()
        assert result is not None
        return result

    def status(self) -> str:
        status: str = self.node.execute("query-status")["status"]
        return status

    def take_over(self) -> None:
        self.node.execute("x-colo-lost-heartbeat")
        self.wait_for("RESUME")
        assert self.status() == "running"


@contextlib.contextmanager
def watched(role: str, directory: Path, *own: str, **settings: Any) -> Iterator[Watched]:
    node = Watched(role, directory, *own, **settings)
    try:
        yield node
    finally:
        node.node.ask_to_quit()
        node.node.end()


class FakeSecondary:
    """Takes what a primary sends without looking at it, and says what it is told to say."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()

    def accept(self) -> None:
        self.connection, _ = self._listener.accept()

    def drain(self, until: bytes) -> None:
        """Read until `until` came, the last bytes of something."""
        tail = b""
        while not tail.endswith(until):
            piece = self.connection.recv(1 << 16)
            assert piece, "the primary closed the connection"
            tail = (tail + piece)[-64:]

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.connection.sendall(encode_message(message))

    def close(self) -> None:
        self.connection.close()
        self._listener.close()


#: The end of the vmdescription that ends a migration.
END_OF_MIGRATION = b"]}"
REQUEST = encode_message(Message.CHECKPOINT_REQUEST)


@pytest.fixture
def primary(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Watched, FakeSecondary]]:
    fake = FakeSecondary(str(tmp_path / "colo"))
    settings: dict[str, Any] = getattr(request, "param", {})
    with watched("primary", tmp_path, guest="sequential", **settings) as node:
        node.node.execute("migrate-set-parameters", x_checkpoint_delay=2**32 - 1)
        node.node.execute("migrate", uri=f"unix:{tmp_path}/colo")
        fake.accept()
        yield node, fake
    fake.close()


def to_ready(fake: FakeSecondary) -> None:
    fake.drain(END_OF_MIGRATION)
    fake.say(Message.CHECKPOINT_READY)


def to_request(node: Watched, fake: FakeSecondary) -> None:
    to_ready(fake)
    node.node.execute("x-colo-checkpoint")
    fake.drain(REQUEST)


def to_reply(node: Watched, fake: FakeSecondary) -> None:
    to_request(node, fake)
    fake.say(Message.CHECKPOINT_REPLY)


def to_received(node: Watched, fake: FakeSecondary) -> None:
    to_reply(node, fake)
    fake.say(Message.VMSTATE_RECEIVED)


def test_secondary_lost_in_precopy_is_a_failed_migration_and_the_guest_runs(
    tmp_path: Path,
) -> None:
    fake = FakeSecondary(str(tmp_path / "colo"))
    # Its pages do not fit into the socket's buffer, so it cannot be done before the end.
    with watched("primary", tmp_path, ram="64M", writes_per_tick=100_000) as node:
        while node.node.execute("x-query-guest")["work"] < 1_000_000:
            pass
        node.node.execute("migrate", uri=f"unix:{tmp_path}/colo")
        fake.accept()
        fake.connection.recv(1000)
        fake.close()
        node.wait_for("MIGRATION", status="failed")
        assert node.status() == "running"
        assert not any(event["event"] == "COLO_EXIT" for event in node.events)


Step = Callable[[Watched, FakeSecondary], None]
STEPS: list[tuple[Step, str]] = [
    (lambda node, fake: fake.drain(END_OF_MIGRATION), "finish-migrate"),
    (lambda node, fake: to_ready(fake), "running"),
    (to_request, "running"),
    (to_reply, "colo"),
    (to_received, "colo"),
]
STEP_NAMES = ["migrated", "ready", "request", "reply", "received"]


@pytest.mark.parametrize(("step", "status"), STEPS, ids=STEP_NAMES)
def test_secondary_that_closes_ends_colo_and_the_primary_waits_to_be_told(
    primary: tuple[Watched, FakeSecondary], step: Step, status: str
) -> None:
    node, fake = primary
    step(node, fake)
    fake.connection.shutdown(socket.SHUT_RDWR)
    node.wait_for("COLO_EXIT", reason="error")
    assert node.status() == status
    node.take_over()


@pytest.mark.parametrize(
    ("step", "status"),
    [each for each, name in zip(STEPS, STEP_NAMES, strict=True) if name != "ready"],
    ids=[name for name in STEP_NAMES if name != "ready"],
)
@pytest.mark.parametrize("primary", [IMPATIENT], ids=["impatient"], indirect=True)
def test_secondary_that_falls_silent_is_given_up(
    primary: tuple[Watched, FakeSecondary], step: Step, status: str
) -> None:
    node, fake = primary
    step(node, fake)
    why = node.wait_for("COLO_EXIT", reason="error")["x-why"]
    assert "1.5 s, found silence" in why
    assert node.status() == status
    node.take_over()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (encode_message(Message.VMSTATE_LOADED), "expected VMSTATE_RECEIVED, found VMSTATE_LOADED"),
        (encode_message(Message.GUEST_SHUTDOWN), "expected VMSTATE_RECEIVED"),
        ((99).to_bytes(4, "big"), "or 256 to 259, found 99"),
        (encode_message(Message.VMSTATE_SIZE, 1), "VMSTATE_SIZE"),
    ],
)
def test_wrong_message_ends_colo_and_is_named(
    primary: tuple[Watched, FakeSecondary], said: bytes, words: str
) -> None:
    node, fake = primary
    to_reply(node, fake)
    fake.connection.sendall(said)
    assert words in node.wait_for("COLO_EXIT", reason="error")["x-why"]
    assert node.status() == "colo"
    node.take_over()


def test_message_out_of_turn_is_noticed_while_the_primary_waits(
    primary: tuple[Watched, FakeSecondary],
) -> None:
    node, fake = primary
    to_ready(fake)
    fake.say(Message.VMSTATE_LOADED)
    assert "found VMSTATE_LOADED" in node.wait_for("COLO_EXIT", reason="error")["x-why"]
    node.take_over()


def header(**settings: Any) -> bytes:
    """Give what a primary with these settings says first."""
    agreed = Settings().override(**SMALL | settings).agreed()
    return savevm.stream_header(MACHINE_TYPE, agreed)


HEADER = header()
REFUSED = {
    "nothing": (b"", "connection closed"),
    "garbage": (b"GET / HTTP/1.1\r\n\r\n" * 100, "magic: expected"),
    "another machine": (savevm.stream_header("pc-i440fx-7.2"), "machine|configuration"),
    "no settings": (savevm.stream_header(MACHINE_TYPE) + savevm.EOF * 99, "colobench-settings: "),
    "another encoding": (
        header(encoding="xbzrle"),
        'settings of the primary: expected encoding "none", found encoding "xbzrle" at offset',
    ),
    "other settings": (
        header(transport="multifd", multifd_channels=3, verify=False),
        'verify true, found transport "multifd+unix", multifd_channels 3, verify false at offset',
    ),
    "no colo": (HEADER + savevm.EOF, "EOF"),
    "ram of another size": (
        HEADER
        + savevm.command(MigrationCommand.ENABLE_COLO)
        + b"\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04"
        + (1 << 40 | 4).to_bytes(8, "big"),
        "RAM size: expected",
    ),
    "torn": (HEADER + savevm.command(MigrationCommand.ENABLE_COLO), "connection closed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_secondary_that_gets_no_migration_ends_with_one_clear_error(
    tmp_path: Path, case: str
) -> None:
    sent, words = REFUSED[case]
    with watched("secondary", tmp_path, "--incoming", f"unix:{tmp_path}/colo") as node:
        with socket.socket(socket.AF_UNIX) as fake:
            fake.connect(str(tmp_path / "colo"))
            # The secondary may refuse before all is sent.
            with contextlib.suppress(BrokenPipeError):
                fake.sendall(sent)
        assert node.node.process.wait(30) == 1
        errors = (tmp_path / "secondary.stderr").read_text()
        assert errors.count("\n") == 1
        assert any(word in errors for word in words.split("|")), errors


def ram_file(pages: int, seals: int) -> int:
    """Make what a primary passes: a memfd, so long and so sealed."""
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, pages * 4096)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


#: The pages of 1 MiB of RAM and of the screen, and what keeps them from changing their number.
ALL_PAGES, SEALS = 256 + 64, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
#: What a primary may do wrong on its page channels: the transport, what each channel begins with,
#: pages and seals of the memfd that comes with it (or None), and what is said of it.
BAD_CHANNELS: dict[str, tuple[str, list[tuple[bytes, tuple[int, int] | None]], str]] = {
    "too few": (
        "multifd",
        [(handshake(1, 2), None)],
        "expected 2 page channels, found 1 in 1.5 s",
    ),
    "garbage": ("multifd", [(b"x" * 64, None)], "multifd magic: expected 0x11223344"),
    "more than agreed": (
        "multifd",
        [(handshake(0, 3), None)],
        "multifd channels: expected 2, found 3 at offset 25",
    ),
    "too short": ("multifd", [(handshake(0, 2)[:9], None)], "before its handshake"),
    "twice": ("multifd", [(handshake(1, 2), None)] * 2, "expected each once, found 1 again"),
    "unknown": ("multifd", [(handshake(2, 2), None)], "expected less than 2, found 2"),
    "no descriptor": (
        "memfd",
        [(handshake(0, 2), None), (handshake(1, 2), None)],
        "expected the descriptor of the primary's RAM with channel 0, found none",
    ),
    "short RAM": (
        "memfd",
        [(handshake(0, 2), (ALL_PAGES - 1, SEALS))],
        "of 1306624 bytes, seals 0x6",
    ),
    "RAM that may shrink": ("memfd", [(handshake(0, 2), (ALL_PAGES, 0))], "seals 0x0"),
    "RAM on the wrong channel": (
        "memfd",
        [(handshake(1, 2), (ALL_PAGES, SEALS))],
        "with channel 1",
    ),
    "RAM that nobody wants": ("multifd", [(handshake(0, 2), (ALL_PAGES, SEALS))], "expected none"),
}


@pytest.mark.parametrize("case", BAD_CHANNELS)
def test_bad_page_channel_ends_the_migration_with_one_clear_error(
    tmp_path: Path, case: str
) -> None:
    transport, beginnings, words = BAD_CHANNELS[case]
    arguments = ["--incoming", f"unix:{tmp_path}/colo"]
    settings: dict[str, Any] = {"transport": transport, "multifd_channels": 2}
    if case == "too few":
        settings |= IMPATIENT
    with (
        watched("secondary", tmp_path, *arguments, **settings) as node,
        contextlib.ExitStack() as stack,
    ):
        main = stack.enter_context(socket.socket(socket.AF_UNIX))
        main.connect(str(tmp_path / "colo"))
        main.sendall(header(**settings))
        for data, memory in beginnings:
            channel = stack.enter_context(socket.socket(socket.AF_UNIX))
            channel.connect(str(tmp_path / "colo"))
            if memory is None:
                channel.sendall(data)
            else:
                descriptor = ram_file(*memory)
                socket.send_fds(channel, [data], [descriptor])
                os.close(descriptor)
            if len(data) < 64:
                channel.shutdown(socket.SHUT_WR)
        assert node.node.process.wait(30) == 1
        errors = (tmp_path / "secondary.stderr").read_text()
        assert errors.count("\n") == 1
        assert words in errors, errors


@pytest.mark.parametrize("end", ["quit", "main connection closed", "time"])
def test_wait_for_the_mirror_connection_ends(tmp_path: Path, end: str) -> None:
    arguments = ["--incoming", f"unix:{tmp_path}/colo", "--mirror", f"unix:{tmp_path}/mirror"]
    settings = {"output": "compare", **(IMPATIENT if end == "time" else {})}
    with (
        watched("secondary", tmp_path, *arguments, **settings) as node,
        socket.socket(socket.AF_UNIX) as main,
    ):
        main.connect(str(tmp_path / "colo"))
        main.sendall(header(**settings))
        if end == "quit":
            node.node.execute("quit")
        elif end != "time":
            main.close()
        assert node.node.process.wait(30) == (0 if end == "quit" else 1)
        if end != "quit":
            errors = (tmp_path / "secondary.stderr").read_text()
            words = "expected a mirror connection, found none"
            assert words + " in 1.5 s" * (end == "time") in errors


@pytest.mark.parametrize("end", ["secondary", "primary"])
def test_primary_that_cannot_connect_all_ends_with_the_main_connection(
    tmp_path: Path, end: str
) -> None:
    fake = FakeSecondary(str(tmp_path / "colo"))
    settings = {"transport": "multifd", "multifd_channels": 200}
    with watched("primary", tmp_path, **settings) as node:
        # Nobody accepts: soon the queue of connections is full.
        node.node.execute("migrate", uri=f"unix:{tmp_path}/colo")
        fake.accept()
        # Its header has left, so it connects the page channels now.
        assert fake.connection.recv(1)
        if end == "secondary":
            fake.connection.shutdown(socket.SHUT_RDWR)
            node.wait_for("MIGRATION", status="failed")
            why = node.wait_for("X_MIGRATION_ERROR")["x-why"]
            assert "connection closed: expected page channels" in why
            assert node.status() == "running"
        else:
            node.node.execute("quit")
            assert node.node.process.wait(30) == 0
    fake.close()


@pytest.mark.parametrize("end", ["quit", "main connection closed"])
def test_wait_for_page_channels_ends_long_before_its_timeout(tmp_path: Path, end: str) -> None:
    arguments = ["--incoming", f"unix:{tmp_path}/colo"]
    settings = {"transport": "memfd", "multifd_channels": 2}
    with (
        watched("secondary", tmp_path, *arguments, **settings) as node,
        socket.socket(socket.AF_UNIX) as main,
        socket.socket(socket.AF_UNIX) as channel,
    ):
        main.connect(str(tmp_path / "colo"))
        main.sendall(header(**settings))
        channel.connect(str(tmp_path / "colo"))
        # Whoever has met one channel waits for the other.
        descriptor = ram_file(ALL_PAGES, SEALS)
        socket.send_fds(channel, [handshake(0, 2)], [descriptor])
        os.close(descriptor)
        if end == "quit":
            node.node.execute("quit")
            assert node.node.process.wait(30) == 0
        else:
            main.close()
            assert node.node.process.wait(30) == 1
            errors = (tmp_path / "secondary.stderr").read_text()
            assert "connection closed: expected 2 page channels, found" in errors


@pytest.mark.parametrize("channel", [0, 1])
def test_bad_packet_is_named_whichever_channel_it_comes_on(tmp_path: Path, channel: int) -> None:
    arguments = ["--incoming", f"unix:{tmp_path}/colo"]
    settings = {"transport": "multifd", "multifd_channels": 2}
    with (
        watched("secondary", tmp_path, *arguments, **settings) as node,
        contextlib.ExitStack() as stack,
    ):
        connections = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        for connection in connections:
            connection.connect(str(tmp_path / "colo"))
        main, *channels = connections
        for number, each in enumerate(channels):
            each.sendall(handshake(number, 2))
        blocks = lay_out(block_sizes(1 << 20))
        main.sendall(
            header(**settings)
            + savevm.command(MigrationCommand.ENABLE_COLO)
            + savevm.ram_section_start(2, blocks)
            + savevm.ram_section_multifd(SectionType.PART, 2)
        )
        channels[channel].sendall(sync_packet(0)[:16] + b"\xff" * 2000)
        assert node.node.process.wait(30) == 1
        errors = (tmp_path / "secondary.stderr").read_text()
        assert "multifd normal_pages: expected at most 128, found 4294967295 at offset 80" in errors


def test_primary_that_falls_silent_in_precopy_is_given_up(tmp_path: Path) -> None:
    with (
        watched("secondary", tmp_path, "--incoming", f"unix:{tmp_path}/colo", **IMPATIENT) as node,
        socket.socket(socket.AF_UNIX) as fake,
    ):
        fake.connect(str(tmp_path / "colo"))
        fake.sendall(header(**IMPATIENT))
        assert node.node.process.wait(30) == 1
        assert "found silence" in (tmp_path / "secondary.stderr").read_text()


@pytest.mark.parametrize("frame", [bytes(1514), MARK], ids=["frame", "mark"])
def test_mirrored_frames_that_the_guest_does_not_take_wait_in_the_primary(
    tmp_path: Path, frame: bytes
) -> None:
    arguments = ["--incoming", f"unix:{tmp_path}/colo", "--mirror", f"unix:{tmp_path}/mirror"]
    settings = {"output": "compare"}
    with (
        watched("secondary", tmp_path, *arguments, **settings) as node,
        socket.socket(socket.AF_UNIX) as main,
        socket.socket(socket.AF_UNIX) as mirror,
    ):
        main.connect(str(tmp_path / "colo"))
        mirror.connect(str(tmp_path / "mirror"))
        sent, limit = 0, (MIRRORED_LIMIT + SOCKET_FRAMES) * (len(frame) + 4)
        many = encode_frame(frame) * 200
        mirror.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while sent < 2 * limit:
                sent += mirror.send(many)
        assert sent < limit
        assert node.node.execute("x-query-guest")["frames-waiting"] <= MIRRORED_LIMIT + 2000


#: More frames than both ends of a UNIX socket, and a node's buffer, hold.
SOCKET_FRAMES = 8000


def test_nodes_refuse_a_socket_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "colo").write_text("not a socket")
    node = NodeProcess(
        "secondary",
        tmp_path,
        node_arguments("--incoming", f"unix:{tmp_path}/colo", **SMALL),
        lambda role, event: None,
    )
    assert node.process.wait(60) == 1
    said = (tmp_path / "secondary.stderr").read_text()
    node.end()
    assert "Address already in use" in said


def test_secondary_that_cannot_listen_leaves_the_socket_of_another_alone(tmp_path: Path) -> None:
    uri = f"unix:{tmp_path}/colo"
    (tmp_path / "other").mkdir()
    with watched("secondary", tmp_path, "--incoming", uri):
        other = NodeProcess(
            "secondary",
            tmp_path / "other",
            node_arguments("--incoming", uri, **SMALL),
            lambda role, event: None,
        )
        assert other.process.wait(60) == 1
        other.end()
        assert (tmp_path / "colo").exists()


def test_client_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    monitor = Monitor(str(tmp_path / "qmp"), {})
    monitor.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(str(tmp_path / "qmp"))
        client.sendall(b'{"execute": "qmp_capabilities"}')
        # Once the answer is there, the client gets events.
        while b"return" not in client.recv(4096):
            pass
        for _ in range(100):
            monitor.emit("LONG", {"text": "x" * 100_000})
        # Not asserted by the clock: it would otherwise add up to minutes, beyond the test's limit.
        for _ in range(10_000):
            monitor.flush(timeout=0.1)
    monitor.close()


def test_monitor_that_ran_out_of_descriptors_answers_again_later(tmp_path: Path) -> None:
    node = Watched("primary", tmp_path)
    limits = psutil.Process(node.node.pid).rlimit
    soft, hard = limits(psutil.RLIMIT_NOFILE)
    limits(psutil.RLIMIT_NOFILE, (psutil.Process(node.node.pid).num_fds() + 2, hard))
    clients = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    for client in clients:
        client.connect(str(node.node.qmp_path))
    for client in clients:
        client.close()
    limits(psutil.RLIMIT_NOFILE, (soft, hard))
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(node.node.qmp_path))
        assert b"QMP" in client.recv(4096)
    node.node.ask_to_quit()
    node.node.end()
