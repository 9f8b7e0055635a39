"""One kill and its result: all that does not depend on the guest's program."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from colobench.errors import ColobenchError, RemoteError
from colobench.lab.session.session import Session
from colobench.lab.session.takeover import Killed, TakeoverRecord
from colobench.lab.torture.guest_ram import GuestRAM
from colobench.lab.torture.kill_plan import Kill
from colobench.lab.torture.kill_results import UNDER_WAY, KillResult
from colobench.lab.torture.settings import TortureSettings

#: Times that a kill waits for another moment, because no request is under way, and how long.
_TRIES, _TRY_SECONDS = 4, 0.005


class LostWithoutAKill(RemoteError):
    """A pair that parted before its kill, as on a machine that is too busy for the heartbeat."""


class KillRound(ABC):
    """One kill, and the search for violations; a subclass has the guest's part of both.

    Parameters
    ----------
    session
        Session whose pair suffers it.
    kill
        The kill.
    settings
        Settings of the run.
    """

    def __init__(self, session: Session, kill: Kill, settings: TortureSettings) -> None:
        self._session, self._kill, self._settings = session, kill, settings
        self._first_record = session.records.total
        self._violations: list[str] = []
        self._details: dict[str, Any] = {}
        self._linearizable: bool | None = None
        self._undecided: tuple[str, ...] = ()
        self._operations = 0
        self._takeover_ms: float | None = None
        self._every_ms: float | None = None

    @abstractmethod
    def carry_out(self) -> None:
        """Carry out the kill, and note what is found.

        Raises
        ------
        RemoteError
            If the pair does not do what it has to, which is a violation.
        """

    def result(self) -> KillResult:
        """Carry out the kill and judge what came of it."""
        try:
            self.carry_out()
        except ColobenchError as error:
            if self.parted():
                raise LostWithoutAKill("a node took its living peer for dead") from error
            if not isinstance(error, RemoteError):
                raise
            self._violations.append(f"{type(error).__name__}: {error}")
        return KillResult(
            self._kill,
            self._takeover_ms,
            self._every_ms,
            self._operations,
            self._linearizable,
            tuple(self._violations),
            self._details,
            self._settings.of_kill(self._kill).as_json(),
            self._settings.own_json(),
            self._undecided,
        )

    def parted(self) -> bool:
        """Say whether the pair parted by itself, before the kill."""
        return self._session.lost_without_a_kill()

    def kill(self) -> Killed:
        """Kill the victim where it is planned, and note what was under way on the guest's disks."""
        session, kill = self._session, self._kill
        guest = session.settings.guest
        if not guest.disks:
            return session.kill(kill.victim, at=kill.point, held=kill.holder)
        with GuestRAM(session.nodes["primary"].pid, guest) as ram:
            self._wait_for_requests(ram)
            killed = session.kill(kill.victim)
            self._details[UNDER_WAY] = ram.requests_under_way()
        return killed

    def _wait_for_requests(self, ram: GuestRAM) -> None:
        """Stand at the kill's point, if it has one, while requests to the disks are under way.

        A store may have nothing to write for a while, and so none is under way after some tries.
        """
        session, holder, point = self._session, self._kill.holder, self._kill.point
        for last in (False,) * _TRIES + (True,):
            if holder is not None and point is not None:
                session.hold(holder, point)
            if last or ram.requests_under_way():
                return
            if holder is None:
                time.sleep(_TRY_SECONDS)
            else:
                session.go_on(holder)

    def note(self, takeover: TakeoverRecord) -> None:
        """Take note of a takeover, and of a state that is not the checkpoint's."""
        if takeover.equal is False:
            self._violations.append(
                f"torn state: the survivor is not what checkpoint {takeover.checkpoint} was"
            )
        self._details |= {
            "checkpoint": takeover.checkpoint,
            "equal": takeover.equal,
            "running_ms": takeover.takeover_ms,
        }


def unequal_checkpoints(session: Session, since: int) -> list[str]:
    """Give a sentence about the checkpoints whose digests differed, if there are any.

    Parameters
    ----------
    session
        Session that has taken them.
    since
        Number of the session's records before the first one that is judged.
    """
    unequal = [each.number for each in session.records.since(since) if each.verified is False]
    if not unequal:
        return []
    return [f"{len(unequal)} checkpoints were not equal, the first is {unequal[0]}"]
