"""Closed-loop clients of the guest on real connections, which log each call and answer.

They are plain sockets on purpose: a client library reconnects and retries in silence, and these
clients have to see that their connections live on and that nothing is executed twice.
"""

from __future__ import annotations

import bisect
import itertools
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import NamedTuple

from colobench.errors import ColobenchError, LocalError, RemoteError
from colobench.lab.clients.history import ConnectionLost, History, operations_of
from colobench.lab.clients.resp import ErrorReply, Reply, ReplyParser, RESPError, encode

Request = tuple[bytes, ...]

#: Weights of the uses of each kind of key; their sum does not matter.
MIX: Mapping[str, float] = {
    "register GET": 20,
    "register SET": 20,
    "register SET NX": 2,
    "register SET XX": 2,
    "register DEL": 2,
    "register EXISTS": 2,
    "register STRLEN": 1,
    "register MSET": 3,
    "register MGET": 3,
    "counter INCR": 15,
    "counter INCRBY": 2,
    "counter DECR": 2,
    "counter GET": 5,
    "log APPEND": 15,
    "log GET": 3,
    "log STRLEN": 3,
}
#: Requests of the final reads that are in flight at once.
FINAL_READS = 64
RECEIVE_BYTES = 65536


class ClientsStalled(RemoteError):
    """Answers that did not come in time."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that clients share.

    Attributes
    ----------
    registers
        Number of keys whose values are written once each.
    counters
        Number of keys that are counted, mostly upwards. An answer of INCR tells its place among
        all of them.
    logs
        Number of keys that are appended to at a time. A log tells the order of all appended parts
        (the idea of Elle's list-append: Kingsbury and Alvaro, VLDB 2020, arXiv:2003.10554).
    log_requests
        Number of requests after which a client goes on to new logs, so that they stay short.
    prefix
        Prefix of all keys. None of them may be in the store before.
    """

    registers: int = 24
    counters: int = 8
    logs: int = 8
    log_requests: int = 100
    prefix: bytes = b""

    def draw(self, kind: str, number: int, generator: random.Random) -> bytes:
        """Choose a key of a kind for request `number` of a client."""
        if kind == "register":
            return b"%bregister:%d" % (self.prefix, int(generator.random() * self.registers))
        if kind == "counter":
            return b"%bcounter:%d" % (self.prefix, int(generator.random() * self.counters))
        log = int(generator.random() * self.logs)
        return b"%blog:%d.%d" % (self.prefix, number // self.log_requests, log)


def requests(
    client: int,
    *,
    seed: int = 0,
    mix: Mapping[str, float] = MIX,
    keys: Keys = Keys(),
    value_bytes: int = 0,
) -> Iterator[Request]:
    """Give a client's requests without end, the same ones for the same arguments.

    Every value, and every part that is appended, is written once: ``<client.number>``.

    Parameters
    ----------
    client
        Number of the client.
    seed
        Seed of the run.
    mix
        Weight of each use, by its name in `MIX`, or ``register INCR``, which is answered with an
        error if the register has a value.
    keys
        Keys that are shared.
    value_bytes
        Least length of a register's value, which is repeated to fill it.

    Raises
    ------
    LocalError
        If a use is unknown, or no use has a weight.
    """
    uses = [(name, weight) for name, weight in mix.items() if weight > 0]
    unknown = {name for name, _ in uses} - {*MIX, "register INCR"}
    if unknown or not uses:
        raise LocalError(
            f"mix: expected some of {', '.join(MIX)}, found {', '.join(unknown) or 'none'}"
        )
    sums = list(itertools.accumulate(weight for _, weight in uses))
    split = [name.split(" ", 1) for name, _ in uses]
    generator = random.Random(f"{seed}/{client}")

    def endless() -> Iterator[Request]:
        for number in itertools.count():
            kind, use = split[bisect.bisect(sums, generator.random() * sums[-1], hi=len(sums) - 1)]
            key = keys.draw(kind, number, generator)
            token = b"<%d.%d>" % (client, number)
            if value_bytes > len(token) and kind == "register":
                token = (token * (value_bytes // len(token) + 1))[: value_bytes - 1] + b">"
            yield _request(use, key, token, partial(keys.draw, kind, number, generator), generator)

    return endless()


def _request(
    use: str, key: bytes, token: bytes, another: Callable[[], bytes], generator: random.Random
) -> Request:
    match use:
        case "SET" | "APPEND":
            return use.encode(), key, token
        case "SET NX" | "SET XX":
            return b"SET", key, token, use[-2:].encode()
        case "INCRBY":
            return b"INCRBY", key, b"%d" % (2 + int(generator.random() * 8))
        case "MSET":
            return b"MSET", key, token, another(), token + b"'"
        case "MGET":
            return b"MGET", key, another()
    return use.encode(), key


class Answered(NamedTuple):
    """A request and its answer.

    Attributes
    ----------
    client
        Number of the client.
    request
        The command and its arguments.
    call, returned
        CLOCK_MONOTONIC in ns, before the request was sent and after the answer had come.
    reply
        The answer.
    """

    client: int
    request: Request
    call: int
    returned: int
    reply: Reply


class _Connection:
    """A client's connection, and its request in flight."""

    def __init__(self, number: int, connection: socket.socket, requests: Iterator[Request]) -> None:
        self.number = number
        self.socket = connection
        self.requests = requests
        self.parser = ReplyParser()
        self.request: Request | None = None
        self.call = 0
        self.unsent = b""
        self.waits_to_send = False
        #: Time of the last request that has an answer.
        self.answered_call = 0
        self.lost = False


class Clients:
    """Clients that send a request, wait for the answer, and go on, all in one thread.

    Parameters
    ----------
    address
        Host and port.
    count
        Number of clients.
    seed, mix, keys, value_bytes
        See `requests`.
    timeout
        Seconds in which a connection has to be made, and in which `stop` waits for answers.
    """

    def __init__(
        self,
        address: tuple[str, int],
        count: int = 20,
        *,
        seed: int = 0,
        mix: Mapping[str, float] = MIX,
        keys: Keys = Keys(),
        value_bytes: int = 0,
        timeout: float = 10.0,
    ) -> None:
        self._address, self._timeout = address, timeout
        self._requests = [
            requests(each, seed=seed, mix=mix, keys=keys, value_bytes=value_bytes)
            for each in range(count)
        ]
        self._connections: list[_Connection] = []
        self._selector = selectors.DefaultSelector()
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._stop_at: float | None = None
        self._readers = 0
        self._answers: list[Answered] = []
        self._lost: list[ConnectionLost] = []
        self._abandoned: list[tuple[int, Request, int]] = []
        self._waits: list[tuple[Callable[[], bool], threading.Event]] = []
        self._waits_lock = threading.Lock()
        self._failure: BaseException | None = None

    def __enter__(self) -> Clients:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def answers(self) -> list[Answered]:
        """All answers so far, in the order in which they came; more are appended meanwhile."""
        return self._answers

    @property
    def lost(self) -> list[ConnectionLost]:
        """The connections that have broken so far."""
        return list(self._lost)

    def start(self) -> None:
        """Connect all clients, and start them.

        Raises
        ------
        LocalError
            If they were started before.
        ClientsStalled
            If one cannot connect.
        """
        if self._thread is not None:
            raise LocalError("clients: expected to be started once, found them started")
        try:
            for number, of_client in enumerate(self._requests):
                connection = self._connect(self._address)
                self._connections.append(_Connection(number, connection, of_client))
        except ColobenchError:
            self._close()
            raise
        self._wake = os.eventfd(0)
        self._selector.register(self._wake, selectors.EVENT_READ)
        for each in self._connections:
            each.socket.setblocking(False)
            self._selector.register(each.socket, selectors.EVENT_READ, each)
        self._thread = threading.Thread(target=self._run, name="clients", daemon=True)
        self._thread.start()

    def stop(self) -> History:
        """Stop all clients, wait for requests in flight, and close the connections.

        Requests without an answer within the timeout stay unanswered. Stopping again changes
        nothing.

        Raises
        ------
        LocalError
            If they were never started.
        """
        if self._thread is None:
            raise LocalError("clients: expected them started, found them not")
        if self._thread.is_alive():
            self._stop_at = time.monotonic() + self._timeout
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        self._close()
        if self._failure is not None:
            raise self._failure
        return self.history()

    def history(self) -> History:
        """Give all requests and answers of clients that are stopped.

        Raises
        ------
        LocalError
            If they are not stopped: some may still wait for answers that others have seen.
        """
        self._check_stopped()
        history = History(lost=self.lost)
        for each in self._answers:
            history.operations += operations_of(*each)
        for client, request, call in self._abandoned:
            history.operations += operations_of(client, request, call, None, None)
        return history

    def _check_stopped(self) -> None:
        if self._thread is None or self._thread.is_alive():
            raise LocalError("clients: expected them stopped, found them not")

    def wait_until_answered(self, count: int, *, timeout: float = 30.0) -> None:
        """Wait until `count` answers have come since the start.

        Raises
        ------
        ClientsStalled
            If they do not come in time, or no client is left.
        """
        self._wait(lambda: len(self._answers) >= count, f"{count} answers", timeout)

    def wait_until_all_answered(self, since: int, *, timeout: float = 30.0) -> None:
        """Wait until each client has an answer to a request that it sent after an instant.

        Parameters
        ----------
        since
            CLOCK_MONOTONIC in ns. A server that died before has answered none of these requests.
        timeout
            Seconds.

        Raises
        ------
        ClientsStalled
            If they do not come in time, or cannot because a connection was lost.
        """
        self._wait(
            lambda: all(each.answered_call > since for each in self._connections),
            "an answer for each client",
            timeout,
        )

    def final_reads(self, address: tuple[str, int] | None = None) -> History:
        """Read every key that was used, through a further client, and give the whole history.

        Parameters
        ----------
        address
            Host and port; None for those of the other clients.

        Raises
        ------
        LocalError
            If the clients are not stopped.
        ClientsStalled
            If the client cannot connect.
        """
        keys = self.history().keys
        number = len(self._connections) + self._readers
        self._readers += 1
        with self._connect(address or self._address) as connection:
            for at in range(0, len(keys), FINAL_READS):
                batch: list[Request] = [(b"GET", key) for key in keys[at : at + FINAL_READS]]
                if not self._read_all(number, connection, batch):
                    break
        return self.history()

    def _read_all(self, number: int, connection: socket.socket, batch: list[Request]) -> bool:
        """Send requests in one piece and log their answers; say whether all came."""
        parser, done = ReplyParser(), 0
        call = time.monotonic_ns()
        reason = "closed by the server"
        try:
            connection.sendall(b"".join(encode(*request) for request in batch))
            while done < len(batch) and (data := connection.recv(RECEIVE_BYTES)):
                returned = time.monotonic_ns()
                for reply in parser.feed(data):
                    self._answers.append(Answered(number, batch[done], call, returned, reply))
                    done += 1
        except (OSError, RESPError) as error:
            reason = str(error)
        if done < len(batch):
            self._lost.append(ConnectionLost(number, time.monotonic_ns(), reason))
            self._abandoned += [(number, request, call) for request in batch[done:]]
        return done == len(batch)

    def _connect(self, address: tuple[str, int]) -> socket.socket:
        try:
            connection = socket.create_connection(address, self._timeout)
        except OSError as error:
            host, port = address
            raise ClientsStalled(
                f"client: expected to connect to {host}:{port}: {error}"
            ) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _close(self) -> None:
        for each in self._connections:
            each.socket.close()
        self._selector.close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _wait(self, predicate: Callable[[], bool], expected: str, timeout: float) -> None:
        event = threading.Event()
        wait = predicate, event
        with self._waits_lock:
            self._waits.append(wait)
        if self._thread is not None and self._thread.is_alive() and not predicate():
            event.wait(timeout)
        with self._waits_lock:
            self._waits.remove(wait)
        if not predicate():
            lost = f", {len(self._lost)} lost connections" if self._lost else ""
            raise ClientsStalled(
                f"clients: expected {expected} within {timeout:g} s, "
                f"found {len(self._answers)} answers{lost}"
            ) from self._failure

    def _run(self) -> None:
        try:
            for each in self._connections:
                self._ask(each)
            while self._goes_on():
                left = None if self._stop_at is None else self._stop_at - time.monotonic()
                for key, events in self._selector.select(left):
                    if key.data is None:
                        os.eventfd_read(self._wake)
                        continue
                    if events & selectors.EVENT_READ:
                        self._receive(key.data)
                    if events & selectors.EVENT_WRITE and not key.data.lost:
                        self._send(key.data)
                if self._waits:
                    self._tell_waits(ended=False)
        except BaseException as error:
            self._failure = error
        finally:
            self._abandoned += [
                (each.number, each.request, each.call)
                for each in self._connections
                if each.request is not None and not each.lost
            ]
            self._tell_waits(ended=True)

    def _goes_on(self) -> bool:
        alive = [each for each in self._connections if not each.lost]
        if self._stop_at is None:
            return bool(alive)
        return time.monotonic() < self._stop_at and any(each.request for each in alive)

    def _tell_waits(self, *, ended: bool) -> None:
        with self._waits_lock:
            for predicate, event in self._waits:
                if ended or predicate():
                    event.set()

    def _ask(self, client: _Connection) -> None:
        if self._stop_at is not None:
            client.request = None
            return
        request = next(client.requests)
        client.unsent = encode(*request)
        client.call, client.request = time.monotonic_ns(), request
        self._send(client)

    def _send(self, client: _Connection) -> None:
        try:
            sent = client.socket.send(client.unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(client, str(error))
            return
        client.unsent = client.unsent[sent:]
        if client.waits_to_send is not bool(client.unsent):
            client.waits_to_send = not client.waits_to_send
            writes = selectors.EVENT_WRITE if client.waits_to_send else 0
            self._selector.modify(client.socket, selectors.EVENT_READ | writes, client)

    def _receive(self, client: _Connection) -> None:
        try:
            data = client.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(client, str(error))
            return
        returned = time.monotonic_ns()
        if not data:
            self._lose(client, "closed by the server")
            return
        try:
            replies = client.parser.feed(data)
        except RESPError as error:
            self._lose(client, str(error))
            return
        for reply in replies:
            if client.request is None:
                self._lose(client, f"expected no answer, found {str(reply)[:80]}")
                return
            if not _fits(client.request, reply):
                self._lose(client, f"expected an answer to {client.request[0]!r}, found {reply!r}")
                return
            self._answers.append(
                Answered(client.number, client.request, client.call, returned, reply)
            )
            client.answered_call, client.request = client.call, None
        if replies:
            self._ask(client)

    def _lose(self, client: _Connection, reason: str) -> None:
        client.lost = True
        if client.request is not None:
            self._abandoned.append((client.number, client.request, client.call))
        self._lost.append(ConnectionLost(client.number, time.monotonic_ns(), reason))
        self._selector.unregister(client.socket)
        client.socket.close()


def _fits(request: Request, reply: Reply) -> bool:
    """Say whether an answer has a form that can be logged."""
    if request[0] == b"MGET" and not isinstance(reply, ErrorReply):
        return (
            isinstance(reply, list)
            and len(reply) == len(request) - 1
            and not any(isinstance(each, list) for each in reply)
        )
    return not isinstance(reply, list)
