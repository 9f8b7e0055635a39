"""Figures of a guest's disks since the last checkpoint, counted where requests pass."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

import numpy as np

#: Newest writes of which the latency is kept, should no checkpoint come for long.
_LATENCIES: Final = 10_000


class DiskStatistics:
    """Figures of all disks of a primary's guest; any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._begin()

    def _begin(self) -> None:
        self._replicated = self._waits = 0
        self._waited = 0.0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    def replicated(self, length: int) -> None:
        """Count bytes of a write that both sides have done."""
        with self._lock:
            self._replicated += length

    def written(self, seconds: float) -> None:
        """Count a write of the guest, by the time from its submission until it was told."""
        with self._lock:
            self._latencies.append(seconds)

    def waited(self, seconds: float) -> None:
        """Count a write that had to wait for a checkpoint, because the secondary keeps so much."""
        with self._lock:
            self._waits += 1
            self._waited += seconds

    def stopped(self, in_flight: int) -> None:
        """Note the number of requests that were being done when the guest was stopped."""
        with self._lock:
            self._in_flight = in_flight

    def take(self) -> dict[str, Any]:
        """Return the figures of a checkpoint, as its record has them, and begin anew."""
        with self._lock:
            latencies = 1000 * np.fromiter(self._latencies, np.float64)
            found = {
                "disk-bytes": self._replicated,
                "disk-requests": self._in_flight,
                "disk-waits": self._waits,
                "disk-wait-ms": 1000 * self._waited,
            }
            self._begin()
        if len(latencies):
            p50, p99 = np.percentile(latencies, (50, 99)).tolist()
            found |= {"disk-write-p50-ms": p50, "disk-write-p99-ms": p99}
        return found
