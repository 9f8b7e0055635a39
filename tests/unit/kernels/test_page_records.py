"""Page records through buffers and through real sockets, against records made of bytes."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels import page_records, socket_io
from colobench.kernels.page_records import BAD, BYTES_READ, PAGES, START, STOP, ZERO_PAGES
from colobench.kernels.pages import PAGE_SIZE

#: Memory of three blocks, each on whole words of the bitmap; the tests use the middle one.
FIRST_PAGE, BLOCK_PAGES, ALL_PAGES = 64, 100, 256
#: A record of another kind: end of section.
EOS = (0x10).to_bytes(8, "big")
NAME = np.frombuffer(bytearray(b"\x06pc.ram"), dtype=np.uint8)
BUFFER_BYTES = 3 * page_records.PAGE_RECORD_BYTES + 100

block_pages = st.integers(FIRST_PAGE, FIRST_PAGE + BLOCK_PAGES - 1)
page_lists = st.lists(block_pages, max_size=12)


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), dtype=np.uint8)


def source_memory() -> np.ndarray:
    """Make memory whose every third page is zero, but for a last byte in some."""
    memory = np.random.default_rng(5).integers(0, 256, ALL_PAGES * PAGE_SIZE, dtype=np.uint8)
    pages = memory.reshape(ALL_PAGES, PAGE_SIZE)
    pages[::3] = 0
    pages[::15, -1] = 1
    return memory


MEMORY = source_memory()


class Destination:
    """Memory that records are taken into, filled so that each page that comes shows."""

    def __init__(self, data: bytes = b"", capacity: int = BUFFER_BYTES) -> None:
        self.memory = np.full(ALL_PAGES * PAGE_SIZE, 0xAA, dtype=np.uint8)
        self.bitmap = np.zeros(ALL_PAGES // 64, dtype=np.uint64)
        self.buffer = np.zeros(max(capacity, len(data)), dtype=np.uint8)
        self.buffer[: len(data)] = as_array(data)
        self.cursor = np.array([0, len(data), 9, 9, 9, 9], dtype=np.int64)

    @property
    def where(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int]:
        return self.buffer, self.cursor, self.memory, self.bitmap, FIRST_PAGE, BLOCK_PAGES

    def take(self) -> int:
        return page_records.take_page_records(*self.where)

    def receive(self, receiver: socket.socket) -> int:
        return socket_io.receive_page_records(receiver.fileno(), *self.where)

    def left(self) -> bytes:
        return self.buffer[self.cursor[START] : self.cursor[STOP]].tobytes()

    def assert_holds(self, data: bytes) -> None:
        """Hold what the naive twin makes of the records, and nothing else."""
        memory = bytearray(b"\xaa" * len(self.memory))
        marked: set[int] = set()
        _, _, pages, zero_pages, _ = naive.take_page_records(
            data, memory, marked, FIRST_PAGE, BLOCK_PAGES
        )
        assert self.memory.tobytes() == memory
        assert naive.pages_of(self.bitmap) == sorted(marked)
        assert self.cursor[[PAGES, ZERO_PAGES]].tolist() == [pages, zero_pages]


def send(sender: socket.socket, pages: list[int], lead: bytes = b"", named: bool = False) -> int:
    """Send records of `MEMORY`; what the kernel returns, or the bytes written if that is 0."""
    progress = np.full(2, -1, dtype=np.int64)
    status = socket_io.send_page_records(
        sender.fileno(), MEMORY, np.array(pages, dtype=np.int32), 0, len(pages), FIRST_PAGE,
        int(named), NAME, as_array(lead), len(lead),
        np.empty(socket_io.HEADERS_BYTES, dtype=np.uint8),
        np.empty(socket_io.IOV_WORDS, dtype=np.uint64), progress,
    )  # fmt: skip
    return status or int(progress[0])


def records(pages: list[int], name: bytes | None = None) -> bytes:
    return naive.page_records(MEMORY.tobytes(), pages, FIRST_PAGE, name)


def set_timeout(end: socket.socket, option: int, seconds: int, microseconds: int) -> None:
    end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, microseconds))


@contextlib.contextmanager
def connected(family: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect two sockets as UNIX or TCP streams; they block, but not for ever."""
    if family == "unix":
        left, right = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            left = socket.create_connection(server.getsockname())
            right, _ = server.accept()
    with left, right:
        for end in (left, right):
            set_timeout(end, socket.SO_RCVTIMEO, 20, 0)
            set_timeout(end, socket.SO_SNDTIMEO, 20, 0)
        yield left, right


families = pytest.mark.parametrize("family", ["unix", "tcp"])


class Worker(threading.Thread):
    """A thread that runs one function and keeps its result."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._result: Any = None
        self._released = threading.Event()
        self.start()

    def run(self) -> None:
        self._result = self._function()
        # Only a thread that is there can be sent a signal.
        self._released.wait()

    def finish(self) -> Any:
        self._released.set()
        self.join()
        return self._result

    def wait_until_blocked(self) -> None:
        status = Path(f"/proc/self/task/{self.native_id}/stat")
        while not status.read_text().rpartition(") ")[2].startswith("S"):
            pass


@pytest.fixture
def interrupt() -> Iterator[Callable[[Worker], None]]:
    """Give a function that interrupts what a thread is blocked in."""
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)

    def send_signal(worker: Worker) -> None:
        worker.wait_until_blocked()
        signal.pthread_kill(worker.ident, signal.SIGUSR1)

    yield send_signal
    signal.signal(signal.SIGUSR1, previous)


@given(page_lists, st.booleans())
@settings(deadline=None)
def test_encoded_records_are_those_of_qemu(pages, named):
    expected = records(pages, NAME[1:].tobytes() if named else None)
    out = np.full(len(expected) + 16, 7, dtype=np.uint8)
    progress = np.zeros(2, dtype=np.int64)
    length = page_records.encode_page_records(
        out, MEMORY, np.array(pages, dtype=np.int32), 0, len(pages), FIRST_PAGE, int(named), NAME,
        progress,
    )  # fmt: skip
    assert out[:length].tobytes() == expected
    assert (out[length:] == 7).all()
    zero_pages = sum(not any(naive.page(MEMORY.tobytes(), page)) for page in pages)
    assert progress.tolist() == [length, zero_pages]


@given(page_lists, st.sampled_from([b"", b"\0", EOS, bytes(64)]), st.integers(0, 9000))
@settings(deadline=None)
def test_taken_records_are_at_their_places(pages, tail, cut):
    data = records(pages) + tail
    data = data[: max(0, len(data) - cut)]
    destination = Destination(data)
    status, taken, *_ = naive.take_page_records(
        data, bytearray(len(MEMORY)), set(), FIRST_PAGE, BLOCK_PAGES
    )
    assert destination.take() == status
    assert destination.cursor[START] == taken
    assert destination.left() == data[taken:]
    destination.assert_holds(data)


@given(page_lists, st.sampled_from([BLOCK_PAGES * PAGE_SIZE, 2**63, 2**64 - PAGE_SIZE]))
@settings(deadline=None)
def test_page_outside_its_block_leaves_memory_untouched(pages, offset):
    good = records(pages)
    bad = (offset | 0x28).to_bytes(8, "big") + bytes(PAGE_SIZE)
    destination = Destination(good + bad)
    assert destination.take() == page_records.BAD_PAGE
    assert int(destination.cursor[BAD]) % 2**64 == offset
    assert destination.left() == bad
    destination.assert_holds(good)


@pytest.mark.parametrize("fill", [1, 255])
def test_page_filled_with_something_else_is_refused(fill):
    good = records([FIRST_PAGE])
    bad = (PAGE_SIZE | 0x22).to_bytes(8, "big") + bytes([fill])
    destination = Destination(good + bad)
    assert destination.take() == page_records.BAD_FILL
    assert destination.cursor[BAD] == fill
    assert destination.left() == bad
    destination.assert_holds(good)


@given(page_lists, st.binary(max_size=40), st.booleans(), st.sampled_from(["unix", "tcp"]))
@settings(deadline=None, max_examples=60)
def test_sent_bytes_are_the_lead_and_the_records(pages, lead, named, family):
    expected = lead + records(pages, NAME[1:].tobytes() if named else None)
    with connected(family) as (left, right):
        worker = Worker(lambda: send(left, pages, lead, named))
        received = right.recv(len(expected), socket.MSG_WAITALL) if expected else b""
        assert worker.finish() == len(expected)
        left.shutdown(socket.SHUT_WR)
        assert received == expected
        assert right.recv(1) == b""


@given(page_lists, st.sampled_from(["unix", "tcp"]))
@settings(deadline=None, max_examples=60)
def test_received_memory_is_the_sent_memory(pages, family):
    destination = Destination()
    with connected(family) as (left, right):
        worker = Worker(lambda: (send(left, pages), left.sendall(EOS + b"next")))
        assert destination.receive(right) == page_records.NEXT
        worker.finish()
        left.shutdown(socket.SHUT_WR)
        assert destination.left() + right.recv(64, socket.MSG_WAITALL) == EOS + b"next"
    destination.assert_holds(records(pages))


@families
@pytest.mark.parametrize(
    "pages",
    [
        [FIRST_PAGE + 1 + i % 2 for i in range(1500)],
        [FIRST_PAGE + 2] * 4000,
        [FIRST_PAGE + i % BLOCK_PAGES for i in range(3000)],
    ],
    ids=["data", "zero", "both"],
)
def test_more_records_than_one_system_call_takes_arrive(family, pages):
    destination = Destination()
    with connected(family) as (left, right):
        worker = Worker(lambda: (send(left, pages, b"", False), left.sendall(EOS)))
        assert destination.receive(right) == page_records.NEXT
        assert worker.finish()[0] == len(records(pages))
    assert destination.cursor[BYTES_READ] - len(destination.left()) == len(records(pages))
    destination.assert_holds(records(pages))


@families
def test_peer_that_dribbles_bytes_is_understood(family):
    data = records([FIRST_PAGE + 3, FIRST_PAGE + 4, FIRST_PAGE + 6]) + EOS
    destination = Destination()

    def dribble() -> None:
        for byte in data:
            left.send(bytes([byte]))

    with connected(family) as (left, right):
        worker = Worker(dribble)
        assert destination.receive(right) == page_records.NEXT
        worker.finish()
    destination.assert_holds(data)


@families
def test_interrupted_and_partial_writes_go_on(family, interrupt):
    pages = [FIRST_PAGE + i for i in range(BLOCK_PAGES)]
    expected = records(pages)
    with connected(family) as (left, right):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        worker = Worker(lambda: send(left, pages))
        received = b""
        while len(received) < len(expected):
            interrupt(worker)
            received += right.recv(5000)
        assert worker.finish() == len(expected)
    assert received == expected


@families
def test_interrupted_reads_go_on(family, interrupt):
    data = records([FIRST_PAGE + 1, FIRST_PAGE + 2]) + EOS
    destination = Destination()
    with connected(family) as (left, right):
        worker = Worker(lambda: destination.receive(right))
        for begin in range(0, len(data), 1000):
            interrupt(worker)
            left.sendall(data[begin : begin + 1000])
        assert worker.finish() == page_records.NEXT
    destination.assert_holds(data)


@given(st.integers(0, 2 * page_records.PAGE_RECORD_BYTES + page_records.ZERO_RECORD_BYTES))
@settings(deadline=None)
def test_stream_that_ends_within_a_record_says_so(length):
    data = records([FIRST_PAGE + 1, FIRST_PAGE + 2, FIRST_PAGE + 3])[:length]
    destination = Destination()
    with connected("unix") as (left, right):
        left.sendall(data)
        left.close()
        assert destination.receive(right) == page_records.END
    assert destination.cursor[BYTES_READ] == len(data)
    assert destination.cursor[BAD] == len(destination.left())
    assert data.endswith(destination.left())
    destination.assert_holds(data)


@families
def test_silent_peer_is_given_up_and_can_go_on(family):
    data = records([FIRST_PAGE + 1, FIRST_PAGE + 4])
    destination = Destination()
    with connected(family) as (left, right):
        set_timeout(right, socket.SO_RCVTIMEO, 0, 10_000)
        left.sendall(data[:5000])
        assert destination.receive(right) == -errno.EAGAIN
        destination.assert_holds(data[:5000])
        left.sendall(data[5000:] + EOS)
        assert destination.receive(right) == page_records.NEXT
    assert destination.cursor[PAGES] == 1
    assert destination.left() == EOS


@families
def test_peer_that_does_not_read_is_given_up(family):
    pages = [FIRST_PAGE + i % BLOCK_PAGES for i in range(4000)]
    with connected(family) as (left, right):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        set_timeout(left, socket.SO_SNDTIMEO, 0, 10_000)
        assert send(left, pages) == -errno.EAGAIN
        left.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: right.recv(65536), b""))
    assert records(pages).startswith(received)


def test_peer_that_is_gone_is_an_error_and_no_signal():
    with connected("unix") as (left, right):
        right.close()
        assert send(left, [FIRST_PAGE]) == -errno.EPIPE


def test_closed_descriptor_is_an_error():
    assert socket_io.receive_page_records(-1, *Destination().where) == -errno.EBADF
