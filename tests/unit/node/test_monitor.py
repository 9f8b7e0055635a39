"""The QMP monitor: QEMU's answers, events for all, and no client that can hold up the node."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import tomllib
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies
from qemu.qmp import ExecuteError, QMPClient

from colobench.errors import LocalError
from colobench.node import monitor as monitor_module
from colobench.node import qmp_json
from colobench.node.monitor import CLIENTS_LIMIT, VERSION, Monitor, MonitorCommand
from colobench.node.qmp_json import LENGTH_LIMIT, QMPParser, TextTooLong
from places import CLONE

StartMonitor = Callable[..., Monitor]
TEN_SECONDS = 10.0


class Wire:
    """A client of plain bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(TEN_SECONDS)
        self._lines = self.socket.makefile("rb")
        self.greeting = self.receive()

    def line(self) -> bytes:
        return self._lines.readline()

    def receive(self) -> Any:
        line = self.line()
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

    def start(commands: dict[str, MonitorCommand] | None = None, **options: Any) -> Monitor:
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
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        wires.append(Wire(connection))
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


ECHO = MonitorCommand(
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
    project = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]
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
    command = MonitorCommand(lambda **given: called.append(given), ECHO.arguments, ECHO.optional)
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
    start(
        {
            "refuse": MonitorCommand(refuse),
            "fail": MonitorCommand(fail),
            "opaque": MonitorCommand(lambda: object()),
        }
    )
    wire = connect().negotiate()
    assert wire.ask(b'{"execute": "refuse", "id": 1}') == {
        "id": 1,
        "error": {"class": "GenericError", "desc": "not in COLO mode"},
    }
    assert "KeyError('surprise')" in wire.ask(b'{"execute": "fail"}')["error"]["desc"]
    assert "not JSON serializable" in wire.ask(b'{"execute": "opaque"}')["error"]["desc"]
    assert len(caplog.records) == 2
    assert wire.ask(b'{"execute": "query-version"}') == {"return": VERSION}


REFUSED_BY_QEMU = [
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
#: Brings a parser to its beginning whatever it has read, and is answered with an error.
RESET = b"\xff\n"
END = b'{"execute": "qmp_capabilities", "id": "end"}'


def replies(receive: Callable[[], Any]) -> list[Any]:
    """Receive up to the answer to `END`."""
    found = []
    while not found or found[-1].get("id") != "end":
        found.append(receive())
    return found


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Wire]:
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    machine = ["-M", "none", "-nodefaults", "-display", "none"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qemu"))
        listener.listen()
        process = subprocess.Popen([program, *machine, "-qmp", f"unix:{tmp_path}/qemu"])
        try:
            wire = Wire(listener.accept()[0])
            yield wire
            wire.close()
        finally:
            process.kill()
            process.wait()


def test_answers_whatever_is_sent_as_qemu_does(
    start: StartMonitor, connect: Callable[[], Wire], qemu: Wire
) -> None:
    start(
        {
            "migrate": MonitorCommand(echo, {"uri": str}, {"blk": bool}),
            "memsave": MonitorCommand(echo, {"val": int, "size": int, "filename": str}),
            "migrate-set-capabilities": MonitorCommand(echo, {"capabilities": list}),
        }
    )
    ours = connect()
    for command in [b'{"execute": "query-version"}', b'{"execute": "qmp_capabilities"}'] * 2:
        assert ("return" in qemu.ask(command)) == ("return" in ours.ask(command))
    for sent in [*REFUSED_BY_QEMU, *NOT_JSON, *read_by_qemu()]:
        for wire in (qemu, ours):
            wire.send(sent + RESET + END)
        assert replies(ours.receive) == replies(qemu.receive), sent


def read_by_qemu() -> list[bytes]:
    """Give what shows how QEMU reads JSON; no command in it exists, and ids come back."""
    as_id = b"{'execute': 'no-such', 'id': %b}"
    deep = b"[" * 1023 + b"]" * 1023
    return [*(as_id % value for value in [*IDS, deep]), *TEXTS]


IDS = [
    b"'\\\"\\/\\b\\f\\n\\r\\t\\u00e9\\u0000'",
    b"'\\x41'",
    b"'\\v'",
    b"'\\u12g4'",
    b"'\\ud83d\\ude00'",
    b"'\\ud83d'",
    b"'\\ude00'",
    b"'\\ud83dx'",
    b"'\\ud83d\\u0041'",
    b"'\\ufffe\\uffff'",
    b"'\xf0\x9f\x98\x80\xc3\xa9'",
    b"'\xc0\x80'",
    b"'\xc1\x80'",
    b"'\xed\xa0\x80'",
    b"'\x80'",
    b"'\xff'",
    b"'\xf5\x80\x80\x80'",
    b"'\xef\xbf\xbf'",
    b"'\xef\xb7\x90'",
    b"'a\tb'",
    b"'a\nb'",
    b"'a\x7fb'",
    b"'a\x00b'",
    b"1,'id':2",
    b"NaN",
    b"nan",
    b"Infinity",
    b"-Infinity",
    b"inf",
    b"1e-400",
    b"99999999999999999999",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"0.1",
    b"1.0",
    b"1e3",
    b"1E+3",
    b"1e",
    b"1.",
    b".5",
    b"-",
    b"-0",
    b"-0.0",
    b"01",
    b"-01",
    b"+1",
    b"1x",
    b"0x10",
    b"true",
    b"True",
    b"truex",
    b"nul",
    b"null",
    b"%d",
    b"[]",
    b"[1,]",
    b"[1 2]",
    b"[,1]",
    b"{}",
    b"{1:2}",
    b"{a:2}",
    b"{'a' 2}",
    b"{'a':2,}",
    b"{'a':2 'b':3}",
    b"'\xf0\x9f\xbf\xbe'",
    b"'a\\\x7f'",
    b"'\xe0\xc0\x80'",
    b"'%d%s%%'",
    b"[{'a':[{'b':[]}]}]",
]
TEXTS = [
    b"0e5 0e [0e1] -0E1 0.0e1 1e5 ",
    b"{'execute': 'no-such', 'id': 0e5}",
    b"'\\x\xe2\x82'",
    b"'\xe2\x82\\x'",
    b"'\\\xe2\x82'",
    b"'\\x\xef\xbf\xbe'",
    b"'\xc0\x80a\n",
    b"'\xef\xb7\x90\n",
    b"{'execute':'no-such'}",
    b"{'execute':\"no-such\",'id':'a\\'b\"c'}",
    b'{"execute":"no-such","id":"a\\\'b"}',
    b"{'execute':'no-such','id':'\xfe'}{'execute':'no-such'}",
    b"{'execute':'no-such','execute':'no-such'}",
    b"{'execute':'no-such','arguments':{},'id':{'a':1,'a':2}}",
    b"{'execute':'no-such',}",
    b"{'execute':'no-such'} trailing {'execute':'no-such'}",
    b"{'execute':'no-such'}]{'execute':'no-such'}",
    b"{'execute':'no-such'}}{'execute':'no-such'}",
    b"{'execute':'no-such'},{'execute':'no-such'}",
    b"{'execute':'no-such'};{'execute':'no-such'}",
    b"{'execute':'no-such'} // c\n{'execute':'no-such'}",
    b"\xef\xbb\xbf{'execute':'no-such'}",
    b"hello\n{'execute':'no-such'}",
    b"hello {'execute':'no-such'}",
    b"HELLO {'execute':'no-such'}",
    b"HELLO\n{'execute':'no-such'}",
    b"HELLO\t\t] {'execute':'no-such'}",
    b"'abc",
    b"1 ",
    b"1",
    b"12,",
    b"'abc'",
    b"true",
    b"true ",
    b"{'a': [}] {'execute':'no-such'}",
    b"[{]} {'execute':'no-such'}",
    b"]]]]{'execute':'no-such'}",
    b"}",
    b":",
    b",",
    b"{'execute':'no-such'\x0b}",
    b"{'execute':'no-such'\x00}",
    b"{'execute':'no-such'\x7f}",
    b"{'execute':'no-such'\xff{'execute':'no-such'}",
    b"'a'\xff{'execute':'no-such'}",
    b"\xff{'execute':'no-such'}",
    b"{'execute':'no-\\u0073uch'}",
    b"{'exec\\u0075te':'no-such'}",
    b"{'execute':'no-such','exec\\u0075te':'x'}",
    b"{'execute':''}",
    b"{'execute':'x\\u0000y'}",
    b"{'execute':'caf\xc3\xa9'}",
    b"{'execute':'q\"\\\\'}",
    b"{'':1}",
    b"{'execute':'no-such', 'a\\'b':1}",
    b"{'exec-oob':'no-such'}",
    b"{'execute':'no-such','exec-oob':'no-such'}",
    b"{'execute':null}",
    b"null\n",
    b"{'execute':'no-such','arguments':null}",
    b"{'execute':'no-such','arguments':[]}",
    b"{'execute':'no-such','arguments':'x'}",
    b"H\x01{'execute':'no-such'}",
    b"H\x0b\x0b",
    b"H\x0bhello\n",
    b"H\x7fhello\n",
    b"H\x00 hello\n",
    b"'\\u12'",
    b"'\\u12\\n345'",
    b"'\\u'",
    b"'\\u1'",
    b"'\\ud83d\\u12'",
    b"'\\ud83d\\udg00'",
    b"{'id':'\\u1fffe'}{'id':'\\ud83f\\udffe'}",
    b"{'a':1,'a' 2}",
    b"{'a':1,'a':[1 2]}",
    b"{'a':1,'a':2,3}",
    b"{'a\\x':1,'\xff':2}",
    b"{'a\\x':1,'b':\xc1}",
    b"{[1]:2}",
    b"{{}:2}",
    b"{[1 2]:2}",
    b"{'\\x' 2}",
    b"{'a' '\\x'}",
    b"[1 nul]",
    b"trUe\n",
    b"1.5.5 ",
    b"'abc'def\n",
    b"'abc\\",
    b"'abc\\\n'",
    b"'abc\\\xff'",
    b"0 0 -0 1",
    b"00 0,",
    b"{'execute':'no-such','arguments':{'a':1}}",
    b"[1}{'execute':'no-such'}",
    b"[}{'execute':'no-such'}",
    b"{]{'execute':'no-such'}",
    b"{'a':1]{'execute':'no-such'}",
    b"{'a':{'b':1]{'execute':'no-such'}}}",
    b"[[1}{'execute':'no-such'}",
    b"{'a':[1}]{'execute':'no-such'}",
]


def test_differs_from_qemu_only_where_it_says_so(
    start: StartMonitor, connect: Callable[[], Wire], qemu: Wire
) -> None:
    start()
    ours = connect()
    for wire in (qemu, ours):
        assert "return" in wire.ask(b'{"execute": "qmp_capabilities"}')
    # QEMU echoes what is no JSON.
    infinite = b"{'execute': 'no-such', 'id': -1e400}"
    qemu.send(infinite)
    assert b'"id": -inf' in qemu.line()
    assert "number out of range: '-1e400'" in ours.ask(infinite)["error"]["desc"]
    # QEMU answers what is left of a text, too.
    deep = b"[" * 1030 + b"]" * 1030
    for wire in (qemu, ours):
        wire.send(deep + RESET + END)
    theirs, found = replies(qemu.receive), replies(ours.receive)
    assert found[0] == theirs[0] == error("JSON nesting depth limit exceeded")
    assert len(found) == 3 < len(theirs)
    assert found[1:] == theirs[-2:]


def error(description: str) -> dict[str, Any]:
    return {"error": {"class": "GenericError", "desc": description}}


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
        wire.send(text + RESET + END)
        assert all("JSON" in found["error"]["desc"] for found in replies(wire.receive)[:-1])
        assert wire.ask(b'{"execute": "query-version"}') == {"return": VERSION}


def test_an_endless_command_is_refused_and_its_client_dropped(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start()
    wire = connect().negotiate()
    wire.send(b'{"execute": "' + b"x" * LENGTH_LIMIT)
    assert f"longer than {LENGTH_LIMIT} bytes" in wire.receive()["error"]["desc"]
    assert wire.receive() is None


#: Without noncharacters, which QEMU refuses, and integers that are doubles to it.
WORDS = strategies.text(strategies.characters(exclude_categories=["Cs", "Cn"]))
JSON_VALUES = strategies.recursive(
    strategies.none()
    | strategies.integers(-(2**63), 2**64 - 1)
    | strategies.text(alphabet='ab{}[]"\\\n,: '),
    lambda values: strategies.lists(values) | strategies.dictionaries(WORDS, values),
    max_leaves=8,
)


def read(stream: bytes, piece: int) -> list[Any]:
    parser = QMPParser()
    pieces = (stream[begin : begin + piece] for begin in range(0, len(stream), piece))
    return [found for each in pieces for found in parser.feed(each)]


@given(
    objects=strategies.lists(strategies.dictionaries(WORDS, JSON_VALUES), max_size=4),
    between=strategies.sampled_from([b"", b" ", b"\n", b"\r\n"]),
    indent=strategies.sampled_from([None, 2]),
    piece=strategies.integers(1, 40),
)
def test_commands_are_found_however_they_are_cut(
    objects: list[object], between: bytes, indent: int | None, piece: int
) -> None:
    stream = between.join(json.dumps(value, indent=indent).encode() for value in objects)
    assert read(stream, piece) == objects


@given(
    stream=strategies.lists(
        strategies.sampled_from([*IDS, *TEXTS, b"\\", b"'", b'"']) | strategies.binary(max_size=9)
    ).map(b"".join),
    piece=strategies.integers(1, 9),
)
def test_what_is_found_does_not_depend_on_the_cutting(stream: bytes, piece: int) -> None:
    assert [repr(found) for found in read(stream, piece)] == [
        repr(found) for found in read(stream, len(stream) or 1)
    ]


DENSE = {
    "string": b'"' + b"x" * (LENGTH_LIMIT - 2) + b'"',
    "escapes": b'"' + rb"\n" * (LENGTH_LIMIT // 2 - 1) + b'"',
    "lists": b"[" + b"[]," * (LENGTH_LIMIT // 3),
    "numbers": b"[" + b"1," * (LENGTH_LIMIT // 2),
    "brackets": b"[" * (LENGTH_LIMIT // 16),
    "digits": b"9" * LENGTH_LIMIT,
}


@pytest.mark.parametrize("kind", DENSE)
def test_longest_text_needs_little_memory(kind: str) -> None:
    tracemalloc.start()
    feed(DENSE[kind], 1 << 12)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


@pytest.mark.parametrize("kind", DENSE)
def test_each_byte_of_a_text_is_looked_at_once_in_whatever_pieces(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [CountingPattern(each) for each in qmp_json._IN_STRING.values()]
    monkeypatch.setattr(qmp_json, "_IN_STRING", dict(zip(qmp_json._IN_STRING, counts, strict=True)))
    for name in ("_SPACE", "_RECOVERED", "_KEYWORD", "_NUMBER_BEGUN"):
        counts.append(CountingPattern(getattr(qmp_json, name)))
        monkeypatch.setattr(qmp_json, name, counts[-1])
    length = 1 << 15
    feed(DENSE[kind][:length], 64)
    # A word that is cut is read again, so up to its limit more often.
    again = qmp_json.WORD_LIMIT**2 // 64 if kind == "digits" else length // 10
    assert sum(count.looked_at for count in counts) <= length + again


class CountingPattern:
    """A regular expression that counts the bytes that it has gone over."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.looked_at = 0

    def match(self, data: bytes, at: int) -> re.Match[bytes] | None:
        found = self._pattern.match(data, at)
        self.looked_at += found.end() - at if found else 0
        return found

    def search(self, data: bytes, at: int) -> re.Match[bytes] | None:
        found = self._pattern.search(data, at)
        self.looked_at += (found.start() if found else len(data)) - at
        return found


def feed(data: bytes, piece: int) -> None:
    """Feed a parser, and forget what it finds, up to what ends it."""
    parser = QMPParser()
    for begin in range(0, len(data), piece):
        for found in parser.feed(data[begin : begin + piece]):
            if isinstance(found, TextTooLong):
                return


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


def test_unread_replies_are_limited_in_bytes_and_a_slow_reader_gets_them_all(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    executed = []
    command = MonitorCommand(lambda: executed.append(None) or "x" * 60_000)  # type: ignore[func-returns-value]
    start({"long": command}, unread_limit=300_000)
    wire = connect().negotiate()
    sender = threading.Thread(target=wire.send, args=(b'{"execute": "long"}' * 400,))
    sender.start()
    for number in range(400):
        # What the sockets hold was written already.
        assert len(executed) <= number + 5 + SOCKETS_HOLD // 60_000
        assert len(wire.receive()["return"]) == 60_000
    sender.join()


#: More than both ends of a UNIX socket keep.
SOCKETS_HOLD = 1 << 20


def test_client_that_never_reads_is_dropped_in_the_end(
    start: StartMonitor, connect: Callable[[], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "UNREAD_SECONDS", 0.1)
    start({"long": MonitorCommand(lambda: "x" * 60_000)}, unread_limit=300_000)
    wire, other = connect().negotiate(), connect().negotiate()

    def ask_without_end() -> None:
        while True:
            wire.send(b'{"execute": "long"}' * 100)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        ask_without_end()
    assert other.ask(b'{"execute": "query-version"}') == {"return": VERSION}


def test_one_client_too_many_is_told_so_and_the_others_stay(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start()
    wires = [connect() for _ in range(CLIENTS_LIMIT)]
    late = connect()
    assert late.greeting == error(f"expected at most {CLIENTS_LIMIT} clients, found one more")
    assert late.receive() is None
    assert "QMP" in wires[-1].greeting
    wires[0].negotiate().close()
    while "QMP" not in connect().greeting:
        # The monitor has not seen yet that the first one is gone.
        pass


@pytest.mark.parametrize("name", ["QMP reader", "QMP writer"])
def test_monitor_without_threads_turns_clients_away_and_goes_on(
    start: StartMonitor,
    connect: Callable[[], Wire],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    begin = threading.Thread.start
    left = [3]

    def scarce(thread: threading.Thread) -> None:
        if thread.name == name and left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    start()
    for _ in range(3):
        wire = connect()
        assert wire.greeting == error("can't start new thread")
        assert wire.receive() is None
    connect().negotiate()


def test_id_may_be_nested_as_deep_as_qemu_allows(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    start()
    deep = b"[" * (qmp_json.NESTING_LIMIT - 1) + b"]" * (qmp_json.NESTING_LIMIT - 1)
    wire = connect().negotiate()
    assert "return" in wire.ask(b"{'execute': 'query-version', 'id': " + deep + b"}")
    assert "nesting depth" in wire.ask(b"[[" + deep + b"]]")["error"]["desc"]
    assert wire.ask(b"{'execute': 'query-version'}") == {"return": VERSION}


def test_a_long_command_holds_up_its_own_client_only(
    start: StartMonitor, connect: Callable[[], Wire]
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(TEN_SECONDS)

    monitor = start({"wait": MonitorCommand(wait)})
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

    monitor = start({"quit": MonitorCommand(quit_command)})
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

    start({"query-status": MonitorCommand(query_status), "echo": ECHO})
    out = run_qmp_shell(path, tmp_path, "query-status\necho uri=unix:x the-size=3 on=true\nno\n")
    assert "Connected to QEMU 0.1.0" in out
    assert '{"return": {"status": "colo", "running": true}}' in out
    assert '{"return": {"uri": "unix:x", "the_size": 3, "on": true}}' in out
    assert '"The command no has not been found"' in out
    assert asked.is_set()


def test_qmp_shell_completes_our_commands(start: StartMonitor, path: str) -> None:
    start({"query-status": MonitorCommand(dict)})

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
