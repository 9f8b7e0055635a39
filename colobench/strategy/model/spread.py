"""Spread of single pauses around the line that was fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Pauses of a calibration that are alike: the nearest ones.
NEAREST = 16


@dataclass(frozen=True, slots=True)
class PauseSpread:
    """Ratios of measured pauses to those of the line, for pauses of any length.

    A pause is disturbed by what else runs, and by what a line leaves out: memory that the
    processor's caches hold, or do not. Both depend on how long it is, so the ratios are those of
    the checkpoints whose pauses are nearest, by their logarithms (k nearest neighbours: E. Fix and
    J. Hodges, 1951), from all calibrations of the pair.

    Attributes
    ----------
    pauses
        Pauses of the line, ascending, above 0, milliseconds.
    ratios
        Measured pause by that of the line, for each.
    """

    pauses: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()

    def ratio(self, pause: float, share: float) -> float:
        """Give the ratio that a share of the pauses like this one does not exceed."""
        if not self.pauses:
            return 1.0
        end = min(len(self.pauses), max(NEAREST, self._after(pause) + NEAREST // 2))
        near = self.ratios[max(0, end - NEAREST) : end]
        return float(np.quantile(near, share))

    def __bool__(self) -> bool:
        return bool(self.pauses)

    def _after(self, pause: float) -> int:
        return int(np.searchsorted(self.pauses, pause))


#: Every pause is that of the line.
NO_SPREAD = PauseSpread()


def measured_spread(line: Sequence[float], measured: Sequence[float]) -> PauseSpread:
    """Make a spread from pauses of the line and measured ones, in any order."""
    known = sorted(
        (each, pause / each) for each, pause in zip(line, measured, strict=True) if each > 0
    )
    return PauseSpread(tuple(each for each, _ in known), tuple(ratio for _, ratio in known))
