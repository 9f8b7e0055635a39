"""Hashes of listed pages against the specification's steps, and against the library xxhash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels.page_hashes import hash_listed_pages
from share import amount

PAGE_SIZE = 4096
ALL = 2**64 - 1
seeds = st.integers(-(2**63), 2**63 - 1)


def noise(pages: int, contents: int) -> np.ndarray:
    return np.random.default_rng(contents).integers(0, 256, pages * PAGE_SIZE, dtype=np.uint8)


def hashes_of(memory: np.ndarray, pages: list[int], seed: int) -> np.ndarray:
    hashes = np.zeros(2 * len(pages) + 1, dtype=np.uint64)
    listed = np.array(pages, dtype=np.int32)
    assert hash_listed_pages(memory, listed, seed, hashes) == len(pages)
    assert hashes[-1] == 0
    return hashes[:-1]


@given(st.lists(st.integers(0, 5), max_size=6), seeds, st.integers(0, 2**32))
@settings(deadline=None, max_examples=amount(20, 200))
def test_hashes_follow_the_specification(pages, seed, contents):
    memory = noise(6, contents)
    expected = naive.hash_listed_pages(memory.tobytes(), pages, seed & ALL)
    assert hashes_of(memory, pages, seed).tolist() == expected


@given(seeds, st.integers(0, 2**32))
@settings(deadline=None, max_examples=amount(20, 200))
def test_hashes_are_those_of_the_library(seed, contents):
    xxhash = pytest.importorskip("xxhash")
    memory = noise(2, contents)
    digest = xxhash.xxh3_128_digest(memory[PAGE_SIZE:], seed & ALL)
    assert hashes_of(memory, [1], seed).astype(">u8").tobytes() == digest


@given(st.integers(0, PAGE_SIZE * 8 - 1), seeds)
@settings(deadline=None, max_examples=amount(50, 500))
def test_any_changed_bit_changes_both_halves(bit, seed):
    memory = np.zeros(2 * PAGE_SIZE, dtype=np.uint8)
    memory[bit // 8] = 1 << bit % 8
    changed, zero = hashes_of(memory, [0, 1], seed).reshape(2, 2)
    assert (changed != zero).all()
