"""Joining: how a secondary gets the running guest, at the start and after each takeover."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colobench.errors import ColobenchError, LocalError
from colobench.lab.session.journal import ROLES
from colobench.lab.session.node_pair import PEERS, ColoExit, NodePair
from colobench.lab.session.pair_disks import PairDisks
from colobench.lab.session.status import PairState
from colobench.processes.errors import NotStarted
from colobench.processes.process import NodeProcess

if TYPE_CHECKING:
    from colobench.lab.session.relay import Relay

TICK_SECONDS = 0.001
#: Seconds that a survivor may take to connect to a joining node, besides its stall timeout.
CONNECT_TIMEOUT = 10.0


class PairJoining:
    """Joining of a secondary: it is started, receives the guest, and enters COLO.

    Parameters
    ----------
    pair
        The pair whose secondary joins.

    Attributes
    ----------
    relay
        The `Relay` of the present pair, or None.
    holds_messages
        Whether the relay holds each message of a pair until it is let through.
    """

    def __init__(self, pair: NodePair) -> None:
        self._pair = pair
        self._settings, self._processes = pair.settings, pair.processes
        self.relay: Relay | None = None
        self.holds_messages = False
        self._disks = PairDisks(pair.settings)
        #: A secondary that was started ahead.
        self._spare: NodeProcess | None = None
        #: The arbiter may have grants of other sessions, and names of directories come back.
        self._pairing = uuid.uuid4().hex

    def start(self, timeout: float, unprotected: Callable[[], None]) -> None:
        """Start both nodes, call `unprotected`, migrate the running guest, and enter COLO."""
        nodes = self._pair.nodes
        self._disks.choose()
        nodes["primary"] = self._processes.start_primary(self._disks.of_primary)
        nodes["secondary"] = self._processes.start_secondary()
        self._pair.published.enter(PairState.JOINING)
        for node in nodes.values():
            self._greet(node, timeout)
        unprotected()
        self._migrate(timeout)

    def start_spare(self) -> None:
        """Start a further secondary ahead, if the settings have one."""
        if self._settings.experiment.spare:
            # A spare only saves time; without it, `rejoin` starts a node.
            with contextlib.suppress(NotStarted):
                self._spare = self._processes.start_secondary()
                self._spare.role = "spare"

    def images(self) -> list[str]:
        """Return the paths of the images of the node that is the guest."""
        if self._pair.nodes["primary"].alive():
            return self._disks.of_primary
        return self._disks.of_secondary

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
        pair = self._pair
        survivors = [node for node in pair.nodes.values() if node.alive()]
        if len(survivors) != 1 or pair.killed is None or not self._processes.open:
            raise LocalError("rejoin: expected one survivor of a kill, found none")
        survivor = survivors[0]
        guest = survivor.execute("x-query-guest")
        if survivor.execute("query-colo-status")["mode"] != "none":
            raise LocalError("rejoin: expected a survivor that has taken over; see failover")
        self._processes.release_dead()
        # If this fails, nothing has changed.
        secondary = self._next_secondary()
        if survivor is pair.nodes["secondary"]:
            self._disks.swap()
        survivor.role, secondary.role = "primary", "secondary"
        for role in ROLES:
            self._heartbeat_path(role).unlink(missing_ok=True)
        pair.begin_next(survivor, secondary)
        try:
            pair.published.enter(PairState.JOINING)
            self._greet(secondary, timeout)
            secondary.execute("migrate-set-parameters", x_committed=guest["checkpoint"])
            self._migrate(timeout)
            pair.published.enter(PairState.PROTECTED)
        except (Exception, KeyboardInterrupt):
            self._give_up()
            raise
        self.start_spare()

    def _next_secondary(self) -> NodeProcess:
        """Give the secondary that was started ahead, or start one."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.alive():
            return spare
        return self._processes.start_secondary()

    def _greet(self, node: NodeProcess, timeout: float) -> None:
        """Wait until a new node is ready, and configure it."""
        node.connect(timeout)
        state = [{"capability": "x-colo", "state": True}]
        node.execute("migrate-set-capabilities", capabilities=state)
        if "switch" in self._processes.others:
            node.execute("x-netdev", uri=f"unix:{self._processes.directory / 'switch'}")

    # Migration, and what watches over the pair after it.

    def _migrate(self, timeout: float) -> None:
        primary, secondary = (self._pair.nodes[role] for role in ROLES)
        incoming = secondary.execute("query-migrate")
        uri = self._processes.over_link("colo", incoming["x-incoming"], timeout)
        if self._settings.experiment.keep_stream or self.holds_messages:
            uri = self._start_relay(uri)
        report_pages = self._settings.checkpoint.report_pages
        primary.execute(
            "migrate-set-parameters",
            **self._processes.trigger_parameters(),
            x_report_pages=report_pages,
        )
        secondary.execute("migrate-set-parameters", x_report_pages=report_pages)
        mirror = {}
        if incoming["x-mirror"]:
            at_mirror = self._processes.over_link("mirror", incoming["x-mirror"], timeout)
            mirror["x_mirror"] = at_mirror
        if self._settings.network.pcap_mirror is not None:
            mirror["x_mirror_pcap"] = self._settings.network.pcap_mirror
        disks = {}
        if self._disks:
            served = self._disks.serve(secondary)
            served["uri"] = self._processes.over_link("disks", served["uri"], timeout)
            disks["x_disks"] = served
        primary.execute("migrate", uri=uri, **mirror, **disks)

        def entered_colo() -> bool:
            if self._pair.find("primary", "MIGRATION", status="completed"):
                raise ColoExit(
                    "expected both nodes to enter COLO, found the migration completed without it"
                )
            return all(self._pair.find(role, "MIGRATION", status="colo") for role in ROLES)

        self._pair.wait_for(entered_colo, "both nodes to enter COLO", timeout)
        self._start_heartbeats()

    def _start_relay(self, uri: str) -> str:
        """Start a relay to the secondary at `uri`, and give the URI of the relay."""
        # It imports numba, which a process that only runs nodes does not need.
        from colobench.guest.making import known_devices
        from colobench.lab.session.message_gate import MessageGate
        from colobench.lab.session.relay import RELAY_LIMIT, Form, Relay
        from colobench.protocol.colo import VARIANTS

        self._processes.close_relays()
        checkpoint = self._settings.checkpoint
        # Precopy sends RAM, and again what the guest writes meanwhile.
        room = RELAY_LIMIT + 2 * self._settings.guest.ram_bytes
        at = f"unix:{self._processes.directory / 'relay'}"
        form = Form(
            VARIANTS[checkpoint.variant],
            checkpoint.layout,
            checkpoint.capture,
            checkpoint.devices_first,
        )
        gate = None
        if self.holds_messages:
            gate = MessageGate(checkpoint.layout, known_devices(self._settings.guest))
        channels = checkpoint.multifd_channels
        self.relay = Relay(at, uri, limit=room, form=form, gate=gate, channels=channels)
        self._processes.add_relay(self.relay)
        return at

    def _start_heartbeats(self, roles: Sequence[str] = ROLES) -> None:
        heartbeat = self._settings.heartbeat
        if heartbeat is None:
            return
        at = {role: f"unix:{self._heartbeat_path(role)}" for role in ROLES}
        for role in roles:
            self._pair.nodes[role].execute(
                "x-colo-heartbeat",
                pairing=f"{self._pairing}-{self._pair.earlier}",
                node=role,
                peer=PEERS[role],
                listen=at[role],
                to=at[PEERS[role]],
                interval=heartbeat.interval_ms,
                limit=heartbeat.limit_ms,
                arbiter=f"unix:{self._processes.directory / 'arbiter'}",
            )

    def _heartbeat_path(self, role: str) -> Path:
        return self._processes.directory / f"{role}-{self._pair.earlier}.heartbeat"

    # A pair that does not come about.

    def _give_up(self) -> None:
        """End a pair that did not come about, so that one of its nodes serves alone."""
        primary, secondary = (self._pair.nodes[role] for role in ROLES)
        try:
            if primary.is_gone():
                self._give_up_primary(secondary)
            else:
                self._give_up_secondary(primary)
        finally:
            self._pair.published.enter(PairState.ALONE)

    def _give_up_primary(self, secondary: NodeProcess) -> None:
        """Let the joining secondary ask the arbiter, if it has received the whole guest."""
        deadline = time.monotonic() + self._settings.checkpoint.stall_timeout
        with contextlib.suppress(ColobenchError):
            # Otherwise its connection ends, and it ends, too.
            while secondary.execute("query-colo-status")["mode"] == "none":
                if time.monotonic() > deadline:
                    return
                time.sleep(TICK_SECONDS)
            self._start_heartbeats(["secondary"])

    def _give_up_secondary(self, survivor: NodeProcess) -> None:
        """Kill the joining secondary, and let the survivor serve alone again."""
        killed = self._pair.kill("secondary")
        self._processes.release_dead()
        deadline = killed.time + CONNECT_TIMEOUT + self._settings.checkpoint.stall_timeout
        with contextlib.suppress(ColobenchError):
            while survivor.execute("query-colo-status")["mode"] == "none":
                status = survivor.execute("query-migrate")["status"]
                if status not in ("setup", "active", "colo") or time.monotonic() > deadline:
                    return
                time.sleep(TICK_SECONDS)
            # Its guest may stand still since the migration's end.
            survivor.execute("x-colo-lost-heartbeat")
