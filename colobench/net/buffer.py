"""filter_buffer: no output before its checkpoint.

QEMU's filter-buffer may also release by a timer, its `interval`. COLO of December 2015 (patch 29)
sets it to zero, which means by the checkpoint alone; so there is none here.
"""

from __future__ import annotations

from colobench.net.outcome import NOTHING, Outcome


class FilterBuffer:
    """The frames that a guest has sent since the last checkpoint, in their order.

    Its methods are those of `colobench.net.output.OutputFilter`.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def primary(self, frame: bytes, now: float) -> Outcome:
        """Hold a frame of the primary's guest."""
        self._held.append(frame)
        return NOTHING

    def secondary(self, frame: bytes, now: float) -> Outcome:
        """Pass by a frame of the secondary's guest."""
        return NOTHING

    def scan(self, now: float) -> Outcome:
        """Do nothing: frames may wait for as long as checkpoints are apart."""
        return NOTHING

    def checkpoint(self) -> list[bytes]:
        """Give all frames, first come first: the state that sent them is committed."""
        released, self._held = self._held, []
        return released

    def failover(self) -> list[bytes]:
        """Give all frames, first come first: the secondary is gone."""
        return self.checkpoint()

    def counters(self) -> dict[str, int]:
        """Count the frames that are held."""
        return {"held": len(self._held)}
