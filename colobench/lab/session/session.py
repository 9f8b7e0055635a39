"""A session: one primary and one secondary, from their start to the last one's end.

Notebooks, the command line and the tests all use this, and this uses what any QMP client could.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from colobench.errors import LocalError
from colobench.fields.documented import takes_settings
from colobench.guest.making import check_guest
from colobench.lab.compilation import compile_with_bar
from colobench.lab.interrupt import explain_again, interruptible
from colobench.lab.session.disk_images import identify_disks
from colobench.lab.session.journal import Journal
from colobench.lab.session.link_use import LinkUse
from colobench.lab.session.node_pair import NodePair
from colobench.lab.session.pair_controls import PairControls
from colobench.lab.session.pair_failover import PairFailover
from colobench.lab.session.pair_joining import PairJoining
from colobench.lab.session.places import (
    check_libraries,
    check_memory,
    check_places,
    identify_trace,
)
from colobench.lab.session.published_state import PublishedState
from colobench.lab.session.record import Records
from colobench.lab.session.session_processes import SessionProcesses
from colobench.lab.session.status import PairState
from colobench.node.kernels import modules_for
from colobench.processes.errors import NodeGone
from colobench.processes.process import ProcessUsage
from colobench.settings.checkpoint import Strategy
from colobench.settings.settings import Settings
from colobench.settings.strategy import make_strategy

if TYPE_CHECKING:
    from colobench.lab.session.relay import Relay

P = ParamSpec("P")
R = TypeVar("R")
#: A part of a session.
T = TypeVar("T")


def session_outcome(session: Session, *arguments: Any, **options: Any) -> str:
    """Describe the state of a session after an interrupt."""
    living = [role for role, node in session.nodes.items() if node.alive()]
    if not living:
        return "its session is closed, all of its processes have ended"
    return f"its {' and '.join(living)} live on" if len(living) > 1 else f"its {living[0]} lives on"


def _method_of(
    part: Callable[[Session], T], method: Callable[Concatenate[T, P], R]
) -> Callable[Concatenate[Session, P], R]:
    """Make a method of a part of the session one of the session, with its documentation."""

    @wraps(method)
    def of_session(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(part(session), *args, **kwargs)

    of_session.__qualname__ = f"Session.{method.__name__}"
    return interruptible(session_outcome)(of_session)


def _pair(session: Session) -> NodePair:
    return session._pair


def _controls(session: Session) -> PairControls:
    return session._controls


def _failover(session: Session) -> PairFailover:
    return session._failover


def _joining(session: Session) -> PairJoining:
    return session._joining


@takes_settings(Settings(), "strategy")
class Session(contextlib.AbstractContextManager["Session"]):
    """A primary and a secondary in COLO.

    Parameters
    ----------
    settings
        Settings of the session; None is `Settings()`. Settings given by name override them.
    strategy
        `Strategy`, the text of one such as ``colo_v11`` or ``hybrid,transport=memfd``, or a trigger
        of your own. It sets all axes; other settings given by name go before it.
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
        strategy: Strategy | str | Any = None,
        **overrides: Any,
    ) -> None:
        chosen = Settings() if settings is None else settings
        if strategy is not None:
            chosen = chosen.override(**make_strategy(strategy).changes())
        self.settings = chosen.override(**overrides)
        self.settings = identify_disks(self.settings)
        check_memory(self.settings)
        check_guest(self.settings.guest)
        check_libraries(self.settings)
        self.settings = identify_trace(self.settings)
        self.journal = Journal(self.settings)
        self._processes = SessionProcesses(self.settings, self.journal.deliver)
        self.nodes, self.others = self._processes.nodes, self._processes.others
        self._published = PublishedState(self.settings, self._processes)
        self._pair = NodePair(self.settings, self.journal, self._processes, self._published)
        self._controls = PairControls(self._pair)
        self._failover = PairFailover(self._pair)
        self._joining = PairJoining(self._pair)

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
        return self._pair.earlier + 1

    @property
    def relay(self) -> Relay | None:
        """The relay of the present pair, if its stream is captured."""
        return self._joining.relay

    def hold_messages(self) -> None:
        """Let a relay hold each message of the pair that is about to start, from READY on.

        Then nothing goes on by itself: see `colobench.lab.studies.stepping`. A message that is held
        is one that its receiver waits for, so the stall timeout should be long.

        Raises
        ------
        LocalError
            If the session was started before.
        """
        if self.nodes:
            raise LocalError("hold_messages: expected a session that was not started, found it so")
        self._joining.holds_messages = True

    def images(self) -> list[str]:
        """Return the paths of the images that the guest uses: the survivor's, or the primary's."""
        return self._joining.images()

    @property
    def state(self) -> PairState | None:
        """State of the guest; None before the start and after the end."""
        return self._published.state

    @property
    def lets_clients_in(self) -> bool:
        """Whether clients may connect to the guest's forwarded ports."""
        return self._published.lets_clients_in

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
        compile_with_bar(modules_for(self.settings))
        self._processes.begin()
        try:
            self._processes.start_others(timeout)
            self._joining.start(timeout, unprotected)
            self._let_clients_in()
            self._published.enter(PairState.PROTECTED)
            self._joining.start_spare()
        except BaseException:
            self.close()
            raise

    def _let_clients_in(self) -> None:
        if "switch" in self.others and not self.lets_clients_in:
            self.others["switch"].execute("x-hostfwd-listen")
        self._published.lets_clients_in = True

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
        self._published.state = None
        self._processes.close()

    # The pair: what is done to it, what its nodes report, and what follows from a node's death.

    run = _method_of(_controls, PairControls.run)
    checkpoint = _method_of(_controls, PairControls.checkpoint)
    wait_for_ticks = _method_of(_controls, PairControls.wait_for_ticks)
    hold = _method_of(_controls, PairControls.hold)
    points = _method_of(_controls, PairControls.points)
    check_point = _method_of(_controls, PairControls.check_point)
    go_on = _method_of(_controls, PairControls.go_on)
    kill = _method_of(_controls, PairControls.kill)
    disk_fault = _method_of(_controls, PairControls.disk_fault)
    console = _method_of(_controls, PairControls.console)

    check_pair = _method_of(_pair, NodePair.check_pair)
    wait_for = _method_of(_pair, NodePair.wait_for)
    wait_for_event = _method_of(_pair, NodePair.wait_for_event)
    on_record = _method_of(lambda session: session.journal, Journal.on_record)
    on_state = _method_of(lambda session: session._published, PublishedState.on_state)

    found_dead = _method_of(_failover, PairFailover.found_dead)
    lost_without_a_kill = _method_of(_failover, PairFailover.lost_without_a_kill)
    failover = _method_of(_failover, PairFailover.failover)
    takeover = _method_of(_failover, PairFailover.takeover)
    verify = _method_of(_failover, PairFailover.verify)
    rejoin = _method_of(_joining, PairJoining.rejoin)

    # Its processes, and the way to its guest.

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
            self._published.publish()
        return revived

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
