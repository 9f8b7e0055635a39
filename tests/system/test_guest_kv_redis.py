"""The key-value store beside Redis itself: the same answers, and the clients that Redis brings."""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import naive_kv
from colobench.guest import kv
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.command_table import COMMANDS
from naive_kv import encode
from store_guest import MALFORMED, PIECES, REQUESTS, Guest

needs_server = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)
needs_cli = pytest.mark.skipif(
    shutil.which("redis-cli") is None, reason="redis-cli is not installed"
)
needs_benchmark = pytest.mark.skipif(
    shutil.which("redis-benchmark") is None, reason="redis-benchmark is not installed"
)


@pytest.fixture(scope="module")
def redis_path() -> Iterator[str]:
    """Start a Redis, and give the path of its UNIX socket."""
    with tempfile.TemporaryDirectory(prefix="cb-redis-") as directory:
        path = f"{directory}/socket"
        command = ["redis-server", "--port", "0", "--unixsocket", path, "--dir", directory]
        command += ["--save", "", "--appendonly", "no", "--databases", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "ready to accept connections" in line.lower():
                    break
            drain = threading.Thread(target=process.stdout.read)
            drain.start()
            try:
                yield path
            finally:
                process.terminate()
                process.wait(30)
                drain.join()


def ask(path: str, data: bytes) -> bytes:
    """Send bytes and then the end of them; give all that Redis answers."""
    replies = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while reply := connection.recv(1 << 20):
                replies.append(reply)
    return b"".join(replies)


SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@needs_server
@SHARED
@given(st.lists(REQUESTS, max_size=40), PIECES)
def test_replies_are_those_of_redis_to_the_byte(
    redis_path: str, requests: list[list[bytes]], pieces: list[int]
) -> None:
    data = b"".join(encode(*arguments) for arguments in [[b"FLUSHALL"], *requests])
    assert Guest().send(data, pieces) == ask(redis_path, data)


@needs_server
@SHARED
@given(st.lists(REQUESTS, max_size=30))
def test_lookups_are_counted_as_redis_counts_them(
    redis_path: str, requests: list[list[bytes]]
) -> None:
    guest = Guest()
    data = encode(b"FLUSHALL") + b"".join(encode(*arguments) for arguments in requests)
    end = encode(b"RESET") + encode(b"INFO", b"keyspace", b"stats")
    guest.send(data)
    answer = ask(redis_path, encode(b"CONFIG", b"RESETSTAT") + data + end)
    figures = dict(
        line.split(":")
        for line in answer.decode(errors="replace").split("\r\n")[-60:]
        if line.startswith(("keyspace_", "db0"))
    )
    ours = guest.as_client(1).information()
    assert ours["keyspace_hits"] == figures["keyspace_hits"]
    assert ours["keyspace_misses"] == figures["keyspace_misses"]
    # Redis estimates the average, now and then.
    keys, expires, _ = ours.get("db0", ",,").split(",")
    assert [keys, expires] == figures.get("db0", ",,").split(",")[:2]


@needs_server
@pytest.mark.parametrize("data", MALFORMED, ids=lambda data: repr(data[:20]))
def test_malformed_requests_get_the_words_of_redis(redis_path: str, data: bytes) -> None:
    assert Guest().send(data) == ask(redis_path, data)


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 10**6), st.sampled_from(["delete", "insert", "replace"]),
        st.sampled_from([bytes([byte]) for byte in b"*$\r\n01- aG\xff"]),
    ),
    max_size=4,
)  # fmt: skip


def mutate(data: bytes, mutations: list[tuple[int, str, bytes]]) -> bytes:
    for place, what, byte in mutations:
        at = place % (len(data) + 1)
        data = data[:at] + (b"" if what == "delete" else byte) + data[at + (what != "insert") :]
    return data


@needs_server
@SHARED
@given(st.lists(REQUESTS, min_size=1, max_size=4), MUTATIONS, PIECES)
def test_damaged_requests_are_understood_as_redis_does(
    redis_path: str,
    requests: list[list[bytes]],
    mutations: list[tuple[int, str, bytes]],
    pieces: list[int],
) -> None:
    whole = b"".join(encode(*arguments) for arguments in requests)
    # Redis looks for the end of a line no further than a byte 0, and waits.
    data = encode(b"FLUSHALL") + mutate(whole.replace(b"\0", b"0"), mutations)
    ours = Guest().send(data, pieces)
    theirs = ask(redis_path, data)
    assume_supported(ours, theirs)
    assert ours == theirs


def assume_supported(ours: bytes, theirs: bytes) -> None:
    """Reject what is known to be different: commands that only Redis has, long lengths."""

    last = ours[ours.rfind(b"-ERR Protocol error") :]
    assume(not (last and theirs == ours[: -len(last)] and b"length" in last))
    unknown = b"unknown command"
    # Damage may make several of them, and Redis knows some that the guest does not, such as SYNC.
    assume(ours.count(unknown) <= theirs.count(unknown))


@needs_server
def test_commands_are_described_as_redis_describes_them(redis_path: str) -> None:
    for command in COMMANDS:
        request = encode(b"COMMAND", b"INFO", command.name.encode())
        ours, theirs = (
            Guest().call(b"COMMAND", b"INFO", command.name.encode()),
            ask(redis_path, request),
        )
        # Up to the categories of access control, which there are none of here.
        assert ours.endswith(b"*0\r\n" * 4)
        assert theirs.startswith(ours[: -len(b"*0\r\n" * 4)])


ABOUT_THE_SERVER = (
    "CONFIG, CONFIG GET, CONFIG NOPE, CLIENT, CLIENT NOPE x, CLIENT SETNAME, "
    "CLIENT GETNAME x, CLIENT NO-EVICT maybe, CLIENT NO-EVICT on, CLIENT GETNAME, "
    "CLIENT SETNAME a, COMMAND NOPE, COMMAND COUNT x, HELLO 4, HELLO x, HELLO 2 x, "
    "HELLO 2 AUTH a, HELLO 2 AUTH a b, HELLO 3 AUTH default, AUTH, AUTH x, AUTH default x, "
    "AUTH a b, AUTH a b c, CLIENT ID x, CLIENT INFO x, CLIENT LIST nope, CLIENT LIST TYPE nope, "
    "CLIENT LIST TYPE pubsub, CLIENT LIST ID 0, CLIENT LIST ID 99999, CONFIG GET SAVE save, "
    "OBJECT, OBJECT NOPE, OBJECT ENCODING, OBJECT ENCODING nope, SCAN x, SCAN 0 COUNT 0, "
    "SCAN 0 COUNT x, SCAN 0 MATCH, SCAN 0 NOPE x, SCAN -1, SCAN 99999999999999999999, "
    "SCAN, KEYS, KEYS a b, MULTI x, EXEC x, WATCH, INFO cluster, "
    "HELLO 2 SETNAME, TIME x, INFO nope, CONFIG GET databases, CONFIG GET save, "
    "CONFIG GET appendonly, CONFIG GET maxmemory-policy, CONFIG GET nope, COMMAND DOCS nope, "
    "COMMAND INFO nope, QUIT, QUIT now, RESET, RESET x, SELECT 0, SELECT 1, SELECT, "
    "client setname \x7f, ECHO, PING a b, FUNCTION, FUNCTION NOPE, FUNCTION FLUSH x, "
    "FUNCTION FLUSH, function flush ASYNC, FUNCTION FLUSH sync, FUNCTION FLUSH sync sync"
)


@needs_server
@pytest.mark.parametrize("words", ABOUT_THE_SERVER.split(", "))
def test_requests_about_the_server_get_the_replies_of_redis(redis_path: str, words: str) -> None:
    request = encode(*words.encode().split())
    # Tests before this one have left keys.
    assert ask(redis_path, encode(b"FLUSHALL")) == b"+OK\r\n"
    assert Guest().send(request) == ask(redis_path, request)


@needs_server
@SHARED
@given(st.lists(REQUESTS, max_size=40))
def test_replies_in_resp3_are_those_of_redis_to_the_byte(
    redis_path: str, requests: list[list[bytes]]
) -> None:
    data = b"".join(encode(*arguments) for arguments in [[b"FLUSHALL"], *requests])
    ours, theirs = (reply(encode(b"HELLO", b"3") + data) for reply in (
        Guest().send, lambda sent: ask(redis_path, sent)
    ))  # fmt: skip
    # Behind the greeting, which has a name and a number.
    end = b"$7\r\nmodules\r\n*0\r\n"
    assert ours.partition(end)[2] == theirs.partition(end)[2]


IN_RESP3 = (
    "GET nope, MGET nope nope, CONFIG GET save, CONFIG GET nope, COMMAND INFO nope get, "
    "COMMAND DOCS nope, CLIENT GETNAME, INFO cluster, SCAN 0, KEYS *, EXEC, "
    "CLIENT LIST TYPE pubsub, SET a b XX, OBJECT ENCODING nope, GETDEL nope, RESET"
)


@needs_server
@pytest.mark.parametrize("words", IN_RESP3.split(", "))
def test_kinds_of_replies_in_resp3_are_those_of_redis(redis_path: str, words: str) -> None:
    data = encode(b"FLUSHALL") + encode(b"HELLO", b"3") + encode(*words.encode().split())
    data += encode(b"GET", b"nope")
    end = b"$7\r\nmodules\r\n*0\r\n"
    ours, theirs = Guest().send(data), ask(redis_path, data)
    if words.startswith("COMMAND INFO"):
        # Up to the categories of access control, which there are none of here.
        ours, theirs = (each.partition(b":1\r\n:1\r\n:1\r\n")[0] for each in (ours, theirs))
    assert ours.partition(end)[2] == theirs.partition(end)[2]


GLOBS = st.lists(
    st.sampled_from([b"*", b"?", b"[", b"]", b"^", b"-", b"\\", b"a", b"b", b"B", b"z"]), max_size=8
).map(b"".join)


@needs_server
@SHARED
@given(st.lists(st.text("abzB-^]\\", max_size=4), max_size=8), st.lists(GLOBS, max_size=8))
def test_patterns_match_as_in_redis(
    redis_path: str, names: list[str], patterns: list[bytes]
) -> None:
    pairs = [part for name in names for part in (name.encode(), b"x")]
    data = encode(b"FLUSHALL") + (encode(b"MSET", *pairs) if pairs else b"")
    for pattern in patterns:
        request = data + encode(b"KEYS", pattern)
        ours, theirs = Guest().send(request), ask(redis_path, request)
        assert sorted(ours.split(b"\r\n")) == sorted(theirs.split(b"\r\n"))


QUOTED = st.lists(
    st.sampled_from([b'"', b"'", b"\\", b"x", b"4", b"1", b" ", b"n", b"a", b"\t", b"\r", b"\x0b"]),
    max_size=14,
).map(b"".join)


@needs_server
@SHARED
@given(st.lists(QUOTED, min_size=1, max_size=4))
def test_quotes_of_inline_requests_are_those_of_redis(redis_path: str, lines: list[bytes]) -> None:
    data = b"".join(b"ECHO %s\r\n" % line for line in lines)
    assert Guest().send(data) == ask(redis_path, data)


class Server:
    """A store behind a UNIX socket: what the guest's TCP does, with the host's sockets instead."""

    SIZE, CLIENTS, KV = 32 << 20, 8 << 20, 16 << 20
    CONNECTIONS, AREA_SIZE = 64, KV - CLIENTS

    def __init__(self, path: str) -> None:
        self.memory = np.zeros(self.SIZE, dtype=np.uint8)
        self.bitmap = np.zeros(self.SIZE // 4096 // 64, dtype=np.uint64)
        self.result = np.zeros(kv.RESULT_SLOTS, dtype=np.uint64)
        assert kv.initialize(self.memory, self.bitmap, self.KV, self.SIZE - self.KV)
        assert kv.initialize_clients(self.memory, self.bitmap, self.CLIENTS, self.AREA_SIZE)
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(100)
        self.stop, other = socket.socketpair()
        self.other = other
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(other, selectors.EVENT_READ)
        self.free = list(range(self.CONNECTIONS))
        self.waiting: dict[socket.socket, tuple[int, int]] = {}
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.other:
                    return
                if key.fileobj is self.listener:
                    connection, _ = self.listener.accept()
                    self.waiting[connection] = self.free.pop(), 0
                    self.selector.register(connection, selectors.EVENT_READ)
                else:
                    self.receive(key.fileobj)

    def receive(self, connection: socket.socket) -> None:
        slot, length = self.waiting[connection]
        begin = slot * 2 * BUFFER_BYTES
        view = memoryview(self.memory)[begin + length : begin + BUFFER_BYTES]
        received = 0
        with contextlib.suppress(ConnectionResetError):
            received = connection.recv_into(view)
        if not received or not self.execute(connection, begin, length + received):
            self.selector.unregister(connection)
            connection.close()
            slot = self.waiting.pop(connection)[0]
            kv.forget_client(
                self.memory, self.bitmap, self.KV, self.SIZE - self.KV, self.CLIENTS,
                self.AREA_SIZE, slot,
            )  # fmt: skip
            self.free.append(slot)

    def execute(self, connection: socket.socket, begin: int, length: int) -> bool:
        out = begin + BUFFER_BYTES
        while True:
            kv.execute(
                self.memory, self.bitmap, self.KV, self.SIZE - self.KV, self.CLIENTS,
                self.AREA_SIZE, begin // (2 * BUFFER_BYTES), begin, begin + length, out,
                out + BUFFER_BYTES, np.uint64(time.time_ns() // 1000), len(self.waiting), 0,
                self.result,
            )  # fmt: skip
            consumed, replied, closed, blocked = map(int, self.result[:4])
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(memoryview(self.memory)[out : out + replied])
            length -= consumed
            rest = self.memory[begin + consumed : begin + consumed + length].copy()
            self.memory[begin : begin + length] = rest
            if closed or not blocked:
                self.waiting[connection] = self.waiting[connection][0], length
                return not closed

    def close(self) -> None:
        self.stop.close()
        self.thread.join(60)
        for connection in [*self.waiting, self.listener, self.other]:
            connection.close()
        self.selector.close()


@pytest.fixture
def served() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="cb-kv-") as directory:
        path = str(Path(directory) / "socket")
        server = Server(path)
        try:
            yield path
        finally:
            server.close()


@needs_benchmark
@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark_finishes_its_tests(served: str, pipeline: int) -> None:
    done = subprocess.run(
        ["redis-benchmark", "-s", served, "-t", "ping_inline,ping_mbulk,set,get,incr,mset",
         "-n", "3000", "-c", "50", "-P", str(pipeline), "-r", "500", "-d", "64", "--csv"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    names = [line.split('"')[1] for line in lines[1:]]
    assert names == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"]
    assert done.stderr == ""
    assert "rror" not in done.stdout


@needs_cli
def test_redis_cli_sends_what_people_type(served: str) -> None:
    def cli(*words: str, given: str = "") -> str:
        return subprocess.run(
            ["redis-cli", "-s", served, *words],
            input=given, capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip

    assert cli("SET", "a key", "a value") == "OK\n"
    assert cli("GET", "a key") == "a value\n"
    assert cli("INCR", "a key") == "ERR value is not an integer or out of range\n\n"
    assert cli("-3", "GET", "a key") == "a value\n"
    assert cli(given="INCR n\nINCR n\nMGET n nope\nINFO keyspace\n") == (
        "1\n2\n2\n\n# Keyspace\ndb0:keys=2,expires=0,avg_ttl=0\n"
    )
    piped = "".join(encode(b"SET", b"%d" % i, b"x").decode() for i in range(1000))
    assert "errors: 0, replies: 1000" in cli("--pipe", given=piped)
    assert cli("DBSIZE") == "1002\n"


def test_redis_py_connects_as_it_comes(served: str) -> None:
    redis = pytest.importorskip("redis", reason="the Python package redis is not installed")
    with redis.Redis(unix_socket_path=served, client_name="test") as client:
        assert client.client_getname() in ("test", b"test")
        assert client.ping()
        assert client.set("a", b"\0\r\n")
        assert client.get("a") == b"\0\r\n"
        assert client.set("a", "b", nx=True) is None
        assert client.set("a", "b", get=True) == b"\0\r\n"
        assert client.mset({"x": 1, "y": 2})
        assert client.mget("x", "y", "z") == [b"1", b"2", None]
        assert client.incr("x", 41) == 42
        assert client.append("x", "0") == 3
        assert client.delete("x", "nope") == 1
        assert client.info()["db0"]["keys"] == 2
        assert client.config_get("max*")["maxmemory-policy"] == "noeviction"
        assert client.command_count() == len(COMMANDS)
        assert client.command()["mset"]["step_count"] == 2
        assert client.type("a") == b"string"
        assert len(client.time()) == 2
        with client.pipeline() as pipeline:
            for number in range(5000):
                pipeline.set(number, number)
            assert all(pipeline.execute())
        assert client.dbsize() == 5002
        assert len(set(client.scan_iter(count=100))) == len(client.keys("*")) == 5002
        assert client.set("e", "b", ex=10)
        assert 0 < client.pttl("e") <= 10_000
        with client.pipeline() as pipeline:
            pipeline.watch("a")
            client.set("a", "changed")
            pipeline.multi()
            pipeline.set("a", "b")
            with pytest.raises(redis.WatchError):
                pipeline.execute()
        with pytest.raises(redis.ResponseError, match="unknown command 'LPUSH'"):
            client.lpush("a", "b")
        assert client.flushall()
        assert client.dbsize() == 0
    with redis.Redis(unix_socket_path=served, protocol=2, decode_responses=True) as client:
        assert client.ping()
        assert client.client_info()["resp"] == "2"
        big = "x" * 10**6
        assert client.set("big", big)
        assert client.get("big") == big


@needs_server
def test_the_twin_is_redis(redis_path: str) -> None:
    # What the twin says of the commands it has, Redis says, too.
    for name, arity in naive_kv.ARITIES.items():
        answer = ask(redis_path, encode(b"COMMAND", b"INFO", name))
        assert b"\r\n:%d\r\n" % arity in answer
