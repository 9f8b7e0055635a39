"""Spread of single values around the line or the curve that was fitted to them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Values of a calibration that are alike: the nearest ones.
NEAREST = 16


@dataclass(frozen=True, slots=True)
class Spread:
    """Ratios of measured values to fitted ones, for values of any size.

    A pause is disturbed by what else runs, and by what a line leaves out: memory that the
    processor's caches hold, or do not. Both depend on how long it is, so the ratios are those of
    the checkpoints whose pauses are nearest, by their logarithms (k nearest neighbours: E. Fix and
    J. Hodges, 1951), from all calibrations of the pair.

    Attributes
    ----------
    fitted
        Fitted values, ascending, above 0, such as the pauses of a line in milliseconds.
    ratios
        Measured value by the fitted one, for each.
    """

    fitted: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()

    def ratio(self, value: float, share: float) -> float:
        """Give the ratio that a share of the values like this one does not exceed."""
        near = self.near(value)
        return float(np.quantile(near, share)) if near else 1.0

    def near(self, value: float) -> tuple[float, ...]:
        """Give the ratios of the values like this one."""
        end = min(len(self.fitted), max(NEAREST, bisect_left(self.fitted, value) + NEAREST // 2))
        return self.ratios[max(0, end - NEAREST) : end]

    def __bool__(self) -> bool:
        return bool(self.fitted)


#: Every value is the fitted one.
NO_SPREAD = Spread()


def measured_spread(fitted: Sequence[float], measured: Sequence[float]) -> Spread:
    """Make a spread from fitted values and measured ones, in any order."""
    known = sorted(
        (each, value / each) for each, value in zip(fitted, measured, strict=True) if each > 0
    )
    return Spread(tuple(each for each, _ in known), tuple(ratio for _, ratio in known))
