"""The COLO status of a process, as ``query-colo-status`` tells it."""

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
        The side that this process is now, and the one that it was before its last takeover:
        primary, secondary or none.
    reason
        Why COLO ended last: request or none.
    """

    enabled: bool = False
    mode: str = "none"
    last_mode: str = "none"
    reason: str = "none"

    def leave(self) -> None:
        """Leave COLO because somebody asked for a takeover."""
        self.last_mode, self.mode = self.mode, "none"
        self.reason = "request"
