"""Compressed packets from a hostile peer: refused by field, before memory is used or touched."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.kernels.multifd_packets import PACKET_BYTES, PACKET_PAGES
from colobench.memory.ram import PAGE_SIZE, PageMemory, lay_out
from colobench.node.channel import Channel
from colobench.node.connection import PeerLost
from colobench.node.migration.compressed_multifd import CompressedChannel
from colobench.wire.compressed_packets import FLAGS
from colobench.wire.compression import METHODS, compressed_limit, compressor, library
from colobench.wire.errors import RAMError
from colobench.wire.multifd import Blocks, sync_packet
from colobench.wire.ram import PagesByBlock
from wire_streams import fill, marked

BLOCKS = lay_out({"pc.ram": 300 * PAGE_SIZE, "vga.vram": 9 * PAGE_SIZE})
SECONDS = 10.0
SYNC = sync_packet(77)
each_method = pytest.mark.parametrize("method", METHODS)


@contextmanager
def channel(method: str, end: socket.socket) -> Iterator[CompressedChannel]:
    """Make a channel on a socket, beside a main connection that nothing is done with."""
    main, other = socket.socketpair()
    with other, closing(Channel(main, SECONDS)) as of_main:
        made = CompressedChannel(end, of_main, Blocks.of(BLOCKS), 1 << 20, method, 1)
        with closing(made):
            yield made


def sent(method: str, pages: list[int], turn: tuple[int, int] = (0, 1)) -> bytes:
    """Give what a sender's channel sends of filled pages."""
    near, far = socket.socketpair()
    found = bytearray()

    def read() -> None:
        while piece := far.recv(1 << 20):
            found.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with closing(PageMemory("primary", BLOCKS)) as memory, far:
        fill(memory, pages)
        with channel(method, near) as sender:
            numbers = np.array(pages, dtype=np.int32)
            sender.send(memory, numbers, PagesByBlock(BLOCKS).slices(numbers), turn, 0, True)
            assert sender.sent > 0
        reader.join()
    return bytes(found)


def received(method: str, data: bytes) -> tuple[list[int], bytes]:
    """Receive bytes after which the stream ends: which pages came, and the memory then."""
    near, far = socket.socketpair()
    sender = threading.Thread(target=lambda: (far.sendall(data), far.shutdown(socket.SHUT_WR)))
    sender.start()
    with closing(PageMemory("secondary", BLOCKS)) as memory, far, channel(method, near) as receiver:
        try:
            count = receiver.receive(memory, 0)
        except BaseException:
            assert marked(memory) == []
            raise
        finally:
            receiver.shut_down()
            sender.join()
        assert count == len(marked(memory))
        return marked(memory), memory.array.tobytes()


@each_method
@given(pages=st.sets(st.integers(0, 299), min_size=1).map(sorted))
def test_pages_that_are_sent_arrive_with_their_bits(method: str, pages: list[int]) -> None:
    found, memory = received(method, sent(method, pages) + SYNC)
    assert found == pages
    with closing(PageMemory("expected", BLOCKS)) as expected:
        fill(expected, pages)
        assert memory == expected.array.tobytes()


def changed(method: str, **fields: int | bytes) -> bytes:
    """Give a packet of page 5 alone with its block, with some fields changed."""
    data = bytearray(sent(method, [5]))
    at = {"magic": 0, "version": 4, "flags": 8, "pages_alloc": 12, "normal_pages": 16,
          "next_packet_size": 20, "zero_pages": 32}  # fmt: skip
    for field, value in fields.items():
        if isinstance(value, bytes):
            data[64:320] = value.ljust(256, b"\0")
        elif field == "offset":
            data[320:328] = value.to_bytes(8, "big")
        else:
            data[at[field] : at[field] + 4] = value.to_bytes(4, "big")
    return bytes(data)


@each_method
@pytest.mark.parametrize(
    "wrong",
    [
        {"magic": 0x11223345},
        {"version": 2},
        {"flags": 0},
        {"flags": 1},
        {"flags": 1 << 1},
        {"flags": 2**32 - 1},
        {"pages_alloc": 129},
        {"normal_pages": PACKET_PAGES + 1},
        {"normal_pages": 2**32 - 1},
        {"normal_pages": 0},
        {"next_packet_size": 0},
        {"next_packet_size": compressed_limit(PAGE_SIZE) + 1},
        {"next_packet_size": 2**32 - 1},
        {"zero_pages": PACKET_PAGES},
        {"ramblock": b"pc.rom"},
        {"offset": 300 * PAGE_SIZE},
        {"offset": 8},
        {"offset": 1 << 63},
    ],
    ids=lambda wrong: "-".join(map(str, *wrong.items())),
)
def test_a_wrong_packet_is_refused_by_field(method: str, wrong: dict[str, int | bytes]) -> None:
    with pytest.raises(RAMError, match="multifd") as caught:
        received(method, changed(method, **wrong) + SYNC)
    [field] = wrong
    accepted = {"normal_pages": {"multifd normal_pages", "multifd next_packet_size"}}
    assert caught.value.subject in accepted.get(field, {f"multifd {field}"})


@each_method
@pytest.mark.parametrize("pages", [1, 3])
def test_a_block_of_more_or_fewer_pages_than_announced_is_refused(method: str, pages: int) -> None:
    packet = sent(method, [5, 6])[:PACKET_BYTES]
    block = compressor(method, 1).compress(memoryview(bytes(pages * PAGE_SIZE)))
    packet = packet[:20] + len(block).to_bytes(4, "big") + packet[24:]
    with pytest.raises(RAMError, match="multifd block"):
        received(method, packet + block + SYNC)


def test_packets_behind_the_end_of_a_zstandard_stream_are_refused() -> None:
    packet = sent("zstd", [5])[:PACKET_BYTES]
    block = library("zstd").compress(bytes(PAGE_SIZE))
    packet = packet[:20] + len(block).to_bytes(4, "big") + packet[24:]
    with pytest.raises(RAMError, match="a stream that ends"):
        received("zstd", packet + block + SYNC)


@each_method
def test_the_packets_of_another_method_are_refused(method: str) -> None:
    [other] = set(METHODS) - {method}
    with pytest.raises(RAMError, match=f"flags: expected {FLAGS[method]:#x}"):
        received(method, sent(other, [5]) + SYNC)


@each_method
@given(cut=st.integers(0, PACKET_BYTES + 30))
def test_a_stream_that_is_cut_anywhere_is_an_end(method: str, cut: int) -> None:
    with pytest.raises(PeerLost):
        received(method, sent(method, [5])[:cut])
