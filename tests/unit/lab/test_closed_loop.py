"""Clients log what they see: of a good server a linearizable history, of a lying one its lies."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.checker.store_model import execute
from colobench.lab.checker.verdict import check_linearizability
from colobench.lab.clients.closed_loop import MIX, Clients, ClientsStalled, Keys, requests
from colobench.lab.clients.history import Operation, operations_of
from colobench.lab.clients.resp import ErrorReply, ReplyParser, encode

FEW = Keys(registers=6, counters=3, logs=3)
WRITES = ("SET", "MSET", "INCR", "INCRBY", "DECR", "APPEND")


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """Run a real redis-server on the loopback network, empty and without a file."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    directory = tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]
    server = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert server.stdout is not None
    for line in server.stdout:
        if "Ready to accept connections" in line:
            break
    drain = threading.Thread(target=server.stdout.read)
    drain.start()
    yield "127.0.0.1", port
    server.terminate()
    server.wait(30)
    drain.join()
    server.stdout.close()


class Server:
    """A small store that keeps to the model, but for one lie.

    Parameters
    ----------
    lie
        ``lost``: every 40th write is answered and not executed. ``twice``: every 40th is executed
        twice. ``early``: every 40th is answered, and executed ten requests later. ``closes``: the
        40th closes its connection. ``answers twice``, ``array``, ``garbage``: the 40th has no
        proper answer. ``silent``: from the 40th on no write is answered, though executed.
    """

    def __init__(self, lie=""):
        self.lie = lie
        self.values = {}
        self.writes = 0
        self.late = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.connections = []
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                self.threads.append(threading.Thread(target=self.serve, args=[connection]))
                self.threads[-1].start()

    def serve(self, connection):
        parser = ReplyParser()
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                for request in parser.feed(data):
                    answer = self.answer(request)
                    if answer is None:
                        return
                    connection.sendall(answer)

    def answer(self, request):
        with self.lock:
            self.late = [(left - 1, late) for left, late in self.late]
            for left, late in self.late:
                if left == 0:
                    self.execute(late)
            self.late = [each for each in self.late if each[0] > 0]
            is_write = request[0].decode() in WRITES
            self.writes += is_write
            lies = is_write and self.lie and self.writes % 40 == 0
            answer = self.execute(request, keep=not (lies and self.lie in ("lost", "early")))
            if self.lie == "silent" and is_write and self.writes >= 40:
                return b""
            if not lies:
                return answer
            if self.lie == "twice":
                self.execute(request)
            if self.lie == "early":
                self.late.append((10, request))
            wrong = {"closes": None, "answers twice": answer * 2, "array": b"*1\r\n:1\r\n"}
            return {**wrong, "garbage": b"?\r\n"}.get(self.lie, answer)

    def execute(self, request, keep=True):
        answers = []
        for each in operations_of(0, request, 0, None, None):
            value, answer = execute(each, self.values.get(each.key))
            answers.append(answer)
            if keep:
                self.values[each.key] = value
        if request[0] == b"MGET":
            found = [written(self.values.get(key)) for key in request[1:]]
            return b"*%d\r\n%b" % (len(found), b"".join(found))
        return written(answers[0])

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for each in self.connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for each in self.threads:
            each.join(30)


def written(answer):
    match answer:
        case None:
            return b"$-1\r\n"
        case str():
            return b"+" + answer.encode() + b"\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(answer), answer)
        case ErrorReply(message):
            return b"-" + message.encode() + b"\r\n"
    return b":%d\r\n" % answer


@pytest.fixture
def server(request):
    one = Server(request.param)
    yield one
    one.close()


@pytest.mark.parametrize("count", [1, 20, 50])
def test_what_redis_answers_is_linearizable(redis, count, capsys):
    keys = Keys(prefix=b"%d:" % count)
    mix = {**MIX, "register INCR": 1}
    clients = Clients(redis, count, seed=count, keys=keys, mix=mix, value_bytes=100)
    started = time.monotonic()
    clients.start()
    clients.wait_until_answered(20_000, timeout=120)
    rate = 20_000 / (time.monotonic() - started)
    clients.stop()
    history = clients.final_reads()
    verdict = check_linearizability(history)
    assert verdict.linearizable, verdict
    assert verdict.operations >= 20_000
    assert not history.lost
    assert not history.unanswered
    read_last = {each.key for each in history.operations if each.client == count}
    assert read_last == set(history.keys)
    p50, p99 = history.latency_ms(50, 99)
    with capsys.disabled():
        print(f"\n{count} clients: {rate:,.0f}/s, p50 {p50:.3f} ms, p99 {p99:.3f} ms; {verdict}")


modelled = st.one_of(
    st.sampled_from([("GET",), ("DEL",), ("EXISTS",), ("STRLEN",), ("INCR",), ("DECR",)]),
    st.tuples(
        st.just("INCRBY"),
        st.integers(-(2**64), 2**64).map(str)
        | st.sampled_from(["", "+1", "01", " 1", "1_0", "-0"]),
    ),
    st.tuples(st.just("APPEND"), st.sampled_from(["", "7", "x"])),
    st.tuples(
        st.just("SET"), st.sampled_from(["", "9", "-3", "08", "x", str(2**63 - 1), str(-(2**63))])
    ),
    st.tuples(st.just("SET"), st.sampled_from(["1", "y"]), st.sampled_from(["NX", "xx"])),
)
number = itertools.count()


@settings(max_examples=200)
@given(st.lists(modelled, max_size=12))
def test_the_model_answers_as_redis_does(redis, commands):
    key, value = b"model:%d" % next(number), None
    with socket.create_connection(redis) as connection:
        parser, found = ReplyParser(), []
        for name, *arguments in commands:
            connection.sendall(encode(name.encode(), key, *map(str.encode, arguments)))
        while len(found) < len(commands):
            found += parser.feed(connection.recv(65536))
    for (name, *arguments), theirs in zip(commands, found, strict=True):
        asked = Operation(0, key, name, tuple(map(str.encode, arguments)), 0, None, None)
        value, ours = execute(asked, value)
        assert (type(ours), ours) == (type(theirs), theirs)


def run(server, answers=2000, count=8):
    with Clients(server.address, count, seed=3, keys=FEW) as clients:
        clients.wait_until_answered(answers)
    return clients


@pytest.mark.parametrize("server", [""], indirect=True)
def test_an_honest_server_is_believed(server):
    clients = run(server)
    verdict = check_linearizability(clients.final_reads())
    assert verdict.linearizable, verdict


@pytest.mark.parametrize("server", ["lost", "twice", "early"], indirect=True)
def test_a_lying_server_is_caught(server):
    verdict = check_linearizability(run(server).final_reads())
    assert not verdict.linearizable
    assert verdict.counterexample is not None
    assert len(verdict.counterexample.operations) <= 8
    assert verdict.counterexample.kind != "no order"


@pytest.mark.parametrize(
    ("server", "use", "kind"),
    [
        ("lost", "counter INCR", "lost write"),
        ("lost", "log APPEND", "lost write"),
        ("twice", "counter INCR", "executed twice"),
        ("twice", "log APPEND", "executed twice"),
    ],
    indirect=["server"],
)
def test_the_lie_is_named(server, use, kind):
    with Clients(server.address, 4, mix={use: 1}, keys=Keys(counters=1, logs=1)) as clients:
        clients.wait_until_answered(100)
    verdict = check_linearizability(clients.final_reads())
    assert verdict.counterexample is not None
    assert verdict.counterexample.kind == kind


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("closes", "closed by the server"),
        ("answers twice", "expected no answer"),
        ("array", "expected an answer to"),
        ("garbage", "expected one of"),
    ],
    indirect=["server"],
)
def test_a_connection_that_breaks_is_in_the_history(server, reason):
    clients = Clients(server.address, 4, seed=1, keys=FEW, mix={"register SET": 1})
    clients.start()
    clients.wait_until_answered(39)
    with pytest.raises(ClientsStalled, match=r"found \d+ answers, 4 lost connections"):
        clients.wait_until_answered(10**9)
    history = clients.stop()
    assert {each.client for each in history.lost} == set(range(4))
    assert any(reason in each.reason for each in history.lost)
    assert check_linearizability(clients.final_reads()).linearizable


@pytest.mark.parametrize("server", ["silent"], indirect=True)
def test_what_is_never_answered_may_have_been_done(server):
    mix = {name: weight for name, weight in MIX.items() if name.split()[1] in WRITES}
    clients = Clients(server.address, 6, seed=1, keys=FEW, mix=mix, timeout=0.2)
    clients.start()
    clients.wait_until_answered(39)
    with pytest.raises(ClientsStalled, match=r"within 0\.1 s, found 39 answers"):
        clients.wait_until_answered(40, timeout=0.1)
    history = clients.stop()
    asked = {(each.client, each.call) for each in history.unanswered}
    assert 1 <= len(asked) <= 6
    verdict = check_linearizability(clients.final_reads())
    assert verdict.linearizable, verdict


@pytest.mark.parametrize("server", [""], indirect=True)
def test_every_client_is_waited_for(server):
    with Clients(server.address, 5) as clients:
        clients.wait_until_answered(20)
        since = time.monotonic_ns()
        clients.wait_until_all_answered(since)
        answered = {each.client for each in clients.answers if each.call > since}
    assert answered == set(range(5))


@pytest.mark.parametrize("server", [""], indirect=True)
def test_a_request_that_does_not_fit_into_the_socket_is_sent_in_pieces(server):
    keys = Keys(registers=2)
    mix = {"register SET": 1, "register GET": 1}
    with Clients(server.address, 2, mix=mix, keys=keys, value_bytes=20_000_000) as clients:
        clients.wait_until_answered(8, timeout=120)
    assert check_linearizability(clients.history()).linearizable


@pytest.mark.parametrize("server", [""], indirect=True)
def test_a_history_is_there_when_the_clients_have_stopped(server):
    clients = Clients(server.address, 2)
    with pytest.raises(LocalError, match="expected them started"):
        clients.stop()
    with clients:
        with pytest.raises(LocalError, match="expected to be started once"):
            clients.start()
        with pytest.raises(LocalError, match="expected them stopped"):
            clients.history()
        with pytest.raises(LocalError, match="expected them stopped"):
            clients.final_reads()
    assert clients.stop() == clients.history()


def test_nobody_there_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with pytest.raises(ClientsStalled, match="expected to connect to 127"):
        Clients(address, 2).start()


@given(st.integers(0, 5), st.integers(0, 5), st.sampled_from([0, 40]))
def test_requests_depend_on_the_seed_alone_and_can_be_checked(seed, client, value_bytes):
    def some():
        of_client = requests(client, seed=seed, value_bytes=value_bytes)
        return list(itertools.islice(of_client, 300))

    assert some() == some()
    for request in some():
        operations_of(client, request, 0, None, None)


def test_no_value_is_written_twice():
    written = Counter(
        value
        for client in range(4)
        for name, *arguments in itertools.islice(requests(client), 500)
        if name in (b"SET", b"MSET", b"APPEND")
        for value in (arguments[1::2] if name == b"MSET" else arguments[1:2])
    )
    assert set(written.values()) == {1}
    assert len(written) > 500


def test_all_uses_of_the_mix_are_drawn():
    names = {request[0] for request in itertools.islice(requests(0), 2000)}
    assert names == {b"GET", b"SET", b"DEL", b"EXISTS", b"STRLEN", b"MSET", b"MGET"} | {
        b"INCR",
        b"INCRBY",
        b"DECR",
        b"APPEND",
    }


@pytest.mark.parametrize("mix", [{}, {"register FLUSHALL": 1}, {"log APPEND": 0}])
def test_an_unknown_mix_is_refused(mix):
    with pytest.raises(LocalError, match="mix: expected some of"):
        requests(0, mix=mix)
