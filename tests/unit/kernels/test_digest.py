"""The digest against the specification's steps in big integers, and published values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels.digest import digest
from colobench.kernels.pages import hash_pages

PAGE_SIZE = 4096
ALL = 2**64 - 1


def sanity_buffer(length: int) -> np.ndarray:
    """Make the input of xxHash's own sanity tests."""
    data = bytearray()
    state = 2654435761
    for _ in range(length):
        data.append(state >> 56)
        state = state * 11400714785074694797 & ALL
    return np.frombuffer(data, dtype=np.uint8)


@pytest.mark.parametrize(
    ("length", "seed", "expected"),
    [
        (403, 0, 0xCDEB804D65C6DEA4),
        (512, 0, 0x617E49599013CB6B),
        (2048, 0, 0xDD59E2C3A5F038E0),
        (2240, 0, 0x6E73A90539CF2948),
        (2367, 0, 0xCB37AEB9E5D361ED),
    ],
)
def test_digest_is_xxh3(length, seed, expected):
    assert digest(sanity_buffer(length), seed) == expected


@given(st.integers(241, 3 * PAGE_SIZE), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_digest_follows_the_specification(length, seed, contents):
    memory = np.random.default_rng(contents).integers(0, 256, length, dtype=np.uint8)
    assert digest(memory, seed) == naive.xxh3_64(memory.tobytes(), seed & ALL)


@given(st.integers(0, 4 * PAGE_SIZE * 8 - 1))
@settings(deadline=None)
def test_any_changed_bit_changes_the_digest(bit):
    memory = np.zeros(4 * PAGE_SIZE, dtype=np.uint8)
    before = digest(memory, 0)
    memory[bit // 8] ^= 1 << bit % 8
    assert digest(memory, 0) != before


def test_swapped_pages_change_the_digest():
    memory = np.arange(2 * PAGE_SIZE, dtype=np.uint64).view(np.uint8)[: 2 * PAGE_SIZE].copy()
    swapped = np.roll(memory, PAGE_SIZE)
    assert digest(memory, 0) != digest(swapped, 0)


def test_the_seed_changes_the_digest():
    memory = np.zeros(PAGE_SIZE, dtype=np.uint8)
    assert len({digest(memory, seed) for seed in range(-8, 8)}) == 16


@given(st.integers(0, 5), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_hash_pages_digests_each_page_by_itself(pages, seed, contents):
    random = np.random.default_rng(contents)
    memory = random.integers(0, 256, pages * PAGE_SIZE, dtype=np.uint8)
    hashes = np.zeros(pages + 1, dtype=np.uint64)
    assert hash_pages(memory, seed, hashes) == pages
    assert hashes[:pages].tolist() == naive.hash_pages(memory.tobytes(), seed & ALL)
    assert hashes[:pages].tolist() == [
        digest(page, seed) for page in memory.reshape(pages, PAGE_SIZE)
    ]
    assert hashes[pages] == 0
