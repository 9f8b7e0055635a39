"""Estimates over rounds with their intervals, and the winner, where intervals name one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 4000
#: Rounds below which the interval is so short that equals are often told apart.
FEW_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median over rounds.

    Attributes
    ----------
    median
        Median of the rounds' values.
    low, high
        Ends of its interval; None if there is only one round.
    rounds
        Number of values.
    """

    median: float
    low: float | None
    high: float | None
    rounds: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """Give the median of values, with a bootstrap interval; None without values.

    The interval is the percentile interval of the medians of resamples (B. Efron, "Bootstrap
    methods: another look at the jackknife", Annals of Statistics 7, 1979; B. Efron and
    R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Rounds are resampled,
    because the checkpoints of one round are not independent. The same values give the same
    interval.

    Parameters
    ----------
    values
        One value a round, in any unit.
    """
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return None
    median = float(np.median(found))
    if len(found) == 1:
        return Estimate(median, None, None, 1)
    chance = np.random.default_rng(0)
    drawn = found[chance.integers(0, len(found), (_RESAMPLES, len(found)))]
    tail = 50 * (1 - CONFIDENCE)
    ends = np.percentile(np.median(drawn, axis=1), [tail, 100 - tail])
    # Few resamples can have their percentiles on one side of the median.
    low, high = min(float(ends[0]), median), max(float(ends[1]), median)
    return Estimate(median, low, high, len(found))


def overlap(one: Estimate, other: Estimate) -> bool:
    """Say whether two intervals have a value in common; without an interval, nothing denies it."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return True
    return one.low <= other.high and other.low <= one.high


def best_of(estimates: Mapping[str, Estimate], more_is_better: bool = False) -> tuple[str, ...]:
    """Name the best.

    Parameters
    ----------
    estimates
        An estimate for each name.
    more_is_better
        Whether the largest median is the best one, instead of the smallest.

    Returns
    -------
    tuple
        The winner alone; or the one with the best median, followed by all whose intervals overlap
        with its own, in the order of `estimates`: these tie. Empty without estimates.
    """
    if not estimates:
        return ()
    pick = max if more_is_better else min
    leader = pick(estimates, key=lambda name: estimates[name].median)
    equals = [
        name
        for name, found in estimates.items()
        if name != leader and overlap(found, estimates[leader])
    ]
    return (leader, *equals)


def chance_of_a_false_winner(rounds: int) -> float:
    """Give the probability that few rounds tell two equal strategies apart.

    With so few rounds the interval reaches from the smallest value to the largest, so it is the
    probability that all values of the one are below all of the other, or above.

    Parameters
    ----------
    rounds
        Number of rounds, from 2 up to `FEW_ROUNDS`.
    """
    return 2 / math.comb(2 * rounds, rounds)
