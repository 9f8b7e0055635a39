"""Interface of the filters that hold the guest's output until it may be seen."""

from __future__ import annotations

import enum
from typing import Protocol

from colobench.errors import LocalError
from colobench.net.outcome import Outcome


class Output(enum.Enum):
    """Filter between the guest's NIC and the network."""

    #: Every frame waits for the next checkpoint (filter-buffer).
    BUFFER = "buffer"
    #: A frame waits until the secondary's guest has sent the same (colo-compare).
    COMPARE = "compare"


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

    def checkpoint(self) -> list[bytes]:
        """Return the frames that a committed checkpoint releases, in order."""

    def failover(self) -> list[bytes]:
        """Return all held frames in order: the secondary is gone."""

    def counters(self) -> dict[str, int]:
        """Return counters, among them ``held``, the number of frames that are held now."""


def check_output(output: Output, secondary_runs: bool) -> Output:
    """Refuse to compare output if the secondary's guest stands still.

    Raises
    ------
    LocalError
        If the secondary's guest does not run between checkpoints.
    """
    if output is Output.COMPARE and not secondary_runs:
        raise LocalError(
            "output compare: expected the variant upstream, whose secondary runs, found v12"
        )
    return output
