"""The two ways to hold the guest's output back until it can be seen without harm."""

from __future__ import annotations

import enum
from typing import Protocol

from colobench.errors import LocalError
from colobench.net.outcome import Outcome


class Output(enum.Enum):
    """What stands between the guest's NIC and the network."""

    #: Every frame waits for the checkpoint that covers it (filter-buffer).
    BUFFER = "buffer"
    #: A frame waits until the secondary's guest has said the same (colo-compare).
    COMPARE = "compare"


class OutputFilter(Protocol):
    """What holds a primary's output: a filter-buffer or colo-compare.

    Times are seconds of a clock that never goes back.
    """

    def primary(self, frame: bytes, now: float) -> Outcome:
        """Take a frame of the primary's guest."""

    def secondary(self, frame: bytes, now: float) -> Outcome:
        """Take a frame, or a mark, from the secondary's network."""

    def scan(self, now: float) -> Outcome:
        """Look for what waits too long."""

    def checkpoint(self) -> list[bytes]:
        """Give the frames that a committed checkpoint lets out, first come first."""

    def failover(self) -> list[bytes]:
        """Give all frames that are held, first come first: the secondary is gone."""

    def counters(self) -> dict[str, int]:
        """Give counters, among them ``held``, the frames that are held now."""


def check_output(output: Output, secondary_runs: bool) -> Output:
    """Refuse to compare with a guest that stands still.

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
