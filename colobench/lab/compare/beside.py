"""Strategies beside the first one of a table: ratios, and the links over which one commits more."""

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
    """Say, for each guest over links, at which rates a strategy commits more than the first.

    Where the models of one of both are not judged, the sentence says so, and why.
    """
    calibrations, found = calibrations_of(comparison), dict[str, None]()
    for group in comparison.groups():
        first, *others = group.cells
        if not first.settings.link.link.rate:
            continue
        for cell in others:
            rates = commits_more_between(calibrations, cell, first)
            if rates is not None:
                doubts = (doubt(comparison, each, calibrations) for each in (cell, first))
                why = next(filter(None, doubts), "")
                found[_sentence(cell, first, rates) + (f" Not judged: {why}." if why else "")] = (
                    None
                )
    return list(found)


class Rates(NamedTuple):
    """Rates of links, bits a second: from 0 if there is no lower end, up to infinity if no upper.

    Both ends are 0 if there is no such rate.
    """

    low: float
    high: float


def commits_more_between(calibrations: Calibrations, cell: Cell, first: Cell) -> Rates | None:
    """Give the rates of a link at which a cell commits more checkpoints a second than another.

    Both are predicted over the slowest and the fastest link, with the delay of the cell's. If they
    change places in between, the rate at which they do so is found by bisection.

    Returns
    -------
    Rates
        The rates; None if one has no calibration or no model.
    """
    link = cell.settings.link.link

    def better(rate: float) -> bool | None:
        way = _Way(round(rate), link.delay_us, link.jitter_us)
        found = [calibrations.predict(each.settings, link=way) for each in (cell, first)]
        rates = [each.figures["checkpoints_per_s"] for each in found if each is not None]
        return rates[0] > rates[1] if len(rates) == 2 else None

    slow, fast = better(SLOWEST), better(FASTEST)
    if slow is None or fast is None:
        return None
    if slow == fast:
        return Rates(0.0, math.inf if slow else 0.0)
    low, high = SLOWEST, FASTEST
    while high / low > _CLOSE:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if better(middle) == slow else (low, middle)
    return Rates(0.0, low) if slow else Rates(high, math.inf)


def _sentence(cell: Cell, first: Cell, rates: Rates) -> str:
    begin = f"By the models, on {cell.guest} {cell.strategy}"
    more = f"commits more checkpoints a second than {first.strategy}"
    if not rates.high:
        return f"{begin} never {more}."
    if math.isfinite(rates.high):
        return f"{begin} {more} below {digits(rates.high / 1e9)} Gbit/s."
    if rates.low:
        return f"{begin} {more} above {digits(rates.low / 1e9)} Gbit/s."
    return f"{begin} {more} over a link of any rate."
