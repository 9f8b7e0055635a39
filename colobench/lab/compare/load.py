"""Clients of a guest that serves: an open loop in a thread of its own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from colobench.lab.clients.closed_loop import Answered, ClientsStalled, Request
from colobench.lab.clients.open_loop import probe
from colobench.lab.clients.resp import ErrorReply
from colobench.lab.clients.store_connection import StoreConnection

#: Number of keys that requests cycle through.
KEYS = 100


class Asked(NamedTuple):
    """A request that was answered: when it was sent (monotonic seconds), and after how long."""

    time: float
    latency_ms: float


@contextmanager
def asking_clients(
    address: tuple[str, int] | None, seconds: float, every_ms: float
) -> Iterator[list[Asked]]:
    """Ask the guest meanwhile; all answers are there when this ends.

    Parameters
    ----------
    address
        Host and port of the guest; None asks nobody.
    seconds, every_ms
        Duration, and milliseconds from one request to the next.

    Yields
    ------
    list
        An `Asked` for each answer; it grows.

    Raises
    ------
    ClientsStalled
        If a connection is lost, or answers do not come.
    """
    answers: list[Asked] = []
    if address is None:
        yield answers
        return
    stop = threading.Event()

    def note(answered: Answered) -> None:
        latency = (answered.returned - answered.call) / 1e6
        answers.append(Asked(answered.call / 1e9, latency))

    with ThreadPoolExecutor(1, thread_name_prefix="colobench clients") as pool:
        asking: Future[None] = pool.submit(
            probe,
            address,
            _requests(),
            seconds=seconds,
            every_ms=every_ms,
            seen=note,
            go_on=lambda: not stop.is_set(),
        )
        try:
            yield answers
        finally:
            stop.set()
        asking.result()


def wait_for_answer(
    address: tuple[str, int], timeout: float, go_on: Callable[[], object] = lambda: None
) -> None:
    """Wait until a guest that has just started answers; nothing may hold its output.

    Parameters
    ----------
    address
        Host and port of the guest.
    timeout
        Seconds to wait.
    go_on
        Function that is called before each try; an exception from it ends the wait.

    Raises
    ------
    ClientsStalled
        If it does not answer within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while True:
        go_on()
        try:
            with StoreConnection(address, timeout) as store:
                answer = store.ask(b"PING")
        except ClientsStalled:
            if time.monotonic() >= end:
                raise
        else:
            # A store that has a disk says so while it loads it.
            if not isinstance(answer, ErrorReply):
                return
            if time.monotonic() >= end:
                raise ClientsStalled(f"PING: expected an answer, found {answer.message}")
        time.sleep(0.02)


def _requests() -> Iterator[Request]:
    """Write, read and count, without end."""
    for number in itertools.count():
        yield b"SET", b"key:%d" % (number % KEYS), b"value %d" % number
        yield b"GET", b"key:%d" % (number % KEYS)
        yield b"INCR", b"counter"
