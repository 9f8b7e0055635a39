"""Settings of the heartbeat, by which nodes notice that their peer has died."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.fields.kinds import Integer
from colobench.fields.part import Part, setting

#: Longest timeout of poll(2), ms.
LIMIT_MS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class HeartbeatSettings(Part):
    """Interval of heartbeats, and limit of silence."""

    title = "heartbeat"

    interval_ms: int = setting(
        Integer(1, LIMIT_MS, "ms"),
        None,
        "time from one heartbeat to the next; a tenth of the limit if left out",
        name="heartbeat_interval",
        derived=True,
    )
    limit_ms: int = setting(
        Integer(2, LIMIT_MS, "ms"),
        500,
        "silence after which a node counts as dead",
        name="heartbeat_limit",
    )

    def complete(self) -> None:
        """Derive the interval, and check that two intervals fit into the limit."""
        self.derive("interval_ms", max(1, self.limit_ms // 10))
        if self.limit_ms < 2 * self.interval_ms:
            raise LocalError(
                "heartbeat: expected an interval from 1 ms and a limit of at least twice that, "
                f"found {self.interval_ms} ms and {self.limit_ms} ms"
            )
