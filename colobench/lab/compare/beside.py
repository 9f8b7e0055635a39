"""Strategies beside the first one of a table: ratios, and the link below which one commits more."""

from __future__ import annotations

import math
from typing import NamedTuple

from colobench.lab.compare.cells import Cell
from colobench.lab.compare.findings import Findings, Group
from colobench.lab.compare.judged import doubt
from colobench.lab.compare.metrics import HELD_RATE, digits
from colobench.lab.compare.models import Calibrations, calibrations_of

#: Rates of links that are looked at, bits a second.
SLOWEST, FASTEST = 1e7, 1e11
#: Ratio of two rates that are not told apart.
_CLOSE = 1.01


class _Way(NamedTuple):
    """A link as models see it, of any rate."""

    rate: int
    delay_us: int
    jitter_us: int


def ratio_rows(group: Group) -> list[tuple[str, ...]]:
    """Give a table of figures divided by those of the first strategy; nothing for a single one."""
    first, *others = group.strategies
    rows = []
    for row in group.rows():
        usual = row.estimates.get(first)
        if usual is None or usual.median <= 0 or row.metric is HELD_RATE:
            continue
        found = [row.estimates.get(each) for each in others]
        shown = ("–" if each is None else digits(each.median / usual.median) for each in found)
        rows.append((row.metric.heading, *shown))
    if not rows or not others:
        return []
    return [(f"{group.name}: divided by {first}", *others), *rows]


def rate_notes(comparison: Findings) -> list[str]:
    """Say, for each guest over links, below which rate a strategy commits more than the first.

    Where the models of one of both are not judged, the sentence says so, and why.
    """
    calibrations, found = calibrations_of(comparison), dict[str, None]()
    for group in comparison.groups():
        first, *others = group.cells
        if not first.settings.link.link.rate:
            continue
        for cell in others:
            rate = commits_more_below(calibrations, cell, first)
            if rate is not None:
                doubts = (doubt(comparison, each, calibrations) for each in (cell, first))
                why = next(filter(None, doubts), "")
                found[_sentence(cell, first, rate) + (f" Not judged: {why}." if why else "")] = None
    return list(found)


def commits_more_below(calibrations: Calibrations, cell: Cell, first: Cell) -> float | None:
    """Give the rate of a link below which a cell commits more checkpoints a second than another.

    Both are predicted over links of all rates with the delay of the cell's. The rate at which
    they change places is found by bisection.

    Returns
    -------
    float
        Bits a second; 0 if it never does so, infinite if it does over all links from `SLOWEST` to
        `FASTEST`; None if one has no calibration or no model.
    """
    link = cell.settings.link.link

    def better(rate: float) -> bool | None:
        way = _Way(round(rate), link.delay_us, link.jitter_us)
        found = [calibrations.predict(each.settings, link=way) for each in (cell, first)]
        rates = [each.figures["checkpoints_per_s"] for each in found if each is not None]
        return rates[0] > rates[1] if len(rates) == 2 else None

    slow = better(SLOWEST)
    if not slow:
        return None if slow is None else 0.0
    low, high = SLOWEST, FASTEST
    if better(high):
        return math.inf
    while high / low > _CLOSE:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if better(middle) else (low, middle)
    return low


def _sentence(cell: Cell, first: Cell, rate: float) -> str:
    begin = f"By the models, on {cell.guest} {cell.strategy}"
    more = f"commits more checkpoints a second than {first.strategy}"
    if math.isinf(rate):
        return f"{begin} {more} over a link of any rate."
    if not rate:
        return f"{begin} never {more}."
    return f"{begin} {more} below {digits(rate / 1e9)} Gbit/s."
