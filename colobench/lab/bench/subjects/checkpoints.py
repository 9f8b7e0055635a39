"""Pause of a real pair's checkpoints, against a mere transfer of the same bytes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from colobench.errors import RemoteError
from colobench.lab.bench.case import Case, Target, at_most, subject
from colobench.lab.bench.context import (
    MIB,
    PAGE_SIZE,
    BenchContext,
    as_times,
    thousands,
)
from colobench.lab.bench.measured import Measured
from colobench.lab.bench.timing import Sampler, timed
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session

MILLISECONDS = 1e3
#: Percentage of the pages asked for that a checkpoint must have to count.
ENOUGH = 98
#: First checkpoints of a pair, which are not measured: buffers grow to their size in them.
SETTLING = 2
#: Number of checkpoints where nothing is compared with them.
IN_A_ROW = 50
#: Limit of checkpoints for one sample: a guest that was held up may have written too little.
TRIES = 3
WRITING_TIMEOUT = 30.0
#: Seconds of samples from a pair: next to its start, more samples cost little.
ENOUGH_SECONDS = 3.0


def default_ram(context: BenchContext) -> int:
    """Give the RAM of the guests whose checkpoints are measured, in MiB."""
    return context.size(512, 16)


class Pair(contextlib.AbstractContextManager["Pair"]):
    """Session whose checkpoints all have the same number of pages, stopped in between.

    Parameters
    ----------
    context
        Context of the measurement.
    pages
        Number of pages that the guest writes between two checkpoints, in order.
    transport
        Transport, as in `Session`.
    ram_mib
        The guest's RAM in MiB, by default `default_ram`.
    settings
        Settings of the session by name, which go before those that are usual here.

    Raises
    ------
    LocalError
        If the machine lacks that transport, or memory.
    """

    def __init__(
        self,
        context: BenchContext,
        pages: int,
        transport: str,
        ram_mib: int | None = None,
        **settings: Any,
    ) -> None:
        ram_mib = ram_mib or default_ram(context)
        # RAM and the RAM cache, and RAM on the other side.
        context.reserve(3 * ram_mib * MIB)
        self.pages = pages
        usual = {
            "ram": f"{ram_mib}M",
            "guest": "sequential" if pages else "idle",
            "working_set": pages,
            "writes_per_tick": max(1, pages),
            "delay": None,
            "transport": transport,
            "verify": False,
        }
        self.session = Session(**usual | settings)

    def __enter__(self) -> Self:
        """Start it, let it take its first checkpoints, and freeze it."""
        try:
            self.session.start()
            self._freeze()
            for _ in range(SETTLING):
                self._checkpoint(self.pages)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._thaw()
        self.session.close()

    def sample(self) -> float:
        """Take a checkpoint of all pages; return its pause, seconds."""
        return self.record().pause_ms / MILLISECONDS

    def record(self) -> CheckpointRecord:
        """Take a checkpoint of all pages."""
        for _ in range(TRIES):
            record = self._checkpoint(self.pages)
            if 100 * record.pages >= ENOUGH * self.pages:
                return record
        raise RemoteError(f"checkpoint: expected {self.pages} pages, found {record.pages}")

    def records(self, pages: int, count: int) -> list[CheckpointRecord]:
        """Take checkpoints of at least so many pages in a row; the first one does not count."""
        self._thaw()
        try:
            return [self._write_and_checkpoint(pages) for _ in range(1 + count)][1:]
        finally:
            self._freeze()

    def _checkpoint(self, pages: int) -> CheckpointRecord:
        """Let the guest write pages, and take a checkpoint."""
        self._thaw()
        try:
            return self._write_and_checkpoint(pages)
        finally:
            self._freeze()

    def _write_and_checkpoint(self, pages: int) -> CheckpointRecord:
        self._let_it_write(pages)
        return self.session.checkpoint()

    def _let_it_write(self, pages: int) -> None:
        """Wait until the guest has written so many of its pages since the last checkpoint."""
        records = self.session.records
        work = (records[-1].guest_work if records else self._work()) + pages
        deadline = time.monotonic() + WRITING_TIMEOUT
        while self._work() < work:
            if time.monotonic() > deadline:
                raise RemoteError(f"guest: expected work {work} in {WRITING_TIMEOUT:.0f} s")
            time.sleep(0.001)

    def _work(self) -> int:
        return int(self.session.nodes["primary"].execute("x-query-guest")["work"])

    def _freeze(self) -> None:
        """Stop both nodes, so that they do not disturb other measurements."""
        self._signal(signal.SIGSTOP)
        for node in self.session.nodes.values():
            # Until its last thread stands still. One that has ended is the session's matter.
            with contextlib.suppress(ChildProcessError):
                state = os.waitid(os.P_PID, node.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                if state is not None and state.si_code == os.CLD_STOPPED:
                    os.waitid(os.P_PID, node.pid, os.WSTOPPED)

    def _thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for node in self.session.nodes.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.pid, number)


class Stream:
    """Transfer of contiguous bytes by a socket, and one copy: the least work of a checkpoint.

    Parameters
    ----------
    family
        ``unix`` or ``tcp``, on the loopback.
    sent, received, ram
        uint8, equally long: what is sent, where it arrives, and where it is copied then.
    """

    def __init__(self, family: str, *arrays: npt.NDArray[np.uint8]) -> None:
        self._sent, self._received, self._ram = arrays
        self._out, self._in = _connect(family)

    def sample(self) -> float:
        """Send, receive and copy everything; return the seconds."""
        view = memoryview(self._received.data)
        begin = time.perf_counter()
        sender = threading.Thread(target=self._send)
        sender.start()
        done = 0
        while done < len(view):
            count = self._in.recv_into(view[done:])
            if not count:
                raise RemoteError(f"socket: expected {len(view)} bytes, found {done}")
            done += count
        np.copyto(self._ram, self._received)
        seconds = time.perf_counter() - begin
        sender.join()
        return seconds

    def _send(self) -> None:
        # A measurement that ends early closes the other end.
        with contextlib.suppress(OSError):
            self._out.sendall(self._sent.data)

    def close(self) -> None:
        """Close both ends."""
        self._in.close()
        self._out.close()


def _connect(family: str) -> tuple[socket.socket, socket.socket]:
    if family == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        out = socket.create_connection(server.getsockname())
        incoming, _ = server.accept()
    out.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return out, incoming


def _against_stream(context: BenchContext, pages: int, transport: str) -> Measured:
    family = "tcp" if transport.endswith("tcp") else "unix"
    with Pair(context, pages, transport) as pair:
        size = pages * PAGE_SIZE
        arrays = [context.memory(f"{part}-{size}", size).array for part in ("sent", "cache", "ram")]
        with contextlib.closing(Stream(family, *(each[:size] for each in arrays))) as stream:
            return _compare(context, pair, stream.sample)


def _against_memcpy(context: BenchContext, pages: int, transport: str) -> Measured:
    with Pair(context, pages, transport) as pair:
        size = pages * PAGE_SIZE
        source, target = (context.memory(f"{part}-{size}", size).array for part in ("sent", "ram"))
        numbers = np.arange(pages, dtype=np.int32)
        copy = context.references.function("pages.flush_memcpy", target, source, numbers, pages)
        once = timed(copy, lambda: None, time.perf_counter)
        return _compare(context, pair, once)


def _compare(context: BenchContext, pair: Pair, reference: Sampler) -> Measured:
    *samples, two_threads = context.compare(
        pair.sample, reference, context.cores.sample, enough_seconds=ENOUGH_SECONDS
    )
    measured = as_times(samples, MILLISECONDS, two_threads=two_threads)
    return replace(measured, settings=pair.session.settings.as_json())


def _one_after_the_other(context: BenchContext, pages: int, transport: str) -> Measured:
    """Take checkpoints one after the other, without work in between that would cool the caches."""
    with Pair(context, pages, transport) as pair:
        samples = [MILLISECONDS * pair.sample() for _ in range(context.size(IN_A_ROW, 7))]
        return Measured(samples, settings=pair.session.settings.as_json())


Measure = Callable[[BenchContext, int, str], Measured]


@subject("checkpoint", "the pause of a checkpoint: against a socket and a copy, or a copy alone")
def checkpoint(context: BenchContext) -> Iterator[Case]:
    """Give the cases; the small ones have bounds of their own, for any machine."""

    def case(
        full: int,
        transport: str,
        against: str,
        measure: Measure,
        target: Target | None = None,
        one_core: Target | None = None,
    ) -> Case:
        pages = context.size(full)
        words = f"{thousands(pages)} pages, {transport}, {against}"
        return Case(words, "ms", partial(measure, context, pages, transport), target, one_core)

    through = "a socket and a copy"
    for full in (50_000, 100_000):
        yield case(full, "multifd", through, _against_stream, at_most(1.3))
        yield case(full, "memfd", "C's memcpy", _against_memcpy, at_most(1.3), at_most(2.3))
    for transport, milliseconds in (("multifd", 1.6), ("memfd", 1.2)):
        pages = context.size(1_000)
        words = f"{thousands(pages)} pages, {transport}, one after the other"
        measure = partial(_one_after_the_other, context, pages, transport)
        yield Case(words, "ms", measure, at_most(milliseconds, "ms"))
    yield case(1_000, "multifd", through, _against_stream)
    yield case(1_000, "memfd", "C's memcpy", _against_memcpy)
    for transport in ("stream", "multifd+tcp", "stream+tcp"):
        for full in (1_000, 50_000, 100_000):
            yield case(full, transport, through, _against_stream)


@subject("ram_size", "the pause with 4 GiB of RAM against 256 MiB, with as many dirty pages")
def ram_size(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    small, large = (context.size(mebibytes, 8) for mebibytes in (256, 4096))

    def measure(pages: int) -> Measured:
        context.reserve(3 * (small + large) * MIB)
        with (
            Pair(context, pages, "stream", large) as ours,
            Pair(context, pages, "stream", small) as reference,
        ):
            samples = context.compare(ours.sample, reference.sample, enough_seconds=ENOUGH_SECONDS)
        settings = ours.session.settings.as_json()
        return replace(as_times(samples, MILLISECONDS), settings=settings)

    for full in (1_000, 10_000):
        pages = context.size(full)
        words = f"{thousands(pages)} pages, RAM of {large} MiB against {small} MiB"
        yield Case(words, "ms", partial(measure, pages), at_most(1.15))
