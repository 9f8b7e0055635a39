"""A session that serves until it is told to end: it sees nodes die, and lets others join."""

from __future__ import annotations

import time
from collections.abc import Callable

from colobench.errors import RemoteError
from colobench.lab.session import Session

_LOOK_SECONDS = 0.05


def serve(
    session: Session,
    *,
    rejoin: bool = True,
    until: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda words: None,
    turn: Callable[[], None] = lambda: None,
) -> None:
    """Watch over a started session with a heartbeat.

    Parameters
    ----------
    session
        Whose nodes anybody may kill.
    rejoin
        Whether a new secondary joins after a takeover. Otherwise the guest runs on alone.
    until
        Says when to end.
    say, turn
        Called with what happened, in words; and twenty times in a second.

    Raises
    ------
    ColoExit, SessionTimeout
        If nobody takes over, or nobody joins.
    """
    say(_who(session))
    joins = False
    while not until():
        killed = session.found_dead()
        if killed is not None:
            say(f"the {killed.role}, pid {killed.pid}, is dead (status {killed.status})")
            taken = session.takeover()
            say(
                f"the {taken.role} has taken over from checkpoint {taken.checkpoint}, "
                f"{taken.takeover_ms:.0f} ms after that was seen"
            )
            joins = rejoin
        if joins:
            try:
                session.rejoin()
            except RemoteError as error:
                say(f"nobody has joined: {error}")
            else:
                joins = False
                say(f"protected again: {_who(session)}")
        turn()
        time.sleep(_LOOK_SECONDS)


def _who(session: Session) -> str:
    return ", ".join(f"{role} pid {node.pid}" for role, node in session.nodes.items())
