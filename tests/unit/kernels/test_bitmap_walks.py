"""Ways through a dirty bitmap: each finds as many pages as its naive twin, and clears all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from colobench.kernels.bitmap_walks import walk_and_clear_runs, walk_pages, walk_runs
from colobench.lab.reproductions.claims.kernels import bitmap_of_runs

ALL = 2**64 - 1
#: Words with runs that go over their borders, and words of any density.
words = st.sampled_from([0, 1, 1 << 63, 1 << 63 | 1, ALL - 1, ALL >> 1, ALL]) | st.integers(0, ALL)


@pytest.mark.parametrize("walk", [walk_pages, walk_runs, walk_and_clear_runs])
@given(found=st.lists(words, max_size=40))
def test_a_walk_counts_all_pages_and_leaves_none(walk, found: list[int]) -> None:
    # One word more, which the walk must not touch.
    bitmap = np.array([*found, ALL], dtype=np.uint64)
    assert walk(bitmap[:-1]) == len(naive.pages_of(found))
    assert not bitmap[:-1].any()
    assert bitmap[-1] == ALL


@given(st.integers(1, 300), st.integers(1, 70))
def test_a_bitmap_of_runs_has_runs_of_that_length_with_gaps_of_one_page(
    pages: int, length: int
) -> None:
    runs = naive.runs_of(bitmap_of_runs(pages, length).tolist())
    assert runs == [(n * (length + 1), length) for n in range(-(-pages // length))]
