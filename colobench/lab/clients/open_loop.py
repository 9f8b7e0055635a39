"""An open loop: requests at a steady pace, whether or not earlier ones were answered."""

from __future__ import annotations

import itertools
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing

from colobench.errors import LocalError
from colobench.lab.clients.closed_loop import Answered, ClientsStalled, Request
from colobench.lab.clients.resp import ReplyParser, encode

RECEIVE_BYTES = 65536


class _Connection:
    """One connection, and its requests in flight."""

    def __init__(self, number: int, address: tuple[str, int], timeout: float) -> None:
        self.number = number
        try:
            self.socket = socket.create_connection(address, timeout)
        except OSError as error:
            host, port = address
            raise ClientsStalled(f"probe: expected to connect to {host}:{port}: {error}") from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waiting: deque[tuple[Request, int]] = deque()
        self.parser = ReplyParser()
        self._name = f"probe: expected answers on connection {number}"

    def ask(self, request: Request) -> None:
        self.waiting.append((request, time.monotonic_ns()))
        try:
            self.socket.sendall(encode(*request))
        except OSError as error:
            raise ClientsStalled(f"{self._name}, found: {error}") from error

    def receive(self) -> Iterator[Answered]:
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except OSError as error:
            raise ClientsStalled(f"{self._name}, found: {error}") from error
        returned = time.monotonic_ns()
        if not data:
            raise ClientsStalled(f"{self._name}, found it closed")
        for reply in self.parser.feed(data):
            request, call = self.waiting.popleft()
            yield Answered(self.number, request, call, returned, reply)


def probe(
    address: tuple[str, int],
    requests: Iterator[Request],
    *,
    seconds: float,
    every_ms: float = 5.0,
    at_once: int = 1,
    connections: int = 32,
    seen: Callable[[Answered], None],
    go_on: Callable[[], bool] = lambda: True,
    timeout: float = 10.0,
) -> None:
    """Send requests at fixed times, in turn on many connections, and time each answer.

    A client that waits for its answer before it asks again asks just after each checkpoint, and
    never measures the wait at any other moment. So nothing here waits for answers: this is an open
    loop (B. Schroeder, A. Wierman, M. Harchol-Balter, NSDI 2006).

    Parameters
    ----------
    address
        Host and port.
    requests
        Requests to be sent; as many are taken as are needed.
    seconds
        Duration in seconds. There are `seconds * 1000 / every_ms` times of sending, rounded; all
        answers are waited for.
    every_ms
        Milliseconds from one time of sending to the next.
    at_once
        Number of requests at each time of sending, on different connections.
    connections
        Number of connections. The next request on one that still waits is sent behind the first.
    seen
        Function that is called with each answer, in this thread.
    go_on
        Function that says whether to go on; it is called before each time of sending.
    timeout
        Seconds without an answer after which the rest counts as missing.

    Raises
    ------
    LocalError
        If there are fewer connections than `at_once` requests.
    ClientsStalled
        If a connection cannot be made, is lost, or answers do not come.
    """
    if not 1 <= at_once <= connections:
        raise LocalError(f"probe: expected 1 to {connections} requests at once, found {at_once}")
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        opened = []
        for number in range(connections):
            opened.append(_Connection(number, address, timeout))
            stack.enter_context(closing(opened[-1].socket))
            selector.register(opened[-1].socket, selectors.EVENT_READ, opened[-1])
        turn = itertools.cycle(opened)
        begin = time.monotonic()
        for done in range(1, round(seconds * 1000 / every_ms) + 1):
            if not go_on():
                break
            for _ in range(at_once):
                next(turn).ask(next(requests))
            _receive_until(selector, begin + done * every_ms / 1000, seen)
        _receive_rest(selector, opened, seen, timeout)


def _receive_until(
    selector: selectors.BaseSelector, until: float, seen: Callable[[Answered], None]
) -> bool:
    """Take answers until a monotonic time; returns whether there were any."""
    found = False
    while True:
        left = until - time.monotonic()
        ready = selector.select(max(0.0, left))
        for key, _ in ready:
            for answered in key.data.receive():
                found = True
                seen(answered)
        if left <= 0 or not ready:
            return found


def _receive_rest(
    selector: selectors.BaseSelector,
    opened: Sequence[_Connection],
    seen: Callable[[Answered], None],
    timeout: float,
) -> None:
    silent_since = time.monotonic()
    while any(each.waiting for each in opened):
        if _receive_until(selector, time.monotonic() + 0.05, seen):
            silent_since = time.monotonic()
        elif time.monotonic() - silent_since > timeout:
            left = sum(len(each.waiting) for each in opened)
            raise ClientsStalled(f"probe: expected {left} more answers within {timeout:g} s")
