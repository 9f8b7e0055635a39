"""One kill under clients of the store, whose history is judged, and the judgement itself."""

from __future__ import annotations

import time
from dataclasses import dataclass

from colobench.errors import RemoteError
from colobench.lab.checker.linearizability import USUAL_EFFORT, Effort
from colobench.lab.checker.verdict import check_linearizability
from colobench.lab.clients.closed_loop import Clients, Keys
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.session.session import Session
from colobench.lab.torture.answers import survivors_first_answers
from colobench.lab.torture.kill_plan import Kill
from colobench.lab.torture.kill_round import KillRound, unequal_checkpoints
from colobench.lab.torture.log_judge import judge_log
from colobench.lab.torture.settings import TortureSettings

#: Average number of answers to each client before a kill.
ANSWERS_BEFORE = 12
ANSWER_SECONDS = 20.0
#: Seconds between two looks whether the store has loaded its log.
_LOADING_SECONDS = 0.01


class StoreRound(KillRound):
    """One kill under clients of the store, and the search for violations in their history."""

    _killed_ns: int | None = None

    def carry_out(self) -> None:
        """Carry out the kill and judge the history."""
        clients = clients_of(self._session, self._kill, self._settings)
        with clients:
            self._suffer(clients)
        self._judge(clients)

    def _suffer(self, clients: Clients) -> None:
        """Kill, and let the clients go on with the survivor, then with the secondary that joins."""
        session, kill, patience = self._session, self._kill, self._settings.patience
        clients.wait_until_answered(ANSWERS_BEFORE * self._settings.clients, timeout=patience)
        if kill.delay_ms is not None:
            # A random moment, not one when something has just been answered.
            time.sleep(kill.delay_ms / 1000)
        killed = self.kill()
        self._killed_ns = killed_ns = round(killed.time * 1e9)
        takeover = session.takeover(patience)
        self.note(takeover)
        # A client that was answered just before the kill asks again, and is answered.
        clients.wait_until_all_answered(killed_ns, timeout=patience)
        self._measure(clients, killed_ns)
        session.rejoin()
        joined = time.monotonic_ns()
        session.checkpoint()
        clients.wait_until_all_answered(joined, timeout=patience)

    def _measure(self, clients: Clients, killed: int) -> None:
        """Measure the times to the survivor's first answer, and until all clients have one."""
        answers = clients.answers[:]
        first = survivors_first_answers(answers, killed, self._settings.limit_ms())
        if first:
            times = [answered.returned for answered in first.values()]
            self._takeover_ms = (min(times) - killed) / 1e6
            self._every_ms = (max(times) - killed) / 1e6

    def _judge(self, clients: Clients) -> None:
        effort = self._settings.effort()
        killed = self._killed_ns
        judgement = judge(clients, self._session, self._first_record, effort, failover=killed)
        self._linearizable, self._operations = judgement.linearizable, judgement.operations
        self._undecided = judgement.undecided
        self._violations += judgement.violations
        if keeps_log(self._session):
            verdict = judge_log(self._session, last_values(clients), self._settings.patience)
            self._details["logged"] = verdict.commands
            if not verdict.right:
                self._violations.append(f"wrong disk: {verdict}")


def keeps_log(session: Session) -> bool:
    """Say whether the guest keeps an append-only file on a disk."""
    guest = session.settings.guest
    return bool(guest.disks) and guest.appendonly == "yes"


def clients_of(session: Session, kill: Kill, settings: TortureSettings) -> Clients:
    """Empty the store, and make the clients of a kill's round, whose keys no other has."""
    with StoreConnection(session.address(), ANSWER_SECONDS) as store:
        _empty(store, settings.patience)
    return Clients(
        session.address(),
        settings.clients,
        seed=kill.seed,
        keys=Keys(prefix=b"%d." % kill.number),
        timeout=settings.patience,
    )


def wait_until_loaded(store: StoreConnection, patience: float) -> int:
    """Wait until a store has loaded its log; give the number of its keys."""
    deadline = time.monotonic() + patience
    while not isinstance(answer := store.ask(b"DBSIZE"), int):
        if time.monotonic() > deadline:
            raise RemoteError(f"DBSIZE: expected a number in {patience:g} s, found {answer}")
        time.sleep(_LOADING_SECONDS)
    return answer


def _empty(store: StoreConnection, patience: float) -> None:
    """Empty the store, once it has loaded its log from the guest's disk."""
    deadline = time.monotonic() + patience
    while (answer := store.ask(b"FLUSHALL")) != "OK":
        if time.monotonic() > deadline:
            raise RemoteError(f"FLUSHALL: expected OK in {patience:g} s, found {answer}")
        time.sleep(_LOADING_SECONDS)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Judgement of a run from its clients and records.

    Attributes
    ----------
    operations, linearizable
        Number of operations that the checker looked at, and its verdict; None if undecided.
    violations
        Sentences about violations.
    undecided
        A sentence about the search for each key that the checker gave up.
    """

    operations: int
    linearizable: bool | None
    violations: tuple[str, ...]
    undecided: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether there is no violation and everything was decided."""
        return bool(self.linearizable and not self.violations)


def judge(
    clients: Clients,
    session: Session,
    since: int = 0,
    effort: Effort = USUAL_EFFORT,
    *,
    failover: int | None = None,
) -> Judgement:
    """Read all keys, and judge the history of clients that have stopped.

    Parameters
    ----------
    clients
        Clients that asked a store that was empty.
    session
        Session that has served them.
    since
        Index of the first of the session's records that is judged.
    effort
        Limits of the checker.
    failover
        Time of the kill, see `check_linearizability`; None without one.
    """
    history = clients.final_reads()
    violations = [f"connection lost: {each}" for each in history.lost]
    verdict = check_linearizability(history, effort=effort, failover=failover)
    violations += [str(verdict)] if verdict.linearizable is False else []
    there = len(last_values(clients))
    with StoreConnection(session.address(), ANSWER_SECONDS) as store:
        counted = store.ask(b"DBSIZE")
    if counted != there:
        violations.append(f"torn state: {there} keys are there, and DBSIZE is {counted}")
    violations += unequal_checkpoints(session, since)
    undecided = tuple(map(str, verdict.undecided))
    return Judgement(verdict.operations, verdict.linearizable, tuple(violations), undecided)


def last_values(clients: Clients) -> dict[bytes, bytes]:
    """Give the keys that are there, and their values, after `Clients.final_reads`."""
    last = {each.request[1]: each.reply for each in clients.answers if each.request[0] == b"GET"}
    return {key: value for key, value in last.items() if isinstance(value, bytes)}
