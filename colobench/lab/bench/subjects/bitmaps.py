"""The dirty bitmap as a list of pages, and of runs of pages."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from colobench.kernels import bitmap as kernels
from colobench.lab.bench.case import Case, at_least, at_most, subject
from colobench.lab.bench.context import GIB, PAGE_SIZE, BenchContext, as_times, binary
from colobench.lab.bench.measured import Measured
from colobench.lab.bench.timing import timed

#: Parts of all pages that are dirty.
DENSITIES = (0.0001, 0.01, 0.1, 0.5, 1.0)
MICROSECONDS = 1e6

Words = npt.NDArray[np.uint64]


def dirty(pages: int, density: float) -> Words:
    """Make a dirty bitmap with randomly chosen pages set, at the given density."""
    chosen = np.zeros(pages, dtype=np.uint8)
    chance = np.random.default_rng(0)
    chosen[chance.choice(pages, round(pages * density), replace=False, shuffle=False)] = 1
    return np.packbits(chosen, bitorder="little").view(np.uint64)


def _against(
    context: BenchContext, pages: int, density: float, kernel: str, reference: str
) -> Measured:
    words = dirty(pages, density)
    arrays = 1 if kernel == "list_pages" else 2
    # Both write the same: so where it lies in memory makes no difference.
    outputs = [np.zeros(pages + kernels.LIST_SLACK, dtype=np.int32) for _ in range(arrays)]
    listing = getattr(kernels, kernel)
    theirs = context.references.function(f"bitmap.{reference}", words, len(words), *outputs)
    samples = context.compare(timed(lambda: listing(words, *outputs)), timed(theirs))
    return as_times(samples, MICROSECONDS)


def _against_numpy(context: BenchContext, pages: int, density: float) -> Measured:
    words = dirty(pages, density)
    ours = np.zeros(pages + kernels.LIST_SLACK, dtype=np.int32)

    def with_numpy() -> object:
        return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))

    samples = context.compare(timed(lambda: kernels.list_pages(words, ours)), timed(with_numpy))
    mine, theirs = ([1 / seconds for seconds in part] for part in samples)
    return Measured(mine, theirs)


def _guests(context: BenchContext) -> Iterator[tuple[int, float, str]]:
    for size in (GIB, 64 * GIB):
        pages = context.size(size // PAGE_SIZE, 64)
        for density in DENSITIES:
            yield pages, density, f"{binary(pages * PAGE_SIZE)}, {100 * density:g} % dirty"


@subject("bitmap", "the pages of a dirty bitmap, listed: against C with vectors and numpy")
def bitmap(context: BenchContext) -> Iterator[Case]:
    """Give the cases; those of numpy are in lists per second, for how many times as fast it is."""
    best = context.references.best("avx512", "avx2")
    for pages, density, words in _guests(context):
        yield Case(
            f"{words}, {best.words}",
            "µs",
            partial(_against, context, pages, density, "list_pages", f"list_pages_{best.name}"),
            at_most(1.1),
        )
    for index, (pages, density, words) in enumerate(_guests(context)):
        judged = index < len(DENSITIES) and density <= 0.5
        yield Case(
            f"{words}, numpy",
            "lists/s",
            partial(_against_numpy, context, pages, density),
            at_least(25) if judged else None,
        )


@subject("runs", "the same as runs of pages: against C")
def runs(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    best = context.references.best("avx512", "avx2")
    for pages, density, words in _guests(context):
        yield Case(
            f"{words}, {best.words}",
            "µs",
            partial(_against, context, pages, density, "list_runs", "list_runs"),
        )
