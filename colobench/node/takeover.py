"""Takeover: a node's standing towards its peer, and the failover that follows from it.

Both are tables of `colobench.protocol`, and the only way to serve alone leads through them. Their
events come from the heartbeat's thread, from the monitor's, and from the COLO thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from colobench.errors import LocalError
from colobench.node.monitor import Monitor
from colobench.node.peer_watchdog import Pairing, PeerWatchdog
from colobench.protocol.arbiter import (
    STANDING,
    NodeStanding,
    Standing,
    StandingAction,
    StandingEvent,
)
from colobench.protocol.colo import Role
from colobench.protocol.failover import (
    FAILOVER,
    Failover,
    FailoverAction,
    FailoverEvent,
    FailoverState,
)
from colobench.protocol.table import LocalProtocolError, check_actions


class TakeoverSteps(Protocol):
    """Steps of a takeover that the node performs."""

    role: Role

    def in_colo(self) -> bool:
        """Return whether the node is one of a pair, or was until it lost its peer."""

    def loading(self) -> bool:
        """Return whether a committed checkpoint is being loaded."""

    def interrupt(self) -> None:
        """Let the COLO thread go on from a breakpoint."""

    def cut_off(self) -> None:
        """End the connections to the peer and the COLO thread, and stop the guest."""

    def run_alone(self) -> None:
        """Let the guest run without a peer."""

    def fence(self, holder: str) -> None:
        """Release no output any more, and end: `holder` is the guest now."""


class Takeover:
    """One node's takeover, or its refusal.

    Parameters
    ----------
    node
        Node, which performs the tables' actions.
    monitor
        Monitor for the events.
    lock
        Lock of the decision which comes first, a failover or the commit of a checkpoint.

    Attributes
    ----------
    standing, failover
        State machines of the two tables.
    """

    def __init__(
        self, node: TakeoverSteps, monitor: Monitor, lock: AbstractContextManager[object]
    ) -> None:
        self._node, self._monitor, self._lock = node, monitor, lock
        self.standing, self.failover = NodeStanding(), Failover()
        self._watchdog: PeerWatchdog | None = None
        self._colo_failed = False
        self._holder = ""
        self._standing_steps: Mapping[StandingAction, Callable[[], None]] = {
            StandingAction.ASK: self._ask,
            StandingAction.TAKE_OVER: self._request_failover,
            StandingAction.STOP: lambda: self._node.fence(self._holder),
        }
        self._failover_steps: Mapping[FailoverAction, Callable[[], None]] = {
            FailoverAction.CUT_OFF: self._cut_off,
            FailoverAction.RUN_ALONE: node.run_alone,
            FailoverAction.REQUEST_AGAIN: self._request_failover,
        }
        check_actions(STANDING, self._standing_steps)
        check_actions(FAILOVER, self._failover_steps)

    @property
    def begun(self) -> bool:
        """Whether a failover has begun: then no checkpoint is committed any more."""
        return self.failover.state is not FailoverState.NONE

    def watch(self, pairing: Pairing) -> None:
        """Watch the peer from now on.

        Raises
        ------
        LocalError
            If the node is not in COLO, or watches its peer already.
        """
        with self._lock:
            if not self._node.in_colo() or self._watchdog is not None:
                raise LocalError("heartbeat: expected a node in COLO that has none yet")
            self._watchdog = PeerWatchdog(pairing, self._peer_lost)
            if self._colo_failed:
                # The peer may have failed as early, and would hear our beats for ever.
                self._watchdog.colo_failed()

    def colo_failed(self) -> None:
        """Stop the heartbeat, and count the peer as lost when the heartbeat's limit has passed.

        A heartbeat that begins only later is stopped at once.
        """
        self._colo_failed = True
        if self._watchdog is not None:
            self._watchdog.colo_failed()

    def stop(self) -> None:
        """Stop watching the peer and asking the arbiter."""
        if self._watchdog is not None:
            self._watchdog.stop()

    def told(self) -> None:
        """Take over without the arbiter; ``x-colo-lost-heartbeat``'s sender takes responsibility.

        Raises
        ------
        LocalError
            If the node is not in COLO, was refused by the arbiter, or takes over already.
        """
        with self._lock:
            if not self._node.in_colo():
                raise LocalError("The feature 'colo' is not enabled")
            try:
                actions = self.standing.on(StandingEvent.TOLD)
            except LocalProtocolError as error:
                out = self.standing.state is Standing.OUT
                raise LocalError(
                    f"the arbiter has granted {self._holder}, not us"
                    if out
                    else "COLO failover is already activated"
                ) from error
        self._perform(actions)

    def load_finished(self) -> bool:
        """Begin a failover that waited for the load; return whether there was one."""
        with self._lock:
            if self.failover.state is not FailoverState.RELAUNCH:
                return False
            actions = self.failover.on(FailoverEvent.LOADED)
        self._perform_failover(actions)
        return True

    def _perform(self, actions: tuple[StandingAction, ...]) -> None:
        for action in actions:
            self._standing_steps[action]()

    def _perform_failover(self, actions: tuple[FailoverAction, ...]) -> None:
        for action in actions:
            self._failover_steps[action]()

    def _peer_lost(self, silence: float) -> None:
        actions: tuple[StandingAction, ...] = ()
        try:
            # The lock is free only when `watch` has returned.
            with self._lock:
                assert self._watchdog is not None
                if self._watchdog.has_arbiter:
                    actions = self.standing.on(StandingEvent.PEER_LOST)
        except LocalProtocolError:
            # x-colo-lost-heartbeat came first.
            return
        mode = self._node.role.value
        self._monitor.emit("X_COLO_HEARTBEAT_LOST", {"mode": mode, "silence": silence})
        self._perform(actions)

    def _ask(self) -> None:
        assert self._watchdog is not None
        verdict = self._watchdog.ask(
            lambda why: self._monitor.emit("X_ARBITER_UNREACHABLE", {"x-why": why})
        )
        if verdict is None:
            return
        event = StandingEvent.GRANTED if verdict.granted else StandingEvent.REFUSED
        try:
            with self._lock:
                actions = self.standing.on(event)
                self._holder = verdict.holder
        except LocalProtocolError:
            # x-colo-lost-heartbeat came while the arbiter was asked, and has decided.
            return
        self._perform(actions)

    def _request_failover(self) -> None:
        with self._lock:
            self.failover.on(FailoverEvent.LOST_HEARTBEAT)
            loading = self._node.loading()
            actions = self.failover.on(FailoverEvent.LOADING if loading else FailoverEvent.BEGIN)
        self._node.interrupt()
        self._perform_failover(actions)

    def _cut_off(self) -> None:
        self._node.cut_off()
        self._perform_failover(self.failover.on(FailoverEvent.TAKEN_OVER))
