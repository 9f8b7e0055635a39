"""A guest that serves real clients, through checkpoints, deaths, and new secondaries."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from colobench.errors import LocalError, RemoteError
from colobench.guest.settings import NondeterminismSettings
from colobench.lab.checker.verdict import check_linearizability
from colobench.lab.clients.closed_loop import Clients
from colobench.lab.clients.resp import encode
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.session.session import Session
from colobench.lab.session.supervise import serve
from colobench.net.frame import (
    ARP,
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    GUEST_IP,
    GUEST_MAC,
    HOST_IP,
    HOST_MAC,
    build_arp,
    parse_arp,
)
from colobench.net.link import LinkDecoder, encode_frame
from colobench.processes.errors import NodeGone
from colobench.processes.process import NodeProcess
from colobench.processes.qmp import QMPConnection
from colobench.settings.compare import CompareSettings
from colobench.settings.heartbeat import HeartbeatSettings
from colobench.settings.settings import Settings
from share import amount

pytestmark = pytest.mark.usefixtures("nothing_left")
needs_redis = pytest.mark.skipif(
    shutil.which("redis-benchmark") is None, reason="redis-benchmark is not installed"
)
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def serving(output: str = "buffer", **settings: Any) -> Session:
    """Make a session that serves, with a small guest."""
    usual: dict[str, Any] = {
        "ram": "8M",
        "guest": "kv",
        "output": output,
        "delay": 20,
        "hostfwd": ["tcp:127.0.0.1:0-:6379", "tcp:127.0.0.1:0-:7"],
        "heartbeat": HeartbeatSettings(100, 1000),
    }
    return Session(**(usual | settings))


def client_of(pair: Session) -> StoreConnection:
    """Connect to the store; answers may take as long as a busy machine does."""
    return StoreConnection(pair.address(), 60)


#: Last words of a client, and the guest's.
ENDS = {
    b"*1\r\n:3\r\n": b"-ERR Protocol error: expected '$', got ':'\r\n",
    b"*1\r\n$99999999999\r\n": b"-ERR Protocol error: invalid bulk length\r\n",
    b"*99999999999\r\n": b"-ERR Protocol error: invalid multibulk length\r\n",
    b"x" * 70_000: b"-ERR Protocol error: too big inline request\r\n",
    b"GET 'x\r\n": b"-ERR Protocol error: unbalanced quotes in request\r\n",
    b"POST / HTTP/1.1\r\n": b"",
    b"Host: localhost\r\n": b"",
    encode(b"QUIT"): b"+OK\r\n",
}


@pytest.mark.parametrize("output", ["buffer", "compare"])
def test_after_the_guests_last_word_the_connection_ends_and_more_is_reset(output: str) -> None:
    with serving(output) as pair:
        for last, answer in ENDS.items():
            with socket.create_connection(pair.address(), 60) as silent:
                silent.sendall(b"PING\r\n" + last)
                said = b""
                while piece := silent.recv(1 << 16):
                    said += piece
                assert said == b"+PONG\r\n" + answer
            with socket.create_connection(pair.address(), 60) as talking:
                talking.sendall(b"PING\r\n" + last)
                with pytest.raises((ConnectionResetError, BrokenPipeError)):
                    # More than all buffers on the way hold.
                    talking.sendall(bytes(64 << 20))
                assert talking.recv(1 << 16) == b"+PONG\r\n" + answer
        with client_of(pair) as other:
            assert other.ask(b"PING") == "PONG"


def test_client_may_pipeline_all_requests_before_it_reads_any_reply() -> None:
    pairs = amount(60_000, 300_000)
    keys = [b"key:%06d" % (number % 1000) for number in range(pairs)]
    data = b"".join(encode(b"SET", key, key * 2) + encode(b"GET", key) for key in keys)
    expected = b"".join(b"+OK\r\n$20\r\n%s\r\n" % (key * 2) for key in keys)
    with serving(delay=5) as pair, socket.create_connection(pair.address(), 60) as client:
        # The buffers of kernels, switch and guest held 3.4 MB of it.
        assert len(data) > 5_000_000
        client.sendall(data)
        replies = bytearray()
        while len(replies) < len(expected) and (piece := client.recv(1 << 20)):
            replies += piece
    assert replies == expected


@pytest.mark.parametrize("output", ["buffer", "compare"])
def test_connections_and_answered_writes_survive_each_death(output: str) -> None:
    with serving(output, spare=True) as pair, Clients(pair.address(), 6, seed=4) as clients:
        clients.wait_until_answered(60)
        # The second takeover is by a node that has never seen the clients connect.
        taken_over = set()
        for victim in ("primary", "primary", "secondary"):
            killed = pair.kill(victim)
            takeover = pair.takeover()
            assert takeover.role != victim
            assert takeover.equal in (True, None)
            taken_over.add(takeover.checkpoint)
            clients.wait_until_all_answered(round(killed.time * 1e9))
            pair.rejoin()
            clients.wait_until_all_answered(time.monotonic_ns())
            assert pair.checkpoint().verified
        clients.stop()
        history = clients.final_reads()
        assert not history.lost
        assert check_linearizability(history).linearizable
        numbers = [record.number for record in pair.records]
        assert numbers == sorted(set(numbers))
        # A primary that is killed takes the reports with it that it had not sent: the last ones, up
        # to the checkpoint from which the other went on.
        missing = set(range(1, numbers[-1] + 1)) - set(numbers)
        assert {number for number in missing if number + 1 not in missing} <= taken_over
        times = [record.time for record in pair.records]
        assert times == sorted(times)


def test_buffered_answer_leaves_with_its_checkpoint() -> None:
    with serving(delay=None) as pair, socket.create_connection(pair.address(), 60) as connection:
        connection.sendall(encode(b"SET", b"a", b"1"))
        connection.settimeout(0.01)
        # A connection is output, too: its SYN-ACK waits like an answer.
        released = 0
        while True:
            try:
                assert connection.recv(100) == b"+OK\r\n"
                break
            except TimeoutError:
                released += pair.checkpoint().frames
        assert released >= 2


def test_equal_answers_need_no_checkpoint() -> None:
    with serving("compare", delay=None) as pair, client_of(pair) as client:
        assert client.ask(b"SET", b"a", b"1") == "OK"
        assert [client.ask(b"INCR", b"a") for _ in range(20)] == list(range(2, 22))
        assert len(pair.records) == 0
        compare = pair.nodes["primary"].execute("x-query-guest")["compare"]
        assert compare["bytes_compared"] >= 20 * len(b":2\r\n")


def test_miscompare_asks_for_a_checkpoint_and_names_connection_and_byte() -> None:
    with serving("compare", delay=None) as pair, client_of(pair) as client:
        assert client.ask(b"PING") == "PONG"
        # Two guests read two clocks, and now and then the same microsecond.
        while not pair.records:
            seconds, microseconds = client.ask(b"TIME")
            assert seconds.isdigit()
            assert microseconds.isdigit()
        record = pair.records[0]
        assert record.cause == "miscompare"
        assert record.cause_connection is not None
        assert record.cause_connection.startswith("10.0.2.15:6379 > 10.0.2.2:")
        assert record.cause_offset is not None
        # Behind "+PONG\r\n".
        assert record.cause_offset > 7
        assert record.verified


def test_expiry_by_two_clocks_is_a_miscompare_that_a_checkpoint_mends() -> None:
    with serving("compare", delay=None) as pair, client_of(pair) as client:
        keys = []
        # Each guest adds 60 s to its own clock, and now and then both read the same millisecond.
        while not pair.records and len(keys) < 500:
            keys.append(b"%d" % len(keys))
            assert client.ask(b"SET", keys[-1], b"x", b"PX", b"60000") == "OK"
            assert client.ask(b"PEXPIRETIME", keys[-1]) > 0
        assert pair.records[0].cause == "miscompare"
        # The records of more than one miscompare may still be on their way.
        while (settled := pair.checkpoint()).cause == "miscompare":
            pass
        assert settled.verified
        times = [client.ask(b"PEXPIRETIME", key) for key in keys]
        assert [client.ask(b"PEXPIRETIME", key) for key in keys] == times
        final = pair.checkpoint()
        assert final.verified
        later = [record for record in pair.records if record.number > settled.number]
        assert "miscompare" not in {record.cause for record in later}


def test_names_transactions_and_expiries_survive_the_primary() -> None:
    with serving() as pair, client_of(pair) as client:
        assert client.ask(b"CLIENT", b"SETNAME", b"me") == "OK"
        assert client.ask(b"SET", b"short", b"x", b"PX", b"1") == "OK"
        assert client.ask(b"SET", b"long", b"x", b"EX", b"1000") == "OK"
        assert client.ask(b"WATCH", b"watched") == "OK"
        assert client.ask(b"MULTI") == "OK"
        assert client.ask(b"SET", b"a", b"y" * 50_000) == "QUEUED"
        assert client.ask(b"STRLEN", b"a") == "QUEUED"
        pair.kill("primary")
        pair.takeover()
        assert client.ask(b"EXEC") == ["OK", 50_000]
        assert client.ask(b"CLIENT", b"GETNAME") == b"me"
        assert client.ask(b"GET", b"a") == b"y" * 50_000
        assert 0 < client.ask(b"TTL", b"long") <= 1000
        # Nobody asks for it: the survivor finds it.
        while client.ask(b"DBSIZE") > 2:
            pass
        assert client.ask(b"KEYS", b"*") in ([b"a", b"long"], [b"long", b"a"])


@pytest.mark.parametrize(
    ("compare", "cause"),
    [
        (CompareSettings(max_queue_size=1), "overflow"),
        (CompareSettings(compare_timeout=1), "timeout"),
    ],
)
def test_what_waits_too_long_or_is_too_much_asks_for_a_checkpoint(
    compare: CompareSettings, cause: str
) -> None:
    with serving("compare", delay=None, heartbeat=None, compare=compare) as pair:
        primary, secondary = pair.nodes["primary"], pair.nodes["secondary"]
        with client_of(pair) as client:
            assert client.ask(b"SET", b"a", b"x" * 5000) == "OK"
            secondary.process.send_signal(signal.SIGSTOP)
            client.send(b"GET", b"a")
            while not primary.execute("x-query-guest")["compare"]["checkpoints_requested"]:
                pass
            secondary.process.send_signal(signal.SIGCONT)
            assert client.receive() == b"x" * 5000
            pair.wait_for(lambda: len(pair.records) > 0, "a record", 30)
            assert {record.cause for record in pair.records} == {cause}


def test_quirk_that_was_asked_for_is_the_nodes() -> None:
    compare = CompareSettings(max_queue_size=1, quirks=("drop-overflow",))
    with serving("compare", delay=None, heartbeat=None, compare=compare) as pair:
        primary, secondary = pair.nodes["primary"], pair.nodes["secondary"]
        with client_of(pair) as client:
            assert client.ask(b"SET", b"a", b"x" * 5000) == "OK"
            secondary.process.send_signal(signal.SIGSTOP)
            client.send(b"GET", b"a")
            while not primary.execute("x-query-guest")["compare"]["dropped_primary"]:
                pass
            secondary.process.send_signal(signal.SIGCONT)
            # What was dropped is sent again.
            assert client.receive() == b"x" * 5000


def test_coarse_clock_is_the_same_clock() -> None:
    # Its step is longer than the test: both guests read the same, unless the step ends just now.
    dials = NondeterminismSettings(clock_us=10**9)
    with serving("compare", delay=None, nondeterminism=dials) as pair, client_of(pair) as client:
        seconds, microseconds = client.ask(b"TIME")
        assert (int(seconds) * 10**6 + int(microseconds)) % 10**9 == 0


def test_node_that_was_stopped_too_long_is_refused_and_ends() -> None:
    with serving() as pair, client_of(pair) as client:
        assert client.ask(b"SET", b"a", b"1") == "OK"
        primary = pair.nodes["primary"]
        primary.process.send_signal(signal.SIGSTOP)
        try:
            pair.wait_for_event("secondary", "RESUME", timeout=60)
            assert client.ask(b"INCR", b"a") == 2
        finally:
            primary.process.send_signal(signal.SIGCONT)
        assert primary.process.wait(60) == 1
        fenced = pair.wait_for_event("primary", "X_COLO_FENCED")
        assert fenced.data == {"mode": "primary", "holder": "secondary"}
        assert client.ask(b"INCR", b"a") == 3
        assert pair.nodes["secondary"].alive()


def test_without_the_arbiter_nobody_takes_over_until_somebody_says_so() -> None:
    with serving() as pair, client_of(pair) as client:
        assert client.ask(b"SET", b"a", b"1") == "OK"
        pair.others["arbiter"].kill()
        pair.kill("primary")
        pair.wait_for_event("secondary", "X_ARBITER_UNREACHABLE", timeout=60)
        assert pair.nodes["secondary"].execute("query-status")["running"] is False
        pair.failover("secondary")
        assert client.ask(b"INCR", b"a") == 2


def test_survivor_can_be_shut_down_in_order() -> None:
    with serving() as pair:
        pair.kill("primary")
        pair.takeover()
        pair.nodes["secondary"].execute("system_powerdown")
        assert pair.nodes["secondary"].process.wait(60) == 0


def test_rejoin_wants_a_survivor() -> None:
    words = "expected one survivor of a kill, found none"
    with serving() as pair, pytest.raises(LocalError, match=words):
        pair.rejoin()


def test_guest_shutdown_ends_both_while_clients_are_connected() -> None:
    with serving() as pair, client_of(pair) as client:
        assert client.ask(b"PING") == "PONG"
        pair.nodes["primary"].execute("system_powerdown")
        for node in pair.nodes.values():
            assert node.process.wait(60) == 0


@needs_tshark
def test_captured_frames_have_no_expert_error(tmp_path: Path) -> None:
    path, mirror = tmp_path / "guest.pcap", tmp_path / "mirror.pcap"
    captured = {"pcap": str(path), "pcap_mirror": str(mirror)}
    with serving("compare", **captured) as pair, client_of(pair) as client:
        assert client.ask(b"SET", b"a", b"x" * 5000) == "OK"
        pair.others["switch"].execute("x-ping", timeout=10)
        pair.kill("primary")
        pair.takeover()
        assert client.ask(b"GET", b"a") == b"x" * 5000
    checks = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    errors = ["-Y", "_ws.expert.severity == error || tcp.checksum.status == 0"]

    def tshark(path: Path, *arguments: str) -> str:
        command = ["tshark", "-r", str(path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert tshark(path, *checks, *errors) == ""
    assert tshark(mirror, *checks, *errors) == ""
    assert "6379" in tshark(mirror)
    every = tshark(path)
    assert "ARP" in every
    assert "Echo (ping) reply" in every
    assert "TCP" in every


@pytest.fixture
def run_output(tmp_path: Path) -> Iterator[Any]:
    """Start ``colobench run``, and give where it listens, its pids, and how to end it."""
    started = []

    def start(*arguments: str) -> tuple[int, dict[str, int], Any]:
        command = [sys.executable, "-m", "colobench", "run", "--guest", "kv"]
        command += ["--hostfwd", "tcp:127.0.0.1:0-:6379", "--json", *arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TQDM_DISABLE": "1"},
        )
        started.append(process)
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(":")[2])
        assert process.stderr.readline().startswith("joining: primary pid ")
        state, _, words = process.stderr.readline().partition(": ")
        assert state == "protected"
        pids = dict(re.findall(r"(\w+) pid (\d+)", words))
        return port, {role: int(pid) for role, pid in pids.items()}, process

    yield start
    for process in started:
        process.kill()
        process.wait()


@needs_redis
@pytest.mark.parametrize("output", ["buffer", "compare"])
def test_redis_benchmark_and_cli_are_served_through_a_kill(run_output: Any, output: str) -> None:
    port, pids, process = run_output("--output", output, "--delay", "50")
    redis = ["-p", str(port)]

    def ask(*words: str) -> str:
        command = ["redis-cli", *redis, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert ask("SET", "mykey", "hello") == "OK"
    tests = ["-t", "ping_inline,ping_mbulk,set,get,incr,mset", "-c", "50"]
    measured = subprocess.run(
        ["redis-benchmark", *redis, *tests, "-n", "400", "-P", "4", "--csv"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = measured.stdout.splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [
        '"PING_INLINE"', '"PING_MBULK"', '"SET"', '"GET"', '"INCR"', '"MSET (10 keys)"'
    ]  # fmt: skip
    counted = 40_000
    benchmark = subprocess.Popen(
        ["redis-benchmark", *redis, "-t", "incr", "-c", "50", "-n", str(counted), "-P", "16"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while int(ask("GET", "counter:__rand_int__") or 0) < 2000:
        pass
    os.kill(pids["primary"], signal.SIGKILL)
    printed, errors = benchmark.communicate(timeout=200)
    assert benchmark.returncode == 0, errors
    assert "Connection reset" not in printed + errors
    # 400 before; each request once, none lost, none twice.
    assert int(ask("GET", "counter:__rand_int__")) == 400 + counted
    assert ask("GET", "mykey") == "hello"
    words = ""
    while "protected again" not in words:
        words += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    summary = json.loads(printed)
    assert summary["verified"]
    assert Settings.from_json(summary["settings"]).checkpoint.output.value == output
    assert "has taken over from checkpoint" in words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output": "compare", "variant": "v12"}, "expected variant upstream"),
        ({"output": "later"}, "output: expected buffer or compare, found 'later'"),
        ({"compare": CompareSettings(max_queue_size=7)}, "expected output compare, found buffer"),
        ({"ram": "1M"}, "expected at least 4 MiB for the program kv"),
        ({"bug": "early-release"}, "expected an experiment"),
        ({"bug": "late-release", "experiment": True}, "bug: expected one of early-release"),
    ],
)
def test_wrong_setting_is_one_clear_error(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(LocalError, match=words):
        Session(**({"guest": "kv"} | settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quirks": ("fast",)}, "quirk: expected one of empty-at-once, .*, found 'fast'"),
        ({"compare_timeout": 0}, "compare_timeout: expected 1 to 4294967295 ms, found 0"),
    ],
)
def test_wrong_way_to_compare_is_one_clear_error(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(LocalError, match=words):
        CompareSettings(**settings)


@pytest.mark.parametrize("when", ["before", "in the middle"])
def test_survivor_serves_on_when_who_joins_it_dies(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as pair, client_of(pair) as client:
        assert client.ask(b"SET", b"a", b"1") == "OK"
        pair.kill("secondary")
        pair.takeover()
        survivor = pair.nodes["primary"]
        execute = survivor.execute

        def kill_when_the_guest_stands(joiner: NodeProcess) -> None:
            while execute("query-status")["status"] != "finish-migrate":
                pass
            joiner.process.kill()

        def harm_who_joins(command: str, **arguments: Any) -> Any:
            if command == "migrate":
                joiner = pair.nodes["secondary"]
                if when == "before":
                    joiner.kill()
                else:
                    # All of so small a guest waits in the socket, and nobody reads it.
                    joiner.process.send_signal(signal.SIGSTOP)
                    thread.start()
            return execute(command, **arguments)

        thread = threading.Thread(
            target=lambda: kill_when_the_guest_stands(pair.nodes["secondary"])
        )
        monkeypatch.setattr(survivor, "execute", harm_who_joins)
        with pytest.raises(RemoteError):
            pair.rejoin()
        monkeypatch.undo()
        if thread.ident is not None:
            thread.join()
        assert client.ask(b"INCR", b"a") == 2
        pair.rejoin()
        assert pair.checkpoint().verified
        assert client.ask(b"INCR", b"a") == 3


def test_who_has_just_joined_serves_on_when_the_survivor_dies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving() as pair, client_of(pair) as client:
        assert client.ask(b"SET", b"a", b"1") == "OK"
        pair.kill("secondary")
        pair.takeover()
        assert client.ask(b"INCR", b"a") == 2
        joining = pair._joining
        start_heartbeats = joining._start_heartbeats

        def kill_before(*roles: Any) -> None:
            # Both are in COLO, and nobody watches them yet.
            monkeypatch.undo()
            pair.nodes["primary"].kill()
            start_heartbeats(*roles)

        monkeypatch.setattr(joining, "_start_heartbeats", kill_before)
        with pytest.raises(RemoteError):
            pair.rejoin()
        killed = pair.found_dead()
        assert killed is not None
        assert killed.role == "primary"
        assert pair.takeover().role == "secondary"
        assert client.ask(b"INCR", b"a") == 3
        pair.rejoin()
        assert pair.checkpoint().verified


def test_survivor_serves_on_when_who_joins_it_dies_in_the_switch_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So much RAM is dirty in the end that the primary still sends when the joiner dies.
    busy = {"ram": "96M", "guest": "uniform", "writes_per_tick": 12_000, "hostfwd": ()}
    with serving(**busy) as pair:
        pair.kill("secondary")
        pair.takeover()
        survivor = pair.nodes["primary"]
        execute = survivor.execute

        def kill_in_the_switch_over() -> None:
            while execute("query-colo-status")["mode"] == "none":
                pass
            pair.nodes["secondary"].process.kill()

        thread = threading.Thread(target=kill_in_the_switch_over)

        def also_kill(command: str, **arguments: Any) -> Any:
            if command == "migrate":
                thread.start()
            return execute(command, **arguments)

        monkeypatch.setattr(survivor, "execute", also_kill)
        with pytest.raises(RemoteError):
            pair.rejoin()
        thread.join()
        monkeypatch.undo()
        assert survivor.execute("query-status")["running"]
        assert survivor.execute("query-colo-status")["mode"] == "none"
        pair.rejoin()
        assert pair.checkpoint().verified


def test_who_joined_and_takes_over_before_its_first_checkpoint_is_what_the_survivor_was() -> None:
    with serving(delay=None) as pair:
        pair.checkpoint()
        pair.kill("primary")
        pair.takeover()
        pair.rejoin()
        pair.kill("primary")
        takeover = pair.takeover()
        assert (takeover.checkpoint, takeover.equal) == (1, True)


def test_connections_that_clients_reset_are_not_the_survivors_for_ever() -> None:
    with serving(ram="4M", delay=None) as pair, ExitStack() as opened:
        switch = pair.others["switch"]
        # As many as the guest has room for …
        clients = [opened.enter_context(client_of(pair)) for _ in range(16)]
        executor = opened.enter_context(ThreadPoolExecutor(16))
        answers = [executor.submit(client.ask, b"PING") for client in clients]
        while not all(answer.done() for answer in answers):
            pair.checkpoint()
        assert [answer.result() for answer in answers] == ["PONG"] * 16
        # … which are gone again, and no checkpoint knows of that.
        for client in clients:
            client.reset()
        while switch.execute("x-query-switch")["connections"]:
            pass
        pair.kill("primary")
        pair.takeover()
        with client_of(pair) as late:
            assert late.ask(b"PING") == "PONG"


# -- A session that is watched over ----------------------------------------------------------------


class Watched:
    """`serve` in a thread of its own; a test takes what it says, in order."""

    def __init__(self, pair: Session, **settings: Any) -> None:
        self.said: SimpleQueue[str] = SimpleQueue()
        self._ended = threading.Event()
        self._result = ThreadPoolExecutor(1).submit(
            serve, pair, until=self._ended.is_set, say=self.said.put, **settings
        )

    def wait_for(self, words: str) -> str:
        """Wait until it says so; everything before is passed by."""
        while words not in (sentence := self.said.get(timeout=60)):
            pass
        return sentence

    def error(self) -> BaseException | None:
        """Wait for its end."""
        return self._result.exception(timeout=60)

    def end(self) -> None:
        self._ended.set()
        assert self.error() is None


def test_arbiter_that_ends_is_started_again_and_remembers() -> None:
    with serving() as pair, client_of(pair) as client:
        watched = Watched(pair)
        pair.others["arbiter"].process.kill()
        watched.wait_for("the arbiter had ended, and was started again")
        assert client.ask(b"SET", b"a", b"1") == "OK"
        pair.nodes["primary"].process.kill()
        watched.wait_for("the secondary has taken over")
        assert client.ask(b"INCR", b"a") == 2
        watched.wait_for("protected again")
        watched.end()


def test_node_that_was_stopped_too_long_is_replaced() -> None:
    with serving() as pair, client_of(pair) as client:
        watched = Watched(pair)
        assert client.ask(b"SET", b"a", b"1") == "OK"
        primary = pair.nodes["primary"]
        primary.process.send_signal(signal.SIGSTOP)
        said = watched.wait_for(f"the primary, pid {primary.pid}, ")
        assert "was silent for too long" in said
        assert "refused" in said
        assert "status" not in said
        watched.wait_for("protected again")
        assert client.ask(b"INCR", b"a") == 2
        watched.end()


@pytest.mark.parametrize(
    ("victims", "words"),
    [
        (["switch"], "expected the switch to live, found it ended with status -9"),
        (["primary", "secondary"], "found"),
    ],
)
def test_what_cannot_be_replaced_ends_it_with_one_sentence(victims: list[str], words: str) -> None:
    with serving() as pair:
        watched = Watched(pair)
        for victim in victims:
            (pair.nodes | pair.others)[victim].process.kill()
        error = watched.error()
        assert isinstance(error, NodeGone)
        assert words in str(error)


def test_survivor_that_nobody_joins_is_missed_too() -> None:
    with serving() as pair:
        watched = Watched(pair, rejoin=False)
        pair.nodes["primary"].process.kill()
        watched.wait_for("the secondary has taken over")
        pair.nodes["secondary"].process.kill()
        assert "nobody has the guest's state" in str(watched.error())


def test_stopped_node_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as pair:
        pair.nodes["secondary"].process.send_signal(signal.SIGSTOP)
        # It would not answer, so nobody asks it.
        monkeypatch.setattr(QMPConnection, "execute", None)


def test_frame_that_no_nic_would_take_is_passed_by(tmp_path: Path) -> None:
    with serving(hostfwd=()) as pair, socket.socket(socket.AF_UNIX) as switch:
        switch.bind(str(tmp_path / "switch"))
        switch.listen()
        primary = pair.nodes["primary"]
        primary.execute("x-netdev", uri=f"unix:{tmp_path / 'switch'}")
        link, _ = switch.accept()
        question = ARP(ARP_REQUEST, HOST_MAC, HOST_IP, bytes(6), GUEST_IP)
        with link:
            for frame in (bytes(2000), b"", bytes(13), build_arp(BROADCAST, question)):
                link.sendall(encode_frame(frame))
            decoder, answers = LinkDecoder(), []
            while not answers:
                heard = [parse_arp(frame) for frame in decoder.feed(link.recv(1 << 16))]
                answers = [each for each in heard if each and each.operation == ARP_REPLY]
        assert answers == [ARP(ARP_REPLY, GUEST_MAC, GUEST_IP, HOST_MAC, HOST_IP)]
        assert primary.execute("x-query-guest")["frames-refused"] == 3
