"""Rates of rare events, with intervals that hold also where none was seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from colobench.lab.compare.statistics import CONFIDENCE

#: Number that rates are given for.
PER = 10_000
_RESAMPLES, _STEPS = 4000, 60


class Rate(NamedTuple):
    """Events for each `PER` trials, and the ends of the interval."""

    rate: float
    low: float
    high: float


def rate_of(events: Sequence[int], trials: Sequence[int]) -> Rate | None:
    """Give the rate of events over several runs; None without a trial.

    The interval is the wider one of two at each end. The exact binomial one (C. Clopper and
    E. Pearson, Biometrika 26, 1934, doi:10.1093/biomet/26.4.404) holds also where no event was
    seen, but takes events as independent. The bootstrap over runs (B. Efron and R. Tibshirani,
    "An Introduction to the Bootstrap", 1993, chapter 13) allows for events that come in clusters.
    Events are at most as many as trials.

    Parameters
    ----------
    events, trials
        Number of events and of trials in each run.
    """
    seen, tried = np.asarray(events, dtype=np.int64), np.asarray(trials, dtype=np.int64)
    if not tried.sum():
        return None
    low, high = exact_interval(int(seen.sum()), int(tried.sum()))
    if len(seen) > 1:
        drawn = np.random.default_rng(0).integers(0, len(seen), (_RESAMPLES, len(seen)))
        totals = np.maximum(tried[drawn].sum(axis=1), 1)
        tail = 50 * (1 - CONFIDENCE)
        ends = np.percentile(seen[drawn].sum(axis=1) / totals, [tail, 100 - tail])
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return Rate(PER * float(seen.sum() / tried.sum()), PER * low, PER * high)


def exact_interval(events: int, trials: int) -> tuple[float, float]:
    """Give the Clopper–Pearson interval of a probability.

    Parameters
    ----------
    events, trials
        Number of events, and of trials, at least 1.
    """
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if events == 0 else _bisect(lambda p: 1 - _at_most(events - 1, trials, p) < tail)
    high = 1.0 if events == trials else _bisect(lambda p: _at_most(events, trials, p) > tail)
    return low, high


def _bisect(below: Callable[[float], bool]) -> float:
    """Find the probability up to which a condition holds."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def _at_most(events: int, trials: int, p: float) -> float:
    """Give the probability of at most so many events."""
    if not 0 < p < 1:
        return float(p <= 0 or events >= trials)
    numbers = np.arange(events + 1)
    steps = np.log(trials - numbers[:-1]) - np.log(numbers[1:])
    ways = np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.exp(ways + numbers * math.log(p) + (trials - numbers) * math.log1p(-p)).sum())
