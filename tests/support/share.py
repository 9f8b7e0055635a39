"""The share of the long runs that is done: all with COLOBENCH_LONG=1, a tenth with 0.1, else none.

COLOBENCH_SEED picks which cases belong to a share, so that a run can be repeated.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from typing import TypeVar

Case = TypeVar("Case")
Other = TypeVar("Other")

#: From 0, the short tests alone, to 1, everything.
SHARE = float(os.environ.get("COLOBENCH_LONG") or 0)
SEED = int(os.environ.get("COLOBENCH_SEED") or 1)
LONG = SHARE == 1


def amount(short: int, long: int) -> int:
    """Give a number of repetitions between the short and the long one."""
    return short + round(SHARE * (long - short))


def some(cases: Sequence[Case], short: int) -> list[Case]:
    """Pick cases by the seed, in their order: `short` of them, all in a long run."""
    return some_of(cases, amount(min(short, len(cases)), len(cases)))


def some_of(cases: Sequence[Case], count: int) -> list[Case]:
    """Pick so many cases by the seed, in their order."""
    chosen = random.Random(SEED).sample(range(len(cases)), count)
    return [cases[number] for number in sorted(chosen)]


def each_with_some(
    cases: Sequence[Case], others: Sequence[Other], short: int = 1
) -> list[tuple[Case, Other]]:
    """Give every case with some of the others; which ones turns with the case and the seed."""
    count = amount(min(short, len(others)), len(others))
    turned = itertools.count(SEED)
    return [
        (case, others[(first + step) % len(others)])
        for case, first in zip(cases, turned, strict=False)
        for step in range(count)
    ]
