"""A session that serves until it is told to end: it sees nodes die, and lets others join."""

from __future__ import annotations

import time
from collections.abc import Callable

from colobench.errors import RemoteError
from colobench.lab.journal import SessionTimeout
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
    NodeGone
        If nobody is left who could serve.
    """
    say(_who(session))
    joins = False
    while not until():
        session.check_serving()
        if session.revive_arbiter():
            say("the arbiter had ended, and was started again")
        killed = session.found_dead()
        if killed is not None:
            say(f"the {killed.role}, pid {killed.pid}, is dead (status {killed.status})")
            _see_takeover(session, say)
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


def _see_takeover(session: Session, say: Callable[[str], None]) -> None:
    """Wait for the survivor, for as long as it lives: it may wait for the arbiter."""
    while True:
        try:
            taken = session.takeover()
            break
        except SessionTimeout:
            say("nobody has taken over yet")
            session.revive_arbiter()
    after = max(0.0, taken.takeover_ms or 0.0)
    say(
        f"the {taken.role} has taken over from checkpoint {taken.checkpoint}, "
        f"{after:.0f} ms after that was seen"
    )


def _who(session: Session) -> str:
    return ", ".join(f"{role} pid {node.pid}" for role, node in session.nodes.items())
