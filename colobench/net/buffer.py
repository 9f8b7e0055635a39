"""filter-buffer: it holds the guest's output until the next checkpoint.

QEMU's filter-buffer can also release frames by a timer, its `interval`. COLO of December 2015
(patch 29) sets it to zero, so that only a checkpoint releases frames. There is no timer here.
"""

from __future__ import annotations

from collections import deque

from colobench.net.outcome import NOTHING, Outcome


class FilterBuffer:
    """Frames that the guest has sent and no committed checkpoint covers, in order.

    The methods are those of `colobench.net.output.OutputFilter`.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        #: Number of the held frames that each sealed checkpoint covers, those of earlier ones too.
        self._sealed: deque[int] = deque()

    def primary(self, frame: bytes, now: float) -> Outcome:
        """Hold a frame of the primary's guest."""
        self._held.append(frame)
        return NOTHING

    def secondary(self, frame: bytes, now: float) -> Outcome:
        """Ignore a frame of the secondary's guest."""
        return NOTHING

    def scan(self, now: float) -> Outcome:
        """Do nothing: frames may wait until the next checkpoint, however late it is."""
        return NOTHING

    def seal(self) -> None:
        """Draw a line: frames held now are covered by the coming checkpoint."""
        self._sealed.append(len(self._held))

    def checkpoint(self) -> list[bytes]:
        """Return the frames of the oldest sealed checkpoint in order: their state is committed."""
        count = self._sealed.popleft() if self._sealed else 0
        released, self._held = self._held[:count], self._held[count:]
        self._sealed = deque(each - count for each in self._sealed)
        return released

    def failover(self) -> list[bytes]:
        """Return all frames in order: the secondary is gone."""
        released, self._held = self._held, []
        self._sealed.clear()
        return released

    def early(self) -> int:
        """Return 0: no frame of the secondary is kept."""
        return 0

    def unsealed(self) -> int:
        """Return the number of frames that were held after the last seal."""
        return len(self._held) - (self._sealed[-1] if self._sealed else 0)

    def counters(self) -> dict[str, int]:
        """Return the number of frames that are held."""
        return {"held": len(self._held)}
