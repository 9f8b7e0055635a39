"""A session that serves: what ends it, what does not, and how one knows whether it is protected."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
import pytest

from colobench.errors import ColobenchError, LocalError
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.session.session import Session
from colobench.lab.session.status import PairState, examine, find, render
from colobench.lab.session.supervise import serve
from colobench.processes import process as process_module
from colobench.processes.errors import NodeGone
from colobench.settings.heartbeat import HeartbeatSettings
from share import amount, some

pytestmark = pytest.mark.usefixtures("nothing_left")

#: A limit that leaves room for one node in the making, and for no leak of four at each rejoin.
DESCRIPTORS = 41


def serving(**settings: Any) -> Session:
    usual: dict[str, Any] = {
        "ram": "8M",
        "guest": "kv",
        "delay": 20,
        "hostfwd": "tcp:127.0.0.1:0-:6379",
        "heartbeat": HeartbeatSettings(100, 1000),
    }
    return Session(**usual | settings)


# -- What a dead node held -------------------------------------------------------------------------


def figures(pair: Session) -> Counter[str]:
    """Count what must not grow, in this process and in those that last."""
    found = Counter(re.sub(r"\d+", "N", path.name) for path in find()[0].iterdir())
    found["descriptors"] = len(os.listdir("/proc/self/fd"))
    found["threads"] = threading.active_count()
    for role in ("primary", "switch", "arbiter"):
        other = psutil.Process((pair.nodes | pair.others)[role].pid)
        found[f"descriptors of the {role}, pid {other.pid}"] = other.num_fds()
        found[f"threads of the {role}, pid {other.pid}"] = other.num_threads()
    return found


def test_rejoins_leave_descriptors_threads_and_memory_where_they_were() -> None:
    rejoins = amount(3, 200)
    tracemalloc.start()
    try:
        # A machine that is too busy for a heartbeat would part the pair, which is another matter.
        with serving(delay=None, heartbeat=HeartbeatSettings(100, 60_000)) as pair:

            def kill_and_rejoin(victim: str) -> None:
                pair.kill(victim)
                pair.failover()
                pair.rejoin()
                pair.checkpoint()

            # The survivor that is looked at has been a secondary, and has lost one.
            kill_and_rejoin("primary")
            kill_and_rejoin("secondary")
            gc.collect()
            before, memory = figures(pair), tracemalloc.get_traced_memory()[0]
            resident = psutil.Process().memory_info().rss
            for _ in range(rejoins):
                kill_and_rejoin("secondary")
            gc.collect()
            # A thread that was told to end may not have.
            pair.wait_for(lambda: figures(pair) <= before, f"no more than {before}", 60)
            # Records, and pids, are what is kept.
            assert tracemalloc.get_traced_memory()[0] - memory < 100_000 + 5_000 * rejoins
            assert psutil.Process().memory_info().rss - resident < 16 << 20
            assert len(pair.all_pids()) == 4 + 2 + rejoins
    finally:
        tracemalloc.stop()


def test_dead_node_says_so_in_our_own_words() -> None:
    with serving(hostfwd=()) as pair:
        primary = pair.nodes["primary"]
        primary.process.kill()
        primary.process.wait()
        primary.qmp.drain(30)
        with pytest.raises(
            NodeGone, match="query-status: no answer, the connection has ended"
        ) as one:
            primary.execute("query-status")
        assert "QMPClient" not in str(one.value)
        pair.found_dead()
        pair.takeover()
        with pytest.raises(NodeGone, match="expected a living node, found it ended with status -9"):
            primary.execute("query-status")


# -- Failures of ours ------------------------------------------------------------------------------


class Watched:
    """`serve` in a thread of its own; a test takes what it says, in order."""

    def __init__(self, pair: Session) -> None:
        self.said: SimpleQueue[str] = SimpleQueue()
        self._ended = threading.Event()
        self._executor = ThreadPoolExecutor(1)
        self._result = self._executor.submit(
            serve, pair, until=self._ended.is_set, say=self.said.put
        )

    def wait_for(self, words: str) -> list[str]:
        """Wait until it says so; gives all that was said since the last time."""
        said = [self.said.get(timeout=60)]
        while words not in said[-1]:
            said.append(self.said.get(timeout=60))
        return said

    def end(self) -> None:
        self._ended.set()
        assert self._result.exception(timeout=60) is None
        self._executor.shutdown()


FAILURES: dict[str, BaseException] = {
    "Too many open files": OSError(errno.EMFILE, "Too many open files"),
    "Cannot allocate memory": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "No space left on device": OSError(errno.ENOSPC, "No space left on device", "node.stderr"),
    "Resource temporarily unavailable": BlockingIOError(
        errno.EAGAIN, "Resource temporarily unavailable"
    ),
    "can't start new thread": RuntimeError("can't start new thread"),
    "MemoryError": MemoryError(),
    # Nobody foresaw this one.
    "unforeseen": TypeError("unforeseen"),
}


def test_no_failure_of_ours_ends_the_node_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as pair, StoreConnection(pair.address(), 60) as client:
        watched = Watched(pair)
        watched.wait_for("protected: ")
        monkeypatch.setattr("colobench.lab.session.supervise._AGAIN_LIMIT", 0.1)
        tried = some(list(FAILURES), len(FAILURES) // 2)
        for number, words in enumerate(tried, 1):
            failure = FAILURES[words]
            failed = threading.Semaphore(0)

            def fail(*_: Any, failure: BaseException = failure, failed: Any = failed) -> Any:
                failed.release()
                raise failure

            with monkeypatch.context() as broken:
                broken.setattr(process_module.NodeProcess, "_spawn", fail)
                pair.nodes["secondary"].process.kill()
                # It is said once, and tried again and again.
                for _ in range(4):
                    assert failed.acquire(timeout=60)
                assert pair.state is PairState.ALONE
                assert client.ask(b"INCR", b"a") == number
            said = watched.wait_for("protected again")
            told = [each for each in said if "nobody has joined" in each]
            assert len(told) == 1, said
            assert words in told[0]
            assert "\n" not in told[0]
            states = [each.partition(":")[0] for each in said if each not in told]
            assert [each for each in states if each in list(PairState)] == [
                "alone", "joining", "protected"
            ]  # fmt: skip
        watched.end()
        assert client.ask(b"GET", b"a") == str(len(tried)).encode()


@pytest.mark.parametrize("program", ["/nonexistent/python", "/bin/false"])
def test_node_that_cannot_be_executed_ends_nobody(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as pair, StoreConnection(pair.address(), 60) as client:
        watched = Watched(pair)
        assert client.ask(b"SET", b"a", b"1") == "OK"
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", program)
            pair.nodes["primary"].process.kill()
            watched.wait_for("nobody has joined")
            assert client.ask(b"INCR", b"a") == 2
            # The arbiter is one of those, too.
            pair.others["arbiter"].process.kill()
            watched.wait_for("the arbiter was not started again")
            assert client.ask(b"INCR", b"a") == 3
        wanted = {"the arbiter had ended, and was started again", "protected again"}
        while wanted:
            [said] = watched.wait_for("")
            wanted -= {each for each in wanted if each in said}
        assert client.ask(b"GET", b"a") == b"3"
        watched.end()


def test_survivor_that_cannot_take_part_in_a_migration_serves_on_and_is_joined_later() -> None:
    with serving() as pair, StoreConnection(pair.address(), 60) as client:
        assert client.ask(b"SET", b"a", b"1") == "OK"
        pair.kill("primary")
        pair.takeover()
        survivor = pair.nodes["secondary"].pid
        before = resource.prlimit(survivor, resource.RLIMIT_NOFILE)
        resource.prlimit(survivor, resource.RLIMIT_NOFILE, (3, before[1]))
        for _ in range(2):
            with pytest.raises(ColobenchError):
                pair.rejoin()
            assert pair.state is PairState.ALONE
            assert client.ask(b"INCR", b"a") in (2, 3)
        resource.prlimit(survivor, resource.RLIMIT_NOFILE, before)
        pair.rejoin()
        assert pair.checkpoint().verified
        assert client.ask(b"GET", b"a") == b"3"


# -- colobench run ---------------------------------------------------------------------------------


class Run:
    """``colobench run``, whose standard output is read line by line."""

    def __init__(self, *arguments: str, descriptors: int = 0) -> None:
        command = [sys.executable, "-m", "colobench", "run", "--ram", "8M", "--delay", "20"]
        command += ["--hostfwd", "tcp:127.0.0.1:0-:6379", "--heartbeat-limit", "1000", *arguments]

        def limit() -> None:
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, 1024))

        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TQDM_DISABLE": "1"},
            preexec_fn=limit,
        )
        self.pids: dict[str, int] = {}

    def wait_for(self, words: str) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.pids |= {role: int(pid) for role, pid in re.findall(r"(\w+) pid (\d+)", line)}
            if words in line:
                return line
        raise AssertionError(f"it has ended: {self.process.stderr.read()}")  # type: ignore[union-attr]


@pytest.fixture
def running() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_run_survives_a_low_limit_of_descriptors_and_a_closed_standard_output(
    running: list[Run],
) -> None:
    run = Run(descriptors=DESCRIPTORS)
    running.append(run)
    port = int(run.wait_for("once the pair is protected").rpartition(":")[2])
    run.wait_for("joining: ")
    run.wait_for("protected: ")
    with StoreConnection(("127.0.0.1", port), 60) as client:
        assert client.ask(b"SET", b"a", b"0") == "OK"
        kills = amount(4, 20)
        for number in range(1, kills + 1):
            os.kill(run.pids["secondary"], signal.SIGKILL)
            run.wait_for("alone: ")
            assert client.ask(b"INCR", b"a") == number
            run.wait_for("protected again")
        # Now there is really none left, and then there is again.
        descriptors = psutil.Process(run.process.pid).num_fds()
        resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE, (descriptors + 2, 1024))
        os.kill(run.pids["primary"], signal.SIGKILL)
        line = run.wait_for("nobody has joined")
        assert "free descriptors" in line
        assert "(ulimit -n)" in line
        assert client.ask(b"INCR", b"a") == kills + 1
        resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, 1024))
        run.wait_for("protected again")
        # Who only wants to see the beginning does not end a server.
        assert run.process.stdout is not None
        run.process.stdout.close()
        os.kill(run.pids["secondary"], signal.SIGKILL)
        directory = find([str(run.process.pid)])[0]
        while (status := examine(directory)) and run.pids["secondary"] in [
            node.pid for node in status.nodes
        ]:
            pass
        while (status := examine(directory)) and status.state is not PairState.PROTECTED:
            pass
        assert client.ask(b"INCR", b"a") == kills + 2
    run.process.stdout = None
    run.process.send_signal(signal.SIGINT)
    run.process.communicate(timeout=60)


# -- Joining, protected, alone ---------------------------------------------------------------------


@pytest.mark.parametrize("serve_unprotected", [False, True])
def test_nobody_is_let_in_before_the_pair_is_protected_unless_asked_for(
    serve_unprotected: bool,
) -> None:
    seen: list[tuple[PairState, bool]] = []

    def look(state: PairState) -> None:
        try:
            socket.create_connection(pair.address(), 60).close()
        except ConnectionRefusedError:
            # The port is ours all the same.
            for reuse in (0, 1):
                with socket.socket() as other:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                    with pytest.raises(OSError, match="in use"):
                        other.bind(pair.address())
            seen.append((state, False))
        else:
            seen.append((state, True))

    pair = serving(serve_unprotected=serve_unprotected)
    pair.on_state(look)
    with pair:
        pair.kill("primary")
        pair.takeover()
        pair.rejoin()
    assert seen == [
        (PairState.JOINING, serve_unprotected),
        (PairState.PROTECTED, True),
        (PairState.ALONE, True),
        (PairState.JOINING, True),
        (PairState.PROTECTED, True),
    ]
    assert pair.state is None


def status(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "colobench", "status", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return found.returncode, found.stdout, found.stderr


def test_status_says_who_is_protected_and_how_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "colobench.processes.session_directory.parents", _only_the_temporary_directory
    )
    assert find() == []
    with serving(delay=None) as pair:
        pair.checkpoint()
        [directory] = find()
        code, printed, _ = status("--json", str(os.getpid()))
        [told] = json.loads(printed)["sessions"]
        assert (code, told["state"], told["pid"]) == (0, "protected", os.getpid())
        assert told["serves"] is True
        assert told["forwards"] == [[*pair.address(), 6379]]
        for node in told["nodes"]:
            assert node["pid"] == pair.nodes[node["role"]].pid
            assert (node["mode"], node["checkpoint"]) == (node["role"], 1)
            assert 0 <= node["checkpoint-age"] < 600
        pair.nodes["secondary"].process.send_signal(signal.SIGSTOP)
        found = examine(directory)
        assert found is not None
        assert {node.role: node.answers for node in found.nodes} == {
            "primary": True, "secondary": False
        }  # fmt: skip
        # Dead already, and its session has not looked.
        pair.nodes["secondary"].process.kill()
        pair.nodes["secondary"].process.wait()
        code, printed, _ = status(directory.name)
        assert code == 3
        assert printed.startswith("alone for ")
        assert f"secondary pid {pair.nodes['secondary'].pid}: dead" in printed
        assert pair.found_dead() is not None
        found = examine(directory)
        assert found is not None
        assert found.state is PairState.ALONE
        assert [node.role for node in found.nodes] == ["primary"]
        assert "checkpoint 1, " in render(found)
        with pytest.raises(LocalError, match=r"expected one that runs, .* found 'elsewhere'"):
            find(["elsewhere"])
    assert find() == []
    assert status(str(directory))[0] == 1
    assert examine(directory) is None


def _only_the_temporary_directory() -> list[Path]:
    return [Path(os.environ["TMPDIR"])]


def test_status_of_nobody_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(hostfwd=(), heartbeat=None):
        # Another temporary directory's are not found by themselves.
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        code, printed, errors = status("no-such-session")
    assert (code, printed) == (1, "")
    assert errors.count("\n") == 1
    assert "no-such-session" in errors


# -- The arbiter's grants --------------------------------------------------------------------------


def test_grants_are_kept_from_one_session_to_the_next(tmp_path: Path) -> None:
    state = tmp_path / "grants"
    for count in (1, 2):
        with serving(hostfwd=(), arbiter_state=str(state)) as pair:
            with pytest.raises(
                LocalError, match=r"arbiter_state: .* another arbiter uses the file"
            ):
                serving(hostfwd=(), arbiter_state=str(state)).start()
            pair.kill("primary")
            assert pair.takeover().role == "secondary"
        granted = [json.loads(line[9:]) for line in state.read_bytes().splitlines()[1:]]
        assert [node for _, node in granted] == ["secondary"] * count
        # No pairing is ever another one's.
        assert len({pairing for pairing, _ in granted}) == count
