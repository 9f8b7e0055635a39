"""The bitmap kernels against sets of page numbers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels import bitmap as kernels
from colobench.kernels.jit import target_has
from parts import from_python
from places import SUPPORT

WORDS = 200
ALL = 2**64 - 1
COMPRESS = target_has("avx512f", "avx512bw", "avx512vbmi2")

#: Words that guests make, with runs that go over their borders, and words of any density.
words = st.sampled_from([0, 1, 1 << 63, 1 << 63 | 1, ALL - 1, ALL >> 1, ALL]) | st.integers(0, ALL)
#: Bitmaps as guests make them: mostly empty, and longer than some stretches.
sparse_words = st.dictionaries(st.integers(0, WORDS - 1), words, max_size=12)
dense_words = st.lists(words, max_size=WORDS)
#: Parts of either, of any length.
bitmaps = st.builds(
    lambda words, length: bitmap_with(words)[:length], sparse_words, st.integers(0, WORDS)
) | st.builds(lambda words: np.array(words, dtype=np.uint64), dense_words)

#: Both ways to list a word's bits, whichever the kernels take on this machine.
puts = pytest.mark.parametrize(
    "put",
    [
        kernels.put_each,
        pytest.param(
            kernels.put_compressed,
            marks=pytest.mark.skipif(not COMPRESS, reason="numba compiles without AVX-512 VBMI2"),
        ),
    ],
    ids=["each", "compressed"],
)


def bitmap_with(words: dict[int, int]) -> np.ndarray:
    bitmap = np.zeros(WORDS, dtype=np.uint64)
    for index, word in words.items():
        bitmap[index] = word
    return bitmap


def room(entries: int) -> np.ndarray:
    """Make a list with as little room as the docstrings demand, and a mark behind it."""
    return np.full(entries + kernels.LIST_SLACK + 1, -1, dtype=np.int32)


def check_pages(list_pages, bitmap: np.ndarray) -> None:
    expected = naive.pages_of(bitmap)
    unchanged = bitmap.copy()
    pages = room(len(expected))
    count = list_pages(bitmap, pages[:-1])
    assert pages[:count].tolist() == expected
    assert pages[-1] == -1
    assert (bitmap == unchanged).all()


def check_runs(list_runs, bitmap: np.ndarray) -> None:
    expected = naive.runs_of(bitmap)
    unchanged = bitmap.copy()
    starts, lengths = room(len(expected)), room(len(expected))
    count = list_runs(bitmap, starts[:-1], lengths[:-1])
    found = zip(starts[:count].tolist(), lengths[:count].tolist(), strict=True)
    assert list(found) == expected
    assert starts[-1] == lengths[-1] == -1
    assert (bitmap == unchanged).all()


@given(st.lists(st.integers(0, 64 * WORDS - 1)))
@settings(deadline=None)
def test_mark_sets_exactly_the_pages_bits(pages):
    bitmap = np.zeros(WORDS, dtype=np.uint64)
    for page in pages:
        assert kernels.mark(bitmap, page) == 0
    assert bitmap.tolist() == naive.bitmap_of(pages, WORDS)


@given(bitmaps)
@settings(deadline=None)
def test_list_pages_gives_the_pages_in_order_and_leaves_the_bitmap(bitmap):
    check_pages(kernels.list_pages, bitmap)


@given(bitmaps)
@settings(deadline=None)
def test_list_runs_gives_each_run_whole_and_leaves_the_bitmap(bitmap):
    check_runs(kernels.list_runs, bitmap)


@puts
def test_both_ways_to_list_a_words_bits_give_the_same_lists(put):
    list_pages = from_python(kernels.page_lister(put))
    list_runs = from_python(kernels.run_lister(put))

    @given(bitmaps)
    @settings(deadline=None)
    def lists_are_right(bitmap):
        check_pages(list_pages, bitmap)
        check_runs(list_runs, bitmap)

    lists_are_right()


ON_ANOTHER_CPU = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
import test_bitmap as tests
from colobench.kernels import bitmap, jit
assert not jit.target_has("avx512f")
assert jit.target_has("avx2")
tests.test_list_pages_gives_the_pages_in_order_and_leaves_the_bitmap()
tests.test_list_runs_gives_each_run_whole_and_leaves_the_bitmap()
for kernel in bitmap.list_pages, bitmap.list_runs:
    assert kernel.stats.cache_hits == {{}}
    [text] = kernel.inspect_asm().values()
    assert "ymm" in text
    assert "zmm" not in text
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="it is about x86-64's CPUs")
@pytest.mark.parametrize(
    "environment",
    [
        {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": "+avx2,+bmi,+bmi2,+lzcnt,+popcnt"},
        {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": "+avx2,+avx512f,-avx512f"},
    ],
    ids=["without AVX-512", "AVX-512 taken away"],
)
def test_kernels_of_a_cpu_without_avx512_do_not_use_it(environment, tmp_path):
    script = ON_ANOTHER_CPU.format(paths=[str(SUPPORT), str(Path(__file__).parent)])
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, **environment, "NUMBA_CACHE_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


@given(sparse_words, sparse_words, st.integers(0, WORDS))
@settings(deadline=None)
def test_sync_moves_every_bit_and_keeps_those_that_are_there(left, right, length):
    source, into = bitmap_with(left)[:length], bitmap_with(right)[:length]
    expected = sorted({*naive.pages_of(source), *naive.pages_of(into)})
    assert kernels.sync(source, into) == len(naive.pages_of(bitmap_with(left)[:length]))
    assert naive.pages_of(into) == expected
    assert not source.any()


@given(sparse_words, sparse_words, st.integers(0, WORDS))
@settings(deadline=None)
def test_union_adds_the_other_bitmaps_pages(left, right, length):
    into, other = bitmap_with(left)[:length], bitmap_with(right)[:length]
    expected = sorted({*naive.pages_of(into), *naive.pages_of(other)})
    unchanged = other.copy()
    assert kernels.union(into, other) == 0
    assert naive.pages_of(into) == expected
    assert (other == unchanged).all()


@given(bitmaps)
@settings(deadline=None)
def test_popcount_counts_the_pages(bitmap):
    assert kernels.popcount(bitmap) == len(naive.pages_of(bitmap))


@given(bitmaps)
@settings(deadline=None)
def test_clear_leaves_no_page(bitmap):
    assert kernels.clear(bitmap) == 0
    assert not bitmap.any()


def test_no_mark_is_lost_beside_a_collector():
    bitmap = np.zeros(4, dtype=np.uint64)
    collected = np.zeros_like(bitmap)
    pages = np.zeros(64 * len(bitmap) + kernels.LIST_SLACK, dtype=np.int32)
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
