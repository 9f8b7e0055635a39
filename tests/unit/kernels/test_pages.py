"""Gather and flush against slices of bytes."""

from __future__ import annotations

import functools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels import pages as kernels
from colobench.kernels.pages import PAGE_SIZE
from parts import from_python
from share import amount

WORDS = 140
PAGES = 64 * WORDS

#: Pages as guests mark them: single ones and runs, which go over the borders of words.
marked_pages = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 200)), max_size=6).map(
    lambda runs: {
        page for begin, length in runs for page in range(begin, min(begin + length, PAGES))
    }
)


@functools.cache
def random_bytes(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(PAGES * PAGE_SIZE)


@functools.cache
def shared_memory() -> np.ndarray:
    """Give memory that tests only read; numba takes read-only arrays for another type."""
    return np.frombuffer(bytearray(random_bytes(1)), dtype=np.uint8)


def random_memory(seed: int, misalignment: int = 0) -> np.ndarray:
    """Make whole pages that begin `misalignment` bytes behind a multiple of 64."""
    room = np.empty(PAGES * PAGE_SIZE + 128, dtype=np.uint8)
    begin = -room.ctypes.data % 64 + misalignment
    memory = room[begin : begin + PAGES * PAGE_SIZE]
    memory[:] = np.frombuffer(random_bytes(seed), dtype=np.uint8)
    return memory


def many_pages(seed: int) -> list[int]:
    """Make a list of more pages than are copied through the CPU's cache."""
    random = np.random.default_rng(seed)
    return [int(page) for page in random.integers(0, PAGES, random.integers(256, 600))]


@given(
    st.lists(st.integers(0, PAGES - 1), max_size=40) | st.integers(0, 99).map(many_pages),
    st.sampled_from([0, 1, 32]),
)
@settings(deadline=None)
def test_gather_copies_the_pages_one_behind_the_other(pages, misalignment):
    memory = shared_memory()
    room = np.full((len(pages) + 1) * PAGE_SIZE, 7, dtype=np.uint8)
    out = room[-room.ctypes.data % 64 + misalignment :]
    copied = kernels.gather(memory, np.array(pages, dtype=np.int32), len(pages), out)
    assert copied == len(pages) * PAGE_SIZE
    assert out[:copied].tobytes() == naive.gather(random_bytes(1), pages)
    assert (out[copied:] == 7).all()


@given(marked_pages, st.sampled_from([0, 1, 32]))
@settings(deadline=None, max_examples=amount(30, 100))
def test_flush_copies_the_marked_pages_and_no_other(marked, misalignment):
    ram, cache = random_memory(1, misalignment), random_memory(2)
    bitmap = np.array(naive.bitmap_of(marked, WORDS), dtype=np.uint64)
    expected = naive.flush(random_bytes(1), random_bytes(2), bitmap)
    assert kernels.flush(ram, cache, bitmap) == len(marked)
    assert ram.tobytes() == expected
    assert cache.tobytes() == random_bytes(2)
    assert not bitmap.any()


@given(marked_pages, st.integers(0, WORDS))
@settings(deadline=None, max_examples=20)
def test_two_threads_flush_two_parts_at_once(marked, border):
    ram, cache = random_memory(1), random_memory(2)
    bitmap = np.array(naive.bitmap_of(marked, WORDS), dtype=np.uint64)
    expected = naive.flush(random_bytes(1), random_bytes(2), bitmap)
    copied = []

    def flush(begin: int, end: int) -> None:
        part = slice(begin * 64 * PAGE_SIZE, end * 64 * PAGE_SIZE)
        copied.append(kernels.flush(ram[part], cache[part], bitmap[begin:end]))

    threads = [threading.Thread(target=flush, args=a) for a in [(0, border), (border, WORDS)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(copied) == len(marked)
    assert ram.tobytes() == expected
    assert not bitmap.any()


is_zero_page = from_python(kernels.is_zero_page)


@pytest.mark.parametrize("byte", [0, 1, 255, 256, 2047, 3840, 4095])
def test_one_byte_that_is_not_zero_makes_a_page_not_zero(byte):
    memory = np.zeros(PAGE_SIZE, dtype=np.uint8)
    assert is_zero_page(memory.ctypes.data)
    memory[byte] = 1
    assert not is_zero_page(memory.ctypes.data)


#: Bytes to change: a page, a byte in it (its borders are read first), and how it changes.
changes = st.lists(
    st.tuples(
        st.integers(0, 69),
        st.sampled_from([0, 1, 7, 8, 255, 256, 2047, 2048, 2055, 4087, 4088, 4095])
        | st.integers(0, PAGE_SIZE - 1),
        st.integers(1, 255),
    ),
    max_size=80,
)


@given(changes, st.integers(0, 70), st.integers(0, 1))
@settings(deadline=None)
def test_zero_pages_finds_the_pages_that_are_all_zero(bytes_set, pages, extra_words):
    memory = np.zeros(pages * PAGE_SIZE, dtype=np.uint8)
    for page, byte, value in bytes_set:
        if page < pages:
            memory[page * PAGE_SIZE + byte] = value
    words = -(-pages // 64) + extra_words
    bitmap = np.full(words, 2**64 - 1, dtype=np.uint64)
    expected = naive.zero_pages(memory.tobytes())
    assert kernels.zero_pages(memory, bitmap) == len(expected)
    assert bitmap.tolist() == naive.bitmap_of(expected, words)


@given(changes, st.integers(0, 70), st.sets(st.integers(0, 191)))
@settings(deadline=None)
def test_different_pages_adds_the_pages_that_differ(bytes_changed, pages, marked):
    memory = shared_memory()[: pages * PAGE_SIZE]
    other = memory.copy()
    for page, byte, change in bytes_changed:
        if page < pages:
            other[page * PAGE_SIZE + byte] ^= change
    bitmap = np.array(naive.bitmap_of(marked, 3), dtype=np.uint64)
    expected = naive.different_pages(memory.tobytes(), other.tobytes())
    assert kernels.different_pages(memory, other, bitmap) == len(expected)
    assert bitmap.tolist() == naive.bitmap_of(expected | marked, 3)
