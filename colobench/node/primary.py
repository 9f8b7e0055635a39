"""Primary: migrates its running guest, then sends checkpoint after checkpoint."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import check_integer
from colobench.memory.ram import PAGE_SIZE
from colobench.node.address import Address
from colobench.node.colo_thread import Interrupted
from colobench.node.frame_socket import FrameSocket
from colobench.node.migration.checkpoint_sender import CheckpointSender
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.page_path import Pages
from colobench.node.migration.transports import checkpoint_sender
from colobench.node.monitor import MonitorCommand
from colobench.node.monitor_commands import CONNECT_TIMEOUT
from colobench.node.node import Node
from colobench.node.own_trigger import OwnTriggerRunner, run_own_trigger
from colobench.node.pcap_file import PcapWriter
from colobench.node.phases import Phases, no_garbage_collection
from colobench.node.runtime import NodeRuntime
from colobench.node.trigger import CheckpointCause, CheckpointTrigger
from colobench.node.wait import Wait
from colobench.protocol.colo import ColoAction, ColoState, LocalEvent, Role
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Capture, Output
from colobench.settings.transport import check_socket
from colobench.strategy.trigger import NEVER_MS, Trigger
from colobench.strategy.triggers import usual_trigger
from colobench.strategy.written import parse_trigger
from colobench.wire import savevm
from colobench.wire.messages import Message


class Primary(Node):
    """Node whose guest serves.

    Parameters
    ----------
    runtime
        Process of the node.
    status
        State of migration, as in ``query-migrate``; "completed" after a takeover.
    """

    role = Role.PRIMARY

    def __init__(self, runtime: NodeRuntime, status: str = "none") -> None:
        super().__init__(runtime)
        self._status = status
        self._report_pages = False
        self._dirty_pages = DirtyPages(self.guest.machine.tracker)
        self._trigger = CheckpointTrigger(self._dirty_pages.count, self.network.waiting_frames)
        self._sender: CheckpointSender | None = None
        self._work = 0
        #: Devices and pages that were copied, and are being sent.
        self._copied: tuple[bytes, Pages] | None = None
        self._phases = Phases()
        self._in_colo_since = 0.0

    def begin(self) -> None:
        """Start the guest."""
        self.guest.start()

    def successor(self) -> Node:
        """Make the side that this process is after a failover."""
        return Primary(self.runtime, "completed")

    def commands(self) -> dict[str, MonitorCommand]:
        """Return the monitor's commands."""
        return super().commands() | {
            "migrate": MonitorCommand(
                self._migrate, {"uri": str}, {"x-mirror": str, "x-mirror-pcap": str}
            ),
            "migrate-set-parameters": MonitorCommand(
                self._migrate_set_parameters,
                optional={
                    "x-checkpoint-delay": int,
                    "x-trigger": str,
                    "x-trigger-source": str,
                    "x-report-pages": bool,
                },
            ),
            "query-migrate-parameters": MonitorCommand(
                lambda: {
                    "x-checkpoint-delay": self._trigger.delay_ms,
                    "x-trigger": self._trigger.text,
                    "x-report-pages": self._report_pages,
                }
            ),
            "x-colo-checkpoint": MonitorCommand(lambda: self._request("requested")),
            "system_powerdown": MonitorCommand(self._powerdown),
        }

    def actions(self) -> Mapping[ColoAction, Callable[[], None]]:
        """Return a function for each action of the conversation's table."""
        return {
            ColoAction.START_GUEST: self._resume,
            ColoAction.STOP_GUEST: self._pause,
            ColoAction.SEND_CHECKPOINT_REQUEST: self._send_request,
            ColoAction.SEND_CHECKPOINT: self._send_checkpoint,
            ColoAction.COPY_CHECKPOINT: self._copy_checkpoint,
            ColoAction.SEND_COPY: self._send_copy,
            ColoAction.RELEASE_OUTPUT: self._release_output,
            ColoAction.SEND_GUEST_SHUTDOWN: lambda: self.colo.send(Message.GUEST_SHUTDOWN),
        }

    # Monitor's commands.

    def _migrate(
        self, uri: str, x_mirror: str | None = None, x_mirror_pcap: str | None = None
    ) -> None:
        address = Address.parse(uri)
        mirror = None if x_mirror is None else Address.parse(x_mirror)
        if mirror is None and self.settings.checkpoint.output is Output.COMPARE:
            raise LocalError("migrate: expected x-mirror, as output is compared, found none")
        check_socket(self.settings.checkpoint.transport.pages, uri)
        with self.lock:
            if not self.colo_status.enabled:
                raise LocalError("migrate: expected the capability x-colo, found it off")
            if self._status not in ("none", "failed", "completed"):
                raise LocalError(f"migrate: expected none before, found one {self._status}")
            if not self.guest.machine.running:
                raise LocalError("migrate: expected a running guest, found it stopped")
            pcap = None if x_mirror_pcap is None else PcapWriter(x_mirror_pcap)
            self._set_status("setup")
        try:
            self.colo.run(lambda: self._outgoing(address, mirror, pcap))
        except (RuntimeError, MemoryError) as error:
            self._migration_failed(error, pcap)
            raise LocalError(f"migrate: expected to start a thread, found {error}") from error

    def _migrate_set_parameters(
        self,
        x_checkpoint_delay: int | None = None,
        x_trigger: str | None = None,
        x_trigger_source: str | None = None,
        x_report_pages: bool | None = None,
    ) -> None:
        if x_checkpoint_delay is not None and x_trigger is not None:
            raise LocalError("x-trigger: expected no x-checkpoint-delay beside it, found both")
        if x_trigger is not None and x_trigger_source is not None:
            self._set_trigger(run_own_trigger(x_trigger, x_trigger_source))
        elif x_trigger is not None:
            self._set_trigger(parse_trigger(x_trigger))
        if x_checkpoint_delay is not None:
            check_integer("x-checkpoint-delay", x_checkpoint_delay, 0, NEVER_MS, unit="ms")
            compares = self.settings.checkpoint.output is Output.COMPARE
            self._set_trigger(usual_trigger(x_checkpoint_delay, compares))
        if x_report_pages is not None:
            self._report_pages = x_report_pages

    def _set_trigger(self, trigger: Trigger | OwnTriggerRunner) -> None:
        self._trigger.set(trigger)
        if self.in_colo():
            # As in QEMU: a changed delay is not waited for.
            self._request("requested")

    def query_migrate(self) -> dict[str, Any]:
        """Return the answer of ``query-migrate``."""
        found: dict[str, Any] = {"status": self._status}
        sender, channel = self._sender, self.colo.channel
        if sender is not None and channel is not None:
            found["ram"] = {
                "total": self.options.guest.ram_bytes,
                "transferred": channel.all_sent,
                "remaining": sender.remaining_pages * PAGE_SIZE,
                "dirty-sync-count": sender.passes,
            }
        return found

    def check_outside_colo(self) -> None:
        """Raise LocalError while checkpoints, or migration, stop and start the guest."""
        if self._status in ("setup", "active"):
            raise LocalError("expected no migration under way, found one")
        super().check_outside_colo()

    def _set_status(self, status: str) -> None:
        self._status = status
        self.monitor.emit("MIGRATION", {"status": status})

    def _request(self, cause: str) -> None:
        if not self.in_colo():
            raise LocalError("The feature 'colo' is not enabled")
        if self.colo_ended:
            raise LocalError("COLO has ended with an error; only x-colo-lost-heartbeat helps")
        self._trigger.request(cause)

    def _powerdown(self) -> None:
        if self.in_colo():
            self._request("shutdown")
            return
        with self.lock:
            self.check_outside_colo()
            self.guest.stop("shutdown")
        self.quit()

    # Takeover and end.

    def run_alone(self) -> None:
        """Let the guest run without a peer."""
        super().run_alone()
        self._set_status("completed")

    def wake(self) -> None:
        """Wake the COLO thread from its wait for the next checkpoint."""
        self._trigger.wake()

    def retire(self) -> None:
        """Release the resources of this node, which its successor does not take over."""
        super().retire()
        self._trigger.close()
        if self._sender is not None:
            self._sender.close()

    # COLO thread.

    def _outgoing(self, address: Address, mirror: Address | None, pcap: PcapWriter | None) -> None:
        try:
            main = address.connect_while(self._waiting_for("the secondary"))
            channel = self.open_channel(main)
            machine, workers = self.guest.machine, self.workers
            # First of all, so that a secondary with other settings reports only that.
            settings = self.settings.agreed()
            channel.write(savevm.stream_header(machine.machine_type, settings))
            channel.flush()
            sender = checkpoint_sender(
                self.settings.checkpoint, machine, workers, channel, self.breakpoints
            )
            sender.connect(address, self._waiting_for("page channels", main))
            if mirror is not None:
                to_mirror = mirror.connect_while(self._waiting_for("the mirror connection", main))
                link, pcap = FrameSocket(to_mirror, pcap), None
                self.network.attach_mirror(link)
            self._sender = sender
            self._set_status("active")
            sender.precopy(self._dirty_pages)
        except Interrupted:
            raise
        except Exception as error:
            # After any error this guest serves, and another secondary may join it.
            self._migration_failed(error, pcap)
            return
        with self.lock:
            self.enter_colo()
            # The state that the secondary is about to get includes the output so far.
            self.guest.stop("finish-migrate")
            self.guest.lead(self._trigger.want)
            self.guest.seal()
        devices = self.guest.save_devices()
        if self.settings.checkpoint.verify:
            self._announce_digests(self.guest.checkpoint, devices)
        pages = self._dirty_pages.collect()
        sender.copy(self._dirty_pages)
        sender.switchover(pages, devices)
        self._set_status("colo")
        self._in_colo_since = time.monotonic()
        self._trigger.begin()
        self.colo.run_to(ColoState.RUNNING)
        while self.colo.state is not ColoState.ENDED:
            cause = self._wait_for_cause()
            self._checkpoint(cause)
            if cause.name == "shutdown":
                self.guest.stop("shutdown")
                self.colo.happened(LocalEvent.SHUTDOWN)
                self.colo.step()
        self.quit()

    def _waiting_for(self, expected: str, main: socket.socket | None = None) -> Wait:
        """Return a `Wait` that ends with the main connection or this process."""
        return Wait(expected, CONNECT_TIMEOUT, main, self._trigger.wake_fd)

    def _migration_failed(self, error: Exception, pcap: PcapWriter | None) -> None:
        if pcap is not None:
            pcap.close()
        with self.lock:
            self.colo.close()
            if self._sender is not None:
                self._sender.close()
            self.colo.channel = self._sender = None
            self.guest.machine.tracker.disarm()
            self.monitor.emit("X_MIGRATION_ERROR", {"x-why": str(error) or repr(error)})
            self._set_status("failed")

    def _wait_for_cause(self) -> CheckpointCause:
        """Wait until a checkpoint is due."""
        assert self.colo.channel is not None
        while True:
            due = self._trigger.due()
            if self.takeover.begun or self.quitting.is_set():
                raise Interrupted
            if isinstance(due, CheckpointCause):
                return due
            if self.colo.channel.wait(due, self._trigger.wake_fd):
                # No message is due now: this is the end of the connection, or a fault.
                self.colo.step()

    def _checkpoint(self, cause: CheckpointCause) -> None:
        assert self.colo.channel is not None
        assert self._sender is not None
        requested = time.monotonic()
        sent, released = self.colo.channel.all_sent, self.network.released
        self._phases = Phases()
        with no_garbage_collection():
            self.colo.happened(LocalEvent.CHECKPOINT_DUE)
            self.colo.step()
            self.colo.run_to(ColoState.RUNNING)
        self.guest.committed()
        statistics = self._sender.statistics()
        released = self.network.released - released
        self._trigger.taken(statistics["pages"], released)
        record: dict[str, Any] = {
            "checkpoint": self.guest.checkpoint,
            "cause": cause.name,
            "cause-connection": cause.connection,
            "cause-offset": cause.offset,
            "layout": self.settings.checkpoint.layout.value,
            "capture": self.settings.checkpoint.capture.value,
            "time": requested - self._in_colo_since,
            "bytes": self.colo.channel.all_sent - sent,
            "frames-released": released,
            "work": self._work,
            "marks": self._phases.marks,
            **statistics,
        }
        if self._report_pages:
            record["pages-bitmap"] = base64.b64encode(self._dirty_pages.bitmap.tobytes()).decode()
        self.monitor.emit("X_COLO_CHECKPOINT", record)

    # Actions of the table.

    def _send_request(self) -> None:
        self.colo.send(Message.CHECKPOINT_REQUEST)
        self.breakpoints.reach("request")

    def message_received(self, received: Message, value: int | None) -> None:
        """Take the time of the secondary's answers."""
        if received is Message.CHECKPOINT_REPLY:
            self._phases.end("request")
            self.breakpoints.reach("reply")
        elif received is Message.VMSTATE_RECEIVED:
            self._phases.end("received")
            self.breakpoints.reach("received")
        elif received is Message.VMSTATE_LOADED:
            self._phases.end("loaded")
            self.breakpoints.reach("loaded")

    def _pause(self) -> None:
        self._trigger.guest_stopped()
        self.guest.stop("colo")
        self.guest.seal()
        if self.settings.checkpoint.capture is Capture.COPY_THEN_SEND:
            # Until the release, the guest that runs on may want the next checkpoint.
            self._trigger.satisfy()
        self._phases.end("stop")
        self.breakpoints.reach("stop")

    def _send_checkpoint(self) -> None:
        sender, phases = self._sender, self._phases
        assert sender is not None
        sender.begin()
        devices = self._save_devices() if sender.devices_first else None
        self._send_pages(self._collect_pages())
        if devices is None:
            # RAM is still on its way.
            devices = self._save_devices()
        sender.send_devices(devices)
        phases.end(sender.buffer_phase)
        self._checkpoint_sent()

    def _copy_checkpoint(self) -> None:
        assert self._sender is not None
        self._copied = self._save_devices(), self._collect_pages()
        self._sender.copy(self._dirty_pages)
        self._phases.end("copy")
        self.breakpoints.reach("copied")

    def _send_copy(self) -> None:
        sender, copied = self._sender, self._copied
        assert sender is not None
        assert copied is not None
        self._copied = None
        self.breakpoints.reach("resumed")
        devices, pages = copied
        sender.begin()
        self._send_pages(pages)
        sender.send_devices(devices)
        self._phases.end(sender.buffer_phase)
        self._checkpoint_sent()

    def _send_pages(self, pages: Pages) -> None:
        assert self._sender is not None
        self._sender.send_ram(pages)
        self._phases.end("ram")
        self.breakpoints.reach("ram-sent")

    def _checkpoint_sent(self) -> None:
        self.colo.happened(LocalEvent.ALL_SENT)
        if self.settings.experiment.bug is Bug.EARLY_RELEASE:
            self._release_output()
        self.breakpoints.reach("sent")

    def _collect_pages(self) -> Pages:
        missed = self.settings.experiment.bug is Bug.MISSED_DIRTY_BIT
        dirty = self._dirty_pages
        pages = dirty.collect_but_one() if missed else dirty.collect()
        self._phases.end("collect")
        return pages

    def _save_devices(self) -> bytes:
        devices = self.guest.save_devices()
        self._work = self.guest.machine.work
        self._phases.end("devices")
        if self.settings.checkpoint.verify:
            self._announce_digests(self.guest.checkpoint + 1, devices)
            self._phases.end("verify")
        return devices

    def _announce_digests(self, checkpoint: int, devices: bytes) -> None:
        """Report the digests before the commit, so that they are known if this process dies."""
        self.monitor.emit("X_COLO_DIGEST", {"checkpoint": checkpoint} | self.guest.digests(devices))
        self.monitor.flush()

    def _release_output(self) -> None:
        if self.settings.checkpoint.capture is not Capture.COPY_THEN_SEND:
            self._trigger.satisfy()
        if self.settings.experiment.bug is Bug.UNSEALED_RELEASE:
            self.guest.seal()
        self.guest.commit()

    def _resume(self) -> None:
        self.guest.start()
        self._trigger.guest_started()
        self._phases.end("resume")
