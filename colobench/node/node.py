"""Base class of both sides of a pair, composed of the parts that do the work.

Three threads matter. The CPU thread runs the guest. The COLO thread (`colo_thread.py`) talks to the
peer, and alone stops, saves, loads and starts the guest (`guest_control.py`) while COLO lasts. The
monitor's threads execute commands (`monitor_commands.py`). A takeover (`takeover.py`) comes from
one of them or from the heartbeat's; it shuts the socket down, which ends any wait of the COLO
thread.
"""

from __future__ import annotations

import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from colobench.errors import ColobenchError, LocalError
from colobench.guest.bugs import DOUBLE_EXECUTION
from colobench.node.breakpoints import Breakpoints
from colobench.node.channel import Channel
from colobench.node.colo_thread import ColoThread, Interrupted
from colobench.node.monitor import MonitorCommand
from colobench.node.monitor_commands import ColoCommands, GuestCommands, NetworkCommands
from colobench.node.runtime import NodeRuntime
from colobench.node.takeover import Takeover
from colobench.protocol.colo import VARIANTS, ColoAction, Conversation, Role
from colobench.settings.bug import Bug
from colobench.settings.transport import Encoding
from colobench.wire.messages import Message


class Node(ABC):
    """One side of one pair.

    Parameters
    ----------
    runtime
        Process of the node.

    Attributes
    ----------
    guest
        Guest, which outlives this node.
    colo
        COLO thread: the conversation with the peer.
    takeover
        Takeover, which decides whether this node goes on alone.
    """

    role: Role

    def __init__(self, runtime: NodeRuntime) -> None:
        self.runtime, options = runtime, runtime.options
        self.options, self.settings = options, options.settings
        self.guest, self.network, self.workers = runtime.guest, runtime.network, runtime.workers
        self.monitor, self.quitting = runtime.monitor, runtime.quitting
        self.colo_status = runtime.colo_status
        checkpoint = self.settings.checkpoint
        self.variant, layout = VARIANTS[checkpoint.variant], checkpoint.layout
        capture, encoding = checkpoint.capture, checkpoint.encoding
        self.breakpoints = Breakpoints(self.role, layout, capture, encoding, self._held)
        #: Guards the decision which comes first: a failover, or the commit of a checkpoint.
        self.lock = threading.RLock()
        #: Whether pages are compared before they are sent.
        self.compares_pages = encoding is Encoding.DIVERGENT
        conversation = Conversation(
            self.role, self.variant, layout, capture, compares_pages=self.compares_pages
        )
        self.colo = ColoThread(conversation, self)
        self.takeover = Takeover(self, self.monitor, self.lock)
        #: Whether COLO ended with an error; QEMU reports that only by COLO_EXIT.
        self.colo_ended = False
        #: Error of a participant, because of which the connection was shut down.
        self._participant_error: Exception | None = None

    # Methods of the two sides.

    @abstractmethod
    def begin(self) -> None:
        """Begin the work of this side."""

    @abstractmethod
    def actions(self) -> Mapping[ColoAction, Callable[[], None]]:
        """Return a function for each action of the conversation's table."""

    @abstractmethod
    def message_received(self, received: Message, value: int | None) -> None:
        """Take note of a message that the table allows, before its actions are performed."""

    @abstractmethod
    def query_migrate(self) -> dict[str, Any]:
        """Return the answer of ``query-migrate``."""

    @abstractmethod
    def successor(self) -> Node:
        """Make the side that this process is after a failover."""

    def checkpoint_at(self) -> int:
        """Give the number of the checkpoint that is being made."""
        return self.guest.checkpoint + 1

    def wake(self) -> None:  # noqa: B027 - a secondary waits on nothing else
        """Wake the COLO thread from a wait that is not on the socket."""

    def loading(self) -> bool:
        """Return whether a committed checkpoint is being loaded."""
        return False

    def size_limit(self) -> int:
        """Return the largest VMSTATE_SIZE that is accepted, bytes."""
        return 0

    # COLO.

    def open_channel(self, connection: socket.socket) -> Channel:
        """Open the channel on the main connection.

        Raises
        ------
        Interrupted
            If this process is about to end.
        """
        with self.lock:
            if self.quitting.is_set():
                connection.close()
                raise Interrupted
            channel = self.colo.channel = Channel(
                connection, self.settings.checkpoint.stall_timeout
            )
        return channel

    def enter_colo(self) -> None:
        """Become one of a pair."""
        self.colo_status.mode = self.role.value

    def in_colo(self) -> bool:
        """Return whether this node is one of a pair, or was until it lost its peer."""
        return self.colo_status.mode != "none"

    def check_outside_colo(self) -> None:
        """Raise LocalError while checkpoints, or migration, stop and start the guest."""
        run_state = self.guest.run_state
        if self.in_colo() or run_state in ("inmigrate", "finish-migrate"):
            raise LocalError(
                f"expected a node outside of COLO, found it in {self.colo_status.mode} mode, "
                f"{run_state}: the checkpoints stop and start its guest"
            )

    def participant_failed(self, error: Exception) -> None:
        """End COLO because of a participant of checkpoints, from any thread."""
        self._participant_error = self._participant_error or error
        self.colo.shut_down()

    def cause_of(self, error: BaseException) -> BaseException:
        """Return the participant's error that has led to this one, or this one."""
        return self._participant_error or error

    def colo_failed(self, error: BaseException) -> None:
        """Report that COLO cannot go on; then x-colo-lost-heartbeat or the arbiter decides."""
        with self.lock:
            self.colo.shut_down()
            if self.takeover.begun or self.quitting.is_set():
                return
            self.colo_ended = True
            self.takeover.colo_failed()
            error = self.cause_of(error)
            print(f"{self.role.value}: {error}", file=sys.stderr, flush=True)
            self._emit_colo_exit("error", str(error))

    # Methods of `colobench.node.takeover.TakeoverSteps`.

    def interrupt(self) -> None:
        """Let the COLO thread go on from a breakpoint."""
        self.breakpoints.go_on()

    def cut_off(self) -> None:
        """End the connections to the peer and the COLO thread, and stop the guest."""
        self.colo.shut_down()
        self.guest.cut_off()
        self.wake()
        self.colo.join()
        # With memfd, the channel keeps the peer's RAM mapped.
        self.colo.close()
        self.guest.stop("colo")

    def run_alone(self) -> None:
        """Let the guest run without a peer."""
        with self.lock:
            if self.quitting.is_set():
                # `end` closes what a takeover needs.
                return
            try:
                self.guest.take_over()
            except ColobenchError as error:
                # Its state is of no moment that there was: this guest must never serve.
                self.runtime.died(self.role.value, error)
                return
            self._begin_to_run_alone()
            self.runtime.succeed(self.successor())
        # The threads that are joined here may wait for the lock, so it is not held.
        self.retire()
        self.monitor.emit("RESUME", {})

    def fence(self, holder: str) -> None:
        """Release no output any more, and end: `holder` is the guest now."""
        self.guest.fence()
        self.monitor.emit("X_COLO_FENCED", {"mode": self.role.value, "holder": holder})
        self.runtime.died(self.role.value, LocalError(f"the arbiter has granted {holder}, not us"))

    def _begin_to_run_alone(self) -> None:
        guest = self.guest
        taken_over: dict[str, Any] = {"checkpoint": guest.checkpoint, "work": guest.machine.work}
        if self.settings.checkpoint.verify:
            taken_over |= guest.digests(guest.save_devices())
        self.colo_status.leave()
        guest.alone()
        if self.settings.experiment.bug is Bug.DOUBLE_EXECUTION:
            guest.machine.plant(DOUBLE_EXECUTION)
        self.monitor.emit("X_COLO_TAKEOVER", taken_over)
        self._emit_colo_exit("request", "x-colo-lost-heartbeat")
        guest.start()

    # Monitor.

    def commands(self) -> dict[str, MonitorCommand]:
        """Return the monitor's commands."""
        guest = GuestCommands(self.guest, self.monitor, self.lock, self.check_outside_colo)
        return {
            **guest.table(),
            **NetworkCommands(self.network, self.guest, self.colo_status).table(),
            **ColoCommands(self.colo_status, self.takeover).table(),
            "query-migrate": MonitorCommand(self.query_migrate),
            "x-query-disks": MonitorCommand(self._query_disks, optional={"ranges": bool}),
            "x-disk-fault": MonitorCommand(self._disk_fault, {"disk": int, "rules": list}),
            "x-query-states": MonitorCommand(self._query_states),
            "x-colo-break": MonitorCommand(self._break, {"at": str}),
            "x-colo-continue": MonitorCommand(self.breakpoints.go_on),
            "x-colo-step": MonitorCommand(self._step),
            "x-query-colo": MonitorCommand(self._query_conversation),
            "quit": MonitorCommand(self.quit),
        }

    def _query_disks(self, ranges: bool = False) -> list[dict[str, Any]]:
        return self.runtime.disks.describe(ranges)

    def _disk_fault(self, disk: int, rules: list[Any]) -> None:
        if not self.settings.experiment.experiment:
            raise LocalError("x-disk-fault: expected an experiment, which loses data, found none")
        self.runtime.disks.set_faults(disk, rules)

    def _query_states(self) -> dict[str, str]:
        """Name the state of each of this node's machines, as in the tables of `protocol/`."""
        return {
            "conversation": self.colo.state.name,
            "standing": self.takeover.standing.state.name,
            "failover": self.takeover.failover.state.name,
        }

    def quit(self) -> None:
        """Request an orderly end of the process."""
        self.runtime.quit()

    def _held(self, point: str) -> None:
        self.monitor.emit("X_COLO_HELD", {"at": point, "checkpoint": self.checkpoint_at()})

    def _break(self, at: str) -> None:
        if not self.in_colo() or self.quitting.is_set():
            raise LocalError("The feature 'colo' is not enabled")
        self.breakpoints.set(at)

    def _step(self) -> None:
        if not self.in_colo() or self.quitting.is_set():
            raise LocalError("The feature 'colo' is not enabled")
        self.breakpoints.step()

    def _query_conversation(self) -> dict[str, Any]:
        channel, found = self.colo.channel, {"received": 0, "sent": 0, "waits": False}
        if channel is not None:
            # In this order: a thread that waits has counted all that it has received.
            found |= {"received": channel.received, "sent": channel.sent}
            found["waits"] = channel.waits
        return {
            "state": self.colo.state.name,
            "held-at": self.breakpoints.held,
            "ended": self.colo_ended,
            **found,
        }

    def _emit_colo_exit(self, reason: str, why: str) -> None:
        """Emit COLO_EXIT as QEMU does, and add the reason."""
        self.monitor.emit("COLO_EXIT", {"mode": self.role.value, "reason": reason, "x-why": why})

    # End.

    def end(self) -> None:
        """Leave the pair, in an order in which no thread waits for one that has ended.

        A takeover that has begun is waited for; then this side is its successor's predecessor.
        """
        self.breakpoints.go_on()
        self.colo.shut_down()
        self.guest.cut_off()
        self.wake()
        self.colo.join()
        self.takeover.stop()
        with self.lock:
            succeeded = self.runtime.side is not self
        if not succeeded:
            self.retire()

    def retire(self) -> None:
        """Release the resources of this node, which its successor does not take over."""
        self.takeover.stop()
        self.colo.close()
