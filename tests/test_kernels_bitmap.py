"""The bitmap kernels against sets of page numbers."""

from __future__ import annotations

import threading

import naive
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.kernels import bitmap as kernels

WORDS = 70
ALL = 2**64 - 1

#: Bitmaps as guests make them: mostly empty, with full words, and longer than one chunk of them.
sparse_words = st.dictionaries(
    st.integers(0, WORDS - 1), st.just(ALL) | st.integers(0, ALL), max_size=12
)


def bitmap_with(words: dict[int, int]) -> np.ndarray:
    bitmap = np.zeros(WORDS, dtype=np.uint64)
    for index, word in words.items():
        bitmap[index] = word
    return bitmap


@given(st.lists(st.integers(0, 64 * WORDS - 1)))
@settings(deadline=None)
def test_mark_sets_exactly_the_pages_bits(pages):
    bitmap = np.zeros(WORDS, dtype=np.uint64)
    for page in pages:
        assert kernels.mark(bitmap, page) == 0
    assert bitmap.tolist() == naive.bitmap_of(pages, WORDS)


@given(sparse_words, st.integers(0, WORDS))
@settings(deadline=None)
def test_list_pages_gives_the_pages_in_order_and_leaves_the_bitmap(words, length):
    bitmap = bitmap_with(words)[:length]
    expected = naive.pages_of(bitmap)
    unchanged = bitmap.copy()
    pages = np.full(64 * length, -1, dtype=np.int32)
    count = kernels.list_pages(bitmap, pages)
    assert pages[:count].tolist() == expected
    assert (pages[count:] == -1).all()
    assert (bitmap == unchanged).all()


@given(sparse_words, sparse_words, st.integers(0, WORDS))
@settings(deadline=None)
def test_sync_moves_every_bit_and_keeps_those_that_are_there(left, right, length):
    source, into = bitmap_with(left)[:length], bitmap_with(right)[:length]
    expected = sorted({*naive.pages_of(source), *naive.pages_of(into)})
    assert kernels.sync(source, into) == len(naive.pages_of(bitmap_with(left)[:length]))
    assert naive.pages_of(into) == expected
    assert not source.any()


@given(sparse_words, sparse_words)
@settings(deadline=None)
def test_union_adds_the_other_bitmaps_pages(left, right):
    into, other = bitmap_with(left), bitmap_with(right)
    expected = sorted({*naive.pages_of(into), *naive.pages_of(other)})
    unchanged = other.copy()
    assert kernels.union(into, other) == 0
    assert naive.pages_of(into) == expected
    assert (other == unchanged).all()


@given(sparse_words)
@settings(deadline=None)
def test_popcount_counts_the_pages(words):
    bitmap = bitmap_with(words)
    assert kernels.popcount(bitmap) == len(naive.pages_of(bitmap))


@given(sparse_words)
@settings(deadline=None)
def test_clear_leaves_no_page(words):
    bitmap = bitmap_with(words)
    assert kernels.clear(bitmap) == 0
    assert not bitmap.any()


def test_no_mark_is_lost_beside_a_collector():
    bitmap = np.zeros(4, dtype=np.uint64)
    collected = np.zeros_like(bitmap)
    pages = np.zeros(64 * len(bitmap), dtype=np.int32)
    written = np.zeros(64 * len(bitmap), dtype=np.int64)
    seen = written.copy()
    done = threading.Event()

    def guest() -> None:
        for turn in range(1, 101):
            for page in range(len(written)):
                written[page] = turn
                kernels.mark(bitmap, page)
        done.set()

    thread = threading.Thread(target=guest)
    thread.start()
    last = False
    while not last:
        last = done.is_set()
        kernels.clear(collected)
        kernels.sync(bitmap, collected)
        dirty = pages[: kernels.list_pages(collected, pages)]
        seen[dirty] = written[dirty]
    thread.join()
    assert (seen == written).all()
