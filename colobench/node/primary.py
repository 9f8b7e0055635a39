"""The primary: migrates its running guest, then sends checkpoint after checkpoint."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE
from colobench.net.outcome import Miscompare, Overflow, Timeout
from colobench.net.output import Output
from colobench.net.pcap import PcapWriter
from colobench.node.address import Address
from colobench.node.bugs import Bug
from colobench.node.frame_socket import FrameSocket
from colobench.node.host import Host
from colobench.node.migration.checkpoint_sender import CheckpointSender
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.page_path import Pages
from colobench.node.migration.transports import checkpoint_sender
from colobench.node.monitor import MonitorCommand
from colobench.node.node import CONNECT_TIMEOUT, DELAY_DEFAULT_MS, DELAY_LIMIT_MS, Interrupted, Node
from colobench.node.phases import Phases
from colobench.node.transport import check_socket
from colobench.node.wait import Wait
from colobench.protocol.colo import ColoAction, ColoState, LocalEvent, Role
from colobench.wire.messages import Message


@dataclass(frozen=True, slots=True)
class CheckpointCause:
    """Why a checkpoint is taken.

    Attributes
    ----------
    name
        timer, requested, shutdown, or what colo-compare calls it: miscompare, timeout, overflow.
    connection, offset
        Whose output it was, and where it differed; see `colobench.net.outcome`.
    """

    name: str
    connection: str | None = None
    offset: int | None = None


class Primary(Node):
    """The node whose guest the world sees.

    Parameters
    ----------
    host
        The process that it is.
    survivor
        The node of the same process that has taken over, if this one goes on from it.
    """

    role = Role.PRIMARY

    def __init__(self, host: Host, survivor: Node | None = None) -> None:
        super().__init__(host)
        self._status = "none"
        self._delay_ms = DELAY_DEFAULT_MS
        self._report_pages = False
        #: Readable when the COLO thread has to look up from its wait for the next checkpoint.
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: Whoever still has this node may wake it; the number must not be another's by then.
        self._wake_lock = threading.Lock()
        self._retired = False
        self._timer_from = 0.0
        self._requested: CheckpointCause | None = None
        #: What colo-compare wants a checkpoint for; set in the network's thread, without a lock.
        self._wanted: CheckpointCause | None = None
        self._dirty_pages = DirtyPages(self.machine.tracker)
        self._sender: CheckpointSender | None = None
        self._work = self._sent_at = 0
        self._phases = Phases()
        self._in_colo_since = 0.0
        self._released = 0
        self._resumed_at = 0
        if survivor is not None:
            self._status = "completed"
            self.run_state, self.checkpoint = survivor.run_state, survivor.checkpoint
            self.checkpoint_time = survivor.checkpoint_time
            self.colo_enabled = survivor.colo_enabled
            self.last_colo_mode, self.colo_reason = survivor.last_colo_mode, survivor.colo_reason

    def begin(self) -> None:
        """Let the guest run."""
        self.start_guest()

    def successor(self) -> Node:
        """Give the node that this process is after a failover."""
        return Primary(self.host, self)

    def commands(self) -> dict[str, MonitorCommand]:
        """Give the monitor's commands."""
        return super().commands() | {
            "migrate": MonitorCommand(
                self._migrate, {"uri": str}, {"x-mirror": str, "x-mirror-pcap": str}
            ),
            "migrate-set-parameters": MonitorCommand(
                self._migrate_set_parameters,
                optional={"x-checkpoint-delay": int, "x-report-pages": bool},
            ),
            "query-migrate-parameters": MonitorCommand(
                lambda: {
                    "x-checkpoint-delay": self._delay_ms,
                    "x-report-pages": self._report_pages,
                }
            ),
            "x-colo-checkpoint": MonitorCommand(lambda: self._request("requested")),
            "system_powerdown": MonitorCommand(self._powerdown),
        }

    def _action_table(self) -> Mapping[ColoAction, Any]:
        return {
            ColoAction.START_GUEST: self._resume,
            ColoAction.STOP_GUEST: self._pause,
            ColoAction.SEND_CHECKPOINT_REQUEST: self._send_request,
            ColoAction.SEND_CHECKPOINT: self._send_checkpoint,
            ColoAction.RELEASE_OUTPUT: self._release_output,
            ColoAction.SEND_GUEST_SHUTDOWN: lambda: self.send(Message.GUEST_SHUTDOWN),
        }

    # The monitor's commands.

    def _migrate(
        self, uri: str, x_mirror: str | None = None, x_mirror_pcap: str | None = None
    ) -> None:
        address = Address.parse(uri)
        mirror = None if x_mirror is None else Address.parse(x_mirror)
        if mirror is None and self.options.output is Output.COMPARE:
            raise LocalError("migrate: expected x-mirror, as output is compared, found none")
        check_socket(self.options.transport, uri)
        with self.lock:
            if not self.colo_enabled:
                raise LocalError("migrate: expected the capability x-colo, found it off")
            if self._status not in ("none", "failed", "completed"):
                raise LocalError(f"migrate: expected none before, found one {self._status}")
            if not self.machine.running:
                raise LocalError("migrate: expected a running guest, found it stopped")
            pcap = None if x_mirror_pcap is None else PcapWriter(x_mirror_pcap)
            self._set_status("setup")
        try:
            self.run_colo_thread(lambda: self._outgoing(address, mirror, pcap))
        except (RuntimeError, MemoryError) as error:
            self.colo_thread = None
            self._migration_failed(error, pcap)
            raise LocalError(f"migrate: expected to start a thread, found {error}") from error

    def _migrate_set_parameters(
        self, x_checkpoint_delay: int | None = None, x_report_pages: bool | None = None
    ) -> None:
        if x_checkpoint_delay is not None:
            if not 0 <= x_checkpoint_delay <= DELAY_LIMIT_MS:
                raise LocalError(
                    f"x-checkpoint-delay: expected 0 to {DELAY_LIMIT_MS} ms, "
                    f"found {x_checkpoint_delay}"
                )
            self._delay_ms = x_checkpoint_delay
            if self.in_colo():
                # As in QEMU: a changed delay is not waited for.
                self._request("requested")
        if x_report_pages is not None:
            self._report_pages = x_report_pages

    def _query_migrate(self) -> dict[str, Any]:
        found: dict[str, Any] = {"status": self._status}
        sender, channel = self._sender, self.channel
        if sender is not None and channel is not None:
            found["ram"] = {
                "total": self.options.guest.ram_bytes,
                "transferred": channel.all_sent,
                "remaining": sender.remaining_pages * PAGE_SIZE,
                "dirty-sync-count": sender.passes,
            }
        return found

    def _outside_colo(self) -> None:
        if self._status in ("setup", "active"):
            raise LocalError("expected no migration under way, found one")
        super()._outside_colo()

    def _set_status(self, status: str) -> None:
        self._status = status
        self.monitor.emit("MIGRATION", {"status": status})

    def _request(self, cause: str) -> None:
        if not self.in_colo():
            raise LocalError("The feature 'colo' is not enabled")
        if self._colo_ended:
            raise LocalError("COLO has ended with an error; only x-colo-lost-heartbeat helps")
        with self.lock:
            if self._requested is None or self._requested.name != "shutdown":
                self._requested = CheckpointCause(cause)
        self.wake()

    def _powerdown(self) -> None:
        if self.in_colo():
            self._request("shutdown")
            return
        with self.lock:
            self._outside_colo()
            self.stop_guest("shutdown")
        self.quit()

    def _compare_wants(self, request: Miscompare | Timeout | Overflow) -> None:
        offset = request.offset if isinstance(request, Miscompare) else None
        self._wanted = CheckpointCause(
            type(request).__name__.lower(), str(request.connection), offset
        )
        self.wake()

    def run_alone(self) -> None:
        """Let the guest run without a peer."""
        super().run_alone()
        self._set_status("completed")

    def wake(self) -> None:
        """Wake the COLO thread from its wait for the next checkpoint."""
        with self._wake_lock:
            if not self._retired:
                os.eventfd_write(self._wake_fd, 1)

    def retire(self) -> None:
        """Let go of what belonged to this node alone."""
        super().retire()
        with self._wake_lock:
            if not self._retired:
                self._retired = True
                os.close(self._wake_fd)

    # The COLO thread.

    def _outgoing(self, address: Address, mirror: Address | None, pcap: PcapWriter | None) -> None:
        try:
            main = address.connect_while(self._waiting_for("the secondary"))
            channel = self.open_channel(main)
            machine, workers = self.machine, self.workers
            sender = checkpoint_sender(self.options, machine, workers, channel, self.breakpoints)
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
            # Whatever it was, this guest serves, and another secondary may join it.
            self._migration_failed(error, pcap)
            return
        with self.lock:
            self.enter_colo()
            # What it has said so far is in what the secondary is about to get.
            self.stop_guest("finish-migrate")
            self.network.hold(self._compare_wants)
        devices = self.device_buffer()
        if self.options.verify:
            self._announce_digests(self.checkpoint, devices)
        sender.switchover(self._dirty_pages.collect(), devices)
        self._set_status("colo")
        self._in_colo_since = self._timer_from = time.monotonic()
        self.receive_message()
        while self.conversation.state is not ColoState.ENDED:
            cause = self._wait_for_cause()
            self._checkpoint(cause)
            if cause.name == "shutdown":
                self.stop_guest("shutdown")
                self.happened(LocalEvent.SHUTDOWN)
        self.quit()

    def _waiting_for(self, expected: str, main: socket.socket | None = None) -> Wait:
        """Wait for a connection, but no longer than the main one, or this process, lasts."""
        return Wait(expected, CONNECT_TIMEOUT, main, self._wake_fd)

    def _migration_failed(self, error: Exception, pcap: PcapWriter | None) -> None:
        if pcap is not None:
            pcap.close()
        with self.lock:
            if self.channel is not None:
                self.channel.close()
            self.channel = self._sender = None
            self.machine.tracker.disarm()
            self.monitor.emit("X_MIGRATION_ERROR", {"x-why": str(error) or repr(error)})
            self._set_status("failed")

    def _wait_for_cause(self) -> CheckpointCause:
        """Wait for the next checkpoint's time, counted from when the last one was due."""
        assert self.channel is not None
        while True:
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)
            with self.lock:
                if self.takeover.begun or self.quitting.is_set():
                    raise Interrupted
                cause, self._requested = self._requested or self._wanted, None
            now, delay = time.monotonic(), self._delay_ms / 1000
            left = self._timer_from + delay - now
            if cause is not None:
                self._timer_from = now
                return cause
            if left <= 0:
                # Late ones follow at once, but do not pile up.
                self._timer_from = max(self._timer_from + delay, now - delay)
                return CheckpointCause("timer")
            if self.channel.wait(left, self._wake_fd):
                # Nothing is expected now: this is the end of the connection, or a fault.
                self.receive_message()

    def _checkpoint(self, cause: CheckpointCause) -> None:
        assert self.channel is not None
        assert self._sender is not None
        requested = time.monotonic()
        sent = self.channel.all_sent
        self._phases = Phases()
        self._released = 0
        self.happened(LocalEvent.CHECKPOINT_DUE)
        while self.conversation.state is not ColoState.RUNNING:
            self.receive_message()
        self.checkpoint += 1
        self.checkpoint_time = time.monotonic()
        record: dict[str, Any] = {
            "checkpoint": self.checkpoint,
            "cause": cause.name,
            "cause-connection": cause.connection,
            "cause-offset": cause.offset,
            "layout": self.options.layout.value,
            "time": requested - self._in_colo_since,
            "bytes": self.channel.all_sent - sent,
            "frames-released": self._released,
            "work": self._work,
            "sent-at-ns": self._sent_at,
            "resumed-at-ns": self._resumed_at,
            "phases": self._phases.milliseconds,
            **self._sender.statistics(),
        }
        if self._report_pages:
            record["pages-bitmap"] = base64.b64encode(self._dirty_pages.bitmap.tobytes()).decode()
        self.monitor.emit("X_COLO_CHECKPOINT", record)

    # What the table asks for.

    def _send_request(self) -> None:
        self.send(Message.CHECKPOINT_REQUEST)
        self.breakpoints.reach("request")

    def message_received(self, found: Message, value: int | None) -> None:
        """Take the time of the secondary's answers."""
        if found is Message.CHECKPOINT_REPLY:
            self._phases.end("request")
            self.breakpoints.reach("reply")
        elif found is Message.VMSTATE_RECEIVED:
            self._phases.end("received")
            self.breakpoints.reach("received")
        elif found is Message.VMSTATE_LOADED:
            self._phases.end("loaded")
            self.breakpoints.reach("loaded")

    def _pause(self) -> None:
        self.stop_guest("colo")
        self._phases.end("stop")
        self.breakpoints.reach("stop")

    def _send_checkpoint(self) -> None:
        sender, phases = self._sender, self._phases
        assert sender is not None
        sender.begin()
        devices = self._save_devices() if sender.devices_first else None
        pages = self._collect_pages()
        phases.end("collect")
        sender.send_ram(pages)
        phases.end("ram")
        self.breakpoints.reach("ram-sent")
        if devices is None:
            # RAM is still on its way.
            devices = self._save_devices()
        sender.send_devices(devices)
        self._sent_at = phases.end(sender.buffer_phase)
        self._work = self.machine.work
        self.happened(LocalEvent.ALL_SENT)
        if self.options.bug is Bug.EARLY_RELEASE:
            self._release_output()
        self.breakpoints.reach("sent")

    def _collect_pages(self) -> Pages:
        if self.options.bug is Bug.MISSED_DIRTY_BIT:
            return self._dirty_pages.collect_but_one()
        return self._dirty_pages.collect()

    def _save_devices(self) -> bytes:
        devices = self.device_buffer()
        self._phases.end("devices")
        if self.options.verify:
            self._announce_digests(self.checkpoint + 1, devices)
            self._phases.end("verify")
        return devices

    def _announce_digests(self, checkpoint: int, devices: bytes) -> None:
        """Tell what is about to be committed, so that it is known even if this process dies now."""
        self.monitor.emit("X_COLO_DIGEST", {"checkpoint": checkpoint} | self.digests(devices))
        self.monitor.flush()

    def _release_output(self) -> None:
        # Whatever was unequal so far, the checkpoint has made equal.
        self._wanted = None
        self._released += self.network.release()

    def _resume(self) -> None:
        self.start_guest()
        self._resumed_at = self._phases.end("resume")
