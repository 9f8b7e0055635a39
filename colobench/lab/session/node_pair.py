"""The present pair of a session: its two nodes, whether they are in COLO, and what they report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from colobench.errors import LocalError, RemoteError
from colobench.lab.session.journal import ROLES, Journal, JournalEntry
from colobench.lab.session.published_state import PublishedState
from colobench.lab.session.session_processes import SessionProcesses
from colobench.lab.session.takeover import Killed
from colobench.processes.process import NodeProcess
from colobench.settings.settings import Settings

#: Seconds to wait for a node's error after its peer has said that the connection has ended.
CAUSE_TIMEOUT = 1.0
#: Each role's counterpart.
PEERS = dict(zip(ROLES, reversed(ROLES), strict=True))


class ColoExit(RemoteError):
    """COLO_EXIT with an error: checkpoints have ended, and a survivor waits for its failover."""


class NodePair:
    """A primary and a secondary, from their migration to the next one's.

    Parameters
    ----------
    settings, journal, processes, published
        Settings of the session, events of its nodes, its processes, and the published state.

    Attributes
    ----------
    settings, journal, processes, published
        As the parameters.
    nodes
        The two nodes by role; a killed one stays until another joins in its place.
    earlier
        Number of earlier pairs.
    killed
        The node of this pair that was killed, or None.
    parted
        Whether the session parted the pair itself, so that a COLO_EXIT is expected.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        processes: SessionProcesses,
        published: PublishedState,
    ) -> None:
        self.settings, self.journal = settings, journal
        self.processes, self.published = processes, published
        self.nodes = processes.nodes
        self.earlier = 0
        #: Number of events before this pair.
        self._since = 0
        self.killed: Killed | None = None
        self.parted = False

    def begin_next(self, primary: NodeProcess, secondary: NodeProcess) -> None:
        """Begin another pair, and forget the events of the one before the last."""
        self.nodes["primary"], self.nodes["secondary"] = primary, secondary
        self.earlier += 1
        self.journal.forget(self._since)
        self.journal.drop_halves()
        self._since = len(self.journal)
        self.killed, self.parted = None, False

    def kill(self, role: str, *, at: str | None = None) -> Killed:
        """Kill a node with SIGKILL, and wait for its end; it counts as killed from just before.

        `at` is the point of a checkpoint at which it, or its peer, is held.
        """
        node, committed = self.nodes[role], self.journal.records.total
        self.parted = True
        self.killed = Killed(role, node.pid, 0, at, committed, time.monotonic())
        self.killed = replace(self.killed, status=node.kill())
        return self.killed

    # The state of the pair.

    def check_pair(self) -> None:
        """Check that there is a pair in COLO.

        Raises
        ------
        LocalError
            If there is none, or this process was forked from the one that has started it.
        """
        self.processes.owner.check("session")
        if self.parted or not self.nodes or not self.processes.open:
            found = "one parted" if self.parted else "none started" if not self.nodes else "closed"
            raise LocalError(f"session: expected a pair in COLO, found {found}")

    def living(self, role: str) -> NodeProcess:
        """Give a node that lives.

        Raises
        ------
        LocalError
            If the role is unknown, or the node is dead.
        """
        if role not in self.nodes:
            raise LocalError(
                f"role: expected {' or '.join(self.nodes) or 'a start'}, found {role!r}"
            )
        node = self.nodes[role]
        if not node.alive():
            raise LocalError(f"expected a living {role}, found it dead")
        return node

    # Events of the nodes.

    def events(self, event: str, role: str | None = None) -> Iterator[JournalEntry]:
        """Iterate over the events of a name since this pair began."""
        return self.journal.entries(event, role, since=self._since)

    def find(self, role: str, event: str, **data: Any) -> JournalEntry | None:
        """Find a node's first event with this name and data since this pair began."""
        return self.journal.find(role, event, since=self._since, **data)

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until a condition holds, which is evaluated after each event.

        Parameters
        ----------
        condition, what
            Function that says whether it holds, and a description for the error.
        timeout
            Seconds to wait.

        Raises
        ------
        ColoExit, SessionTimeout
            If a node gives up or ends, or the time is over first.
        """
        self.journal.wait_for(condition, what, timeout, self._check_nodes)

    def wait_for_event(
        self,
        /,
        role: str,
        event: str,
        timeout: float = 30.0,
        *,
        check: Callable[[str], None] = lambda what: None,
        **data: Any,
    ) -> JournalEntry:
        """Wait for an event of a node with this data, since the present pair began.

        `check` is that of `Journal.wait_for`.

        Raises
        ------
        SessionTimeout
            If it does not come in time.
        """
        self.journal.wait_for(
            lambda: self.find(role, event, **data) is not None,
            f"{event} of the {role}",
            timeout,
            check,
        )
        found = self.find(role, event, **data)
        assert found is not None
        return found

    def _check_nodes(self, what: str) -> None:
        said = None if self.parted else self._error_of_colo()
        killed = None if self.killed is None else self.killed.role
        ended = [node for node in self.nodes.values() if node.role != killed and not node.alive()]
        # That the connection has ended says less than the end of a node.
        if said is not None and not (ended and said.data["x-why"].startswith("connection")):
            why = said.data["x-why"]
            raise ColoExit(f"expected {what}, found COLO_EXIT of the {said.role}: {why}")
        for said in self.events("X_MIGRATION_ERROR"):
            raise ColoExit(f"expected {what}, found migration failed: {said.data['x-why']}")
        for node in ended:
            raise ColoExit(f"expected {what}, found the {node.role} {node.how_it_ended()}")

    def _error_of_colo(self) -> JournalEntry | None:
        """Find the error with which COLO has ended.

        The node that met it ends the connection, so its peer may be heard first. A living node's
        error is waited for before one that says only that the connection has ended.
        """
        errors = [said for said in self.events("COLO_EXIT") if said.data["reason"] == "error"]
        for said in errors:
            if not said.data["x-why"].startswith("connection"):
                return said
        if len(errors) == 1:
            waits = time.monotonic() < errors[0].time + CAUSE_TIMEOUT
            if waits and self.nodes[PEERS[errors[0].role]].alive():
                return None
        return errors[0] if errors else None
