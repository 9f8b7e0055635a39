"""Interface of the filters that hold the guest's output until it may be seen."""

from __future__ import annotations

from typing import Protocol

from colobench.net.outcome import Outcome


class OutputFilter(Protocol):
    """Filter that holds a primary's output: filter-buffer or colo-compare.

    Times are seconds of a monotonic clock.
    """

    def primary(self, frame: bytes, now: float) -> Outcome:
        """Take in a frame of the primary's guest."""

    def secondary(self, frame: bytes, now: float) -> Outcome:
        """Take in a frame or a mark from the secondary's network."""

    def scan(self, now: float) -> Outcome:
        """Look for frames that have waited too long."""

    def seal(self) -> None:
        """Draw the line between the coming checkpoint, which covers all until now, and the next."""

    def checkpoint(self) -> list[bytes]:
        """Return the frames that the sealed checkpoint releases, in order: it is committed."""

    def failover(self) -> list[bytes]:
        """Return all held frames in order: the secondary is gone."""

    def early(self) -> int:
        """Count the frames and marks of the secondary that wait for later checkpoints."""

    def unsealed(self) -> int:
        """Count the held frames that no sealed checkpoint covers."""

    def counters(self) -> dict[str, int]:
        """Return counters, among them ``held``, the number of frames that are held now."""
