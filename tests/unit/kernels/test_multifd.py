"""Packets of pages through real sockets, against packets made of bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels import multifd as kernels
from colobench.kernels import multifd_packets
from colobench.kernels.multifd_packets import BYTES, FIELDS, FOUND, PAGES, ZERO_PAGES
from colobench.kernels.pages import PAGE_SIZE
from colobench.memory.ram import lay_out
from colobench.wire.errors import RAMError
from colobench.wire.multifd import Blocks, packet_error, sync_packet

BLOCKS = lay_out({"pc.ram": 500 * PAGE_SIZE, "vga.vram": 9 * PAGE_SIZE})
BLOCK = BLOCKS[0]
ALL_PAGES = 576
SYNC = sync_packet(77)

page_lists = st.sets(st.integers(0, BLOCK.pages - 1), max_size=400).map(sorted)


def source_memory() -> np.ndarray:
    """Make memory whose every third page is zero, but for a last byte in some."""
    memory = np.random.default_rng(6).integers(0, 256, ALL_PAGES * PAGE_SIZE, dtype=np.uint8)
    pages = memory.reshape(ALL_PAGES, PAGE_SIZE)
    pages[::3] = 0
    pages[::15, -1] = 1
    return memory


MEMORY = source_memory()


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        for end in (left, right):
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 20, 0))
        yield left, right


def send(
    sender: socket.socket,
    pages: list[int],
    carried: bool,
    turn: tuple[int, int] = (0, 1),
    number: int = 5,
    spliced: bool = False,
) -> tuple[int, list[int]]:
    """Send packets of `MEMORY`; what the kernel returns, and its progress."""
    progress = np.zeros(multifd_packets.PROGRESS_SLOTS, dtype=np.int64)
    pipe = os.pipe() if spliced else (-1, -1)
    status = kernels.send_packets(
        sender.fileno(), *pipe, MEMORY, np.array(pages, dtype=np.int32), 0, len(pages),
        BLOCK.first_page,
        Blocks.of(BLOCKS).by_first_page()[BLOCK.first_page], *turn, number, int(carried),
        np.full(kernels.SEND_BYTES, 0x55, dtype=np.uint8),
        np.empty(kernels.IOV_WORDS, dtype=np.uint64), progress,
    )  # fmt: skip
    for end in pipe if spliced else ():
        os.close(end)
    return status, progress[[BYTES, PAGES, ZERO_PAGES]].tolist()


class Destination:
    """Memory that packets are taken into, filled so that each page that comes shows."""

    def __init__(self) -> None:
        # Page-aligned, as mapped memory is.
        whole = np.full((ALL_PAGES + 1) * PAGE_SIZE, 0xAA, dtype=np.uint8)
        begin = -whole.ctypes.data % PAGE_SIZE
        self.memory = whole[begin : begin + ALL_PAGES * PAGE_SIZE]
        self.bitmap = np.zeros(ALL_PAGES // 64, dtype=np.uint64)
        self.progress = np.zeros(multifd_packets.PROGRESS_SLOTS, dtype=np.int64)

    def receive(self, receiver: socket.socket, source: int = 0) -> int:
        return kernels.receive_packets(
            receiver.fileno(), np.full(kernels.RECEIVE_BYTES, 0x55, dtype=np.uint8), self.memory,
            self.bitmap, source, *Blocks.of(BLOCKS), np.empty(kernels.IOV_WORDS, dtype=np.uint64),
            self.progress,
        )  # fmt: skip

    def holds(self, pages: list[int]) -> bool:
        """Say whether it holds exactly these pages of `MEMORY`, each with its bit."""
        expected = np.full_like(self.memory, 0xAA).reshape(ALL_PAGES, PAGE_SIZE)
        expected[pages] = MEMORY.reshape(ALL_PAGES, PAGE_SIZE)[pages]
        same = (self.memory == expected.reshape(-1)).all()
        return bool(same) and naive.pages_of(self.bitmap) == pages


def received(data: bytes) -> tuple[int, Destination]:
    """Receive bytes after which the stream ends."""
    destination = Destination()
    with connected() as (left, right), ThreadPoolExecutor(1) as pool:

        def write() -> None:
            with contextlib.suppress(BrokenPipeError):
                left.sendall(data)
            left.shutdown(socket.SHUT_WR)

        writing = pool.submit(write)
        status = destination.receive(right)
        right.shutdown(socket.SHUT_RDWR)
        writing.result()
    return status, destination


def everything(receiver: socket.socket) -> bytes:
    return b"".join(iter(lambda: receiver.recv(1 << 20), b""))


@given(page_lists, st.integers(1, 4), st.booleans(), st.integers(0, 2**40), st.booleans())
@settings(deadline=None, max_examples=40)
def test_channels_send_what_their_naive_twin_makes(pages, channels, carried, number, spliced):
    for channel in range(channels):
        expected = naive.multifd_packets(
            MEMORY.tobytes(), pages, BLOCK.first_page, b"pc.ram", (channel, channels), number,
            carried,
        )  # fmt: skip
        with connected() as (left, right), ThreadPoolExecutor(1) as pool:
            reading = pool.submit(everything, right)
            status, progress = send(left, pages, carried, (channel, channels), number, spliced)
            left.shutdown(socket.SHUT_WR)
            assert (status, progress[0]) == (0, len(expected))
            assert reading.result() == expected


@given(page_lists, st.booleans())
@settings(deadline=None, max_examples=40)
def test_pages_that_are_sent_arrive_with_their_bits(pages, spliced):
    destination = Destination()
    with connected() as (left, right), ThreadPoolExecutor(1) as pool:
        sending = pool.submit(
            lambda: (send(left, pages, True, spliced=spliced), left.sendall(SYNC))
        )
        assert destination.receive(right) == multifd_packets.SYNCED
        (status, progress), _ = sending.result()
    assert status == 0
    assert destination.holds(pages)
    assert destination.progress[[PAGES, ZERO_PAGES]].tolist() == progress[1:]
    assert destination.progress[BYTES] == progress[0] + len(SYNC)


@given(page_lists)
@settings(deadline=None, max_examples=40)
def test_pages_that_are_only_named_are_copied_from_the_senders_memory(pages):
    destination = Destination()
    with connected() as (left, right), ThreadPoolExecutor(1) as pool:
        sending = pool.submit(lambda: (send(left, pages, False), left.sendall(SYNC)))
        assert destination.receive(right, MEMORY.ctypes.data) == multifd_packets.SYNCED
        assert sending.result()[0][1][2] == 0
    assert destination.holds(pages)
    assert destination.progress[PAGES] == len(pages)


def test_a_sync_leaves_what_follows_it_in_the_socket():
    destination = Destination()
    with connected() as (left, right):
        send(left, [1, 2], True)
        left.sendall(SYNC + b"next")
        assert destination.receive(right) == multifd_packets.SYNCED
        assert right.recv(100) == b"next"


def packet(**changed: int | bytes) -> bytes:
    """Make a packet of page 4 alone, its bytes behind it, with some fields changed."""
    data = bytearray(naive.multifd_packets(MEMORY.tobytes(), [4], 0, b"pc.ram", (0, 1), 0, True))
    at = {"magic": 0, "version": 4, "flags": 8, "pages_alloc": 12, "normal_pages": 16,
          "next_packet_size": 20, "zero_pages": 32}  # fmt: skip
    for field, value in changed.items():
        if field == "ramblock":
            data[64:320] = value.ljust(256, b"\0")
        elif field == "offset":
            data[320:328] = value.to_bytes(8, "big")
        else:
            data[at[field] : at[field] + 4] = value.to_bytes(4, "big")
    return bytes(data)


WRONG = [
    {"magic": 0x11223345},
    {"magic": 0x91223344},
    {"version": 2},
    {"flags": 2},
    {"flags": 2**32 - 1},
    {"pages_alloc": 129},
    {"pages_alloc": 0},
    {"normal_pages": 129},
    {"normal_pages": 2**32 - 1},
    {"next_packet_size": 4095},
    {"next_packet_size": 0},
    {"next_packet_size": 2**32 - 4096},
    {"zero_pages": 128},
    {"zero_pages": 2**32 - 1},
    {"ramblock": b"pc.rom"},
    {"ramblock": b"pc.ram2"},
    {"ramblock": b""},
    {"offset": BLOCK.used_length},
    {"offset": 4 * PAGE_SIZE + 8},
    {"offset": 2**64 - PAGE_SIZE},
    {"offset": 1 << 63},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: "-".join(map(str, *wrong.items())))
def test_wrong_packet_is_refused_by_field_and_touches_no_page(wrong):
    before = naive.multifd_packets(MEMORY.tobytes(), [1, 2], 0, b"pc.ram", (0, 1), 0, True)
    status, destination = received(before + packet(**wrong))
    assert status == multifd_packets.BAD_FIELD
    assert destination.holds([1, 2])
    error = packet_error(destination.progress, carried=True)
    [(field, value)] = wrong.items()
    assert isinstance(error, RAMError)
    assert error.subject == f"multifd {field}"
    assert error.offset == len(before) + {
        "magic": 0, "version": 4, "flags": 8, "pages_alloc": 12, "normal_pages": 16,
        "next_packet_size": 20, "zero_pages": 32, "ramblock": 64, "offset": 320,
    }[field]  # fmt: skip
    if isinstance(value, int):
        assert int(destination.progress[FOUND]) % 2**64 == value


def test_packet_with_bytes_is_refused_where_none_are_agreed_upon():
    destination = Destination()
    with connected() as (left, right):
        left.sendall(packet())
        assert destination.receive(right, MEMORY.ctypes.data) == multifd_packets.BAD_FIELD
    assert FIELDS[destination.progress[multifd_packets.FIELD]] == "next_packet_size"
    assert destination.holds([])


def test_a_blocks_pages_are_counted_from_its_own_first_page():
    status, destination = received(packet(ramblock=b"vga.vram") + SYNC)
    assert status == multifd_packets.SYNCED
    assert naive.pages_of(destination.bitmap) == [BLOCKS[1].first_page + 4]
    status, _ = received(packet(ramblock=b"vga.vram", offset=9 * PAGE_SIZE) + SYNC)
    assert status == multifd_packets.BAD_FIELD


@given(st.integers(0, 2 * (multifd_packets.PACKET_BYTES + 2 * PAGE_SIZE)))
@settings(deadline=None, max_examples=30)
def test_stream_cut_anywhere_marks_whole_pages_only(cut):
    stream = b"".join(
        naive.multifd_packets(MEMORY.tobytes(), pages, 0, b"pc.ram", (0, 1), 0, True)
        for pages in ([1, 2], [7, 8])
    )
    status, destination = received((stream + SYNC)[:cut])
    assert status == multifd_packets.END
    assert destination.progress[BYTES] == cut
    for page in naive.pages_of(destination.bitmap):
        at = slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
        assert (destination.memory[at] == MEMORY[at]).all()


@given(st.binary(min_size=multifd_packets.PACKET_BYTES, max_size=2 * multifd_packets.PACKET_BYTES))
@settings(deadline=None, max_examples=50)
def test_garbage_is_refused(data):
    status, destination = received(data)
    assert status == multifd_packets.BAD_FIELD
    assert destination.holds([])


def test_silence_is_an_error_after_the_sockets_timeout():
    destination = Destination()
    with connected() as (left, right):
        right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1000))
        left.sendall(packet()[:2000])
        assert destination.receive(right) == -errno.EAGAIN
    assert not destination.bitmap.any()


@pytest.mark.parametrize("spliced", [False, True])
def test_receiver_that_is_gone_is_an_error(spliced):
    with connected() as (left, right):
        right.close()
        status, _ = send(left, list(range(400)), True, spliced=spliced)
    assert status == -errno.EPIPE


@pytest.mark.parametrize("spliced", [False, True])
def test_receiver_that_takes_nothing_is_an_error_after_the_sockets_timeout(spliced):
    with connected() as (left, _):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 1000))
        status, _ = send(left, list(range(400)), True, spliced=spliced)
    assert status == -errno.EAGAIN
