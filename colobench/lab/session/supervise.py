"""Supervision of a session that serves: it finds dead nodes, and lets others join.

A failure to start another process never ends the node that serves: it is reported and tried again.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from colobench.lab.session.journal import SessionTimeout
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session
from colobench.lab.session.status import PairState
from colobench.lab.session.takeover import Killed

_LOOK_SECONDS = 0.05
#: Seconds to wait for a takeover before everything else is looked at again.
_TAKEOVER_SECONDS = 1.0
#: Number of such waits before they are reported.
_TAKEOVER_LOOKS = 5
#: Seconds until a failed start of a process is tried again: at first, and at most.
_AGAIN_SECONDS, _AGAIN_LIMIT = 0.5, 30.0


def serve(
    session: Session,
    *,
    rejoin: bool = True,
    until: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda words: None,
    turn: Callable[[], None] = lambda: None,
) -> None:
    """Start a session with a heartbeat, unless it is started, and watch over it.

    Parameters
    ----------
    session
        Session whose nodes may be killed by anybody.
    rejoin
        Whether a new secondary joins after a takeover. Otherwise the guest runs on alone.
    until
        Function that says whether to end.
    say, turn
        Functions that are called with a description of each event, and twenty times a second.
        Errors of their output, such as a closed pipe, are ignored.

    Raises
    ------
    NodeGone
        If no node is left to serve.
    ColobenchError
        If the session does not start.
    """
    keeper = _Keeper(session, rejoin, say)
    keeper.begin()
    while not until():
        keeper.turn()
        with suppress(OSError):
            turn()
        time.sleep(_LOOK_SECONDS)


class _Keeper:
    """State of `serve` from one turn to the next."""

    def __init__(self, session: Session, rejoin: bool, say: Callable[[str], None]) -> None:
        self._session, self._rejoin, self._on_words = session, rejoin, say
        #: Whether a node is dead without a takeover yet, and whether a new one may join.
        self._bereaved = self._joins = False
        self._looks = 0
        #: Time since which the guest has been unprotected, if it was protected before.
        self._unprotected_since: float | None = None
        self._said: set[str] = set()
        self._again, self._patience = 0.0, _AGAIN_SECONDS

    def begin(self) -> None:
        self._session.on_state(self._on_state)
        if self._session.state is None:
            self._session.start()
        else:
            self._on_state(self._session.state)

    def turn(self) -> None:
        """Look at everything once; raises if a process has ended that cannot be replaced."""
        self._session.check_serving()
        self._try(self._look, "nobody knows who serves")
        if time.monotonic() >= self._again:
            self._try(self._revive_arbiter, "the arbiter was not started again")
            self._try(self._join, "nobody has joined")

    def _try(self, act: Callable[[], None], otherwise: str) -> None:
        try:
            act()
        except Exception as error:
            # No error is a reason to end: the node that serves has all that clients were told.
            self._session.check_serving()
            self._again = time.monotonic() + self._patience
            self._patience = min(2 * self._patience, _AGAIN_LIMIT)
            self._say_once(f"{otherwise}: {_in_one_line(error)}; it is tried again")

    def _look(self) -> None:
        session = self._session
        killed = session.found_dead()
        if killed is not None:
            self._say(_describe(killed))
            self._bereaved, self._joins, self._looks = True, False, 0
        if self._bereaved:
            try:
                taken = session.takeover(_TAKEOVER_SECONDS)
            except SessionTimeout:
                self._looks += 1
                if self._looks == _TAKEOVER_LOOKS:
                    self._say("nobody has taken over yet")
                return
            self._bereaved, self._joins = False, self._rejoin
            after = max(0.0, taken.takeover_ms or 0.0)
            self._say(
                f"the {taken.role} has taken over from checkpoint {taken.checkpoint}, "
                f"{after:.0f} ms after that was seen"
            )

    def _revive_arbiter(self) -> None:
        if self._session.revive_arbiter():
            self._say("the arbiter had ended, and was started again")

    def _join(self) -> None:
        if self._joins:
            self._session.rejoin()
            self._joins, self._patience = False, _AGAIN_SECONDS

    # Sentences.

    def _on_state(self, state: PairState) -> None:
        session, now = self._session, time.monotonic()
        who = ", ".join(f"{role} pid {node.pid}" for role, node in session.nodes.items())
        if state is PairState.PROTECTED:
            since, self._unprotected_since = self._unprotected_since, None
            again = "" if since is None else f"; protected again after {now - since:.1f} s"
            self._say(f"{state}: {who}{again}")
            self._said.clear()
            return
        if not session.began:
            self._say_where()
        elif self._unprotected_since is None:
            self._unprotected_since = now
        if state is PairState.ALONE:
            alive = [node.pid for node in session.nodes.values() if node.alive()]
            who = ", ".join(f"pid {pid}" for pid in alive) + " has no secondary"
        self._say(f"{state}: {who}")

    def _say_where(self) -> None:
        held = "" if self._session.lets_clients_in else "once the pair is protected, "
        for port, (host, at) in self._session.forwarded():
            self._say(f"{held}the guest's port {port} is at {host}:{at}")

    def _say(self, words: str) -> None:
        with suppress(OSError):
            self._on_words(words)

    def _say_once(self, words: str) -> None:
        """Say it, unless it was said since the pair was protected, but for the numbers in it."""
        cause = re.sub(r"\d+", "", words)
        if cause not in self._said:
            self._said.add(cause)
            self._say(words)


def _describe(killed: Killed) -> str:
    who = f"the {killed.role}, pid {killed.pid},"
    if killed.refused:
        return (
            f"{who} was silent for too long, so the other node serves in its place: "
            "it was refused, and has ended"
        )
    return f"{who} is dead (status {killed.status})"


def _in_one_line(error: Exception) -> str:
    """Write an error: of a traceback that a process has left, only what it ends with."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first = lines[0].removesuffix("Traceback (most recent call last):")
    return first if len(lines) == 1 else f"{first.rstrip()} {lines[-1].strip()}"


class Tally:
    """Sums over all records of a session that keeps only the newest of them.

    Attributes
    ----------
    sums
        Checkpoints, pages, zero_pages, flushed_pages and bytes, by name.
    causes
        Number of checkpoints by cause.
    verified
        Whether both sides were equal in all comparisons.
    """

    _SUMMED = ("pages", "zero_pages", "flushed_pages", "bytes")

    def __init__(self) -> None:
        self.sums: dict[str, int] = dict.fromkeys(("checkpoints", *self._SUMMED), 0)
        self.causes: Counter[str] = Counter()
        self.verified = True

    def add(self, record: CheckpointRecord) -> None:
        """Add a record."""
        self.sums["checkpoints"] += 1
        for name in self._SUMMED:
            self.sums[name] += getattr(record, name)
        self.causes[record.cause] += 1
        self.verified = self.verified and record.verified is not False

    def as_json(self) -> dict[str, Any]:
        """Give it by name."""
        return {**self.sums, "causes": dict(self.causes), "verified": self.verified}
