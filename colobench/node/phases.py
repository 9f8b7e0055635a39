"""The stopwatch of a checkpoint: where its time went, phase by phase."""

from __future__ import annotations

import time


class Phases:
    """Milliseconds by phase; each phase lasts from the end of the one before."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter_ns()

    def end(self, phase: str) -> int:
        """Say that `phase` ends now; a phase may come in several pieces.

        Returns
        -------
        int
            Now, in nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
        """
        now = time.perf_counter_ns()
        self.milliseconds[phase] = self.milliseconds.get(phase, 0.0) + (now - self._last) / 1e6
        self._last = now
        return now
