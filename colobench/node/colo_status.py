"""COLO status of a process, as ``query-colo-status`` returns it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ColoStatus:
    """QEMU's COLOStatus, and the capability x-colo.

    Attributes
    ----------
    enabled
        Whether the capability x-colo is set.
    mode, last_mode
        Side of this process now, and its side before its last takeover:
        primary, secondary or none.
    reason
        Reason of the last end of COLO: request or none.
    """

    enabled: bool = False
    mode: str = "none"
    last_mode: str = "none"
    reason: str = "none"

    def leave(self) -> None:
        """Leave COLO because of a requested takeover."""
        self.last_mode, self.mode = self.mode, "none"
        self.reason = "request"
