"""A pair walked through the states of its conversation: both nodes' own states, point by point."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.lab.interrupt import interruptible
from colobench.lab.session.session import Session, session_outcome
from colobench.text_table import align

STEP_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class StateStep:
    """State of both machines while one node is held.

    Attributes
    ----------
    role, at
        Node that is held, and the point, a name of `colobench.node.breakpoints`.
    primary, secondary
        State of each node's conversation, a name of `colobench.protocol.colo.ColoState`.
    """

    role: str
    at: str
    primary: str
    secondary: str


class StateWalk(tuple[StateStep, ...]):
    """States on the way through checkpoints, printed as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [("held", "at", "primary", "secondary")]
        rows += [(each.role, each.at, each.primary, each.secondary) for each in self]
        return "\n".join(align(rows))

    def visited(self, role: str) -> list[str]:
        """Give the states of one side in the order in which it was seen in them first."""
        return list(dict.fromkeys(getattr(each, role) for each in self))


@interruptible(session_outcome)
def walk_states(session: Session) -> StateWalk:
    """Hold a pair at each point of its checkpoints, and ask both nodes for their states.

    Parameters
    ----------
    session
        Session with ``delay=None``. One checkpoint is taken for each point.

    Raises
    ------
    LocalError
        If the session takes checkpoints by itself, or some of its points need more than a request.
    """
    checkpoint = session.settings.checkpoint
    if checkpoint.delay is not None:
        raise LocalError(f"session: expected delay None, found {checkpoint.delay}")
    if checkpoint.capture.value not in ("stop-and-send", "copy-then-send", "copy-on-write"):
        raise LocalError(
            "session: expected a capture whose every point is passed by each checkpoint "
            f"(stop-and-send, copy-then-send or copy-on-write), found {checkpoint.capture.value}"
        )
    session.check_pair()
    points = [(role, at) for role in ("primary", "secondary") for at in session.points(role)]
    return StateWalk(_look(session, role, at) for role, at in points)


def _look(session: Session, role: str, at: str) -> StateStep:
    number = len(session.records) + 1
    # Half of the pages of a checkpoint are sent only if it has some.
    session.wait_for_ticks(1)
    session.hold(role, at)
    try:
        states = {
            name: str(node.execute("x-query-states")["conversation"])
            for name, node in session.nodes.items()
        }
        return StateStep(role, at, **states)
    finally:
        session.go_on(role)
        session.wait_for(
            lambda: len(session.records) >= number, f"checkpoint {number} to end", STEP_TIMEOUT
        )
