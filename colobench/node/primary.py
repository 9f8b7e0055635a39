"""Primary: migrates its running guest, then sends checkpoint after checkpoint."""

from __future__ import annotations

import base64
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from colobench.errors import LocalError
from colobench.kernels import bitmap
from colobench.memory.ram import PAGE_SIZE
from colobench.memory.tracker import Words
from colobench.node.address import Address
from colobench.node.channel import Channel
from colobench.node.colo_thread import Interrupted
from colobench.node.disk.replication import Peer
from colobench.node.frame_socket import FrameSocket
from colobench.node.migration.checkpoint_sender import CheckpointSender
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.gap_precopy import GapPrecopy, Passes
from colobench.node.migration.transports import checkpoint_sender
from colobench.node.migration_parameters import MigrationParameters
from colobench.node.monitor import MonitorCommand
from colobench.node.monitor_commands import CONNECT_TIMEOUT
from colobench.node.node import Node
from colobench.node.open_epochs import OpenEpochs
from colobench.node.outgoing_checkpoint import OutgoingCheckpoint
from colobench.node.pcap_file import PcapWriter
from colobench.node.phases import Phases, no_garbage_collection
from colobench.node.runtime import NodeRuntime
from colobench.node.trigger import CheckpointCause, CheckpointTrigger
from colobench.node.wait import Wait
from colobench.protocol.colo import ColoAction, ColoState, LocalEvent, Role
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Capture, Output
from colobench.settings.compare import Quirk
from colobench.settings.transport import check_socket
from colobench.wire import savevm
from colobench.wire.messages import Message

if TYPE_CHECKING:
    from colobench.node.migration.divergent import PageComparison


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
        self._dirty_pages = DirtyPages(self.guest.machine.tracker)
        self._trigger = CheckpointTrigger(
            self._dirty_pages.count,
            self.network.waiting_frames,
            Quirk.SEMAPHORE in self.settings.network.compare.quirks,
        )
        self._parameters = MigrationParameters(
            self.settings.checkpoint, self._trigger, self._parameters_changed
        )
        self._sender: CheckpointSender | None = None
        self._passes = Passes()
        #: Bytes that had been sent at the end of the last checkpoint.
        self._sent = 0
        self._outgoing: OutgoingCheckpoint | None = None
        #: Open epochs, if the capture has two of them.
        self._epochs: OpenEpochs | None = None
        self._phases = Phases()
        self._in_colo_since = 0.0
        #: Frames that had been released at the last cut of an epoch.
        self._released = 0
        #: Monotonic time before which the guest is not stopped for a checkpoint.
        self._stop_at = 0.0

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
                self._migrate,
                {"uri": str},
                {"x-mirror": str, "x-mirror-pcap": str, "x-disks": dict},
            ),
            **self._parameters.table(),
            "x-colo-checkpoint": MonitorCommand(lambda: self._request("requested")),
            "x-query-dirty-pages": MonitorCommand(self._query_dirty_pages),
            "system_powerdown": MonitorCommand(self._powerdown),
        }

    def actions(self) -> Mapping[ColoAction, Callable[[], None]]:
        """Return a function for each action of the conversation's table."""
        return {
            ColoAction.START_GUEST: self._resume,
            ColoAction.STOP_GUEST: self._pause,
            ColoAction.SEND_CHECKPOINT_REQUEST: self._send_request,
            ColoAction.SEND_CHECKPOINT_PASSIVE: lambda: self.colo.send(Message.CHECKPOINT_PASSIVE),
            ColoAction.SEND_CHECKPOINT: lambda: self._checkpoint_out().send(),
            ColoAction.COPY_CHECKPOINT: lambda: self._checkpoint_out().capture("copied"),
            ColoAction.FREEZE_CHECKPOINT: self._freeze,
            ColoAction.SEND_COPY: lambda: self._checkpoint_out().send_captured(),
            ColoAction.SEND_PART: self._send_part,
            ColoAction.CLOSE_EPOCH: self._close_epoch,
            ColoAction.SEND_PASS: lambda: self._passes.send(),
            ColoAction.SEND_PAGE_HASHES: lambda: self._checkpoint_out().send_page_hashes(),
            ColoAction.SEND_DIVERGENT: lambda: self._checkpoint_out().send_divergent(),
            ColoAction.RELEASE_OUTPUT: self._release_output,
            ColoAction.SEND_GUEST_SHUTDOWN: lambda: self.colo.send(Message.GUEST_SHUTDOWN),
        }

    # Monitor's commands.

    def _migrate(
        self,
        uri: str,
        x_mirror: str | None = None,
        x_mirror_pcap: str | None = None,
        x_disks: dict[str, Any] | None = None,
    ) -> None:
        address = Address.parse(uri)
        mirror = None if x_mirror is None else Address.parse(x_mirror)
        disks = None if x_disks is None else Peer.parse(x_disks)
        if (disks is not None) != bool(self.guest.machine.disks):
            raise LocalError(
                f"migrate: expected x-disks if the guest has disks, found "
                f"{len(self.guest.machine.disks)} disks and {x_disks}"
            )
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
            self.colo.run(lambda: self._lead(address, mirror, pcap, disks))
        except (RuntimeError, MemoryError) as error:
            self._migration_failed(error, pcap)
            raise LocalError(f"migrate: expected to start a thread, found {error}") from error

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
                # Bytes sent on each connection, that of the stream first.
                "x-connections": [channel.sent, *(each.sent for each in channel.pages.connections)],
            }
        disk = self.runtime.disks.progress()
        return found if disk is None else found | {"disk": disk}

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

    def _parameters_changed(self) -> None:
        if self.in_colo():
            # As in QEMU: a changed delay is not waited for.
            self._request("requested")

    def _query_dirty_pages(self) -> dict[str, Any]:
        """Give the pages of the last collection: those of the checkpoint that is being made."""
        pages = self._dirty_pages.bitmap.copy()
        encoded = base64.b64encode(pages.tobytes()).decode()
        return {"pages": int(bitmap.popcount(pages)), "pages-bitmap": encoded}

    def _powerdown(self) -> None:
        if self.in_colo():
            self._request("shutdown")
            return
        with self.lock:
            self.check_outside_colo()
            self.guest.stop("shutdown")
        self.quit()

    def checkpoint_at(self) -> int:
        """Give the number of the checkpoint that is being made, or of the open epoch."""
        return self._epochs.at if self._epochs else super().checkpoint_at()

    # Takeover and end.

    def run_alone(self) -> None:
        """Let the guest run without a peer."""
        super().run_alone()
        if self.runtime.side is not self:
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

    def _lead(
        self,
        address: Address,
        mirror: Address | None,
        pcap: PcapWriter | None,
        disks: Peer | None,
    ) -> None:
        try:
            if disks is not None:
                # First, as it takes longest: RAM would be written again meanwhile.
                self._replicate_disks(disks)
            main = address.connect_while(self._waiting_for("the secondary"))
            channel = self.open_channel(main)
            machine, workers = self.guest.machine, self.workers
            # First of all, so that a secondary with other settings reports only that.
            settings = self.settings.agreed()
            channel.write(savevm.stream_header(machine.machine_type, settings))
            channel.flush()
            # From here on a migration that fails releases its memory for copies.
            self._sender = sender = checkpoint_sender(
                self.settings.checkpoint,
                machine,
                workers,
                channel,
                self.breakpoints,
                freezes=self.settings.experiment.bug is not Bug.UNFROZEN_PAGES,
            )
            self._outgoing = OutgoingCheckpoint(
                self.settings,
                self.guest,
                self.breakpoints,
                sender,
                self._dirty_pages,
                self._make_comparison(channel) if self.compares_pages else None,
                self._announce_digests,
                self._checkpoint_sent,
            )
            sender.connect(address, self._waiting_for("page channels", main))
            if mirror is not None:
                to_mirror = mirror.connect_while(self._waiting_for("the mirror connection", main))
                link, pcap = FrameSocket(to_mirror, pcap), None
                self.network.attach_mirror(link)
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
        if self.settings.experiment.bug is Bug.PASSED_ENTRY:
            self._set_status("device")
        sender.switchover(pages, devices)
        if self._status == "device":
            # COLO is entered from "active" alone, as nobody thought of the new state.
            self._set_status("completed")
            return
        self._set_status("colo")
        self._in_colo_since = time.monotonic()
        self._trigger.begin()
        if self.settings.checkpoint.capture is Capture.GAP_PRECOPY:
            period = self.settings.checkpoint.pass_period / 1000
            self._passes = GapPrecopy(sender, channel, self._dirty_pages, period)
        elif self.settings.checkpoint.capture is Capture.TWO_EPOCHS:
            self._epochs = OpenEpochs(
                self.settings,
                self.guest,
                self.breakpoints,
                sender,
                channel,
                self._dirty_pages,
                self._announce_digests,
            )
        self.colo.run_to(ColoState.RUNNING)
        self._between_checkpoints()
        if self._epochs is None:
            while (cause := self._wait_for_cause()).name != "shutdown":
                self._checkpoint(cause)
            self._checkpoint(cause)
        else:
            self._keep_epochs_open(self._epochs)
        self.guest.stop("shutdown")
        self.colo.happened(LocalEvent.SHUTDOWN)
        self.colo.step()
        self.quit()

    def _replicate_disks(self, peer: Peer) -> None:
        """Copy the disks to a secondary, while the guest runs."""

        def goes_on() -> None:
            if self.quitting.is_set():
                raise Interrupted

        self._set_status("active")
        self.runtime.disks.replicate(peer, goes_on)

    def _waiting_for(self, expected: str, main: socket.socket | None = None) -> Wait:
        """Return a `Wait` that ends with the main connection or this process."""
        return Wait(expected, CONNECT_TIMEOUT, main, self._trigger.wake_fd)

    def _migration_failed(self, error: BaseException, pcap: PcapWriter | None) -> None:
        if pcap is not None:
            pcap.close()
        self.runtime.disks.abandon()
        error = self.cause_of(error)
        self._participant_error = None
        with self.lock:
            self.colo.close()
            if self._sender is not None:
                self._sender.close()
            self.colo.channel = self._sender = self._outgoing = None
            self.guest.machine.tracker.disarm()
            self.monitor.emit("X_MIGRATION_ERROR", {"x-why": str(error) or repr(error)})
            self._set_status("failed")

    def _wait_for_cause(self) -> CheckpointCause:
        """Wait until a checkpoint is due, and send passes meanwhile."""
        assert self.colo.channel is not None
        while True:
            due = self._trigger.due()
            if self.takeover.begun or self.quitting.is_set():
                raise Interrupted
            if isinstance(due, CheckpointCause):
                return due
            wait = self._passes.due(due)
            if not wait:
                self.colo.happened(LocalEvent.PASS_DUE)
                self.colo.step()
            elif self.colo.channel.wait(wait, self._trigger.wake_fd):
                # No message is due now: this is the end of the connection, or a fault.
                self.colo.step()

    def _keep_epochs_open(self, epochs: OpenEpochs) -> None:
        """Cut epochs when they are due, and send them, until one is cut for a shutdown."""
        assert self.colo.channel is not None
        channel, patience = self.colo.channel, self.settings.checkpoint.stall_timeout
        # When the trigger is asked again, unless it is woken, and when something moved last.
        ending, look_at, moved = False, 0.0, time.monotonic()
        while not (ending and self.colo.state is ColoState.RUNNING):
            if self.takeover.begun or self.quitting.is_set():
                raise Interrupted
            wait, wake_fds = math.inf, tuple[int, ...]()
            if self.colo.allows(LocalEvent.CHECKPOINT_DUE) and not ending:
                if self._trigger.woken() or time.monotonic() >= look_at:
                    due = self._trigger.due()
                    if isinstance(due, CheckpointCause):
                        ending, look_at = due.name == "shutdown", 0.0
                        self._cut(epochs, due)
                        continue
                    look_at = time.monotonic() + due
                wait = max(0.0, look_at - time.monotonic())
                wake_fds = (self._trigger.wake_fd,)
            if self.colo.allows(LocalEvent.PART_DUE):
                if not channel.wait(0):
                    self.colo.happened(LocalEvent.PART_DUE)
            else:
                silence = time.monotonic() - moved if epochs else -math.inf
                # After so long without a message that is due, the step finds a peer that stalls.
                if silence < patience and not channel.wait(
                    min(wait, patience - silence), *wake_fds
                ):
                    continue
            self._step_whole()
            moved = time.monotonic()

    def _cut(self, epochs: OpenEpochs, cause: CheckpointCause) -> None:
        """Cut the guest for an epoch."""
        self._phases = epochs.begin(cause).phases
        with no_garbage_collection():
            self.colo.happened(LocalEvent.CHECKPOINT_DUE)
            self._step_whole()
        # The trigger learns at once, or it would ask for the next cut without delay.
        released, self._released = self._released, self.network.released
        self._trigger.taken(len(epochs[-1].pages), self._released - released)

    def _step_whole(self) -> None:
        """Handle an event, and those of our own side that follow from it."""
        self.colo.step()
        while self.colo.waiting_events:
            self.colo.step()

    def _checkpoint(self, cause: CheckpointCause) -> None:
        assert self.colo.channel is not None
        outgoing = self._checkpoint_out()
        requested = time.monotonic()
        released = self.network.released
        passes = self._passes.end()
        self._phases = Phases()
        outgoing.begin(self._phases)
        with no_garbage_collection():
            self.colo.happened(
                LocalEvent.PASSIVE_CHECKPOINT_DUE if cause.passive else LocalEvent.CHECKPOINT_DUE
            )
            self.colo.step()
            self._stop_at = requested + cause.lead
            self.colo.run_to(ColoState.RUNNING)
        statistics, frames = outgoing.statistics(), self.network.released - released
        found = {
            "bytes": self.colo.channel.all_sent - self._sent,
            "frames-released": frames,
            "work": outgoing.work,
            "marks": self._phases.marks,
            **statistics,
            **passes,
        }
        self._trigger.taken(statistics["pages"], frames)
        self._report(cause, requested, found, self._dirty_pages.bitmap)
        self._between_checkpoints()

    def _report(
        self, cause: CheckpointCause, began: float, found: dict[str, Any], pages: Words
    ) -> None:
        """Count a checkpoint that is loaded, and emit its record."""
        self.guest.committed()
        record: dict[str, Any] = {
            "checkpoint": self.guest.checkpoint,
            "cause": cause.name,
            "cause-connection": cause.connection,
            "cause-offset": cause.offset,
            "layout": self.settings.checkpoint.layout.value,
            "capture": self.settings.checkpoint.capture.value,
            "time": began - self._in_colo_since,
            **found,
            **self.guest.statistics(),
        }
        if self._parameters.report_pages:
            record["pages-bitmap"] = base64.b64encode(pages.tobytes()).decode()
        self.monitor.emit("X_COLO_CHECKPOINT", record)

    def _between_checkpoints(self) -> None:
        assert self.colo.channel is not None
        self._sent = self.colo.channel.all_sent
        self._passes.begin()

    # Actions of the table.

    def _checkpoint_out(self) -> OutgoingCheckpoint:
        assert self._outgoing is not None
        return self._outgoing

    def _send_request(self) -> None:
        if self._epochs is not None:
            self._epochs.request()
            return
        self.colo.send(Message.CHECKPOINT_REQUEST)
        self.breakpoints.reach("request")

    def _freeze(self) -> None:
        if self._epochs is None:
            self._checkpoint_out().capture("frozen")
        else:
            self._epochs.freeze()

    def _send_part(self) -> None:
        assert self._epochs is not None
        if self._epochs.send_part():
            self.colo.happened(LocalEvent.ALL_SENT)
            self._epochs.reach("sent")

    def _close_epoch(self) -> None:
        assert self._epochs is not None
        epoch = self._epochs.close()
        found = {
            "bytes": epoch.sent_bytes,
            "frames-released": epoch.frames,
            "work": epoch.work,
            "marks": epoch.phases.marks,
            **epoch.statistics,
            **self._passes.end(),
        }
        self._report(epoch.cause, epoch.began, found, epoch.bitmap)

    def _reach(self, point: str) -> None:
        if self._epochs is None:
            self.breakpoints.reach(point)
        else:
            self._epochs.reach(point)

    def message_received(self, received: Message, value: int | None) -> None:
        """Take the time of the secondary's answers."""
        if received is Message.CHECKPOINT_REPLY:
            self._phases.end("request")
            self.breakpoints.reach("reply")
        elif received in (Message.VMSTATE_RECEIVED, Message.VMSTATE_LOADED):
            if self._epochs is not None:
                # The older one's: the secondary answers an epoch before it reads the next.
                self._phases, self._epochs.at = self._epochs[0].phases, self._epochs[0].number
            point = "received" if received is Message.VMSTATE_RECEIVED else "loaded"
            self._phases.end(point)
            self._reach(point)

    def _wait_to_stop(self) -> None:
        """Let the guest run on after the request, for as long as the trigger wants."""
        assert self.colo.channel is not None
        while (left := self._stop_at - time.monotonic()) > 0:
            ready = self.colo.channel.wait(left, self._trigger.wake_fd)
            if self.takeover.begun or self.quitting.is_set():
                raise Interrupted
            if ready:
                # The end of the connection, or a fault, which the next message shows.
                return
            self._trigger.woken()

    def _pause(self) -> None:
        self._wait_to_stop()
        self.guest.rest()
        self.guest.rested()
        self._phases.end("request")
        self._trigger.guest_stopped()
        self.guest.stop("colo")
        self.guest.seal()
        if self.settings.checkpoint.capture.copies:
            # Until the release, the guest that runs on may want the next checkpoint.
            self._trigger.satisfy()
        self._phases.end("stop")
        self.breakpoints.reach("stop")

    def _make_comparison(self, channel: Channel) -> PageComparison:
        from colobench.node.migration.divergent import PageComparison  # It takes a kernel.

        return PageComparison(channel, self.guest.machine.ram, self.workers, self.breakpoints)

    def _checkpoint_sent(self) -> None:
        self.colo.happened(LocalEvent.ALL_SENT)
        if self.settings.experiment.bug is Bug.EARLY_RELEASE:
            self._release_output()
        self.breakpoints.reach("sent")

    def _announce_digests(self, checkpoint: int, devices: bytes) -> None:
        """Report the digests before the commit, so that they are known if this process dies."""
        self.monitor.emit("X_COLO_DIGEST", {"checkpoint": checkpoint} | self.guest.digests(devices))
        self.monitor.flush()

    def _release_output(self) -> None:
        if not self.settings.checkpoint.capture.copies:
            self._trigger.satisfy()
        before = self.network.released
        self.guest.commit()
        bug = self.settings.experiment.bug
        if bug is Bug.UNSEALED_RELEASE:
            self.guest.seal()
            self.guest.commit()
        if self._epochs is None:
            return
        if bug is Bug.JOINT_RELEASE and len(self._epochs) > 1:
            self.guest.commit()
        self._epochs[0].frames = self.network.released - before
        self._epochs.reach("released")

    def _resume(self) -> None:
        self.guest.start(self._resumed)
        if self._epochs:
            self._epochs.reach("resumed")

    def _resumed(self) -> None:
        self._trigger.guest_started()
        self._phases.end("resume")
