"""Kernels over whole pages: tests for zero and for equality, hashes, and the digest."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.kernels import digest as digests
from colobench.kernels import pages as kernels
from colobench.lab.bench.case import Case, at_least, subject
from colobench.lab.bench.context import MIB, PAGE_SIZE, BenchContext, as_rates, binary
from colobench.lab.bench.measured import Measured, Unavailable
from colobench.lab.bench.timing import timed

COLD_BYTES = 256 * MIB
UNIT = "GB/s"


def _cold(context: BenchContext) -> int:
    return context.size(COLD_BYTES, 64 * PAGE_SIZE)


def _marks(size: int) -> npt.NDArray[np.uint64]:
    return np.zeros(size // PAGE_SIZE // 64, dtype=np.uint64)


def _xxh3() -> Callable[[Any], int]:
    """Give XXH3 of the package xxhash, which hashes anything that has bytes."""
    try:
        digest: Callable[[Any], int] = importlib.import_module("xxhash").xxh3_64_intdigest
    except ImportError as error:
        raise Unavailable("the package xxhash is not installed: pip install xxhash") from error
    return digest


def _zero(context: BenchContext, early: bool) -> Measured:
    size = _cold(context)
    memory = context.noise("noise", size) if early else context.memory("zero", size).array
    marks = _marks(size)
    reference = context.references.function(
        "pages.zero_pages", memory, size // PAGE_SIZE, marks, result=ctypes.c_size_t
    )
    samples = context.compare(timed(lambda: kernels.zero_pages(memory, marks)), timed(reference))
    return as_rates(samples, size)


@subject("zero", "the test for zero pages: against C with vectors")
def zero(context: BenchContext) -> Iterator[Case]:
    """Give the cases; a page that is not zero mostly shows it in its first bytes."""
    size = binary(_cold(context))
    reference = context.references.best("avx2").words
    words = f"{size} of zero pages, {reference}"
    yield Case(words, UNIT, partial(_zero, context, False), at_least(1.1))
    yield Case(f"{size} of random bytes, {reference}", UNIT, partial(_zero, context, True))


@subject("equality", "the comparison of pages: against memcmp")
def equality(context: BenchContext) -> Iterator[Case]:
    """Give the case."""
    size = _cold(context)

    def measure() -> Measured:
        memory = context.noise("noise", size)
        other = context.memory("other", size).array
        other[:] = memory
        marks = _marks(size)
        reference = context.references.function(
            "pages.different_pages",
            memory,
            other,
            size // PAGE_SIZE,
            marks,
            result=ctypes.c_size_t,
        )
        samples = context.compare(
            timed(lambda: kernels.different_pages(memory, other, marks)), timed(reference)
        )
        return as_rates(samples, size)

    yield Case(f"{binary(size)} of equal pages, C's memcmp", UNIT, measure, at_least(1.0))


@subject("hash", "a hash of each page: against XXH3 of the package xxhash")
def hash_of_pages(context: BenchContext) -> Iterator[Case]:
    """Give the cases: XXH3 of everything, without Python's calls, and XXH3 of each page."""
    size = _cold(context)

    def measure(each: bool) -> Measured:
        xxh3, memory = _xxh3(), context.noise("noise", size)
        hashes = np.zeros(size // PAGE_SIZE, dtype=np.uint64)
        parts = list(memory.reshape(-1, PAGE_SIZE)) if each else [memory]

        def reference() -> None:
            for part in parts:
                xxh3(part)

        samples = context.compare(
            timed(lambda: kernels.hash_pages(memory, 0, hashes)), timed(reference)
        )
        return as_rates(samples, size)

    words = f"{binary(size)}, XXH3"
    yield Case(f"{words} of all in one call", UNIT, partial(measure, False), at_least(0.9))
    yield Case(f"{words} of each page, called from Python", UNIT, partial(measure, True))


@subject("digest", "the digest of RAM: against XXH3 of the package xxhash")
def digest(context: BenchContext) -> Iterator[Case]:
    """Give the case."""
    size = _cold(context)

    def measure() -> Measured:
        xxh3, memory = _xxh3(), context.noise("noise", size)
        samples = context.compare(
            timed(lambda: digests.digest(memory, 0)), timed(lambda: xxh3(memory))
        )
        return as_rates(samples, size)

    yield Case(f"{binary(size)}, XXH3", UNIT, measure, at_least(0.9))
