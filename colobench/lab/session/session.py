"""A session: one primary and one secondary, from their start to the last one's end.

Notebooks, the command line and the tests all use this, and this uses what any QMP client could.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from colobench.errors import ColobenchError, LocalError, RemoteError
from colobench.fields.documented import takes_settings
from colobench.lab.compilation import compile_with_bar
from colobench.lab.interrupt import explain_again, interruptible
from colobench.lab.session.journal import ROLES, Journal, JournalEntry
from colobench.lab.session.link_use import LinkUse
from colobench.lab.session.places import (
    check_libraries,
    check_memory,
    check_places,
    identify_trace,
)
from colobench.lab.session.record import CheckpointRecord, Records
from colobench.lab.session.session_processes import SessionProcesses
from colobench.lab.session.status import PairState, publish
from colobench.lab.session.takeover import Killed, TakeoverRecord
from colobench.node.kernels import kernel_modules
from colobench.processes.errors import NodeGone, NotStarted
from colobench.processes.process import NodeProcess, ProcessUsage
from colobench.settings.checkpoint import Strategy
from colobench.settings.settings import Settings
from colobench.settings.strategy import make_strategy

if TYPE_CHECKING:
    from colobench.lab.session.relay import Relay

#: Seconds that a running guest may take for its next step of work.
WORK_TIMEOUT = 10.0
TICK_SECONDS = 0.001
#: Seconds to wait for a node's error after its peer has said that the connection has ended.
CAUSE_TIMEOUT = 1.0
#: Seconds that a survivor may take to connect to a joining node, besides its stall timeout.
CONNECT_TIMEOUT = 10.0


def _who(node: NodeProcess) -> dict[str, Any]:
    return {"pid": node.pid, "qmp": str(node.qmp_path)}


class ColoExit(RemoteError):
    """COLO_EXIT with an error: checkpoints have ended, and a survivor waits for its failover."""


def session_outcome(session: Session, *arguments: Any, **options: Any) -> str:
    """Describe the state of a session after an interrupt."""
    living = [role for role, node in session.nodes.items() if node.alive()]
    if not living:
        return "its session is closed, all of its processes have ended"
    return f"its {' and '.join(living)} live on" if len(living) > 1 else f"its {living[0]} lives on"


@takes_settings(Settings(), "strategy")
class Session(contextlib.AbstractContextManager["Session"]):
    """A primary and a secondary in COLO.

    Parameters
    ----------
    settings
        Settings of the session; None is `Settings()`. Settings given by name override them.
    strategy
        `Strategy`, or the text of one such as ``colo_v11`` or ``hybrid,transport=memfd``, that sets
        all of its axes; other settings given by name go before it.
    compare, heartbeat, nondeterminism
        Whole parts: `CompareSettings`, `HeartbeatSettings` or None, `NondeterminismSettings`.
    {settings}

    Attributes
    ----------
    journal
        Journal of the nodes' events.
    settings
        Settings of the session.
    nodes
        The two `NodeProcess`, by role; a killed one stays until another joins in its place.
    others
        Switch, arbiter and link, by role, if the session has them.
    relay
        The `Relay`, or None.
    state
        Whether a secondary is joining, the pair is protected, or one node is alone; None before
        the start and after the end.
    lets_clients_in
        Whether clients may connect to the guest's forwarded ports.

    Examples
    --------
    >>> with Session(ram="16M") as session:
    ...     session.run(10)
    ...     session.kill("primary", at="ram")
    ...     session.failover().equal
    <10 checkpoint records>
    Killed(role='primary', ...)
    True
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        strategy: Strategy | str | None = None,
        **overrides: Any,
    ) -> None:
        chosen = Settings() if settings is None else settings
        if strategy is not None:
            chosen = chosen.override(**make_strategy(strategy).changes())
        self.settings = chosen.override(**overrides)
        check_memory(self.settings)
        check_libraries(self.settings)
        self.settings = identify_trace(self.settings)
        self._spare: NodeProcess | None = None
        self.nodes: dict[str, NodeProcess] = {}
        #: Numbers of earlier pairs, and of events before the present one.
        self._pairs = self._since = 0
        #: The arbiter may have grants of other sessions, and names of directories come back.
        self._pairing = uuid.uuid4().hex
        self.state: PairState | None = None
        self._state_observers: list[Callable[[PairState], None]] = []
        self.relay: Relay | None = None
        verify, keep = self.settings.checkpoint.verify, self.settings.experiment.keep_records
        self.journal = Journal(verify, keep)
        self._processes = SessionProcesses(self.settings, self.journal.deliver)
        self.others = self._processes.others
        self._killed: Killed | None = None
        #: Whether the session parted the pair itself, so that a COLO_EXIT is expected.
        self._parted = False
        self._alive = False
        self.lets_clients_in = self.settings.network.serve_unprotected
        self._ports: list[tuple[int, tuple[str, int]]] = []

    @property
    def began(self) -> float:
        """Monotonic time at which the pair entered COLO; the times of records count from it."""
        return self.journal.began or 0.0

    @property
    def records(self) -> Records:
        """The committed checkpoints so far."""
        return self.journal.records

    @property
    def pairs(self) -> int:
        """Number of pairs so far, including the present one; each `rejoin` adds one."""
        return self._pairs + 1

    def on_state(self, observer: Callable[[PairState], None]) -> None:
        """Call `observer` with each new state, in the thread that brings it about."""
        self._state_observers.append(observer)

    def _enter(self, state: PairState) -> None:
        """Change the state, and tell observers and ``colobench status``."""
        before, self.state = self.state, state
        self._publish()
        if state is not before:
            for observer in self._state_observers:
                observer(state)

    def _publish(self) -> None:
        assert self.state is not None
        publish(
            self._processes.directory,
            {
                "state": self.state.value,
                "guest": self.settings.as_json()["guest"],
                "nodes": {role: _who(node) for role, node in self.nodes.items() if node.alive()},
                "others": {role: _who(node) for role, node in self.others.items()},
                "ports": [[port, *address] for port, address in self._ports],
                "lets-clients-in": self.lets_clients_in,
            },
        )

    # Begin and end.

    def __enter__(self) -> Session:
        """Start both nodes and bring them into COLO; see `start`."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything; see `close`."""
        self.close()
        explain_again(error, "its session is closed, all of its processes have ended")

    @interruptible(session_outcome)
    def start(
        self, timeout: float = 120.0, *, unprotected: Callable[[], None] = lambda: None
    ) -> None:
        """Start both nodes, migrate the running guest, and enter COLO.

        Parameters
        ----------
        timeout
            Seconds that each step may take: kernels may have to be compiled first.
        unprotected
            Function that is called while the primary's guest runs, just before it is migrated.

        Raises
        ------
        NodeGone
            If a node ends; the message has its last words.
        SessionTimeout, ColoExit
            If they do not get into COLO.
        """
        if self.nodes:
            raise LocalError("session: expected one that was not started, found it started")
        self.check_places()
        self._compile_kernels()
        self._alive = True
        self._processes.begin()
        try:
            self._processes.start_others(timeout)
            self._ports = self.forwarded()
            self._start_nodes(timeout)
            unprotected()
            self._migrate(timeout)
            self._let_clients_in()
            self._enter(PairState.PROTECTED)
            self._start_spare()
        except BaseException:
            self.close()
            raise

    def _compile_kernels(self) -> None:
        """Have the kernels that the nodes will load in the cache."""
        program, checkpoint = self.settings.guest.program, self.settings.checkpoint
        pages, encoding = checkpoint.transport.pages, checkpoint.encoding
        compile_with_bar(kernel_modules((program,), pages, (checkpoint.tracker,), encoding))

    def check_places(self) -> None:
        """Check that the ports and files of the settings are available.

        Raises
        ------
        LocalError
            If one of them is not; the message has its name and the reason.
        """
        check_places(self.settings)

    def close(self) -> None:
        """End both nodes and remove every trace of the session; its records stay.

        In a process that was forked since the start it does nothing: the nodes are not its own.
        """
        if not self._processes.owner.is_this_process():
            return
        self._alive = False
        self.state = None
        self._processes.close()

    def _start_nodes(self, timeout: float) -> None:
        self.nodes["primary"] = self._processes.start_primary()
        self.nodes["secondary"] = self._processes.start_secondary()
        self._enter(PairState.JOINING)
        for node in self.nodes.values():
            self._greet(node, timeout)

    def _let_clients_in(self) -> None:
        if "switch" in self.others and not self.lets_clients_in:
            self.others["switch"].execute("x-hostfwd-listen")
        self.lets_clients_in = True

    def _start_spare(self) -> None:
        if self.settings.experiment.spare:
            # A spare only saves time; without it, `rejoin` starts a node.
            with contextlib.suppress(NotStarted):
                self._spare = self._processes.start_secondary()
                self._spare.role = "spare"

    def _greet(self, node: NodeProcess, timeout: float) -> None:
        """Wait until a new node is ready, and configure it."""
        node.connect(timeout)
        state = [{"capability": "x-colo", "state": True}]
        node.execute("migrate-set-capabilities", capabilities=state)
        if "switch" in self.others:
            node.execute("x-netdev", uri=f"unix:{self._processes.directory / 'switch'}")

    def _migrate(self, timeout: float) -> None:
        primary = self.nodes["primary"]
        incoming = self.nodes["secondary"].execute("query-migrate")
        uri = self._processes.over_link("colo", incoming["x-incoming"], timeout)
        checkpoint = self.settings.checkpoint
        if self.settings.experiment.keep_stream:
            from colobench.lab.session.relay import RELAY_LIMIT, Form, Relay
            from colobench.protocol.colo import VARIANTS

            self._processes.close_relays()
            form = Form(VARIANTS[checkpoint.variant], checkpoint.layout)
            # Precopy sends RAM, and again what the guest writes meanwhile.
            room = RELAY_LIMIT + 2 * self.settings.guest.ram_bytes
            at = f"unix:{self._processes.directory / 'relay'}"
            self.relay = Relay(at, uri, limit=room, form=form)
            self._processes.add_relay(self.relay)
            uri = f"unix:{self._processes.directory / 'relay'}"
        report_pages = checkpoint.report_pages
        primary.execute(
            "migrate-set-parameters",
            **self._processes.trigger_parameters(),
            x_report_pages=report_pages,
        )
        self.nodes["secondary"].execute("migrate-set-parameters", x_report_pages=report_pages)
        mirror = {}
        if incoming["x-mirror"]:
            at_mirror = self._processes.over_link("mirror", incoming["x-mirror"], timeout)
            mirror["x_mirror"] = at_mirror
        if self.settings.network.pcap_mirror is not None:
            mirror["x_mirror_pcap"] = self.settings.network.pcap_mirror
        primary.execute("migrate", uri=uri, **mirror)

        def entered_colo() -> bool:
            return all(
                self.journal.find(role, "MIGRATION", since=self._since, status="colo")
                for role in ROLES
            )

        self.wait_for(entered_colo, "both nodes to enter COLO", timeout)
        self._start_heartbeats()

    def _start_heartbeats(self, roles: Sequence[str] = ROLES) -> None:
        heartbeat = self.settings.heartbeat
        if heartbeat is None:
            return
        at = {role: f"unix:{self._heartbeat_path(role)}" for role in ROLES}
        for role in roles:
            [peer] = set(ROLES) - {role}
            self.nodes[role].execute(
                "x-colo-heartbeat",
                pairing=f"{self._pairing}-{self._pairs}",
                node=role,
                peer=peer,
                listen=at[role],
                to=at[peer],
                interval=heartbeat.interval_ms,
                limit=heartbeat.limit_ms,
                arbiter=f"unix:{self._processes.directory / 'arbiter'}",
            )

    def _heartbeat_path(self, role: str) -> Path:
        return self._processes.directory / f"{role}-{self._pairs}.heartbeat"

    @interruptible(session_outcome)
    def rejoin(self, timeout: float = 120.0) -> None:
        """Let a new secondary join the survivor, whose guest serves meanwhile.

        From then on the survivor is the primary of `nodes`.

        Parameters
        ----------
        timeout
            Seconds that each step may take.

        Raises
        ------
        LocalError
            If there is no survivor that has taken over.
        """
        survivors = [node for node in self.nodes.values() if node.alive()]
        if len(survivors) != 1 or self._killed is None or not self._alive:
            raise LocalError("rejoin: expected one survivor of a kill, found none")
        survivor = survivors[0]
        guest = survivor.execute("x-query-guest")
        if survivor.execute("query-colo-status")["mode"] != "none":
            raise LocalError("rejoin: expected a survivor that has taken over; see failover")
        self._processes.release_dead()
        # If this fails, nothing has changed.
        secondary = self._next_secondary()
        survivor.role = "primary"
        secondary.role, self._spare = "secondary", None
        self.nodes["primary"], self.nodes["secondary"] = survivor, secondary
        self._begin_pair()
        try:
            self._enter(PairState.JOINING)
            self._greet(secondary, timeout)
            secondary.execute("migrate-set-parameters", x_committed=guest["checkpoint"])
            self._migrate(timeout)
            self._enter(PairState.PROTECTED)
        except (Exception, KeyboardInterrupt):
            self._give_up(secondary)
            raise
        self._start_spare()

    def _begin_pair(self) -> None:
        """Begin another pair, and forget the events of the one before the last."""
        for role in ROLES:
            self._heartbeat_path(role).unlink(missing_ok=True)
        self._pairs += 1
        self.journal.forget(self._since)
        self._since = len(self.journal)
        self._killed, self._parted = None, False

    def _next_secondary(self) -> NodeProcess:
        """Give the secondary that was started ahead, or start one."""
        if self._spare is not None and self._spare.alive():
            return self._spare
        return self._processes.start_secondary()

    def _give_up(self, secondary: NodeProcess) -> None:
        """End a pair that did not come about, so that one of its nodes serves alone."""
        try:
            if self.nodes["primary"].is_gone():
                self._give_up_primary(secondary)
            else:
                self._give_up_secondary(secondary)
        finally:
            self._enter(PairState.ALONE)

    def _give_up_primary(self, secondary: NodeProcess) -> None:
        """Let the joining secondary ask the arbiter, if it has received the whole guest."""
        deadline = time.monotonic() + self.settings.checkpoint.stall_timeout
        with contextlib.suppress(ColobenchError):
            # Otherwise its connection ends, and it ends, too.
            while secondary.execute("query-colo-status")["mode"] == "none":
                if time.monotonic() > deadline:
                    return
                time.sleep(TICK_SECONDS)
            self._start_heartbeats(["secondary"])

    def _give_up_secondary(self, secondary: NodeProcess) -> None:
        """Kill the joining secondary, and let the survivor serve alone again."""
        when, committed = time.monotonic(), self.records.total
        self._parted = True
        self._killed = Killed("secondary", secondary.pid, secondary.kill(), None, committed, when)
        self._processes.release_dead()
        survivor = self.nodes["primary"]
        deadline = when + CONNECT_TIMEOUT + self.settings.checkpoint.stall_timeout
        with contextlib.suppress(ColobenchError):
            while survivor.execute("query-colo-status")["mode"] == "none":
                status = survivor.execute("query-migrate")["status"]
                if status not in ("setup", "active", "colo") or time.monotonic() > deadline:
                    return
                time.sleep(TICK_SECONDS)
            # Its guest may stand still since the migration's end.
            survivor.execute("x-colo-lost-heartbeat")

    def forwarded(self) -> list[tuple[int, tuple[str, int]]]:
        """Give the guest's port of each forwarding rule, with the host and port for clients."""
        return self._processes.forwarded()

    def address(self, port: int = 6379) -> tuple[str, int]:
        """Give the host and port at which clients reach the guest's `port`.

        Raises
        ------
        LocalError
            If no rule forwards to it.
        """
        found = self.forwarded()
        for of_guest, address in found:
            if of_guest == port:
                return address
        ports = sorted({of_guest for of_guest, _ in found})
        raise LocalError(
            f"address: expected a hostfwd to the guest's port {port}, found {ports or 'none'}"
        )

    # Waiting for the nodes.

    def on_record(self, observer: Callable[[CheckpointRecord], None]) -> None:
        """Call `observer` with each new record, in a thread that it must not block."""
        self.journal.on_record(observer)

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until a condition holds, which is evaluated after each event.

        Raises
        ------
        ColoExit, SessionTimeout
            If a node gives up or ends, or the time is over first.
        """
        self.journal.wait_for(condition, what, timeout, self._check_nodes)

    def wait_for_event(
        self,
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
            If it does not in time.
        """
        self.journal.wait_for(
            lambda: self.journal.find(role, event, since=self._since, **data) is not None,
            f"{event} of the {role}",
            timeout,
            check,
        )
        said = self.journal.find(role, event, since=self._since, **data)
        assert said is not None
        return said

    def _check_nodes(self, what: str) -> None:
        said = None if self._parted else self._error_of_colo()
        if said is not None:
            why = said.data["x-why"]
            raise ColoExit(f"expected {what}, found COLO_EXIT of the {said.role}: {why}")
        for said in self.journal.entries("X_MIGRATION_ERROR", since=self._since):
            raise ColoExit(f"expected {what}, found migration failed: {said.data['x-why']}")
        for node in self.nodes.values():
            killed = self._killed is not None and self._killed.role == node.role
            if not killed and not node.alive():
                raise ColoExit(f"expected {what}, found the {node.role} {node.how_it_ended()}")

    def _error_of_colo(self) -> JournalEntry | None:
        """Find the error with which COLO has ended.

        The node that met it ends the connection, so its peer may be heard first. A living node's
        error is waited for before one that says only that the connection has ended.
        """
        exits = self.journal.entries("COLO_EXIT", since=self._since)
        errors = [said for said in exits if said.data["reason"] == "error"]
        for said in errors:
            if not said.data["x-why"].startswith("connection"):
                return said
        if len(errors) == 1:
            [peer] = set(ROLES) - {errors[0].role}
            waits = time.monotonic() < errors[0].time + CAUSE_TIMEOUT
            if waits and self.nodes[peer].alive():
                return None
        return errors[0] if errors else None

    # Actions on a pair.

    @interruptible(session_outcome)
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
        self.check_pair()
        first = self.records.total
        delay = self.settings.checkpoint.delay
        patience = timeout or 10.0 + (delay or 0) / 1000
        for done in range(1, checkpoints + 1):
            if delay is None:
                self.nodes["primary"].execute("x-colo-checkpoint")
            self._wait_for_records(first + done, patience)
            progress(done, checkpoints)
        return self.records.since(first)[:checkpoints]

    def check_pair(self) -> None:
        """Check that there is a pair in COLO."""
        self._processes.owner.check("session")
        if self._parted or not self.nodes or not self._alive:
            found = "one parted" if self._parted else "none started" if not self.nodes else "closed"
            raise LocalError(f"session: expected a pair in COLO, found {found}")

    def _wait_for_records(self, count: int, timeout: float) -> None:
        self.wait_for(lambda: self.records.total >= count, "a checkpoint", timeout)

    @interruptible(session_outcome)
    def checkpoint(self) -> CheckpointRecord:
        """Ask for a checkpoint now, and wait for the next one that is committed."""
        self.check_pair()
        first = self.records.total
        self.nodes["primary"].execute("x-colo-checkpoint")
        self._wait_for_records(first + 1, 20.0)
        return self.records.since(first)[0]

    @interruptible(session_outcome)
    def hold(self, role: str, at: str, timeout: float = 30.0) -> int:
        """Hold a node at a point of its next checkpoint, and wait until it stands there.

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
        self.check_point(role, at)
        self.check_pair()
        seen = len(self.journal)
        self._living(role).execute("x-colo-break", at=at)

        def held() -> Iterator[JournalEntry]:
            return self.journal.entries("X_COLO_HELD", role, since=seen)

        try:
            self.nodes["primary"].execute("x-colo-checkpoint")
            self.wait_for(lambda: any(held()), f"the {role} to be held at {at!r}", timeout)
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
        checkpoint = self.settings.checkpoint
        return points_of(Role(role), checkpoint.layout, checkpoint.capture)

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
            checkpoint = self.settings.checkpoint
            check_point(Role(role), checkpoint.layout, checkpoint.capture, at)

    def go_on(self, role: str) -> None:
        """Let a held node go on."""
        self.nodes[role].execute("x-colo-continue")

    @interruptible(session_outcome)
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
        node = self._living(role)
        if at is not None:
            self.hold(held or role, at)
        committed = self.records.total
        when = time.monotonic()
        self._parted = True
        self._killed = Killed(role, node.pid, 0, at, committed, when)
        status = node.kill()
        self._killed = Killed(role, node.pid, status, at, committed, when)
        self._enter(PairState.ALONE)
        return self._killed

    def found_dead(self) -> Killed | None:
        """Find a node that was ended from outside, which counts as killed from now on.

        A node that was stopped until its peer took over is refused by the arbiter, so it is killed.
        """
        if self._parted or not self._alive:
            return None
        for role, peer in (ROLES, ROLES[::-1]):
            when, node = time.monotonic(), self.nodes[role]
            status = node.process.poll()
            fenced = self.journal.find(role, "X_COLO_FENCED", since=self._since)
            taken = self.journal.find(peer, "X_COLO_TAKEOVER", since=self._since)
            refused = fenced is not None
            if status is None and taken is not None:
                when, status, refused = taken.time, node.kill(), True
            if status is not None:
                self._parted = True
                committed = self.records.total
                self._killed = Killed(role, node.pid, status, None, committed, when, refused)
                self._enter(PairState.ALONE)
                return self._killed
        return None

    def check_serving(self) -> None:
        """Check that the processes are alive that cannot be replaced.

        Raises
        ------
        NodeGone
            If the switch has ended, which had the clients' connections, or no node is left.
        """
        switch = self.others.get("switch")
        if switch is not None and not switch.alive():
            raise NodeGone(f"expected the switch to live, found it {switch.how_it_ended()}")
        if not any(node.alive() for node in self.nodes.values()):
            raise NodeGone("expected a living node, found none: nobody has the guest's state")

    def revive_arbiter(self, timeout: float = 30.0) -> bool:
        """Start the arbiter again if it has ended; its grants are in its file.

        Returns
        -------
        bool
            Whether it had ended.
        """
        revived = self._processes.revive_arbiter(timeout)
        if revived:
            self._publish()
        return revived

    def lost_without_a_kill(self) -> bool:
        """Say whether a node of the present pair lost its peer's heartbeat before a kill.

        This happens on a machine so busy that a node gets no processor for the heartbeat's limit.
        """
        lost = [
            said.time for said in self.journal.entries("X_COLO_HEARTBEAT_LOST", since=self._since)
        ]
        return any(self._killed is None or time_ < self._killed.time for time_ in lost)

    @interruptible(session_outcome)
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
        if role is None:
            if self._killed is None:
                raise LocalError("failover: expected a role, or a killed node, found neither")
            role = next(each for each in ROLES if each != self._killed.role)
        node = self._living(role)
        self._parted = True
        told = time.monotonic()
        node.execute("x-colo-lost-heartbeat")
        self._enter(PairState.ALONE)
        return self._taken_over(role, told, timeout)

    @interruptible(session_outcome)
    def takeover(self, timeout: float = 30.0) -> TakeoverRecord:
        """Wait until the survivor of a kill has taken over by itself, because of its heartbeat.

        Raises
        ------
        LocalError
            If no node was killed, or the session has no heartbeat.
        SessionTimeout
            If it does not in time.
        """
        if self._killed is None or self.settings.heartbeat is None:
            raise LocalError("takeover: expected a kill in a session with a heartbeat")
        role = next(each for each in ROLES if each != self._killed.role)
        return self._taken_over(role, self._killed.time, timeout)

    def _taken_over(self, role: str, told: float, timeout: float) -> TakeoverRecord:
        node = self.nodes[role]

        def check(what: str) -> None:
            if not node.alive():
                raise NodeGone(f"expected {what}, found it {node.how_it_ended()}")

        running = self.wait_for_event(role, "RESUME", timeout, check=check).time
        taken = self.wait_for_event(role, "X_COLO_TAKEOVER", check=check).data
        killed = self._killed.time if self._killed else None
        work = int(taken["work"])
        after = self._work_beyond(node, work)
        self._processes.release_dead()
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
        stood_still = role == "secondary" and self.settings.checkpoint.variant == "v12"
        if not self.settings.checkpoint.verify or not stood_still:
            return None
        digests = self.journal.digests.get(taken["checkpoint"])
        return digests is not None and all(
            digests[key] == taken[key] for key in ("ram", "devices", "work")
        )

    def _work_beyond(self, node: NodeProcess, work: int) -> int:
        """Wait until the guest has done more than `work`, and give its work counter then."""
        deadline = time.monotonic() + WORK_TIMEOUT
        while True:
            after = int(node.execute("x-query-guest")["work"])
            if after > work or time.monotonic() > deadline:
                return after
            time.sleep(TICK_SECONDS)

    @interruptible(session_outcome)
    def verify(self, role: str | None = None) -> bool:
        """Stop a survivor's guest, and compare its RAM with that of a guest never migrated.

        RAM is a function of program, seed and work done, so a guest that did the same work in one
        go, in this process, must have the same RAM. The survivor's guest runs on afterwards.

        Parameters
        ----------
        role
            Survivor, by default the node that was not killed.
        """
        from colobench.guest.numba.machine import Machine

        if not self.settings.guest.program.is_reproducible:
            raise LocalError(
                "verify: expected a program that depends on its seed, "
                f"found {self.settings.guest.program.label}"
            )
        if role is None:
            role = next(each for each in ROLES if self._killed is None or each != self._killed.role)
        node = self._living(role)
        try:
            node.execute("stop")
            found = node.execute("x-query-digest")
        finally:
            node.execute("cont")
        machine = Machine(self.settings.guest)
        try:
            machine.run_until(int(found["work"]))
            return bool(f"{machine.ram_digest():016x}" == found["ram"])
        finally:
            machine.close()

    def link_use(self) -> LinkUse | None:
        """Look at what has crossed the link so far; None if the nodes are connected directly.

        Raises
        ------
        NodeGone
            If the link has ended.
        """
        link = self.others.get("link")
        return None if link is None else LinkUse.of(link.execute("x-query-link"))

    def all_pids(self) -> list[int]:
        """Give the pid of every process that this session has started, the dead ones too."""
        return self._processes.pids[:]

    def processes(self) -> list[ProcessUsage]:
        """Look at memory and processor time of the nodes that live."""
        found = [node.usage() for node in self.nodes.values()]
        return [each for each in found if each is not None]

    def console(self, role: str) -> str:
        """Give the last output of the guest's serial console on that side."""
        text: str = self._living(role).execute("x-query-console")["text"]
        return text

    def _living(self, role: str) -> NodeProcess:
        if role not in self.nodes:
            raise LocalError(
                f"role: expected {' or '.join(self.nodes) or 'a start'}, found {role!r}"
            )
        node = self.nodes[role]
        if not node.alive():
            raise LocalError(f"expected a living {role}, found it dead")
        return node
