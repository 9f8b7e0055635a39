"""Mean and percentiles of times that are each uniform over a stretch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Points of a stretch.
_POINTS = 50


class Waits(NamedTuple):
    """Mean and percentiles of a wait, milliseconds."""

    mean: float
    p50: float
    p99: float


def uniform_percentiles(
    begins: Sequence[float], lengths: Sequence[float], parts: Sequence[float] | None = None
) -> Waits:
    """Give the percentiles of a time that is uniform from b to b + l, in a part of all cases.

    Parameters
    ----------
    begins, lengths
        Values b and l.
    parts
        Weight of each; None takes the lengths.
    """
    begin, length = np.asarray(begins, dtype=float), np.asarray(lengths, dtype=float)
    weight = length if parts is None else np.asarray(parts, dtype=float)
    inside = (np.arange(_POINTS) + 0.5) / _POINTS
    values = (begin[:, None] + length[:, None] * inside).ravel()
    order = np.argsort(values)
    sums = np.cumsum(np.repeat(weight, _POINTS)[order])
    if not sums[-1] > 0:
        return Waits(0.0, 0.0, 0.0)
    # A point stands for the middle of what it weighs.
    middles = (sums - np.diff(sums, prepend=0.0) / 2) / sums[-1]
    p50, p99 = np.interp((0.5, 0.99), middles, values[order])
    mean = float(np.average(begin + length / 2, weights=weight))
    return Waits(mean, float(p50), float(p99))
