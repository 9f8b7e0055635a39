"""A checkpoint in slow motion: the state of both sides at each of its points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.lab.interrupt import interruptible
from colobench.lab.session.session import Session, session_outcome
from colobench.text_table import align

#: Nodes and points at which they are held, in the order in which a checkpoint passes these.
POINTS = (
    ("primary", "reply"),
    ("primary", "stop"),
    ("primary", "ram"),
    ("secondary", "ram-received"),
    ("secondary", "buffer-received"),
    ("secondary", "received"),
    ("secondary", "flush"),
    ("secondary", "load"),
    ("primary", "loaded"),
)
STEP_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Observation:
    """State of both sides while one of them is held.

    Attributes
    ----------
    role, at
        Node that is held, and the point, a name of `colobench.node.breakpoints`.
    checkpoint
        The checkpoint that is being made.
    bytes
        Bytes of it that have left the primary; None without a relay.
    primary_runs
        Whether the primary's guest runs.
    ram, devices
        The checkpoint that the secondary's RAM and devices are of; None if of neither the last nor
        this one.
    """

    role: str
    at: str
    checkpoint: int
    bytes: int | None
    primary_runs: bool
    ram: int | None
    devices: int | None


class Walkthrough(tuple[Observation, ...]):
    """Observations on the way through a checkpoint, printed as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [("held", "at", "checkpoint", "bytes sent", "guest", "RAM of", "devices of")]
        for each in self:
            sent = "–" if each.bytes is None else f"{each.bytes:,}"
            guest = "runs" if each.primary_runs else "stands"
            theirs = _checkpoint(each.ram), _checkpoint(each.devices)
            rows.append((each.role, each.at, str(each.checkpoint), sent, guest, *theirs))
        return "\n".join(align(rows))


def _checkpoint(number: int | None) -> str:
    return "neither" if number is None else str(number)


@interruptible(session_outcome)
def walkthrough(session: Session, points: Iterable[tuple[str, str]] | None = None) -> Walkthrough:
    """Take one checkpoint for each point, held there for a look at both sides.

    Parameters
    ----------
    session
        Session with ``delay=None`` of variant ``v12``, where the secondary's guest stands still.
    points
        Nodes and points at which they are held; None is `POINTS`, as far as the pair's checkpoints
        pass them.

    Raises
    ------
    LocalError
        If the session is another one, or its checkpoints never pass one of the points.
    """
    checkpoint = session.settings.checkpoint
    if checkpoint.delay is not None or checkpoint.variant != "v12":
        raise LocalError(
            f"session: expected delay None and variant v12, found {checkpoint.delay} "
            f"and {checkpoint.variant}"
        )
    if points is None:
        points = [(role, at) for role, at in POINTS if at in session.points(role)]
    points = list(points)
    for role, at in points:
        session.check_point(role, at)
    session.check_pair()
    return Walkthrough(_look(session, role, at) for role, at in points)


def _digests(session: Session, number: int) -> dict[str, str]:
    """Give the digests of a checkpoint, as far as they are known.

    A primary that verifies has told them when it saved the guest, which may run again by now.
    Otherwise a guest that stands still is asked. The state of one that runs is not known yet.
    """
    told = session.journal.digests.get(number)
    if told is not None:
        return told
    primary = session.nodes["primary"]
    return {} if primary.execute("query-status")["running"] else primary.execute("x-query-digest")


def _look(session: Session, role: str, at: str) -> Observation:
    primary, secondary = session.nodes["primary"], session.nodes["secondary"]
    before = secondary.execute("x-query-digest")
    crossed = session.relay.crossed("P→S") if session.relay else 0
    number = len(session.records) + 1
    # RAM of a checkpoint without pages would be that of the one before.
    session.wait_for_ticks(1)
    session.hold(role, at)
    try:
        runs = bool(primary.execute("query-status")["running"])
        this = _digests(session, number)
        found = secondary.execute("x-query-digest")

        def whose(part: str) -> int | None:
            if found[part] == before[part]:
                return number - 1
            return number if found[part] == this.get(part) else None

        sent = session.relay.crossed("P→S") - crossed if session.relay else None
        return Observation(role, at, number, sent, runs, whose("ram"), whose("devices"))
    finally:
        session.go_on(role)
        session.wait_for(
            lambda: len(session.records) >= number, f"checkpoint {number} to end", STEP_TIMEOUT
        )
