"""The curve of distinct dirty pages, D(W), over the work W that a guest does in an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Points of a smoothed curve in a decade of W.
POINTS_PER_DECADE = 10

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DirtyCurve:
    """Mean number of distinct pages that a guest writes while it does some work.

    Both are given by work and not by time, because a guest that stands still, or runs at another
    rate, writes the same pages for the same work. Between points the curve is a straight line over
    logarithms; before the first and behind the last it goes on as its last decade does, at most in
    proportion to the work.

    Attributes
    ----------
    work
        Steps of work, ascending, above 0.
    pages
        Distinct pages for each, not descending.
    limit
        Pages that the guest has; the curve ends there.
    """

    work: tuple[float, ...]
    pages: tuple[float, ...]
    limit: float

    def at(self, work: float) -> float:
        """Give the pages that are written during some work."""
        if work <= 0 or not self.work:
            return 0.0
        x, y = np.log(np.asarray(self.work)), np.log(np.maximum(self.pages, 1e-9))
        to = float(np.log(work))
        if to < x[0]:
            found = y[0] - _slope(x, y, first=True) * (x[0] - to)
        elif to > x[-1]:
            found = y[-1] + _slope(x, y, first=False) * (to - x[-1])
        else:
            found = float(np.interp(to, x, y))
        return float(min(self.limit, np.exp(found)))

    def work_for(self, pages: float, most: float) -> float:
        """Give the work in which so many pages are written, at most `most`.

        Source: bisection; the curve does not descend.
        """
        low, high = 0.0, most
        if self.at(most) <= pages:
            return most
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.at(middle) >= pages else (middle, high)
        return high


def measured_curve(
    work: Sequence[float] | Numbers, pages: Sequence[float] | Numbers, limit: float
) -> DirtyCurve:
    """Make a curve from the work and the dirty pages of checkpoints, in any order.

    The points of a tenth of a decade become one: the means of their logarithms. Where a point is
    below the one before, which noise can cause, both become their mean (pool adjacent violators:
    M. Ayer and others, Annals of Mathematical Statistics 26, 1955).

    Parameters
    ----------
    work, pages
        Steps of work between two checkpoints, and pages that the later one found dirty.
    limit
        Pages that the guest has.
    """
    w, d = np.asarray(work, dtype=np.float64), np.asarray(pages, dtype=np.float64)
    some = (w > 0) & (d > 0)
    w, d = np.log(w[some]), np.log(d[some])
    # Work is a whole number, so a group may have points of one value alone.
    groups = np.rint(w / np.log(10) * POINTS_PER_DECADE).astype(np.int64)
    pooled: list[tuple[float, float, int]] = []
    for group in np.unique(groups):
        inside = groups == group
        x, y, count = float(w[inside].mean()), float(d[inside].mean()), int(inside.sum())
        while pooled and pooled[-1][1] >= y:
            x_before, y_before, before = pooled.pop()
            total = before + count
            x = (x_before * before + x * count) / total
            y, count = (y_before * before + y * count) / total, total
        pooled.append((x, y, count))
    return DirtyCurve(
        tuple(float(np.exp(x)) for x, _, _ in pooled),
        tuple(float(np.exp(y)) for _, y, _ in pooled),
        limit,
    )


def _slope(x: Numbers, y: Numbers, *, first: bool) -> float:
    """Give the slope over the first or the last decade, from 0 to 1; 1 for a single point."""
    if len(x) < 2:
        return 1.0
    decade = np.log(10)
    inside = x <= x[0] + decade if first else x >= x[-1] - decade / 2
    if inside.sum() < 2:
        inside = np.zeros(len(x), dtype=bool)
        inside[:2] = first
        inside[-2:] |= not first
    return float(np.clip(np.polyfit(x[inside], y[inside], 1)[0], 0.0, 1.0))
