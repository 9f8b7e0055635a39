"""Torture: nodes of a serving pair are killed again and again, and the clients' history is judged.

Each kill of a plan (`colobench.lab.torture.kill_plan`) happens while clients ask and write. The
survivor takes over, another secondary joins, the clients go on all the time on the same
connections; then all keys are read, and one order of the requests has to explain all answers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from colobench.errors import ColobenchError, RemoteError
from colobench.lab.checker.linearizability import USUAL_EFFORT, Effort
from colobench.lab.checker.verdict import check_linearizability
from colobench.lab.clients.closed_loop import Clients, Keys
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.session.session import Session
from colobench.lab.session.takeover import TakeoverRecord
from colobench.lab.torture.answers import survivors_first_answers
from colobench.lab.torture.kill_plan import OUTPUTS, Kill
from colobench.lab.torture.kill_results import KillResult
from colobench.lab.torture.settings import TortureSettings

#: Limit of the kills with the same transport and output that one pair suffers in a row.
BLOCK = 20
#: Average number of answers to each client before a kill.
ANSWERS_BEFORE = 12
_ANSWER_SECONDS = 20.0
#: Limit of pairs in a row that part without a kill.
_PARTED_LIMIT = 5


USUAL = TortureSettings()


class LostWithoutAKill(RemoteError):
    """A pair that parted before its kill, as on a machine that is too busy for the heartbeat."""


class ProcessesLeft(RemoteError):
    """Processes that outlived their session."""


def in_blocks(kills: Sequence[Kill]) -> Iterator[list[Kill]]:
    """Put kills that one pair can suffer together, without moving them far."""
    left = list(kills)
    while left:
        kind = left[0].transport, left[0].output
        block = [each for each in left if (each.transport, each.output) == kind][:BLOCK]
        taken = {each.number for each in block}
        left = [each for each in left if each.number not in taken]
        yield block


def torture(
    kills: Sequence[Kill],
    settings: TortureSettings = USUAL,
    *,
    jobs: int = 1,
    say: Callable[[str], None] = lambda words: None,
) -> Iterator[KillResult]:
    """Carry out kills, and yield the result of each as it comes.

    After a violation the pair is given up, and the next kill meets a new one; if a pair parts
    without a kill, the kill is tried again. If the caller stops early, kills that are under way
    are finished without a result.

    Parameters
    ----------
    kills
        Kills to be carried out, see `colobench.lab.torture.kill_plan.plan`.
    settings
        Settings of the run.
    jobs
        Number of pairs at a time.
    say
        Function that is called with a description of each step, in the pairs' threads.

    Raises
    ------
    LocalError
        If the settings are impossible.
    """
    settings.check_room()
    blocks: SimpleQueue[list[Kill]] = SimpleQueue()
    for block in in_blocks(kills):
        blocks.put(block)
    found: SimpleQueue[KillResult | BaseException | None] = SimpleQueue()
    stopping = threading.Event()

    def work() -> None:
        try:
            while not stopping.is_set():
                for result in _suffer_block(blocks.get_nowait(), settings, stopping, say):
                    found.put(result)
        except Empty:
            pass
        except BaseException as error:
            found.put(error)
        found.put(None)

    threads = [threading.Thread(target=work, name="torture", daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        working = jobs
        while working:
            result = found.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                working -= 1
            else:
                yield result
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _suffer_block(
    block: list[Kill],
    settings: TortureSettings,
    stopping: threading.Event,
    say: Callable[[str], None],
) -> Iterator[KillResult]:
    left, parted = list(block), 0
    while left and not stopping.is_set():
        say(f"a new pair: {left[0].transport}, {left[0].output}")
        with Session(settings.of_kill(left[0])) as session:
            while left and not stopping.is_set():
                say(f"kill {left[0].number}: {' '.join(left[0].combination)}")
                try:
                    result = _Round(session, left[0], settings).result()
                except LostWithoutAKill as error:
                    say(str(error))
                    parted += 1
                    if parted > _PARTED_LIMIT:
                        raise
                    break
                left.pop(0)
                parted = 0
                yield result
                if result.violations:
                    break
            pids = session.all_pids()
        alive = [pid for pid in pids if psutil.pid_exists(pid)]
        if alive:
            raise ProcessesLeft(f"expected every process to end with its session, found {alive}")


class _Round:
    """One kill, and the search for violations."""

    def __init__(self, session: Session, kill: Kill, settings: TortureSettings) -> None:
        self._session, self._kill, self._settings = session, kill, settings
        self._first_record = len(session.records)
        self._violations: list[str] = []
        self._details: dict[str, Any] = {}
        self._linearizable: bool | None = None
        self._undecided: tuple[str, ...] = ()
        self._operations = 0
        self._takeover_ms: float | None = None
        self._every_ms: float | None = None

    def result(self) -> KillResult:
        """Carry out the kill and judge the history."""
        try:
            with StoreConnection(self._session.address(), _ANSWER_SECONDS) as store:
                store.ask(b"FLUSHALL")
            clients = Clients(
                self._session.address(),
                self._settings.clients,
                seed=self._kill.seed,
                keys=Keys(prefix=b"%d." % self._kill.number),
                timeout=self._settings.patience,
            )
            with clients:
                self._suffer(clients)
            self._judge(clients)
        except ColobenchError as error:
            if self._session.lost_without_a_kill():
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

    def _suffer(self, clients: Clients) -> None:
        """Kill, and let the clients go on with the survivor, then with the secondary that joins."""
        session, kill, patience = self._session, self._kill, self._settings.patience
        clients.wait_until_answered(ANSWERS_BEFORE * self._settings.clients, timeout=patience)
        if kill.delay_ms is not None:
            # A random moment, not one when something has just been answered.
            time.sleep(kill.delay_ms / 1000)
        killed = session.kill(kill.victim, at=kill.point, held=kill.holder)
        killed_ns = round(killed.time * 1e9)
        takeover = session.takeover(patience)
        self._note(takeover)
        # A client that was answered just before the kill asks again, and is answered.
        clients.wait_until_all_answered(killed_ns, timeout=patience)
        self._measure(clients, killed_ns)
        session.rejoin()
        joined = time.monotonic_ns()
        session.checkpoint()
        clients.wait_until_all_answered(joined, timeout=patience)

    def _note(self, takeover: TakeoverRecord) -> None:
        if takeover.equal is False:
            self._violations.append(
                f"torn state: the survivor is not what checkpoint {takeover.checkpoint} was"
            )
        self._details |= {
            "checkpoint": takeover.checkpoint,
            "equal": takeover.equal,
            "running_ms": takeover.takeover_ms,
        }

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
        judgement = judge(clients, self._session, self._first_record, effort)
        self._linearizable, self._operations = judgement.linearizable, judgement.operations
        self._undecided = judgement.undecided
        self._violations += judgement.violations


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
    clients: Clients, session: Session, since: int = 0, effort: Effort = USUAL_EFFORT
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
    """
    history = clients.final_reads()
    violations = [f"connection lost: {each}" for each in history.lost]
    verdict = check_linearizability(history, effort=effort)
    violations += [str(verdict)] if verdict.linearizable is False else []
    last = {each.request[1]: each.reply for each in clients.answers if each.request[0] == b"GET"}
    there = sum(last[key] is not None for key in history.keys)
    with StoreConnection(session.address(), _ANSWER_SECONDS) as store:
        counted = store.ask(b"DBSIZE")
    if counted != there:
        violations.append(f"torn state: {there} keys are there, and DBSIZE is {counted}")
    unequal = [each.number for each in session.records[since:] if each.verified is False]
    if unequal:
        violations.append(f"{len(unequal)} checkpoints were not equal, the first is {unequal[0]}")
    undecided = tuple(map(str, verdict.undecided))
    return Judgement(verdict.operations, verdict.linearizable, tuple(violations), undecided)


def run_clean(
    checkpoints: int,
    settings: TortureSettings = USUAL,
    outputs: Sequence[str] = OUTPUTS,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[str, Judgement]]:
    """Take checkpoints while clients ask, without a kill: there must be no violation.

    If output is compared, every checkpoint that is not the timer's is a false alarm.

    Parameters
    ----------
    checkpoints
        Number of checkpoints, divided evenly among the ways of output.
    settings
        Settings of the pairs.
    outputs
        Ways of output.
    progress
        Function that is called after each checkpoint with the number done, and the total.

    Yields
    ------
    output, judgement
    """
    settings.check_room()
    done = 0
    for number, output in enumerate(outputs, start=1):
        count = checkpoints * number // len(outputs) - done
        with Session(settings.without_kills(output)) as session:
            with Clients(session.address(), settings.clients) as clients:
                for taken in range(1, count + 1):
                    session.run(1)
                    progress(done + taken, checkpoints)
            judgement = judge(clients, session, effort=settings.effort())
            causes = Counter(record.cause for record in session.records)
            alarms = [f"{number} × {cause}" for cause, number in causes.items() if cause != "timer"]
            yield output, replace(judgement, violations=(*judgement.violations, *alarms))
        done += count
