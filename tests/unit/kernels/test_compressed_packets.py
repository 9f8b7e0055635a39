"""Packets of compressed pages: filled in and stored as by their naive twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from colobench.kernels import compressed_packets as kernels
from colobench.kernels import multifd_packets
from colobench.kernels.multifd_packets import PACKET_BYTES, PACKET_PAGES
from colobench.kernels.pages import PAGE_SIZE

PAGES, FIRST, BLOCK_PAGES = 192, 5, 150
NAME = np.frombuffer(bytearray(b"pc.ram".ljust(multifd_packets.NAME_BYTES, b"\0")), dtype=np.uint8)


def make_memory() -> np.ndarray:
    memory = np.random.default_rng(6).integers(0, 256, PAGES * PAGE_SIZE, dtype=np.uint8)
    memory.reshape(PAGES, PAGE_SIZE)[::3] = 0
    return memory


MEMORY = make_memory()
page_lists = st.sets(
    st.integers(FIRST, FIRST + BLOCK_PAGES - 1), min_size=1, max_size=PACKET_PAGES
).map(sorted)


def fill(pages: list[int], number: int) -> tuple[np.ndarray, np.ndarray, int]:
    packet = np.full(PACKET_BYTES, 0x55, dtype=np.uint8)
    out = np.full(PACKET_PAGES * PAGE_SIZE, 0x55, dtype=np.uint8)
    normal = kernels.fill_packet(
        packet, MEMORY, np.array(pages, dtype=np.int32), 0, len(pages), FIRST, NAME, number, out
    )
    return packet, out, normal


@given(page_lists, st.integers(0, 2**60))
def test_a_packet_is_the_plain_one_but_for_flags_and_size(pages: list[int], number: int) -> None:
    packet, out, normal = fill(pages, number)
    plain = naive.multifd_packets(
        MEMORY.tobytes(), pages, FIRST, b"pc.ram", (0, 1), number, carried=True
    )
    expected = bytearray(plain[:PACKET_BYTES])
    expected[8:12] = expected[20:24] = bytes(4)
    assert packet.tobytes() == expected
    assert out[: normal * PAGE_SIZE].tobytes() == plain[PACKET_BYTES:]


def store(
    packet: np.ndarray, counts: tuple[int, int], data: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    whole = np.full((PAGES + 1) * PAGE_SIZE, 0xAA, dtype=np.uint8)
    begin = -whole.ctypes.data % PAGE_SIZE
    memory = whole[begin : begin + PAGES * PAGE_SIZE]
    bitmap = np.zeros(PAGES // 64, dtype=np.uint64)
    progress = np.zeros(multifd_packets.PROGRESS_SLOTS, dtype=np.int64)
    status = kernels.store_packet(
        packet, *counts, FIRST, BLOCK_PAGES, data.ctypes.data, memory, bitmap, progress
    )
    return status, memory, bitmap


@given(page_lists)
def test_the_pages_of_a_packet_are_stored_and_marked(pages: list[int]) -> None:
    packet, out, normal = fill(pages, 0)
    status, memory, bitmap = store(packet, (normal, len(pages) - normal), out)
    assert status == multifd_packets.SYNCED
    assert naive.pages_of(bitmap) == pages
    expected = np.full((PAGES, PAGE_SIZE), 0xAA, dtype=np.uint8)
    expected[pages] = MEMORY.reshape(PAGES, PAGE_SIZE)[pages]
    assert (memory == expected.reshape(-1)).all()


@pytest.mark.parametrize("offset", [BLOCK_PAGES * PAGE_SIZE, 2**64 - PAGE_SIZE, 8, 1 << 63])
@pytest.mark.parametrize("at", [0, 3])
def test_a_packet_with_a_page_outside_of_its_block_stores_none(offset: int, at: int) -> None:
    packet, out, normal = fill([7, 8, 10, 11], 0)
    begin = multifd_packets.OFFSETS_AT + 8 * at
    packet[begin : begin + 8] = np.frombuffer(offset.to_bytes(8, "big"), dtype=np.uint8)
    status, memory, bitmap = store(packet, (normal, 4 - normal), out)
    assert status == multifd_packets.BAD_FIELD
    assert not bitmap.any()
    assert (memory == 0xAA).all()
