"""Gather and flush against slices of bytes."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.kernels import pages as kernels
from colobench.kernels.pages import PAGE_SIZE

PAGES = 192


def random_memory(seed: int, misalignment: int = 0) -> np.ndarray:
    """Make whole pages that begin `misalignment` bytes behind a multiple of 64."""
    room = np.empty(PAGES * PAGE_SIZE + 128, dtype=np.uint8)
    begin = -room.ctypes.data % 64 + misalignment
    memory = room[begin : begin + PAGES * PAGE_SIZE]
    memory[:] = np.random.default_rng(seed).integers(0, 256, len(memory), dtype=np.uint8)
    return memory


@given(st.lists(st.integers(0, PAGES - 1), max_size=40))
@settings(deadline=None)
def test_gather_copies_the_pages_one_behind_the_other(pages):
    memory = random_memory(1)
    out = np.full(len(pages) * PAGE_SIZE + 8, 7, dtype=np.uint8)
    copied = kernels.gather(memory, np.array(pages, dtype=np.int32), len(pages), out)
    assert copied == len(pages) * PAGE_SIZE
    assert out[:copied].tobytes() == naive.gather(memory.tobytes(), pages)
    assert (out[copied:] == 7).all()


@given(
    st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 80)), max_size=6),
    st.sampled_from([0, 1, 32]),
)
@settings(deadline=None)
def test_flush_copies_the_marked_pages_and_no_other(runs, misalignment):
    marked = {page for begin, length in runs for page in range(begin, min(begin + length, PAGES))}
    ram, cache = random_memory(1, misalignment), random_memory(2)
    bitmap = np.array(naive.bitmap_of(marked, PAGES // 64), dtype=np.uint64)
    expected = naive.flush(ram.tobytes(), cache.tobytes(), bitmap)
    unchanged = cache.tobytes()
    assert kernels.flush(ram, cache, bitmap) == len(marked)
    assert ram.tobytes() == expected
    assert cache.tobytes() == unchanged
    assert not bitmap.any()


@pytest.mark.parametrize("byte", [0, 1, 255, 256, 2047, 3840, 4095])
def test_one_byte_that_is_not_zero_makes_a_page_not_zero(byte):
    memory = np.zeros(PAGE_SIZE, dtype=np.uint8)
    assert kernels.is_zero_page(memory.ctypes.data)
    memory[byte] = 1
    assert not kernels.is_zero_page(memory.ctypes.data)
