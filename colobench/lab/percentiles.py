"""Percentiles of measured values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def percentiles(values: Iterable[float], percents: Sequence[float], without: T) -> list[float | T]:
    """Give percentiles, linearly interpolated between neighbouring values.

    Parameters
    ----------
    values
        Values in any order; there may be none.
    percents
        Percentages from 0 (the smallest value) to 100 (the largest).
    without
        Result for each percentage if there are no values.
    """
    found = np.fromiter(values, dtype=np.float64)
    if not len(found):
        return [without for _ in percents]
    return [float(value) for value in np.percentile(found, percents)]
