"""Model of a guest's output: when frames begin to wait, and since when clients wait for them."""

from __future__ import annotations

import math

from colobench.strategy.model.inputs import Workload


class FrameOutput:
    """Frames of output of a pair, in the model's own time.

    A guest that sends by itself sends a frame after each 1 / ρ milliseconds of its work. Clients
    in an open loop ask each 1 / ρ, whether or not the guest stands still; a request that comes
    meanwhile is read when the guest runs again. The answer waits half of the unprotected latency
    after it was read: the ways there and back are alike.

    Parameters
    ----------
    load
        Rate ρ of frames, whether clients ask for them, and their unprotected latency.
    """

    def __init__(self, load: Workload) -> None:
        self._every = 1 / load.frames_per_ms if load.frames_per_ms > 0 else math.inf
        self._clients = load.clients
        self._served = (load.latency_ms or 0.0) / 2 if load.clients else 0.0
        #: Frames that were released, when the guest was started, and how long it stood before.
        self._released, self._started, self._stood = 0, 0.0, 0.0

    def first_at(self) -> float:
        """Give the time at which a frame begins to wait, if none waits yet."""
        return self._frame_at(self._released + 1)

    def waiting(self, now: float) -> int:
        """Give the number of frames that wait while the guest runs."""
        if not math.isfinite(self._every) or now < self._started + self._served:
            return 0
        guest = now - self._served - (0.0 if self._clients else self._stood)
        return max(0, math.floor(guest / self._every + 1e-9) - self._released)

    def release(
        self, stopped: float, started: float, made_up: float = 0.0
    ) -> tuple[int, tuple[float, ...]]:
        """Release what waits when the guest stops.

        Parameters
        ----------
        stopped, started
            When the guest stops, and when it runs again.
        made_up
            Milliseconds of the pause whose work it does when it runs again.

        Returns
        -------
        tuple
            Number of frames, and the time from each client's request, or from when the guest sent
            a frame of its own, until the stop.
        """
        number = self.waiting(stopped)
        first = self._released + 1
        stood = 0.0 if self._clients else self._stood
        asked = [stopped - stood - each * self._every for each in range(first, first + number)]
        self._released += number
        self._started = started
        self._stood += started - stopped - made_up
        return number, tuple(asked)

    def _frame_at(self, number: int) -> float:
        if not math.isfinite(self._every):
            return math.inf
        if self._clients:
            return max(self._started, number * self._every) + self._served
        return number * self._every + self._stood
