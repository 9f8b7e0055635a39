"""The two ways to hold the guest's output back until it can be seen without harm."""

from __future__ import annotations

import enum

from colobench.errors import LocalError


class Output(enum.Enum):
    """What stands between the guest's NIC and the network."""

    #: Every frame waits for the checkpoint that covers it (filter-buffer).
    BUFFER = "buffer"
    #: A frame waits until the secondary's guest has said the same (colo-compare).
    COMPARE = "compare"


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
