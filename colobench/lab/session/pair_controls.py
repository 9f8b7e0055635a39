"""Controls of a pair: what one does to it, from taking checkpoints to killing a node."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from colobench.errors import ColobenchError, LocalError
from colobench.lab.session.journal import ROLES, JournalEntry, SessionTimeout
from colobench.lab.session.node_pair import NodePair
from colobench.lab.session.pair_failover import TICK_SECONDS
from colobench.lab.session.record import CheckpointRecord, Records
from colobench.lab.session.status import PairState
from colobench.lab.session.takeover import Killed

#: Seconds that a checkpoint may take, besides the delay before it.
CHECKPOINT_TIMEOUT = 10.0


class PairControls:
    """Controls of a pair.

    Parameters
    ----------
    pair
        The pair that they act on.
    """

    def __init__(self, pair: NodePair) -> None:
        self._pair = pair
        self._records = pair.journal.records

    def run(
        self,
        checkpoints: int,
        *,
        timeout: float | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Records:
        """Let the pair take checkpoints.

        Parameters
        ----------
        checkpoints
            Number of checkpoints.
        timeout
            Seconds for each of them; by default the delay and ten seconds.
        progress
            Function that is called with the number done and the total.

        Returns
        -------
        Records
            Records of these checkpoints.
        """
        self._pair.check_pair()
        first = self._records.total
        delay = self._pair.settings.checkpoint.delay
        patience = timeout or CHECKPOINT_TIMEOUT + (delay or 0) / 1000
        for done in range(1, checkpoints + 1):
            if delay is None:
                self._ask_for_checkpoint()
            self._wait_for_records(first + done, patience)
            progress(done, checkpoints)
        return self._records.since(first)[:checkpoints]

    def checkpoint(self) -> CheckpointRecord:
        """Ask for a checkpoint now, and wait for the next one that is committed."""
        self._pair.check_pair()
        first = self._records.total
        self._ask_for_checkpoint()
        self._wait_for_records(first + 1, 2 * CHECKPOINT_TIMEOUT)
        return self._records.since(first)[0]

    def wait_for_ticks(self, ticks: int, role: str = "primary", *, timeout: float = 60.0) -> None:
        """Wait until the timer of a running guest has ticked so often, and that work is done.

        A guest writes when its timer ticks, each millisecond on a machine that is not busy. Between
        two checkpoints that follow each other at once it may not have ticked, and the second one is
        empty.

        Parameters
        ----------
        ticks
            Number of ticks from now on.
        role
            Node whose guest it is.
        timeout
            Seconds to wait.

        Raises
        ------
        SessionTimeout
            If the guest stands still, or the time is over first.
        """
        node = self._pair.living(role)

        def ticked() -> int:
            return int(node.execute("x-query-guest")["ticks"])

        deadline = time.monotonic() + timeout
        # The work of a tick is done when the next one is counted.
        last = ticked() + ticks
        while ticked() <= last:
            if time.monotonic() > deadline:
                raise SessionTimeout(
                    f"expected {ticks} ticks of the {role}'s guest within {timeout:g} s"
                )
            time.sleep(TICK_SECONDS)

    def _ask_for_checkpoint(self) -> None:
        self._pair.nodes["primary"].execute("x-colo-checkpoint")

    def _wait_for_records(self, count: int, timeout: float) -> None:
        self._pair.wait_for(lambda: self._records.total >= count, "a checkpoint", timeout)

    def hold(self, role: str, at: str, timeout: float = 30.0) -> int:
        """Hold a node at a point of its next checkpoint or pass, and wait until it stands there.

        A pass comes only if the guest writes, and if checkpoints leave time for one.

        Parameters
        ----------
        role
            Node to hold.
        at
            Point, one of `points`.
        timeout
            Seconds to wait.

        Returns
        -------
        int
            Number of the checkpoint that is being made.

        Raises
        ------
        LocalError
            If there is no pair, or its checkpoints never pass that point.
        """
        from colobench.node.breakpoints import is_between_checkpoints

        self.check_point(role, at)
        self._pair.check_pair()
        seen = len(self._pair.journal)
        self._pair.living(role).execute("x-colo-break", at=at)

        def held() -> Iterator[JournalEntry]:
            return self._pair.journal.entries("X_COLO_HELD", role, since=seen)

        try:
            # Passes come without being asked for, as soon as the guest has written a page.
            if not is_between_checkpoints(at):
                self._ask_for_checkpoint()
            self._pair.wait_for(lambda: any(held()), f"the {role} to be held at {at!r}", timeout)
        except BaseException:
            # If it is held, the caller does not know it: no later checkpoint may wait for it.
            with contextlib.suppress(ColobenchError):
                self.go_on(role)
            raise
        return int(next(held()).data["checkpoint"])

    def points(self, role: str) -> tuple[str, ...]:
        """Give the points that the checkpoints of this pair pass, where a node can be held.

        Raises
        ------
        LocalError
            If the role is unknown.
        """
        # These import numba, which a process that only runs nodes does not need.
        from colobench.node.breakpoints import points_of
        from colobench.protocol.colo import Role

        if role not in ROLES:
            raise LocalError(f"role: expected {' or '.join(ROLES)}, found {role!r}")
        checkpoint = self._pair.settings.checkpoint
        form = (checkpoint.layout, checkpoint.capture, checkpoint.encoding)
        return points_of(Role(role), *form)

    def check_point(self, role: str, at: str) -> None:
        """Refuse a point that is none of `points`.

        Raises
        ------
        LocalError
            If the point or the role is unknown.
        """
        from colobench.node.breakpoints import check_point
        from colobench.protocol.colo import Role

        if at not in self.points(role):
            checkpoint = self._pair.settings.checkpoint
            form = (checkpoint.layout, checkpoint.capture, checkpoint.encoding)
            check_point(Role(role), *form, at)

    def go_on(self, role: str) -> None:
        """Let a held node go on."""
        self._pair.nodes[role].execute("x-colo-continue")

    def kill(
        self, role: str = "primary", *, at: str | None = None, held: str | None = None
    ) -> Killed:
        """Kill a node with SIGKILL, and wait for its end.

        Parameters
        ----------
        role
            Node to kill.
        at
            Point of a checkpoint, see `hold`; None is now, at any point.
        held
            Node that is held there, by default the victim itself.

        Raises
        ------
        LocalError
            If it is already dead.
        """
        self._pair.living(role)
        if at is not None:
            self.hold(held or role, at)
        killed = self._pair.kill(role, at=at)
        self._pair.published.enter(PairState.ALONE)
        return killed

    def disk_fault(self, role: str, rules: Sequence[Mapping[str, Any]], *, disk: int = 0) -> None:
        """Let requests to the image of a disk on one side fail, or be late; only in an experiment.

        Parameters
        ----------
        role
            Node whose image it is.
        rules
            What happens to which requests, instead of the rules before, see
            `colobench.node.disk.faults.FaultRule.from_json`; none ends the faults.
        disk
            Number of the disk.

        Raises
        ------
        ColobenchError
            If this is no experiment, there is no such disk, or a rule is none.
        """
        self._pair.living(role).execute("x-disk-fault", disk=disk, rules=list(map(dict, rules)))

    def console(self, role: str) -> str:
        """Give the last output of the guest's serial console on that side."""
        text: str = self._pair.living(role).execute("x-query-console")["text"]
        return text
