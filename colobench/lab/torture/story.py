"""One failover, seen by its clients: events with their times, and the verdict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from colobench.errors import LocalError, RemoteError
from colobench.lab.checker.verdict import Verdict, check_linearizability
from colobench.lab.clients.closed_loop import Clients
from colobench.lab.clients.history import History
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.interrupt import interruptible
from colobench.lab.session.journal import ROLES
from colobench.lab.session.serving import serving_settings
from colobench.lab.session.session import Session, session_outcome
from colobench.lab.session.takeover import Killed, TakeoverRecord
from colobench.lab.torture.answers import survivors_first_answers
from colobench.settings.checkpoint import Output
from colobench.settings.heartbeat import HeartbeatSettings

CLIENTS = 8
#: Seconds that the pair serves before the kill, and again after another secondary has joined.
BEFORE_SECONDS, AFTER_SECONDS = 0.3, 0.3
#: Longest delay of a random moment, seconds.
RANDOM_SECONDS = 0.1
#: Secondaries that are tried, if a busy machine holds them up.
JOIN_TRIES = 3
#: Seconds to wait for an answer. Who has none by then will have none.
PATIENCE = 10.0

#: States of the guest: protected by a secondary, silent after a kill, served by a survivor alone.
PROTECTED, SILENT, ALONE = "protected", "nobody answers", "alone"


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of a story.

    Attributes
    ----------
    seconds
        Time since the clients began.
    who, what
        Subject and predicate of a sentence.
    """

    seconds: float
    who: str
    what: str


def serving_pair(output: str = "buffer", **settings: Any) -> Session:
    """Make a session for stories: the guest ``kv``, a heartbeat, an arbiter and a spare node.

    Parameters
    ----------
    output
        ``buffer`` or ``compare``.
    settings
        Other arguments of `Session`.
    """
    chosen: dict[str, Any] = {
        "output": output,
        "delay": 500 if output == "compare" else 20,
        "heartbeat": HeartbeatSettings(),
        "spare": True,
    }
    return Session(serving_settings(**chosen | settings))


class FailoverStory:
    """A kill while clients ask, the takeover, and another secondary that joins.

    Parameters
    ----------
    session
        Started session, as `serving_pair` makes it. Afterwards it is a pair again.
    victim
        ``primary`` or ``secondary``: the node that gets SIGKILL.
    point
        Point of a checkpoint, a name of `colobench.node.breakpoints`; None is a random moment.
    holder
        Node that is held there; None is the victim.
    clients
        Number of clients.

    Attributes
    ----------
    clients
        Clients, whose answers grow.
    began
        Monotonic time at which the clients began.
    moments
        Events so far.
    spans
        States of the guest: their begin, in seconds after the clients began, and `PROTECTED`,
        `SILENT` or `ALONE`.
    killed, takeover, history, verdict
        Results of the story; None until they are known.
    first_ms
        Milliseconds from the kill to the survivor's first answer; None until then.

    Raises
    ------
    LocalError
        If victim or holder is no role, or the pair's checkpoints never pass the point.
    """

    def __init__(
        self,
        session: Session,
        victim: str = "primary",
        point: str | None = None,
        holder: str | None = None,
        *,
        clients: int = CLIENTS,
    ) -> None:
        for role in (victim, holder or victim):
            if role not in ROLES:
                raise LocalError(f"story: expected {' or '.join(ROLES)}, found {role!r}")
        if point is not None:
            session.check_point(holder or victim, point)
        self._session, self._victim, self._point = session, victim, point
        self._holder = holder or victim
        self.clients = Clients(session.address(), clients, timeout=PATIENCE)
        self.began = time.monotonic()
        self.moments: list[Moment] = []
        self.spans = [(0.0, PROTECTED)]
        self.killed: Killed | None = None
        self.takeover: TakeoverRecord | None = None
        self.history: History | None = None
        self.verdict: Verdict | None = None
        self.first_ms: float | None = None

    @property
    def compares(self) -> bool:
        """Whether the pair compares output; otherwise it buffers it."""
        return self._session.settings.checkpoint.output is Output.COMPARE

    @property
    def violations(self) -> list[str]:
        """Violations so far, as sentences."""
        found = []
        if self.takeover is not None and self.takeover.equal is False:
            found.append(f"The survivor is not what checkpoint {self.takeover.checkpoint} was.")
        if self.history is not None:
            found += [
                f"Client {each.client} lost its connection: {each.reason}."
                for each in self.history.lost
            ]
        if self.verdict is not None and self.verdict.linearizable is False:
            found.append(str(self.verdict))
        return found

    @interruptible(lambda story, *_, **__: session_outcome(story._session))
    def run(self, say: Callable[[str], None] = lambda words: None) -> FailoverStory:
        """Run the story to its end.

        Parameters
        ----------
        say
            Function that is called with a description of each step.

        Returns
        -------
        FailoverStory
            This one.

        Raises
        ------
        ClientsStalled, ColoExit, SessionTimeout
            If clients get no answers, no node takes over, or none joins.
        """
        # The checker assumes an empty store.
        with StoreConnection(self._session.address(), PATIENCE) as store:
            store.ask(b"FLUSHALL")
        self.began = time.monotonic()
        with self.clients:
            say("clients ask")
            self._kill()
            say("waiting for the heartbeat's limit, the arbiter's word and the takeover")
            self._survive()
            say("another secondary joins, while the clients go on")
            self._rejoin()
        say("reading all keys, and looking for an order that explains every answer")
        self.history = self.clients.final_reads()
        assert self.killed is not None
        killed_ns = round(self.killed.time * 1e9)
        self.verdict = check_linearizability(self.history, failover=killed_ns)
        return self

    def _note(self, when: float, who: str, what: str) -> None:
        self.moments.append(Moment(when - self.began, who, what))

    def _kill(self) -> None:
        session = self._session
        self.clients.wait_until_answered(len(ROLES) * CLIENTS, timeout=PATIENCE)
        # A random moment, not one just after an answer.
        chance = random.random() * RANDOM_SECONDS if self._point is None else 0.0
        time.sleep(BEFORE_SECONDS + chance)
        self._heard = len(session.journal)
        self.killed = session.kill(self._victim, at=self._point, held=self._holder)
        where = ""
        if self._point is not None:
            whose = "" if self._holder == self._victim else f"the {self._holder} "
            where = f", {whose}held at '{self._point}'"
        self._note(self.killed.time, "session", f"SIGKILL to the {self._victim}{where}")
        self.spans.append((self.killed.time - self.began, SILENT))

    def _survive(self) -> None:
        session = self._session
        assert self.killed is not None
        self.takeover = taken = session.takeover(PATIENCE)
        killed_ns = round(self.killed.time * 1e9)
        self.clients.wait_until_all_answered(killed_ns, timeout=PATIENCE)
        assert session.settings.heartbeat is not None
        answers = survivors_first_answers(
            self.clients.answers[:], killed_ns, session.settings.heartbeat.limit_ms
        )
        first = min(answers.values(), key=lambda each: each.returned)
        last = max(each.returned for each in answers.values())
        self.first_ms = (first.returned - killed_ns) / 1e6
        self._note_takeover(taken, min(taken.running_at, first.returned / 1e9))
        self._note(first.returned / 1e9, f"client {first.client}", "has the first answer")
        self._note(last / 1e9, "clients", "all of them have one")
        self.spans.append((first.returned / 1e9 - self.began, ALONE))
        self.moments.sort(key=lambda moment: moment.seconds)

    def _note_takeover(self, taken: TakeoverRecord, running: float) -> None:
        """Note what led to a guest that certainly ran at that time.

        Events are noted when they arrive, which an answer, or another node's event, may be
        quicker to do.
        """
        journal, since = self._session.journal, self._heard
        journal.wait_for(
            lambda: any(journal.entries("X_GRANTED", since=since)), "the arbiter's word", PATIENCE
        )
        for said in journal.entries("X_COLO_HEARTBEAT_LOST", taken.role, since=since):
            lost = min(said.time, running)
            self._note(lost, said.role, "has lost the heartbeat, asks the arbiter")
        for said in journal.entries("X_GRANTED", since=since):
            self._note(min(said.time, running), "arbiter", f"grants the {said.data['node']}")
        base = f"checkpoint {taken.checkpoint}" if taken.role == "secondary" else "where it was"
        self._note(running, taken.role, f"takes over, goes on from {base}")

    def _rejoin(self) -> None:
        time.sleep(AFTER_SECONDS)
        self._let_one_join()
        joined = time.monotonic()
        self._note(joined, "session", "another secondary has joined: a checkpoint is committed")
        self.spans.append((joined - self.began, PROTECTED))
        self.clients.wait_until_all_answered(round(joined * 1e9), timeout=PATIENCE)
        time.sleep(AFTER_SECONDS)

    def _let_one_join(self) -> None:
        """Let a secondary join; one that a busy machine holds up is given up, and another tried."""
        failed: RemoteError | None = None
        for _ in range(JOIN_TRIES):
            try:
                self._session.rejoin()
                self._session.checkpoint()
                return
            except RemoteError as error:
                failed = error
                when = time.monotonic()
                self._note(
                    when, "session", f"a secondary could not join: {shorten(str(error), 200)}"
                )
            except LocalError:
                if failed is None:
                    raise
                # No survivor is left for another try: the reason is what went wrong before.
                raise failed from None
        assert failed is not None
        raise failed

    def __repr__(self) -> str:
        """Write what happened as a table, times from the kill, and the verdict."""
        if self.killed is None:
            return "<FailoverStory before the kill>"
        zero = self.killed.time - self.began
        lines = [
            f"{(each.seconds - zero) * 1000:+7.0f} ms  {each.who:<10} {each.what}"
            for each in self.moments
        ]
        if self.verdict is not None:
            lines.append("not as it must be:" if self.violations else str(self.verdict))
        return "\n".join(lines + self.violations)
