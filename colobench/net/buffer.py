"""filter-buffer: it holds the guest's output until the next checkpoint.

QEMU's filter-buffer can also release frames by a timer, its `interval`. COLO of December 2015
(patch 29) sets it to zero, so that only a checkpoint releases frames. There is no timer here.
"""

from __future__ import annotations

from colobench.net.outcome import NOTHING, Outcome


class FilterBuffer:
    """Frames that the guest has sent and no committed checkpoint covers, in order.

    The methods are those of `colobench.net.output.OutputFilter`.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        #: Number of the held frames that the sealed checkpoint covers.
        self._sealed = 0

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
        """Draw the line: frames held now are covered by the coming checkpoint."""
        self._sealed = len(self._held)

    def checkpoint(self) -> list[bytes]:
        """Return the sealed frames in order: the state in which they were sent is committed."""
        released, self._held = self._held[: self._sealed], self._held[self._sealed :]
        self._sealed = 0
        return released

    def failover(self) -> list[bytes]:
        """Return all frames in order: the secondary is gone."""
        self.seal()
        return self.checkpoint()

    def counters(self) -> dict[str, int]:
        """Return the number of frames that are held."""
        return {"held": len(self._held)}
