"""Values that describe a kill, and the takeover after it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Killed:
    """A node that was killed.

    Attributes
    ----------
    role, pid, status
        Role, process id and exit status, which is -9 for SIGKILL.
    point
        Point at which it, or its peer, was held at that moment, or None.
    committed
        Number of the last checkpoint that both sides had reported by then.
    time
        Monotonic time of the SIGKILL; if somebody else killed it, of the moment that this was
        noticed; if it was only stopped, of its peer's takeover.
    refused
        Whether it was alive, but silent for so long that its peer took over.
    """

    role: str
    pid: int
    status: int
    point: str | None
    committed: int
    time: float
    refused: bool = False


@dataclass(frozen=True, slots=True)
class TakeoverRecord:
    """A survivor that runs alone.

    Attributes
    ----------
    role
        Role of the survivor before the takeover.
    takeover_ms
        Milliseconds from the kill to the running guest; None without a kill.
    checkpoint
        Number of the checkpoint that it goes on from, 0 for the migrated state; for a primary, the
        last one that it made.
    equal
        Whether RAM and devices were, before the guest ran, those of that checkpoint on the primary;
        None if this is undefined: the session does not verify, or the survivor is the primary, or a
        secondary whose own guest ran since the checkpoint.
    work_at_takeover, work_after
        Work counter of the guest at takeover, and a moment later.
    killed_at, told_at, running_at, observed_at
        Monotonic times: of the kill, of the command that told the survivor of the lost heartbeat,
        of its guest running, and of its work counter seen to have moved.
    """

    role: str
    takeover_ms: float | None
    checkpoint: int
    equal: bool | None
    work_at_takeover: int
    work_after: int
    killed_at: float | None
    told_at: float
    running_at: float
    observed_at: float
