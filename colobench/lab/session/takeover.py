"""What a kill was, and what the takeover after it was: values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Killed:
    """A node that was killed.

    Attributes
    ----------
    role, pid, status
        Who, and the exit status: -9, for SIGKILL.
    point
        Where it, or its peer, was held at that moment, or None.
    committed
        The last checkpoint that both sides had reported by then.
    time
        When the signal was sent, of `time.monotonic`; where others have ended it, when that was
        seen; of one that was stopped, when its peer took over.
    refused
        Whether it was alive, but silent for so long that its peer serves in its place.
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
        Who survived.
    takeover_ms
        Milliseconds from the kill to the running guest, None if nobody was killed.
    checkpoint
        The checkpoint that it goes on from, 0 for the state that migration brought; for a
        primary, the last one that it made.
    equal
        Whether RAM and devices were, before the guest ran, those of that checkpoint on the primary;
        None where there is no such thing: the session does not verify, or the survivor is the
        primary, or a secondary whose own guest ran since the checkpoint.
    work_at_takeover, work_after
        The guest's work counter at takeover, and a moment later.
    killed_at, told_at, running_at, observed_at
        When these things happened, of `time.monotonic`: the kill, the lost heartbeat told to the
        survivor, its guest running, its work counter seen to have moved.
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
