"""Process of a node: the guest, its network, the monitor, and its present side of a pair.

A side lasts as long as its pair. The guest outlives it: after a failover the survivor's process is
a `Primary` without a peer, which a new secondary may join.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from colobench.guest.bugs import LOST_RETRANSMISSION
from colobench.guest.interface import Guest
from colobench.guest.making import make_guest
from colobench.kernels.warmup import load
from colobench.memory.planted_bugs import UntouchedPages
from colobench.node.colo_status import ColoStatus
from colobench.node.disk.replication import DiskReplication, Ends
from colobench.node.guest_control import GuestControl
from colobench.node.kernels import modules_for
from colobench.node.monitor import Monitor, MonitorCommand
from colobench.node.network import Network
from colobench.node.options import Options
from colobench.node.participants import CheckpointParticipant
from colobench.node.workers import Workers
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Capture
from colobench.settings.transport import usable_cores


class PairSide(Protocol):
    """Interface of one side of a pair for its process."""

    def begin(self) -> None:
        """Begin the work of this side."""

    def commands(self) -> Mapping[str, MonitorCommand]:
        """Return the monitor's commands."""

    def end(self) -> None:
        """Leave the pair, as the process ends."""

    def participant_failed(self, error: Exception) -> None:
        """End the pair because of a participant of its checkpoints, from any thread."""


class NodeRuntime:
    """Parts that a process has from its start to its end.

    Parameters
    ----------
    options
        Options of the process.
    first
        Function that makes its first side.
    participants
        Participants of the guest's checkpoints, besides its network.
    machine
        Guest; by default the one that the options describe. It is closed with the process.

    Attributes
    ----------
    guest, network, disks, workers, monitor
        Guest; path of its frames; its disks; threads that share a job; QMP server.
    colo_status
        COLO status of this process.
    side
        Present side of this process.
    kernels
        Names of the modules whose kernels it runs.
    quitting
        Set when the process is to end.
    """

    def __init__(
        self,
        options: Options,
        first: Callable[[NodeRuntime], PairSide],
        participants: Sequence[CheckpointParticipant] = (),
        machine: Guest | None = None,
    ) -> None:
        self.options = options
        settings, checkpoint = options.settings, options.settings.checkpoint
        self.kernels = modules_for(settings, machine is None)
        self.quitting = threading.Event()
        if machine is None:
            machine = make_guest(
                options.guest,
                checkpoint.tracker,
                checkpoint.capture.freezes,
                lambda error: self.died("guest", error),
            )
            if settings.experiment.bug is Bug.UNTOUCHED_PAGES:
                machine.tracker = UntouchedPages(machine.tracker)
        if settings.experiment.bug is Bug.LOST_RETRANSMISSION:
            machine.plant(LOST_RETRANSMISSION)
        self.network = Network(
            machine.network,
            checkpoint.output,
            settings.network.compare,
            lambda error: self.died("network", error),
            settings.experiment.bug,
        )
        self.disks = DiskReplication(
            machine.disks,
            settings.disk_buffer.limit,
            Ends(
                lambda error: self.side.participant_failed(error),
                lambda error: self.died("disks", error),
            ),
            digests=checkpoint.verify,
            by_cluster=checkpoint.capture is Capture.TWO_EPOCHS,
            # Where digests are compared, the primary waits for its writes with the guest stopped.
            yields=not (checkpoint.verify or checkpoint.capture.copies),
            stall_timeout=checkpoint.stall_timeout,
            directory=settings.disk_buffer.directory,
            volatile_cache=settings.experiment.volatile_cache,
            bug=settings.experiment.bug,
        )
        self.guest = GuestControl(machine, (self.network, *participants, self.disks))
        if options.images:
            self.disks.open(options.images)
        self.workers = Workers(max(checkpoint.multifd_channels, min(2, usable_cores())))
        self.exit_code = 0
        self.colo_status = ColoStatus()
        self.monitor = Monitor(options.qmp, {})
        self.side = first(self)
        self.monitor.set_commands(self.side.commands())

    def succeed(self, successor: PairSide) -> None:
        """Replace the side by its successor."""
        self.side = successor
        self.monitor.set_commands(successor.commands())

    def run(self) -> int:
        """Serve until told to quit; return the exit status."""
        try:
            # Load all kernels now, so that no checkpoint waits for one.
            for _ in load(self.kernels):
                pass
            # Present objects stay; a search for garbage among them would take milliseconds.
            gc.collect()
            gc.freeze()
            gc.enable()
            self.guest.begin()
            # Start the monitor last: a process that can connect to it finds the node ready.
            self.side.begin()
            self.monitor.start()
            self.quitting.wait()
            self.monitor.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        finally:
            self._end()
        return self.exit_code

    def quit(self) -> None:
        """Request an orderly end of the process."""
        self.quitting.set()

    def died(self, who: str, error: BaseException) -> None:
        """End the process because the guest is lost, as QEMU does."""
        if self.quitting.is_set():
            return
        print(f"{who}: {error}", file=sys.stderr, flush=True)
        self.exit_code = 1
        self.quitting.set()

    def _end(self) -> None:
        """Stop all parts, in an order in which no thread waits for one that has ended."""
        self.quitting.set()
        with ExitStack() as rest:
            # The last one first; an error of one does not keep the others.
            rest.callback(self.guest.machine.close)
            rest.callback(self.monitor.close, flush=True)
            rest.callback(self.workers.close)
            rest.callback(self.guest.close)
            ended = None
            while ended is not self.side:
                # A takeover that was under way may have put a successor in its place.
                ended = self.side
                ended.end()
