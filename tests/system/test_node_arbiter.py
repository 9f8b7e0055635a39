"""The arbiter's process: it survives its own death without forgetting a grant or inventing one."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.arbiter import CLIENTS_LIMIT
from colobench.node.arbiter_client import ArbiterClient, ArbiterUnreachable
from colobench.node.grants import GrantsFile
from colobench.node.sockets import bind
from colobench.processes.process import NodeProcess
from colobench.protocol.arbiter import LINE_LIMIT, ArbiterAnswer, ArbiterRefusal, InvalidLine
from places import CLONE

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 60.0
#: An arbiter that is killed, by itself and at once, at one point of granting.
MORTAL = """
import os, signal, sys
from colobench.node.__main__ import main
from colobench.node.grants import GrantsFile

point = sys.argv.pop(1)
append, write = GrantsFile.append, os.write

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying_append(self, pairing, node):
    if point == "torn":
        os.write = lambda file, data: (write(file, data[:len(data) // 2]), die())
    elif point == "written":
        os.write = lambda file, data: (write(file, data), die())
    elif point == "synced":
        append(self, pairing, node)
        die()
    else:
        die()
    append(self, pairing, node)

GrantsFile.append = dying_append
sys.exit(main(["arbiter", *sys.argv[1:]]))
"""


class Wire:
    """A client of plain bytes."""

    def __init__(self, address: Address) -> None:
        self.socket = address.connect(WAIT)
        self._lines = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Any:
        line = self._lines.readline()
        return json.loads(line) if line else None

    def ask(self, pairing: str, node: str) -> Any:
        self.send(json.dumps({"ask": pairing, "node": node}).encode() + b"\n")
        return self.receive()

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


class Arbiters:
    """Starts arbiters in one directory, one after the other, as whoever watches over them would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "grants"
        self.address = Address.parse(f"unix:{directory}/arbiter")
        self.events: list[dict[str, Any]] = []
        self._processes: list[NodeProcess] = []
        self._wires: list[Wire] = []

    def begin(self, listen: str | None = None, *, state: bool = True) -> NodeProcess:
        arguments = ["--listen", listen or str(self.address)]
        if state:
            arguments += ["--state", str(self.state)]
        process = NodeProcess(
            "arbiter", self.directory, arguments, lambda role, event: self.events.append(event)
        )
        self._processes.append(process)
        return process

    def start(self, listen: str | None = None, *, state: bool = True) -> NodeProcess:
        process = self.begin(listen, state=state)
        process.connect(WAIT)
        return process

    def mortal(self, point: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-c", MORTAL, point]
        command += ["--listen", str(self.address), "--qmp", str(self.directory / "arbiter.qmp")]
        return subprocess.Popen(
            [*command, "--state", str(self.state)],
            env=os.environ | {"PYTHONPATH": str(CLONE)},
        )

    def wire(self, address: Address | None = None) -> Wire:
        wire = Wire(address or self.address)
        self._wires.append(wire)
        return wire

    def ask(self, pairing: str, node: str) -> ArbiterAnswer:
        return ArbiterClient(self.address).ask(pairing, node, WAIT)

    def close(self) -> None:
        for wire in self._wires:
            wire.close()
        for process in self._processes:
            process.ask_to_quit()
            process.end()


@pytest.fixture
def arbiters(tmp_path: Path) -> Iterator[Arbiters]:
    made = Arbiters(tmp_path)
    yield made
    made.close()


GRANTED_A, REFUSED_B = ArbiterAnswer(True, "a"), ArbiterAnswer(False, "a")


@pytest.mark.parametrize("listen", ["unix", "tcp"])
def test_first_to_ask_is_granted_for_ever_and_nobody_else(
    arbiters: Arbiters, tmp_path: Path, listen: str
) -> None:
    uri = f"unix:{tmp_path}/arbiter" if listen == "unix" else "tcp:127.0.0.1:0"
    process = arbiters.start(uri, state=False)
    address = Address.parse(process.execute("x-query-arbiter")["listening"])
    client = ArbiterClient(address)
    assert client.ask("p", "a", WAIT) == GRANTED_A
    assert client.ask("p", "b", WAIT) == REFUSED_B
    assert client.ask("p", "a", WAIT) == GRANTED_A
    assert client.ask("q", "b", WAIT) == ArbiterAnswer(True, "b")


def test_one_connection_may_ask_more_than_once_and_piecewise(arbiters: Arbiters) -> None:
    arbiters.start()
    wire = arbiters.wire()
    assert wire.ask("p", "a") == {"granted": True, "holder": "a"}
    assert wire.ask("p", "b") == {"granted": False, "holder": "a"}
    for byte in b'{"ask": "\\u00fcber \xf0\x9f\x90\xa7", "node": "c"}\n{"ask": "p", "node"':
        wire.send(bytes([byte]))
    assert wire.receive() == {"granted": True, "holder": "c"}
    wire.send(b': "d"}\n')
    assert wire.receive() == {"granted": False, "holder": "a"}


def test_monitor_tells_grants_and_their_moment(arbiters: Arbiters) -> None:
    process = arbiters.start()
    for pairing, node in (("p", "a"), ("q", "b"), ("p", "b"), ("p", "a")):
        arbiters.ask(pairing, node)
    found = process.execute("x-query-arbiter")
    grants = [{"pairing": "p", "node": "a"}, {"pairing": "q", "node": "b"}]
    assert found == {
        "listening": str(arbiters.address),
        "count": 2,
        "refusals": 1,
        "grants": grants,
    }
    # Events come before the reply to a later command.
    assert [event["data"] for event in arbiters.events if event["event"] == "X_GRANTED"] == grants


BAD_LINES = {
    "no JSON": (b"hello", "expected a JSON object"),
    "not UTF-8": (b'{"ask": "\xff", "node": "a"}', "expected a JSON object"),
    "no object": (b"[1]", "expected a JSON object"),
    "deep": (b"[" * 5000, "expected a JSON object"),
    "empty": (b"", "expected a JSON object"),
    "a member missing": (b'{"ask": "p"}', "expected the members ask and node"),
    "a member too many": (b'{"ask": "p", "node": "a", "x": 1}', "expected the members"),
    "no string": (b'{"ask": 1, "node": "a"}', "pairing: expected 1 to 200 characters, found 1"),
    "an empty name": (b'{"ask": "p", "node": ""}', "node: expected 1 to 200 characters"),
    "a long name": (json.dumps({"ask": "p" * 201, "node": "a"}).encode(), "found 201 characters"),
    "no character": (b'{"ask": "\\ud800", "node": "a"}', "surrogate"),
    "a long line": (b" " * LINE_LIMIT, f"a line of at most {LINE_LIMIT} bytes"),
    "a very long line": (b" " * (1 << 20), f"a line of at most {LINE_LIMIT} bytes"),
}


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.parametrize("listen", ["unix", "tcp"])
def test_bad_question_gets_one_clear_line_and_ends_its_connection_alone(
    arbiters: Arbiters, tmp_path: Path, case: str, listen: str
) -> None:
    line, words = BAD_LINES[case]
    uri = f"unix:{tmp_path}/arbiter" if listen == "unix" else "tcp:127.0.0.1:0"
    process = arbiters.start(uri, state=False)
    address = Address.parse(process.execute("x-query-arbiter")["listening"])
    other, bad = arbiters.wire(address), arbiters.wire(address)
    assert other.ask("p", "a")["granted"]
    try:
        bad.send(line + b"\n")
    except ConnectionError:
        # It was refused before all of it was sent.
        assert len(line) > LINE_LIMIT
    assert words in bad.receive()["error"]
    try:
        assert bad.receive() is None
    except ConnectionError:
        assert len(line) >= LINE_LIMIT
    assert other.ask("p", "b") == {"granted": False, "holder": "a"}
    assert process.execute("x-query-arbiter")["count"] == 1


def test_one_client_too_many_costs_the_one_that_was_silent_longest(arbiters: Arbiters) -> None:
    arbiters.start()
    wires = [arbiters.wire() for _ in range(CLIENTS_LIMIT)]
    for number, wire in enumerate(wires):
        assert wire.ask("p", f"node {number}")["holder"] == "node 0"
    # The second is the one that was silent longest now.
    assert wires[0].ask("p", "node 0")["granted"]
    assert not arbiters.wire().ask("p", "late")["granted"]
    assert wires[1].receive() == {"error": "expected at most 64 clients, found one more"}
    assert wires[1].receive() is None
    assert wires[0].ask("p", "node 0")["granted"]
    assert wires[2].ask("p", "node 2")["holder"] == "node 0"


def test_client_that_does_not_read_its_answers_is_dropped(arbiters: Arbiters) -> None:
    arbiters.start()
    deaf = arbiters.wire()

    def ask_without_end() -> None:
        while True:
            deaf.send(b'{"ask": "p", "node": "a"}\n' * 1000)

    with pytest.raises(ConnectionError):
        ask_without_end()
    assert arbiters.ask("p", "b") == REFUSED_B


def test_arbiter_needs_no_numba_and_no_numpy(arbiters: Arbiters) -> None:
    process = arbiters.start()
    mapped = Path(f"/proc/{process.pid}/maps").read_text()
    assert "python" in mapped
    assert "numpy" not in mapped
    assert "llvmlite" not in mapped


# Its death.


def test_grants_outlive_the_arbiters_death(arbiters: Arbiters) -> None:
    first = arbiters.start()
    assert arbiters.ask("p", "a") == GRANTED_A
    assert first.kill() == -signal.SIGKILL
    arbiters.start()
    assert arbiters.ask("p", "b") == REFUSED_B
    assert arbiters.ask("p", "a") == GRANTED_A


def test_grants_outlive_an_orderly_end(arbiters: Arbiters) -> None:
    first = arbiters.start()
    assert arbiters.ask("p", "a") == GRANTED_A
    first.ask_to_quit()
    assert first.process.wait(WAIT) == 0
    assert not (arbiters.directory / "arbiter").exists()
    arbiters.start()
    assert arbiters.ask("p", "b") == REFUSED_B


@pytest.mark.parametrize(
    ("point", "granted"),
    [("decided", False), ("torn", False), ("written", True), ("synced", True)],
)
def test_death_between_decision_and_answer_neither_loses_nor_invents_a_grant(
    arbiters: Arbiters, point: str, granted: bool
) -> None:
    arbiters.start().kill()
    with arbiters.mortal(point) as mortal, ThreadPoolExecutor() as threads:
        # This one does not give up, and is answered by the next arbiter at last.
        stubborn = threads.submit(arbiters.ask, "p", "a")
        assert mortal.wait(WAIT) == -signal.SIGKILL
        # Nobody was told anything. What is on disk decides.
        grants = GrantsFile(str(arbiters.state))
        assert grants.grants == ({"p": "a"} if granted else {})
        grants.close()
        arbiters.start()
        assert stubborn.result() == GRANTED_A
    assert arbiters.ask("p", "b") == REFUSED_B
    assert arbiters.ask("q", "b") == ArbiterAnswer(True, "b")


def test_torn_grant_does_not_count_for_the_one_who_was_not_told(arbiters: Arbiters) -> None:
    arbiters.start().kill()
    with arbiters.mortal("torn") as mortal, ThreadPoolExecutor() as threads:
        client = ArbiterClient(arbiters.address)
        asked = threads.submit(client.ask, "p", "a", WAIT)
        assert mortal.wait(WAIT) == -signal.SIGKILL
        client.close()
        with pytest.raises(ArbiterUnreachable):
            asked.result()
    arbiters.start()
    assert arbiters.ask("p", "b") == ArbiterAnswer(True, "b")
    assert arbiters.ask("p", "a") == ArbiterAnswer(False, "b")


def test_no_pairing_has_two_winners_however_often_the_arbiter_is_killed(
    arbiters: Arbiters,
) -> None:
    chance = random.Random(4)
    told: dict[str, set[str]] = {}
    lock = threading.Lock()
    answers = threading.Semaphore(0)
    ended = threading.Event()

    def ask_on(node: str, seed: int) -> None:
        order = random.Random(seed)
        while not ended.is_set():
            pairing = f"pairing {order.randrange(300)}"
            verdict = arbiters.ask(pairing, node)
            with lock:
                told.setdefault(pairing, set()).add(verdict.holder)
            answers.release()

    with ThreadPoolExecutor() as threads:
        asking = [threads.submit(ask_on, node, seed) for seed, node in enumerate("abc")]
        for _ in range(12):
            process = arbiters.start()
            for _ in range(chance.randrange(60)):
                assert answers.acquire(timeout=WAIT)
            process.kill()
        arbiters.start()
        ended.set()
        for each in asking:
            each.result()
    assert len(told) > 20
    for pairing, holders in told.items():
        assert holders == {arbiters.ask(pairing, "somebody else").holder}


def test_disk_that_is_full_grants_nothing_and_ends_the_arbiter(arbiters: Arbiters) -> None:
    process = arbiters.start()
    assert arbiters.ask("p", "a") == GRANTED_A
    size = arbiters.state.stat().st_size
    psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
    client = ArbiterClient(arbiters.address)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(client.ask, "q", "a", WAIT)
        assert process.process.wait(WAIT) == 1
        client.close()
        with pytest.raises(ArbiterUnreachable):
            asked.result()
    # Its standard error is a file, too, so this is where its last words end.
    assert "grants in" in process.last_words()
    arbiters.start()
    assert arbiters.ask("p", "b") == REFUSED_B
    assert arbiters.ask("q", "b") == ArbiterAnswer(True, "b")


def test_second_arbiter_with_the_same_grants_is_refused(arbiters: Arbiters, tmp_path: Path) -> None:
    arbiters.start()
    (tmp_path / "second").mkdir()
    second = Arbiters(tmp_path / "second")
    second.state = arbiters.state
    process = second.begin()
    assert process.process.wait(WAIT) == 1
    assert "another arbiter uses the file" in process.last_words()
    second.close()
    assert arbiters.ask("p", "a") == GRANTED_A


@pytest.mark.parametrize("taken", ["arbiter", "arbiter.qmp"])
def test_socket_that_is_in_use_is_left_alone(arbiters: Arbiters, taken: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(arbiters.directory / taken))
        other.listen()
        process = arbiters.begin()
        assert process.process.wait(WAIT) == 1
        assert "Address already in use" in process.last_words()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(arbiters.directory / taken))


def test_arbiter_ends_with_its_parent(arbiters: Arbiters) -> None:
    process = arbiters.start()
    assert process.process.stdin is not None
    # What the parent's death does, too.
    process.process.stdin.close()
    assert process.process.wait(WAIT) == 0
    assert not (arbiters.directory / "arbiter").exists()
    assert not process.qmp_path.exists()


def test_arbiter_of_another_parent_does_not_begin(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "colobench.node", "arbiter", "--parent", "1"]
    command += ["--listen", f"unix:{tmp_path}/arbiter", "--qmp", f"{tmp_path}/qmp"]
    environment = os.environ | {"PYTHONPATH": str(CLONE)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT)
    assert ended.returncode == 1
    assert ended.stderr.startswith("colobench.node: parent: expected process 1, found")


# The file.

HEADER = b"colobench arbiter grants 1\n"
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
Grants = dict[str, str]


def record(pairing: object, node: object) -> bytes:
    data = json.dumps([pairing, node]).encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grants") / "grants"


def opened(path: Path) -> Grants:
    grants = GrantsFile(str(path))
    grants.close()
    return grants.grants


@given(grants=st.dictionaries(NAMES, NAMES, max_size=5), cut=st.floats(0, 1))
def test_file_cut_anywhere_has_all_grants_but_the_torn_one_and_takes_more(
    file: Path, grants: Grants, cut: float
) -> None:
    lines = [record(*grant) for grant in grants.items()]
    data = b"".join(lines)
    kept = data[: round(cut * len(data))]
    file.write_bytes(HEADER + kept)
    whole = kept.count(b"\n")
    expected = dict(list(grants.items())[:whole])
    again = GrantsFile(str(file))
    assert again.grants == expected
    again.append("one more", "node")
    again.close()
    assert opened(file) == {**expected, "one more": "node"}
    assert file.read_bytes() == HEADER + b"".join([*lines[:whole], record("one more", "node")])


@given(
    grants=st.dictionaries(NAMES, NAMES, min_size=1, max_size=3),
    place=st.floats(0, 1, exclude_max=True),
    change=st.integers(1, 255),
)
def test_damaged_file_is_refused_and_left_as_it_is_rather_than_forgotten(
    file: Path, grants: Grants, place: float, change: int
) -> None:
    data = bytearray(HEADER + b"".join(record(*grant) for grant in grants.items()))
    # Without its last newline the last grant is a torn one.
    at = int(place * (len(data) - 1))
    data[at] ^= change
    file.write_bytes(data)
    with pytest.raises(LocalError, match="expected"):
        opened(file)
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    "content",
    [
        b"Dear diary",
        HEADER + record("p", "a") + record("p", "b"),
        HEADER + record("p", 1),
        HEADER + record("", "a"),
        HEADER + b"00000000 \n",
    ],
)
def test_file_that_no_arbiter_wrote_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "grants"
    path.write_bytes(content)
    with pytest.raises(LocalError, match="expected"):
        opened(path)
    assert path.read_bytes() == content


def test_grant_is_on_disk_when_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grants = GrantsFile(str(tmp_path / "grants"))
    synced: list[bytes] = []
    fsync = os.fsync

    def watched_fsync(file: int) -> None:
        fsync(file)
        synced.append((tmp_path / "grants").read_bytes())

    monkeypatch.setattr(os, "fsync", watched_fsync)
    grants.append("p", "a")
    grants.close()
    assert synced == [HEADER + record("p", "a")]


def test_grant_that_was_read_but_perhaps_not_synced_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grants").write_bytes(HEADER + record("p", "a"))
    synced: list[str] = []
    fsync = os.fsync

    def watched_fsync(file: int) -> None:
        fsync(file)
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}")))

    monkeypatch.setattr(os, "fsync", watched_fsync)
    assert opened(tmp_path / "grants") == {"p": "a"}
    assert synced == ["grants", tmp_path.name]


@pytest.mark.parametrize("length", range(len(HEADER)))
def test_file_that_has_lost_its_grants_is_not_a_new_one(tmp_path: Path, length: int) -> None:
    path = tmp_path / "grants"
    path.write_bytes(HEADER[:length])
    with pytest.raises(LocalError, match="expected b'colobench arbiter grants 1"):
        opened(path)
    assert path.read_bytes() == HEADER[:length]


@pytest.mark.parametrize("moment", ["write", "fsync", "link"])
def test_file_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, moment, fail)
        with pytest.raises(LocalError, match="No space left on device"):
            opened(tmp_path / "grants")
    assert list(tmp_path.iterdir()) == []
    assert opened(tmp_path / "grants") == {}
    assert [each.name for each in tmp_path.iterdir()] == ["grants"]
    assert stat.S_IMODE((tmp_path / "grants").stat().st_mode) == 0o600


def test_two_that_make_the_file_at_once_do_not_both_have_it(tmp_path: Path) -> None:
    path = str(tmp_path / "grants")
    link = os.link

    def overtaken(source: str, target: str) -> None:
        # Somebody else is faster, between the look for the file and the making of it.
        others.append(GrantsFile(path))
        others[0].append("p", "a")
        link(source, target)

    others: list[GrantsFile] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "link", lambda *paths: (patched.undo(), overtaken(*paths)))
        with pytest.raises(LocalError, match="another arbiter uses the file"):
            GrantsFile(path)
    others[0].close()
    assert opened(tmp_path / "grants") == {"p": "a"}


def deep_record() -> bytes:
    data = b"[" * 100_000 + b"]" * 100_000
    return b"%08x %s\n" % (zlib.crc32(data), data)


def fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


#: What is at the path, and what is said of it.
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "emptied": (lambda path: fill(path, b""), "found an empty file"),
    "zeros": (lambda path: fill(path, bytes(100)), "expected b'colobench arbiter grants 1"),
    "deep JSON": (
        lambda path: fill(path, HEADER + deep_record()),
        "expected a grant with its checksum at byte 27",
    ),
    "endless line": (
        lambda path: fill(path, HEADER + b"x" * LINE_LIMIT),
        "expected a grant with its checksum at byte 27",
    ),
    "huge": (
        lambda path: (fill(path, HEADER), os.truncate(path, 1 << 40)),
        "expected at most 536870912 bytes, found 1099511627776",
    ),
    "FIFO": (lambda path: os.mkfifo(path), "expected a file, found a FIFO"),
    "directory": (lambda path: path.mkdir(), "expected a file, found a directory"),
    "socket": (lambda path: bind(socket.AF_UNIX, str(path)).close(), "found a socket"),
    "full device": (lambda path: path.symlink_to("/dev/full"), "found a device"),
    "null device": (lambda path: path.symlink_to("/dev/null"), "found a device"),
    "link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "below a file": (lambda path: path.parent.rmdir() or fill(path.parent, b""), "Not a directory"),
    "below nothing": (lambda path: path.parent.rmdir(), "No such file or directory"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_state_that_is_no_file_of_grants_ends_the_arbiter_at_once_with_one_sentence(
    tmp_path: Path, kind: str
) -> None:
    make, words = UNUSABLE[kind]
    path = tmp_path / "state" / "grants"
    path.parent.mkdir()
    make(path)
    with pytest.raises(LocalError, match=re.escape(words)):
        GrantsFile(str(path))
    if kind in ("emptied", "deep JSON", "FIFO", "full device"):
        # The whole way, once for each of what once hung or was a traceback.
        arguments = ["--listen", f"unix:{tmp_path}/arbiter", "--state", str(path)]
        process = NodeProcess("arbiter", tmp_path, arguments, lambda role, event: None)
        assert process.process.wait(WAIT) == 1
        said = (tmp_path / "arbiter.stderr").read_text()
        process.end()
        assert said.count("\n") == 1
        assert words in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_state_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "grants"
    fill(path, HEADER)
    path.chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(LocalError, match="Permission denied"):
            GrantsFile(str(path))
    finally:
        os.seteuid(0)


def test_link_to_a_file_that_is_not_there_yet_makes_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("grants")
    grants = GrantsFile(str(tmp_path / "link"))
    grants.append("p", "a")
    grants.close()
    assert opened(tmp_path / "grants") == {"p": "a"}


@pytest.mark.parametrize("change", ["emptied", "removed", "replaced", "appended to"])
def test_nothing_is_granted_once_the_file_is_not_what_was_written(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "grants"
    grants = GrantsFile(str(path))
    grants.append("p", "a")
    if change == "emptied":
        os.truncate(path, 0)
    elif change == "appended to":
        with open(path, "ab") as file:
            file.write(record("q", "b"))
    else:
        path.unlink()
    if change == "replaced":
        fill(path, HEADER)
    with pytest.raises(LocalError, match=r"expected .*found|No such file"):
        grants.append("r", "a")
    grants.close()


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(LocalError, match="expected the path of a file"):
        GrantsFile(path)


# The client.


def serve(path: Path, answer: Callable[[socket.socket], None]) -> threading.Thread:
    """Be an arbiter for one question, by hand."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(LINE_LIMIT)
            answer(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"hello\n", InvalidLine, "answer: expected a JSON object"),
        (b"{}\n", InvalidLine, "expected granted and holder"),
        (b'{"granted": 1, "holder": "a"}\n', InvalidLine, "expected granted and holder"),
        (b'{"granted": true, "holder": 7}\n', InvalidLine, "holder: expected"),
        (b" " * (2 * LINE_LIMIT), InvalidLine, "a line of at most"),
        (b'{"error": "no"}\n', ArbiterRefusal, "arbiter: no"),
    ],
)
def test_answer_that_is_no_verdict_is_an_error_of_its_own(
    tmp_path: Path, answer: bytes, error: type[Exception], words: str
) -> None:
    thread = serve(tmp_path / "arbiter", lambda connection: connection.sendall(answer))
    client = ArbiterClient(Address.parse(f"unix:{tmp_path}/arbiter"))
    with pytest.raises(error, match=words):
        client.ask("p", "a", WAIT)
    thread.join()


def test_arbiter_that_is_not_there_is_unreachable_in_the_end(tmp_path: Path) -> None:
    client = ArbiterClient(Address.parse(f"unix:{tmp_path}/arbiter"))
    with pytest.raises(ArbiterUnreachable, match=r"no answer within 0.1 s: connect to") as raised:
        client.ask("p", "a", 0.1)
    assert isinstance(raised.value.__cause__, LocalError)


def test_silent_arbiter_is_unreachable_in_the_end(tmp_path: Path) -> None:
    ended = threading.Event()

    def be_silent(connection: socket.socket) -> None:
        ended.wait(WAIT)

    thread = serve(tmp_path / "arbiter", be_silent)
    client = ArbiterClient(Address.parse(f"unix:{tmp_path}/arbiter"))
    with pytest.raises(ArbiterUnreachable, match=r"no answer within 0\.2 s"):
        client.ask("p", "a", 0.2)
    ended.set()
    thread.join()


def test_question_is_asked_until_there_is_an_arbiter(arbiters: Arbiters) -> None:
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(arbiters.ask, "p", "a")
        arbiters.start()
        assert asked.result() == GRANTED_A


@pytest.mark.parametrize("there", [False, True])
def test_close_ends_a_question_that_waits(tmp_path: Path, there: bool) -> None:
    asked, ended = threading.Event(), threading.Event()

    def be_silent(connection: socket.socket) -> None:
        asked.set()
        ended.wait(WAIT)

    thread = serve(tmp_path / "arbiter", be_silent) if there else None
    client = ArbiterClient(Address.parse(f"unix:{tmp_path}/arbiter"))
    with ThreadPoolExecutor() as threads:
        # Longer than any test may take.
        question = threads.submit(client.ask, "p", "a", 10_000)
        if there:
            assert asked.wait(WAIT)
        client.close()
        with pytest.raises(ArbiterUnreachable, match="closed"):
            question.result()
    with pytest.raises(ArbiterUnreachable, match="closed"):
        client.ask("p", "a", 10_000)
    ended.set()
    if thread is not None:
        thread.join()


@pytest.mark.parametrize(
    ("pairing", "node", "timeout"), [("", "a", 1), ("p", "", 1), ("p", "a", 0)]
)
def test_question_that_cannot_be_asked_is_our_own_mistake(
    tmp_path: Path, pairing: str, node: str, timeout: float
) -> None:
    with pytest.raises(LocalError, match="expected"):
        ArbiterClient(Address.parse(f"unix:{tmp_path}/arbiter")).ask(pairing, node, timeout)
