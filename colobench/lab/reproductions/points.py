"""Points: what a reproduction measures, one value each, and medians over them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A measured value.

    Attributes
    ----------
    series
        Thing that was measured, one of those that are compared.
    quantity
        Quantity that was measured, with its unit at the end, such as ``pause_ms``.
    x
        Value of what was varied, such as the number of dirty pages.
    y
        The value.
    round
        Number of the round, from 1.
    """

    series: str
    quantity: str
    x: float
    y: float
    round: int = 0


def select(
    points: Iterable[Point], quantity: str, series: str | None = None, x: float | None = None
) -> list[Point]:
    """Give the points of a quantity; of one series or one x, if these are given."""
    return [
        each
        for each in points
        if each.quantity == quantity
        and (series is None or each.series == series)
        and (x is None or each.x == x)
    ]


def median(
    points: Iterable[Point], quantity: str, series: str | None = None, x: float | None = None
) -> float:
    """Give the median y of the points that `select` gives, of which there must be one."""
    return statistics.median(each.y for each in select(points, quantity, series, x))


def least(
    points: Iterable[Point], quantity: str, series: str | None = None, x: float | None = None
) -> float:
    """Give the smallest y of the points that `select` gives, of which there must be one."""
    return min(each.y for each in select(points, quantity, series, x))


def medians(points: Iterable[Point], quantity: str, series: str) -> dict[float, float]:
    """Give the median y for each x of a series, in ascending order of x."""
    found = select(points, quantity, series)
    return {x: median(found, quantity, x=x) for x in sorted({each.x for each in found})}


def r_squared(x: Sequence[float], y: Sequence[float]) -> float:
    """Give the coefficient of determination of the straight line of least squares.

    Parameters
    ----------
    x, y
        At least two values each, in any unit; not all of `x` are the same.
    """
    return statistics.correlation(x, y) ** 2 if len(set(y)) > 1 else 0.0


def rising_share(values: Sequence[float]) -> float:
    """Give the share of neighbours in which the second value is larger; 1 if all rise."""
    pairs = list(itertools.pairwise(values))
    return sum(second > first for first, second in pairs) / len(pairs)
