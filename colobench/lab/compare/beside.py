"""Strategies beside the first one of a table: ratios, and the links over which one commits more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from colobench.lab.compare.cells import Cell
from colobench.lab.compare.findings import Findings, Group
from colobench.lab.compare.judged import doubt
from colobench.lab.compare.metrics import CHECKPOINTS, HELD_RATE, digits
from colobench.lab.compare.models import (
    USUAL_TIME,
    Calibrations,
    MeasuredTime,
    calibrations_of,
    measured_time,
    unprotected_figures,
)

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
        # Less than nothing, as memory may be, or work by noise, is no multiple.
        shown = (
            "–" if each is None or each.median < 0 else digits(each.median / usual.median)
            for each in found
        )
        rows.append((row.metric.heading, *shown))
    if not rows or not others:
        return []
    return [(f"{group.name}: divided by {first}", *others), *rows]


def rate_notes(comparison: Findings) -> list[str]:
    """Say, for each guest over links, at which rates a strategy commits more than the first.

    Links that differ by their rates alone have one sentence. Where no cell's models are judged, it
    says so, and why. Where a cell was measured to be otherwise, it says that, too.
    """
    calibrations = calibrations_of(comparison)
    pairs: dict[tuple[str, str, int, int], list[tuple[Group, Cell]]] = {}
    for group in comparison.groups():
        link = group.cells[0].settings.link.link
        for cell in group.cells[1:] if link.rate else ():
            place = (cell.guest, cell.strategy, link.delay_us, link.jitter_us)
            pairs.setdefault(place, []).append((group, cell))
    notes = []
    for over in pairs.values():
        group, cell = over[0]
        known = unprotected_figures(comparison, cell.guest), measured_time(comparison, cell)
        rates = commits_more_between(calibrations, cell, group.cells[0], *known)
        if rates is not None:
            notes.append(
                _sentence(cell, group.cells[0], rates)
                + _doubt(comparison, calibrations, over)
                + "".join(_measured_otherwise(rates, *each) for each in over)
            )
    return notes


def _doubt(
    comparison: Findings, calibrations: Calibrations, over: Sequence[tuple[Group, Cell]]
) -> str:
    """Say why models are not judged over any of the links; nothing if they are over one."""
    doubts = []
    for group, cell in over:
        of_both = (doubt(comparison, each, calibrations) for each in (cell, group.cells[0]))
        doubts.append(next(filter(None, of_both), ""))
    return f" Not judged: {doubts[0]}." if all(doubts) else ""


def _measured_otherwise(rates: Rates, group: Group, cell: Cell) -> str:
    """Give the measured ratio over a link, if it contradicts the rates; else nothing."""
    names = cell.strategy, group.cells[0].strategy
    found = [group.estimate(each, CHECKPOINTS) for each in names]
    medians = [each.median for each in found if each is not None]
    if len(medians) < len(found) or not medians[-1]:
        return ""
    ratio = medians[0] / medians[-1]
    if (ratio > 1) is (rates.low < cell.settings.link.link.rate < rates.high):
        return ""
    return f" Measured otherwise over {cell.link}: {digits(ratio)} times as many."


class Rates(NamedTuple):
    """Rates of links, bits a second: from 0 if there is no lower end, up to infinity if no upper.

    Both ends are 0 if there is no such rate.
    """

    low: float
    high: float


def commits_more_between(
    calibrations: Calibrations,
    cell: Cell,
    first: Cell,
    unprotected: Mapping[str, float] | None = None,
    measured: MeasuredTime = USUAL_TIME,
) -> Rates | None:
    """Give the rates of a link at which a cell commits more checkpoints a second than another.

    Both are predicted over the slowest and the fastest link, with the delay of the cell's. If they
    change places in between, the rate at which they do so is found by bisection. `unprotected` has
    figures of the unprotected guest, and `measured` is the time; see `Calibrations.predict`.

    Returns
    -------
    Rates
        The rates; None if one has no calibration or no model.
    """
    link = cell.settings.link.link

    def better(rate: float) -> bool | None:
        way = _Way(round(rate), link.delay_us, link.jitter_us)
        found = [
            calibrations.predict(each.settings, unprotected, way, measured)
            for each in (cell, first)
        ]
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
