"""The QMP client: events in order, typed errors, and an end whatever happens to the node."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.node.monitor import VERSION, Monitor, MonitorCommand
from colobench.processes.errors import NodeGone, QMPCommandError
from colobench.processes.qmp import Event, QMPConnection

WAIT = 60.0
# A node that has nothing but a monitor. It ends with its standard input.
NODE = """
import sys, threading
from colobench.node.monitor import MonitorCommand, Monitor
def hang():
    monitor.emit("HANGING")
    threading.Event().wait()
monitor = Monitor(sys.argv[1], {"hang": MonitorCommand(hang)})
monitor.start()
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT)
        assert not thread.is_alive(), thread


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "qmp")


@pytest.fixture
def start(path: str) -> Iterator[Callable[..., Monitor]]:
    started = []

    def start(**commands: MonitorCommand) -> Monitor:
        named = {name.replace("_", "-"): command for name, command in commands.items()}
        started.append(Monitor(path, named))
        started[-1].start()
        return started[-1]

    yield start
    for monitor in started:
        monitor.close()


@pytest.fixture
def connection(path: str) -> Iterator[QMPConnection]:
    with QMPConnection(path) as connection:
        yield connection


@pytest.fixture
def node(path: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", NODE, path], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin:
        yield process
        process.kill()
    process.wait()


def alive(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    return lambda: process.poll() is None


def test_arguments_get_their_hyphens_and_results_come_back(
    start: Callable[..., Monitor], connection: QMPConnection
) -> None:
    start(
        migrate_set=MonitorCommand(lambda **given: given, {"x-checkpoint-delay": int, "uri": str})
    )
    connection.connect()
    result = connection.execute("migrate-set", x_checkpoint_delay=5, uri="unix:a_b")
    assert result == {"x_checkpoint_delay": 5, "uri": "unix:a_b"}
    assert connection.execute("query-version") == VERSION


def test_a_refused_command_says_which_and_why(
    start: Callable[..., Monitor], connection: QMPConnection
) -> None:
    def refuse() -> None:
        raise LocalError("not in COLO mode")

    start(refuse=MonitorCommand(refuse))
    connection.connect()
    with pytest.raises(QMPCommandError) as caught:
        connection.execute("refuse")
    error = caught.value
    assert (error.command, error.error_class) == ("refuse", "GenericError")
    assert error.description == "not in COLO mode"
    assert str(error) == "refuse: not in COLO mode (GenericError)"
    with pytest.raises(QMPCommandError, match="CommandNotFound"):
        connection.execute("no-such-command")


def test_events_come_in_order_and_before_the_reply_to_a_later_command(
    start: Callable[..., Monitor], connection: QMPConnection
) -> None:
    monitor: Monitor

    def emit() -> None:
        for number in range(100):
            monitor.emit("CHECKPOINT", {"number": number})

    monitor = start(emit=MonitorCommand(emit))
    events: list[Event] = []
    connection.on_event(events.append)
    connection.connect()
    connection.execute("emit")
    connection.execute("query-version")
    assert [event["data"]["number"] for event in events] == list(range(100))
    assert all(event["event"] == "CHECKPOINT" for event in events)
    assert events[0]["timestamp"].keys() == {"seconds", "microseconds"}


def test_an_event_of_megabytes_passes(
    start: Callable[..., Monitor], connection: QMPConnection
) -> None:
    monitor = start()
    bitmaps: list[str] = []
    arrived = threading.Event()

    def keep(event: Event) -> None:
        bitmaps.append(event["data"]["bitmap"])
        arrived.set()

    connection.on_event(keep)
    connection.connect()
    connection.execute("query-version")
    monitor.emit("BITMAP", {"bitmap": "x" * 8_000_000})
    assert arrived.wait(WAIT)
    assert bitmaps == ["x" * 8_000_000]


def test_an_event_that_is_too_long_ends_the_connection_with_the_reason(
    start: Callable[..., Monitor], connection: QMPConnection, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = start(
        emit=MonitorCommand(lambda: monitor.emit("BITMAP", {"bitmap": "x" * 11_000_000}))
    )
    connection.connect()
    with pytest.raises(NodeGone):
        connection.execute("emit")
    connection.close()
    assert "chunk exceed the limit" in caplog.text


def test_no_event_is_kept_once_it_was_given_out(
    start: Callable[..., Monitor], connection: QMPConnection
) -> None:
    monitor = start()
    connection.connect()
    connection.execute("query-version")
    for _ in range(10):
        monitor.emit("STOP")
    connection.execute("query-version")
    connection.execute("query-version")
    assert connection._client.events.history == ()
    assert connection._client.events.empty()


def test_a_failing_callback_is_logged_and_stops_nothing(
    start: Callable[..., Monitor], connection: QMPConnection, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise KeyError(event["event"])

    monitor = start(emit=MonitorCommand(lambda: monitor.emit("STOP")))
    events: list[Event] = []
    connection.on_event(fail)
    connection.on_event(events.append)
    connection.connect()
    connection.execute("emit")
    connection.execute("query-version")
    assert [event["event"] for event in events] == ["STOP"]
    assert "KeyError" in caplog.text


def test_a_callback_cannot_execute_commands(
    start: Callable[..., Monitor], connection: QMPConnection, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = start(emit=MonitorCommand(lambda: monitor.emit("STOP")))
    connection.on_event(lambda _: connection.execute("query-version"))
    connection.connect()
    connection.execute("emit")
    connection.execute("query-version")
    assert "no event callback around the call" in caplog.text


def test_waits_until_the_node_listens(
    start: Callable[..., Monitor], connection: QMPConnection
) -> None:
    def start_on_second_look() -> bool:
        looks.append(True)
        if len(looks) == 2:
            start()
        return True

    looks: list[bool] = []
    connection.connect(start_on_second_look)
    assert connection.execute("query-version") == VERSION


def test_does_not_wait_for_a_dead_process(connection: QMPConnection) -> None:
    with pytest.raises(NodeGone, match="the process ended before it listened"):
        connection.connect(lambda: False)


def test_does_not_wait_for_ever(connection: QMPConnection) -> None:
    with pytest.raises(NodeGone, match="nobody listened in time"):
        connection.connect(timeout=0.0)


@pytest.mark.parametrize("greeting", [None, b"SSH-2.0\r\n", b"{}\r\n", b""])
def test_a_server_without_qmps_greeting_is_no_node(path: str, greeting: bytes | None) -> None:
    with socket.socket(socket.AF_UNIX) as listener, QMPConnection(path) as connection:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                if greeting is None:
                    peer.recv(1)
                else:
                    peer.sendall(greeting)

        server = threading.Thread(target=answer)
        server.start()
        with pytest.raises(NodeGone, match="expected QMP's greeting"):
            connection.connect(timeout=0.1 if greeting is None else WAIT)
        server.join()


def test_a_path_that_cannot_be_is_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="path too long"):
        QMPConnection(str(tmp_path / ("x" * 200))).connect()


def test_an_unconnected_or_closed_connection_executes_nothing(
    start: Callable[..., Monitor], connection: QMPConnection
) -> None:
    start()
    with pytest.raises(LocalError, match="expected an open connection"):
        connection.execute("query-version")
    connection.connect()
    connection.close()
    connection.close()
    with pytest.raises(LocalError, match="expected an open connection"):
        connection.execute("query-version")


def test_closing_ends_commands_that_wait(path: str, node: subprocess.Popen[bytes]) -> None:
    with QMPConnection(path) as connection:
        hanging = threading.Event()
        connection.on_event(lambda _: hanging.set())
        connection.connect(alive(node))
        errors: list[BaseException] = []
        thread = threading.Thread(target=lambda: errors.append(caught_from(connection, "hang")))
        thread.start()
        assert hanging.wait(WAIT)
        connection.close()
        thread.join()
    assert isinstance(errors[0], NodeGone)


def caught_from(connection: QMPConnection, command: str) -> BaseException:
    with pytest.raises(NodeGone) as caught:
        connection.execute(command)
    return caught.value


def test_a_killed_node_ends_the_command_that_waits_and_all_later_ones(
    path: str, node: subprocess.Popen[bytes], connection: QMPConnection
) -> None:
    connection.on_event(lambda _: node.kill())
    connection.connect(alive(node))
    with pytest.raises(NodeGone, match="hang"):
        connection.execute("hang")
    for _ in range(2):
        with pytest.raises(NodeGone, match="query-version"):
            connection.execute("query-version")


def test_a_stalled_node_is_given_up_after_the_timeout(
    path: str, node: subprocess.Popen[bytes]
) -> None:
    with QMPConnection(path, timeout=0.1) as connection:
        connection.connect(alive(node))
        node.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, node.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(NodeGone, match=r"no answer within 0\.1 s"):
            connection.execute("query-version")
        # More than the socket takes: closing must not wait for the rest to be sent.
        with pytest.raises(NodeGone):
            connection.execute("query-version", surplus="x" * 2_000_000)


KILLED = """
import subprocess, sys
from colobench.processes.qmp import NodeGone, QMPConnection
path, node = sys.argv[1:]
process = subprocess.Popen([sys.executable, "-c", node, path], stdin=subprocess.PIPE)
with process, QMPConnection(path) as connection:
    connection.on_event(lambda event: process.kill())
    connection.connect(lambda: process.poll() is None)
    try:
        connection.execute("hang")
    except NodeGone:
        print("gone")
"""


def test_a_killed_node_leaves_no_warning_behind(path: str) -> None:
    completed = subprocess.run(
        # Not with -X dev, in which asyncio tells of each callback that took long.
        [sys.executable, "-W", "error", "-c", KILLED, path, NODE],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (completed.stdout, completed.stderr, completed.returncode) == ("gone\n", "", 0)


def test_works_beside_a_running_event_loop(
    start: Callable[..., Monitor], connection: QMPConnection
) -> None:
    start()

    async def cell() -> Any:
        connection.connect()
        return connection.execute("query-version")

    assert asyncio.run(cell()) == VERSION


def test_drives_a_real_qemu(path: str, connection: QMPConnection) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    machine = [qemu, "-M", "none", "-S", "-nodefaults", "-display", "none"]
    # With wait=off QEMU 7.2 now and then greets twice whoever comes while it starts.
    monitor = ["-qmp", f"unix:{path},server=on,wait=on"]
    process = subprocess.Popen([*machine, *monitor], stderr=subprocess.DEVNULL)
    try:
        names: list[str] = []
        ending = threading.Event()

        def note(event: Event) -> None:
            names.append(event["event"])
            if event["event"] == "SHUTDOWN":
                ending.set()

        connection.on_event(note)
        connection.connect(alive(process))
        connection.execute("cont")
        connection.execute("stop")
        assert connection.execute("query-status")["status"] == "paused"
        with pytest.raises(QMPCommandError, match="expected: string"):
            connection.execute("migrate", uri=1)
        connection.execute("quit")
        # It may come behind the answer.
        assert ending.wait(WAIT)
        assert names == ["RESUME", "STOP", "SHUTDOWN"]
    finally:
        process.kill()
        process.wait()
