"""Checkpoints by the time that the guest ran, each computed once."""

from __future__ import annotations

import math
from collections.abc import Callable

from colobench.strategy.model.checkpoint import Checkpoint

#: Logarithm of the ratio of neighbouring times of the table.
_STEP = math.log(1.02)
#: Times that are computed exactly: a trigger that soon repeats itself needs no table.
_EXACT = 64


class Tabulated:
    """A function of the run time that is computed at few times, with straight lines between them.

    Parameters
    ----------
    exact
        Function that gives the checkpoint after so many milliseconds.
    """

    def __init__(self, exact: Callable[[float], Checkpoint]) -> None:
        self._exact = exact
        self._known: dict[float, Checkpoint] = {}
        self._table: dict[int, Checkpoint] = {}

    def at(self, ran: float) -> Checkpoint:
        """Give the checkpoint after so many milliseconds."""
        key = round(ran, 9)
        if key in self._known:
            return self._known[key]
        if len(self._known) < _EXACT or ran <= 0:
            return self._known.setdefault(key, self._exact(ran))
        below, share = divmod(math.log(ran), _STEP)
        low, high = self._row(int(below)), self._row(int(below) + 1)
        part = share / _STEP
        return Checkpoint(
            *(
                (1 - part) * getattr(low, name) + part * getattr(high, name)
                for name in Checkpoint.__slots__
            )
        )

    def _row(self, number: int) -> Checkpoint:
        if number not in self._table:
            self._table[number] = self._exact(math.exp(number * _STEP))
        return self._table[number]
