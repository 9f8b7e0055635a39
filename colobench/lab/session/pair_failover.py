"""Failover of a pair: the death of a node is noticed, and the other goes on alone."""

from __future__ import annotations

import time
from typing import Any

from colobench.errors import LocalError
from colobench.guest.making import follows_from_seed
from colobench.lab.session.journal import ROLES
from colobench.lab.session.node_pair import PEERS, NodePair
from colobench.lab.session.record import equal_digests
from colobench.lab.session.status import PairState
from colobench.lab.session.takeover import Killed, TakeoverRecord
from colobench.processes.errors import NodeGone
from colobench.processes.process import NodeProcess

#: Seconds that a running guest may take for its next step of work.
WORK_TIMEOUT = 10.0
TICK_SECONDS = 0.001


class PairFailover:
    """Failover of a pair.

    Parameters
    ----------
    pair
        The pair whose nodes die and survive.
    """

    def __init__(self, pair: NodePair) -> None:
        self._pair = pair

    def found_dead(self) -> Killed | None:
        """Find a node that was ended from outside, which counts as killed from now on.

        A node that was stopped until its peer took over is refused by the arbiter, so it is killed.
        """
        pair = self._pair
        if pair.parted or not pair.processes.open:
            return None
        for role, peer in PEERS.items():
            when, node = time.monotonic(), pair.nodes[role]
            status = node.process.poll()
            fenced, taken = pair.find(role, "X_COLO_FENCED"), pair.find(peer, "X_COLO_TAKEOVER")
            refused = fenced is not None
            if status is None and taken is not None:
                when, status, refused = taken.time, node.kill(), True
            if status is not None:
                pair.parted = True
                committed = pair.journal.records.total
                pair.killed = Killed(role, node.pid, status, None, committed, when, refused)
                pair.published.enter(PairState.ALONE)
                return pair.killed
        return None

    def lost_without_a_kill(self) -> bool:
        """Say whether a node of the present pair lost its peer's heartbeat before a kill.

        This happens on a machine so busy that a node gets no processor for the heartbeat's limit.
        """
        killed = self._pair.killed
        lost = self._pair.events("X_COLO_HEARTBEAT_LOST")
        return any(killed is None or each.time < killed.time for each in lost)

    def failover(self, role: str | None = None, timeout: float = 30.0) -> TakeoverRecord:
        """Tell a node that its peer is lost (``x-colo-lost-heartbeat``), and wait for its takeover.

        Parameters
        ----------
        role
            Survivor, by default the node that was not killed.
        timeout
            Seconds to wait.

        Raises
        ------
        LocalError
            If no node was killed and `role` is not given.
        """
        pair = self._pair
        if role is None:
            if pair.killed is None:
                raise LocalError("failover: expected a role, or a killed node, found neither")
            role = PEERS[pair.killed.role]
        node = pair.living(role)
        pair.parted = True
        told = time.monotonic()
        node.execute("x-colo-lost-heartbeat")
        pair.published.enter(PairState.ALONE)
        return self._taken_over(role, told, timeout)

    def takeover(self, timeout: float = 30.0) -> TakeoverRecord:
        """Wait until the survivor of a kill has taken over by itself, because of its heartbeat.

        Parameters
        ----------
        timeout
            Seconds to wait.

        Raises
        ------
        LocalError
            If no node was killed, or the session has no heartbeat.
        SessionTimeout
            If it does not in time.
        """
        killed = self._pair.killed
        if killed is None or self._pair.settings.heartbeat is None:
            raise LocalError("takeover: expected a kill in a session with a heartbeat")
        return self._taken_over(PEERS[killed.role], killed.time, timeout)

    def _taken_over(self, role: str, told: float, timeout: float) -> TakeoverRecord:
        pair, node = self._pair, self._pair.nodes[role]

        def check(what: str) -> None:
            if not node.alive():
                raise NodeGone(f"expected {what}, found it {node.how_it_ended()}")

        running = pair.wait_for_event(role, "RESUME", timeout, check=check).time
        taken = pair.wait_for_event(role, "X_COLO_TAKEOVER", check=check).data
        killed = None if pair.killed is None else pair.killed.time
        work = int(taken["work"])
        after = _work_beyond(node, work)
        pair.processes.release_dead()
        return TakeoverRecord(
            role=role,
            takeover_ms=None if killed is None else (running - killed) * 1000,
            checkpoint=taken["checkpoint"],
            equal=self._equal_at_takeover(role, taken),
            work_at_takeover=work,
            work_after=after,
            killed_at=killed,
            told_at=told,
            running_at=running,
            observed_at=time.monotonic(),
        )

    def _equal_at_takeover(self, role: str, taken: dict[str, Any]) -> bool | None:
        checkpoint = self._pair.settings.checkpoint
        stood_still = role == "secondary" and checkpoint.variant == "v12"
        if not checkpoint.verify or not stood_still:
            return None
        digests = self._pair.journal.digests.get(taken["checkpoint"])
        return digests is not None and equal_digests(digests, taken)

    def verify(self, role: str | None = None) -> bool:
        """Stop a survivor's guest, and compare its RAM with that of a guest never migrated.

        RAM is a function of program, seed and work done, so a guest that did the same work in one
        go, in this process, must have the same RAM. The survivor's guest runs on afterwards.

        Parameters
        ----------
        role
            Survivor, by default the node that was not killed.

        Raises
        ------
        LocalError
            If what is in the guest's RAM does not follow from its seed, or the node is dead.
        """
        guest, killed = self._pair.settings.guest, self._pair.killed
        if not guest.program.is_reproducible:
            raise LocalError(
                f"verify: expected a program that depends on its seed, found {guest.program.label}"
            )
        if role is None:
            role = ROLES[0] if killed is None else PEERS[killed.role]
        node = self._pair.living(role)
        try:
            node.execute("stop")
            found = node.execute("x-query-digest")
        finally:
            node.execute("cont")
        return follows_from_seed(guest, int(found["work"]), int(found["ram"], 16))


def _work_beyond(node: NodeProcess, work: int) -> int:
    """Wait until the guest has done more than `work`, and give its work counter then."""
    deadline = time.monotonic() + WORK_TIMEOUT
    while True:
        after = int(node.execute("x-query-guest")["work"])
        if after > work or time.monotonic() > deadline:
            return after
        time.sleep(TICK_SECONDS)
