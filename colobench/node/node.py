"""What primary and secondary have in common: the machine, the monitor, run states and failover.

A node has three threads that matter. The CPU thread runs the guest. The COLO thread talks to the
peer, and alone stops, saves, loads and starts the guest while COLO lasts. The monitor's threads
execute commands; the one that has to interfere, ``x-colo-lost-heartbeat``, does so by shutting the
socket down, which wakes the COLO thread from whatever it waits for.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from colobench.errors import ColobenchError, LocalError
from colobench.guest.configuration import Program
from colobench.guest.tcp import DOUBLE_EXECUTION
from colobench.node.address import Address
from colobench.node.breakpoints import Breakpoints
from colobench.node.bugs import Bug
from colobench.node.channel import Channel
from colobench.node.frame_socket import FrameSocket
from colobench.node.heartbeat import DatagramAddress
from colobench.node.host import Host
from colobench.node.monitor import MonitorCommand
from colobench.node.peer_watchdog import Pairing
from colobench.node.takeover import Takeover
from colobench.protocol.colo import ColoAction, Conversation, LocalEvent, Role
from colobench.protocol.table import check_actions
from colobench.wire import savevm
from colobench.wire.messages import Message, encode_message, message

CONNECT_TIMEOUT = 10.0
DELAY_DEFAULT_MS = 20_000
DELAY_LIMIT_MS = 2**32 - 1


class Interrupted(ColobenchError):
    """A failover or a quit goes before what the COLO thread was about to do."""


class Node(ABC):
    """A node that is not yet either of the two.

    Parameters
    ----------
    host
        The process that it is.

    Attributes
    ----------
    machine
        The guest.
    run_state
        QEMU's name for what the guest is doing: running, paused, inmigrate, finish-migrate, colo.
    checkpoint
        Number of the last checkpoint that is committed here; 0 is the state that migration brought.
    checkpoint_time
        When that was, of `time.monotonic`; None if there was none.
    """

    role: Role

    def __init__(self, host: Host) -> None:
        self.host = host
        self.options = host.options
        self.machine, self.network, self.workers = host.machine, host.network, host.workers
        self.monitor, self.quitting = host.monitor, host.quitting
        self.run_state = "prelaunch"
        self.checkpoint = 0
        self.checkpoint_time: float | None = None
        self.channel: Channel | None = None
        options = self.options
        self.conversation = Conversation(self.role, options.variant, options.layout)
        self.breakpoints = Breakpoints(self.role, options.layout, self._held)
        #: Guards the decision who goes first: a failover, or the commit of a checkpoint.
        self.lock = threading.RLock()
        self.colo_thread: threading.Thread | None = None
        self.takeover = Takeover(self, self.monitor, self.lock)
        self.colo_enabled = False
        self.last_colo_mode = "none"
        self.colo_reason = "none"
        self._colo_mode = "none"
        #: Whether COLO ended with an error; QEMU tells that by COLO_EXIT alone.
        self._colo_ended = False
        self._actions = self._action_table()
        check_actions(self.conversation.table, self._actions)

    # What the two roles fill in.

    @abstractmethod
    def _action_table(self) -> Mapping[ColoAction, Any]: ...

    @abstractmethod
    def _query_migrate(self) -> dict[str, Any]: ...

    @abstractmethod
    def successor(self) -> Node:
        """Give the node that this process is after a failover."""

    def wake(self) -> None:  # noqa: B027 - a secondary waits on nothing else
        """Wake the COLO thread from a wait that is not on the socket."""

    def loading(self) -> bool:
        """Say whether a committed checkpoint is being loaded just now."""
        return False

    # The conversation, in the COLO thread.

    def happened(self, event: LocalEvent) -> None:
        """Take in what happened on our side, and do what the table says."""
        self._perform(self.conversation.on(event))

    def receive_message(self) -> None:
        """Receive the peer's next message, and do what the table says."""
        found, value = self.parse_message()
        self.message_received(found, value)
        self._perform(self.conversation.receive(found))

    def parse_message(self) -> tuple[Message, int | None]:
        """Receive the peer's next message."""
        assert self.channel is not None
        return self.channel.parse(message(self.channel.buffer, size_limit=self.size_limit()))

    @abstractmethod
    def message_received(self, found: Message, value: int | None) -> None:
        """Look at a message before the table does."""

    def size_limit(self) -> int:
        """Give the largest VMSTATE_SIZE that is accepted, in bytes."""
        return 0

    def send(self, *messages: Message) -> None:
        """Send messages, and before them whatever waits."""
        assert self.channel is not None
        for each in messages:
            self.channel.write(encode_message(each))
        self.channel.flush()

    def _perform(self, actions: tuple[ColoAction, ...]) -> None:
        for action in actions:
            self._actions[action]()

    def open_channel(self, connection: socket.socket) -> Channel:
        """Take the main connection.

        Raises
        ------
        Interrupted
            If this process is about to end.
        """
        with self.lock:
            if self.quitting.is_set():
                connection.close()
                raise Interrupted
            channel = self.channel = Channel(connection, self.options.stall_timeout)
        return channel

    def run_colo_thread(self, body: Any) -> None:
        """Run `body` in the COLO thread; whatever ends it ends in an event, never in silence."""

        def run() -> None:
            try:
                body()
            except Interrupted:
                pass
            except ColobenchError as error:
                self.colo_failed(error)
            except BaseException as error:
                traceback.print_exc()
                self.colo_failed(error)

        self.colo_thread = threading.Thread(target=run, name="COLO", daemon=True)
        self.colo_thread.start()

    def enter_colo(self) -> None:
        """From now on this node is one of a pair."""
        self._colo_mode = self.role.value

    def in_colo(self) -> bool:
        """Say whether this node is one of a pair, or was until it lost its peer."""
        return self._colo_mode != "none"

    def colo_failed(self, error: BaseException) -> None:
        """COLO cannot go on: say so, and wait for somebody to decide (x-colo-lost-heartbeat)."""
        with self.lock:
            if self.channel is not None:
                self.channel.shut_down()
            if self.takeover.begun or self.quitting.is_set():
                return
            self._colo_ended = True
            self.takeover.colo_failed()
            print(f"{self.role.value}: {error}", file=sys.stderr, flush=True)
            self.emit_colo_exit("error", str(error))

    def emit_colo_exit(self, reason: str, why: str) -> None:
        """Emit COLO_EXIT as QEMU does, and beside it why."""
        self.monitor.emit("COLO_EXIT", {"mode": self.role.value, "reason": reason, "x-why": why})

    # The guest.

    def start_guest(self) -> None:
        """Let the guest run."""
        self.network.start()
        self.machine.start()
        self.run_state = "running"

    def stop_guest(self, run_state: str) -> None:
        """Stop the guest."""
        self.machine.stop()
        self.network.stop()
        self.run_state = run_state

    def device_buffer(self) -> bytes:
        """Save the devices of the stopped guest, as a checkpoint has them."""
        return savevm.device_sections(self.machine.devices, savevm.DEVICE_SECTION_ID)

    def digests(self, device_buffer: bytes) -> dict[str, Any]:
        """Digest RAM of the stopped guest, and its devices as they were saved."""
        return {
            "ram": f"{self.machine.ram_digest():016x}",
            "devices": hashlib.blake2b(device_buffer, digest_size=8).hexdigest(),
            "work": self.machine.work,
        }

    # What a takeover asks for, see `colobench.node.takeover.TakeoverSteps`.

    def interrupt(self) -> None:
        """Let the COLO thread go on from a breakpoint."""
        self.breakpoints.go_on()

    def cut_off(self) -> None:
        """End the connections to the peer and the COLO thread, and stop the guest."""
        assert self.channel is not None
        self.channel.shut_down()
        self.wake()
        if self.colo_thread is not None and self.colo_thread is not threading.current_thread():
            self.colo_thread.join()
        # With memfd it keeps the peer's RAM in memory.
        self.channel.close()
        self.stop_guest("colo")

    def run_alone(self) -> None:
        """Let the guest run without a peer."""
        with self.lock:
            self._begin_to_run_alone()
        # Without the lock: whoever is waited for here may want it.
        self.host.succeed(self.successor())
        self.monitor.emit("RESUME", {})

    def fence(self, holder: str) -> None:
        """Let nothing out any more, and end: `holder` is the guest now."""
        self.network.silence()
        self.monitor.emit("X_COLO_FENCED", {"mode": self.role.value, "holder": holder})
        self.host.died(self.role.value, LocalError(f"the arbiter has granted {holder}, not us"))

    def _begin_to_run_alone(self) -> None:
        taken_over: dict[str, Any] = {"checkpoint": self.checkpoint, "work": self.machine.work}
        if self.options.verify:
            taken_over |= self.digests(self.device_buffer())
        self.last_colo_mode, self._colo_mode = self._colo_mode, "none"
        self.colo_reason = "request"
        # Nobody collects any more; a write should not cost what it costs to be noticed.
        self.machine.tracker.disarm()
        self.network.stand_alone()
        if self.options.bug is Bug.DOUBLE_EXECUTION:
            self.machine.plant(DOUBLE_EXECUTION)
        self.monitor.emit("X_COLO_TAKEOVER", taken_over)
        self.emit_colo_exit("request", "x-colo-lost-heartbeat")
        self.start_guest()

    # The monitor's commands.

    def commands(self) -> dict[str, MonitorCommand]:
        """Give the monitor's commands."""
        return {
            "query-status": MonitorCommand(self._query_status),
            "query-colo-status": MonitorCommand(self._query_colo_status),
            "query-migrate": MonitorCommand(self._query_migrate),
            "query-migrate-capabilities": MonitorCommand(self._query_migrate_capabilities),
            "migrate-set-capabilities": MonitorCommand(
                self._migrate_set_capabilities, {"capabilities": list}
            ),
            "x-colo-lost-heartbeat": MonitorCommand(self.takeover.told),
            "x-colo-break": MonitorCommand(self._break, {"at": str}),
            "x-colo-continue": MonitorCommand(self.breakpoints.go_on),
            "x-query-guest": MonitorCommand(self._query_guest),
            "x-query-console": MonitorCommand(lambda: {"text": self.machine.serial.text()}),
            "x-query-digest": MonitorCommand(self._query_digest),
            "x-colo-heartbeat": MonitorCommand(
                self._watch_peer,
                {
                    **dict.fromkeys(("pairing", "node", "peer", "listen", "to"), str),
                    **dict.fromkeys(("interval", "limit"), int),
                },
                {"arbiter": str},
            ),
            "x-netdev": MonitorCommand(self._netdev, {"uri": str}),
            "x-net-receive": MonitorCommand(self._net_receive, {"frame": str}),
            "stop": MonitorCommand(self._stop),
            "cont": MonitorCommand(self._cont),
            "quit": MonitorCommand(self.quit),
        }

    def quit(self) -> None:
        """End the process in order."""
        self.host.quit()

    def _held(self, point: str) -> None:
        self.monitor.emit("X_COLO_HELD", {"at": point, "checkpoint": self.checkpoint + 1})

    def _break(self, at: str) -> None:
        if not self.in_colo() or self.quitting.is_set():
            raise LocalError("The feature 'colo' is not enabled")
        self.breakpoints.set(at)

    def _query_status(self) -> dict[str, Any]:
        return {"status": self.run_state, "running": self.machine.running}

    def _query_colo_status(self) -> dict[str, Any]:
        return {
            "mode": self._colo_mode,
            "last-mode": self.last_colo_mode,
            "reason": self.colo_reason,
        }

    def _query_migrate_capabilities(self) -> list[dict[str, Any]]:
        return [{"capability": "x-colo", "state": self.colo_enabled}]

    def _migrate_set_capabilities(self, capabilities: list[Any]) -> None:
        for each in capabilities:
            if not isinstance(each, dict) or each.get("capability") != "x-colo":
                raise LocalError(f"capability: expected x-colo, found {each!r}")
            if not isinstance(each.get("state"), bool):
                raise LocalError(f"capability x-colo: expected a boolean state, found {each!r}")
            self.colo_enabled = each["state"]

    def _query_guest(self) -> dict[str, Any]:
        machine, committed = self.machine, self.checkpoint_time
        number = machine.cpu["program"]
        return {
            "program": Program(number).name.lower() if number in set(Program) else str(number),
            "work": machine.work,
            "ticks": machine.timer["ticks"],
            "coalesced-ticks": machine.timer["coalesced_ticks"],
            "checkpoint": self.checkpoint,
            "checkpoint-age": None if committed is None else time.monotonic() - committed,
            "frames-received": machine.nic["received"],
            "frames-dropped": machine.nic["dropped"],
            **self.network.figures(),
        }

    def _query_digest(self) -> dict[str, Any]:
        with self.lock:
            if self.machine.running:
                raise LocalError("digest: expected a stopped guest, found it running")
            return self.digests(self.device_buffer())

    def _watch_peer(
        self,
        pairing: str,
        node: str,
        peer: str,
        listen: str,
        to: str,
        interval: int,
        limit: int,
        arbiter: str | None = None,
    ) -> None:
        self.takeover.watch(
            Pairing(
                pairing,
                node,
                peer,
                DatagramAddress.parse(listen),
                DatagramAddress.parse(to),
                interval / 1000,
                limit / 1000,
                None if arbiter is None else Address.parse(arbiter),
            )
        )

    def _netdev(self, uri: str) -> None:
        link = Address.parse(uri).connect(CONNECT_TIMEOUT)
        self.network.attach_link(FrameSocket(link))

    def _net_receive(self, frame: str) -> None:
        if self._colo_mode == "secondary":
            raise LocalError("frame: expected the primary or a survivor, found a secondary")
        try:
            data = bytes.fromhex(frame)
        except ValueError as error:
            raise LocalError(f"frame: expected hexadecimal digits, found {frame!r}") from error
        if not self.network.receive(data):
            raise LocalError("frame: the NIC's receive queue is full")

    def _outside_colo(self) -> None:
        if self.in_colo() or self.run_state in ("inmigrate", "finish-migrate"):
            raise LocalError(
                f"expected a node outside of COLO, found it in {self._colo_mode} mode, "
                f"{self.run_state}: the checkpoints stop and start its guest"
            )

    def _stop(self) -> None:
        with self.lock:
            self._outside_colo()
            self.stop_guest("paused")
        self.monitor.emit("STOP", {})

    def _cont(self) -> None:
        with self.lock:
            self._outside_colo()
            self.start_guest()
        self.monitor.emit("RESUME", {})

    # From begin to end.

    @abstractmethod
    def begin(self) -> None:
        """Do what the role does first."""

    def end(self) -> None:
        """Leave the pair, in an order in which nobody waits for what is gone."""
        self.breakpoints.go_on()
        if self.channel is not None:
            self.channel.shut_down()
        self.wake()
        if self.colo_thread is not None:
            self.colo_thread.join()
        self.retire()

    def retire(self) -> None:
        """Let go of what belonged to this node alone."""
        self.takeover.stop()
        if self.channel is not None:
            self.channel.close()
