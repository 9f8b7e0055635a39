"""The QMP monitor: QEMU's answers, events for all, and no client that can hold up the node."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from qemu.qmp import ExecuteError, QMPClient

from colobench.errors import LocalError
from colobench.node import monitor as monitor_module
from colobench.node.monitor import MAX_COMMAND_LENGTH, VERSION, Command, Monitor, _split

StartMonitor = Callable[..., Monitor]
TEN_SECONDS = 10.0


class Wire:
    """A client of plain bytes."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TEN_SECONDS)
        self.socket.connect(path)
        self._lines = self.socket.makefile("rb")
        self.greeting = self.receive()

    def receive(self) -> Any:
        line = self._lines.readline()
        return json.loads(line) if line else None

    def rest(self) -> bytes:
        return self._lines.read()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes) -> Any:
        self.send(data)
        return self.receive()

    def negotiate(self) -> Wire:
        assert self.ask(b'{"execute": "qmp_capabilities"}') == {"return": {}}
        return self

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "qmp")


@pytest.fixture
def start(path: str) -> Iterator[StartMonitor]:
    before = set(threading.enumerate())
    started = []

    def start(commands: dict[str, Command] | None = None, **options: Any) -> Monitor:
        monitor = Monitor(path, commands or {}, **options)
        started.append(monitor)
        monitor.start()
        return monitor

    yield start
    for monitor in started:
        monitor.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(TEN_SECONDS)
        assert not thread.is_alive(), thread
    assert not os.path.exists(path)


@pytest.fixture
def connect(path: str) -> Iterator[Callable[[], Wire]]:
    wires = []

    def connect() -> Wire:
        wires.append(Wire(path))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.close()


def refuse() -> None:
    raise LocalError("not in COLO mode")


def fail() -> None:
    raise KeyError("surprise")


def echo(**arguments: object) -> dict[str, object]:
    return arguments


ECHO = Command(
    echo,
    arguments={"uri": str, "the-size": int},
    optional={"rate": float, "on": bool, "list": list, "object": dict},
)


def test_only_the_owner_may_connect(start: StartMonitor, path: str) -> None:
    start()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_path_in_use_is_our_own_mistake_and_stays_usable(
    start: StartMonitor, path: str, connect: Callable[[], Wire]
) -> None:
    start()
    second = Monitor(path, {})
    with pytest.raises(LocalError, match="Address already in use"):
        second.start()
    second.close()
    connect().negotiate()


def test_greets_with_the_version_of_the_package(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start()
    wire = connect()
    assert wire.greeting == {"QMP": {"version": VERSION, "capabilities": []}}
    wire.negotiate()
    assert wire.ask(b'{"execute": "query-version"}') == {"return": VERSION}
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    major, minor, micro = map(int, project["version"].split("."))
    assert VERSION["qemu"] == {"major": major, "minor": minor, "micro": micro}


def test_nothing_but_the_negotiation_comes_first_and_it_comes_once(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start()
    wire = connect()
    early = wire.ask(b'{"execute": "query-version"}')["error"]
    assert early["class"] == "CommandNotFound"
    assert "Expecting capabilities negotiation" in early["desc"]
    refused = wire.ask(b'{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}')
    assert refused["error"] == {"class": "GenericError", "desc": "Capability oob not available"}
    wire.negotiate()
    again = wire.ask(b'{"execute": "qmp_capabilities"}')["error"]
    assert again["class"] == "CommandNotFound"


def test_arguments_reach_the_command_with_underscores(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start({"echo": ECHO})
    wire = connect().negotiate()
    reply = wire.ask(
        b'{"execute": "echo", "id": {"n": [1]}, "arguments": {"uri": "unix:x", "the-size": -1,'
        b' "rate": 3, "on": true, "list": [1], "object": {"a": null}}}'
    )
    assert reply == {
        "return": {
            "uri": "unix:x",
            "the_size": -1,
            "rate": 3,
            "on": True,
            "list": [1],
            "object": {"a": None},
        },
        "id": {"n": [1]},
    }


@pytest.mark.parametrize(
    ("wrong", "description"),
    [
        ({"uri": 1}, "Invalid parameter type for 'uri', expected: string"),
        ({"the-size": True}, "Invalid parameter type for 'the-size', expected: integer"),
        ({"the-size": 1.0}, "Invalid parameter type for 'the-size', expected: integer"),
        ({"the-size": None}, "Invalid parameter type for 'the-size', expected: integer"),
        ({"the-size": 1 << 63}, "Invalid parameter type for 'the-size', expected: integer"),
        ({"rate": "1"}, "Invalid parameter type for 'rate', expected: number"),
        ({"rate": False}, "Invalid parameter type for 'rate', expected: number"),
        ({"on": 1}, "Invalid parameter type for 'on', expected: boolean"),
        ({"list": {}}, "Invalid parameter type for 'list', expected: array"),
        ({"object": []}, "Invalid parameter type for 'object', expected: object"),
        ({"x": 1}, "Parameter 'x' is unexpected"),
    ],
)
def test_wrong_arguments_never_reach_the_command(
    wrong: dict[str, object], description: str
) -> None:
    called = []
    command = Command(lambda **given: called.append(given), ECHO.arguments, ECHO.optional)
    cases: list[tuple[dict[str, object], str]] = [
        ({"uri": "unix:x", "the-size": 1, **wrong}, description),
        ({"the-size": 1}, "Parameter 'uri' is missing"),
        ({"uri": "unix:x"}, "Parameter 'the-size' is missing"),
    ]
    for arguments, expected in cases:
        with pytest.raises(LocalError) as caught:
            command.call(arguments)
        assert str(caught.value) == expected
    assert not called


def test_a_failing_command_is_answered_and_the_monitor_goes_on(
    start: StartMonitor, connect: Callable[[], Wire], caplog: pytest.LogCaptureFixture
) -> None:
    start({"refuse": Command(refuse), "fail": Command(fail), "opaque": Command(lambda: object())})
    wire = connect().negotiate()
    assert wire.ask(b'{"execute": "refuse", "id": 1}') == {
        "id": 1,
        "error": {"class": "GenericError", "desc": "not in COLO mode"},
    }
    assert "KeyError('surprise')" in wire.ask(b'{"execute": "fail"}')["error"]["desc"]
    assert "not JSON serializable" in wire.ask(b'{"execute": "opaque"}')["error"]["desc"]
    assert len(caplog.records) == 2
    assert wire.ask(b'{"execute": "query-version"}') == {"return": VERSION}


SAME_AS_QEMU = [
    b"{}",
    b"[1]",
    b"1\n",
    b'"text"\n',
    b'{"execute": 1}',
    b'{"execute": "no-such-command", "id": [null, 1.5, "x"]}',
    b'{"execute": "query-version", "arguments": 1, "id": "i"}',
    b'{"execute": "query-version", "arguments": {"x": 1}}',
    b'{"execute": "query-version", "surplus": 1}',
    b'{"execute": "migrate", "arguments": {}}',
    b'{"execute": "migrate", "arguments": {"uri": 1}}',
    b'{"execute": "migrate", "arguments": {"uri": "x", "blk": 1, "y": 1}}',
    b'{"execute": "memsave", "arguments": {"val": true, "size": 1, "filename": "f"}}',
    b'{"execute": "memsave", "arguments": {"val": 1.5, "size": 1, "filename": "f"}}',
    b'{"execute": "memsave", "arguments": {"val": 1, "filename": "f", "id": 1}}',
    b'{"execute": "migrate-set-capabilities", "arguments": {"capabilities": {}}}',
]
NOT_JSON = [b"hello\n", b'{"execute": nonsense}', b'{"execute": "x"]', b"}", b'{"a" 1}']


def test_refuses_in_qemus_words(
    start: StartMonitor, connect: Callable[[], Wire], tmp_path: Path
) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    start(
        {
            "migrate": Command(echo, {"uri": str}, {"blk": bool}),
            "memsave": Command(echo, {"val": int, "size": int, "filename": str}),
            "migrate-set-capabilities": Command(echo, {"capabilities": list}),
        }
    )
    ours = connect()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "qemu"))
    listener.listen()
    machine = ["-M", "none", "-nodefaults", "-display", "none"]
    process = subprocess.Popen([qemu, *machine, "-qmp", f"unix:{tmp_path}/qemu"])
    try:
        connection, _ = listener.accept()
        with connection, listener, connection.makefile("rb") as lines:
            lines.readline()
            for command in [
                b'{"execute": "query-version"}',
                b'{"execute": "qmp_capabilities"}',
            ] * 2:
                connection.sendall(command)
                theirs = json.loads(lines.readline())
                assert ("return" in theirs) == ("return" in ours.ask(command))
            for command in SAME_AS_QEMU:
                connection.sendall(command)
                assert ours.ask(command) == json.loads(lines.readline()), command
            for command in NOT_JSON:
                connection.sendall(command)
                for reply in ours.ask(command), json.loads(lines.readline()):
                    assert reply["error"]["class"] == "GenericError"
                    assert reply["error"]["desc"].startswith("JSON parse error, ")
    finally:
        process.kill()
        process.wait()


def test_what_is_no_json_is_answered_and_forgotten(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start()
    wire = connect().negotiate()
    for text in [
        *NOT_JSON,
        b'{"execute": "cut by a newline\n',
        b'{"execute": "\xff"}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"id": ' + b"9" * 5000 + b"}",
    ]:
        assert "JSON parse error" in wire.ask(text)["error"]["desc"]
        assert wire.ask(b'{"execute": "query-version"}') == {"return": VERSION}


def test_an_endless_command_is_refused_and_its_client_dropped(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start()
    wire = connect().negotiate()
    wire.send(b'{"execute": "' + b"x" * MAX_COMMAND_LENGTH)
    assert f"longer than {MAX_COMMAND_LENGTH} bytes" in wire.receive()["error"]["desc"]
    assert wire.receive() is None


JSON_VALUES = strategies.recursive(
    strategies.none() | strategies.integers() | strategies.text(alphabet='ab{}[]"\\\n,: '),
    lambda values: strategies.lists(values) | strategies.dictionaries(strategies.text(), values),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    objects=strategies.lists(strategies.dictionaries(strategies.text(), JSON_VALUES), max_size=4),
    between=strategies.sampled_from([b"", b" ", b"\n", b"\r\n"]),
    indent=strategies.sampled_from([None, 2]),
    piece=strategies.integers(1, 40),
)
def test_commands_are_found_however_they_are_cut(
    objects: list[object], between: bytes, indent: int | None, piece: int
) -> None:
    stream = between.join(json.dumps(value, indent=indent).encode() for value in objects)
    found, rest = [], b""
    for begin in range(0, len(stream), piece):
        texts, rest = _split(rest + stream[begin : begin + piece])
        found += texts
    assert [json.loads(text) for text in found] == objects
    assert not rest


@settings(deadline=None)
@given(strategies.binary())
def test_no_byte_is_lost_or_doubled_by_cutting(received: bytes) -> None:
    texts, rest = _split(received)
    assert b"".join(b"".join([*texts, rest]).split()) == b"".join(received.split())


def test_events_go_to_all_negotiated_clients_in_order(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    monitor = start()
    clients = [connect().negotiate() for _ in range(3)]
    stranger = connect()
    # The reply to a second command says that the first one is dealt with entirely.
    for client in clients:
        client.ask(b'{"execute": "query-version"}')
    for number in range(100):
        monitor.emit("CHECKPOINT", {"number": number})
    monitor.emit("STOP")
    for client in clients:
        events = [client.receive() for _ in range(101)]
        assert [event["data"]["number"] for event in events[:100]] == list(range(100))
        assert events[100].keys() == {"timestamp", "event"}
        times = [
            (event["timestamp"]["seconds"], event["timestamp"]["microseconds"]) for event in events
        ]
        assert times == sorted(times)
        assert all(0 <= microseconds < 1_000_000 for _, microseconds in times)
    assert "return" in stranger.ask(b'{"execute": "qmp_capabilities"}')


def test_an_event_is_made_json_once_and_not_by_its_sender(
    start: StartMonitor, connect: Callable[[], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = start()
    clients = [connect().negotiate() for _ in range(2)]
    for client in clients:
        client.ask(b'{"execute": "query-version"}')
    encoders = []
    encode = monitor_module._encode

    def record(message: dict[str, object]) -> bytes:
        encoders.append(threading.current_thread().name)
        return encode(message)

    monkeypatch.setattr(monitor_module, "_encode", record)
    monitor.emit("STOP")
    assert [client.receive()["event"] for client in clients] == ["STOP", "STOP"]
    # Two writers that come to it at the same moment may both do it.
    assert set(encoders) == {"QMP writer"}


def test_a_stuck_client_is_dropped_and_the_others_go_on(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    monitor = start(queue_limit=50)
    stuck = connect().negotiate()
    reader = connect().negotiate()
    for client in (stuck, reader):
        client.ask(b'{"execute": "query-version"}')
    for number in range(200):
        monitor.emit("BITMAP", {"number": number, "bitmap": "x" * 100_000})
        assert reader.receive()["data"]["number"] == number
    assert stuck.rest().count(b"BITMAP") < 100


def test_a_long_command_holds_up_its_own_client_only(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(TEN_SECONDS)

    monitor = start({"wait": Command(wait)})
    waiting, other = connect().negotiate(), connect().negotiate()
    waiting.send(b'{"execute": "wait"}{"execute": "query-version"}')
    assert entered.wait(TEN_SECONDS)
    assert other.ask(b'{"execute": "query-version"}') == {"return": VERSION}
    monitor.emit("STOP")
    assert waiting.receive()["event"] == "STOP"
    leave.set()
    assert waiting.receive() == {"return": {}}
    assert waiting.receive() == {"return": VERSION}


def test_closing_with_flush_sends_the_last_reply_and_events(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    entered, closing = threading.Event(), threading.Event()

    def quit_command() -> None:
        entered.set()
        closing.wait(TEN_SECONDS)

    monitor = start({"quit": Command(quit_command)})
    wire = connect().negotiate()
    wire.send(b'{"execute": "quit"}{"execute": "query-version"}')
    assert entered.wait(TEN_SECONDS)
    for _ in range(100):
        monitor.emit("BITMAP", {"bitmap": "x" * 10_000})
    closer = threading.Thread(target=monitor.close, kwargs={"flush": True, "timeout": TEN_SECONDS})
    closer.start()
    closing.set()
    received = []
    while (message := wire.receive()) is not None:
        received.append(message)
    closer.join()
    assert [message.get("event") for message in received[:100]] == ["BITMAP"] * 100
    # The command behind quit may or may not have been read before the end.
    assert received[100] == {"return": {}}


def test_closing_does_not_wait_for_a_stuck_client(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    monitor = start()
    connect().negotiate().ask(b'{"execute": "query-version"}')
    for _ in range(100):
        monitor.emit("BITMAP", {"bitmap": "x" * 100_000})
    monitor.close(flush=True, timeout=0.01)


def test_a_client_that_only_sends_still_gets_its_replies(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start()
    wire = connect()
    wire.send(b'{"execute": "qmp_capabilities"}{"execute": "query-version"}')
    wire.socket.shutdown(socket.SHUT_WR)
    assert [wire.receive() for _ in range(3)] == [{"return": {}}, {"return": VERSION}, None]


def test_clients_come_and_go(start: StartMonitor, connect: Callable[[], Wire]) -> None:
    monitor = start()
    for _ in range(20):
        wire = connect().negotiate()
        monitor.emit("STOP")
        wire.close()
    connect().negotiate()


def run_qmp_shell(path: str, home: Path, typed: str) -> str:
    completed = subprocess.run(
        [sys.executable, "-m", "qemu.qmp.qmp_shell", path],
        input=typed,
        text=True,
        capture_output=True,
        env={**os.environ, "HOME": str(home)},
        timeout=60,
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr == ""
    return completed.stdout


def test_qmp_shell_can_query_a_node(start: StartMonitor, path: str, tmp_path: Path) -> None:
    asked = threading.Event()

    def query_status() -> dict[str, object]:
        asked.set()
        return {"status": "colo", "running": True}

    start({"query-status": Command(query_status), "echo": ECHO})
    out = run_qmp_shell(path, tmp_path, "query-status\necho uri=unix:x the-size=3 on=true\nno\n")
    assert "Connected to QEMU 0.1.0" in out
    assert '{"return": {"status": "colo", "running": true}}' in out
    assert '{"return": {"uri": "unix:x", "the_size": 3, "on": true}}' in out
    assert '"The command no has not been found"' in out
    assert asked.is_set()


def test_qmp_shell_completes_our_commands(start: StartMonitor, path: str) -> None:
    start({"query-status": Command(dict)})

    async def query() -> list[dict[str, str]]:
        client = QMPClient("test")
        await client.connect(path)
        try:
            with pytest.raises(ExecuteError, match="has not been found"):
                await client.execute("no-such-command")
            return await client.execute("query-commands")  # type: ignore[return-value]
        finally:
            await client.disconnect()

    assert [command["name"] for command in asyncio.run(query())] == [
        "qmp_capabilities",
        "query-commands",
        "query-status",
        "query-version",
    ]
