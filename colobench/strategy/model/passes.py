"""Model of gap pre-copy: passes between two checkpoints, and what they leave for the pause."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from colobench.strategy.trigger import Trigger
from colobench.strategy.triggers import Degradation, FixedDelay, OnMiscompare

#: Triggers that say beforehand when the checkpoint comes, so that a last pass can end just then.
_KNOWS_WHEN = (FixedDelay, OnMiscompare, Degradation)
#: Part of a period before a checkpoint in which no pass begins.
_TAIL = 0.25


class Passed(NamedTuple):
    """Passes of an interval.

    Attributes
    ----------
    pages
        Pages that all passes sent; one that is written in several of them counts in each.
    left_ms
        Time from the beginning of the last pass, when pages were collected, to the stop.
    """

    pages: float
    left_ms: float


def passes(
    ran: float,
    period: float,
    trigger: Trigger,
    written: Callable[[float], float],
    lasts: Callable[[float], float],
) -> Passed:
    """Predict the passes while the guest runs.

    A pass sends the pages that were written since the one before, D(T_k); it begins T_k = max(g,
    2 s) after that, with the period g and the time s that it lasts. Where the trigger knows when
    the checkpoint comes, a last pass begins max(s, g / 4) before it. The pause has D(what is left).
    With any other trigger the checkpoint comes at any moment between two passes, so on average half
    of T_k is left.

    Source: Derek Su, "COLO: migrate dirty pages during the gap of checkpoints", qemu-devel 2020;
    the rules for the period are those of `colobench.node.migration.gap_precopy`.

    Parameters
    ----------
    ran, period
        Time that the guest runs, and least time from one pass to the next, milliseconds.
    trigger
        The trigger.
    written, lasts
        Functions that give the distinct pages of so many milliseconds, and the milliseconds that a
        pass of so many pages takes.
    """
    every = _every(period, written, lasts)
    lasted = lasts(written(every))
    if not isinstance(trigger, _KNOWS_WHEN):
        return Passed(ran / every * written(every), min(ran, every / 2))
    if ran <= period:
        return Passed(0.0, ran)
    # The first pass comes after a period; others follow while there is time for one more.
    whole = max(0, math.ceil((ran - period) / every) - 1)
    following = period + whole * every
    last = min(ran, max(following, ran - max(lasted, _TAIL * period)))
    before = following - every if whole else 0.0
    pages = written(last - before)
    if whole:
        pages += written(period) + (whole - 1) * written(every)
    return Passed(pages, ran - last)


def _every(
    period: float, written: Callable[[float], float], lasts: Callable[[float], float]
) -> float:
    """Give the time from one pass to the next, a fixed point: a longer one has more pages."""
    every = period
    for _ in range(30):
        every = max(period, 2 * lasts(written(every)))
    return every
