"""The trackers' kernels against sets of page numbers and slices of bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import naive
from colobench.kernels import tracking as kernels
from colobench.kernels.pages import PAGE_SIZE
from parts import from_python

WORDS = 3
PAGES = 64 * WORDS
set_run = from_python(kernels.set_run)


@given(st.integers(0, PAGES), st.integers(0, PAGES), st.sets(st.integers(0, PAGES - 1)))
def test_a_run_sets_its_bits_and_leaves_the_others(begin: int, end: int, pages: set[int]) -> None:
    bitmap = np.array(naive.bitmap_of(pages, WORDS), dtype=np.uint64)
    set_run(bitmap, begin, end)
    assert naive.pages_of(bitmap) == sorted(pages | set(range(begin, end)))


@given(
    st.lists(st.tuples(st.integers(0, PAGES * PAGE_SIZE - 1), st.integers(1, 255)), max_size=30),
    st.sets(st.integers(0, PAGES - 1)),
    st.sampled_from([0, 1, 32]),
)
def test_comparing_finds_each_byte_that_differs_once(
    changes: list[tuple[int, int]], pages: set[int], misalignment: int
) -> None:
    memory = np.random.default_rng(1).integers(0, 256, PAGES * PAGE_SIZE, dtype=np.uint8)
    shadow = np.empty(len(memory) + 64, dtype=np.uint8)[misalignment:][: len(memory)]
    shadow[:] = memory
    for at, difference in changes:
        memory[at] ^= np.uint8(difference)
    twin, unchanged = bytearray(shadow.tobytes()), memory.tobytes()
    expected = naive.compare(unchanged, twin)
    into = np.array(naive.bitmap_of(pages, WORDS), dtype=np.uint64)
    assert kernels.compare(memory, shadow, into) == len(expected)
    assert naive.pages_of(into) == sorted(pages | expected)
    assert shadow.tobytes() == twin == memory.tobytes() == unchanged
    assert kernels.compare(memory, shadow, into) == 0
