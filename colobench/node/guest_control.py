"""Control of the guest by a node: the machine and the participants of its checkpoints."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from colobench.guest.interface import Guest
from colobench.node.participants import CheckpointParticipant
from colobench.node.trigger import CheckpointCause
from colobench.wire import savevm
from colobench.wire.vmstate import Device
from colobench.wire.vmstate import State as DeviceState


class GuestControl:
    """Stops, starts, saves and loads the guest, through all pairs that the guest is part of.

    Parameters
    ----------
    machine
        Guest's RAM, CPU and devices.
    participants
        Participants of its checkpoints, in the order in which they are called.

    Attributes
    ----------
    run_state
        QEMU's run state of the guest: prelaunch, running, paused, inmigrate,
        finish-migrate, colo, shutdown.
    checkpoint
        Number of the last checkpoint that is committed here; 0 is the migrated state.
    checkpoint_time
        Monotonic time of the last commit, seconds; None if there was none.
    """

    def __init__(self, machine: Guest, participants: Sequence[CheckpointParticipant]) -> None:
        self.machine = machine
        self._participants = tuple(participants)
        for participant in self._participants:
            machine.devices += tuple(participant.devices())
        self.run_state = "prelaunch"
        self.checkpoint = 0
        self.checkpoint_time: float | None = None

    def begin(self) -> None:
        """Start all participants."""
        for participant in self._participants:
            participant.begin()

    def close(self) -> None:
        """Close the participants."""
        for participant in self._participants:
            participant.close()

    # Run states.

    def start(self, on_running: Callable[[], None] = lambda: None) -> None:
        """Let the guest run; `on_running` is called as soon as it does."""
        for participant in self._participants:
            participant.start()
        self.machine.start()
        self.run_state = "running"
        on_running()
        for participant in self._participants:
            participant.started()

    def rest(self) -> None:
        """Begin no work for the guest, see `CheckpointParticipant.rest`."""
        for participant in self._participants:
            participant.rest()

    def rested(self) -> None:
        """Wait for work that has begun, see `CheckpointParticipant.rested`."""
        for participant in self._participants:
            participant.rested()

    def stop(self, run_state: str) -> None:
        """Stop the guest; if it is stopped, only its run state changes."""
        if self.machine.running:
            self.machine.stop()
            for participant in self._participants:
                participant.stop()
        self.run_state = run_state

    # Steps of a checkpoint.

    def lead(self, request_checkpoint: Callable[[CheckpointCause], None]) -> None:
        """Make the guest a primary's, see `CheckpointParticipant.lead`."""
        for participant in self._participants:
            participant.lead(request_checkpoint)

    def follow(self) -> None:
        """Make the guest a secondary's, which arrives by migration."""
        self.run_state = "inmigrate"
        for participant in self._participants:
            participant.follow()

    def seal(self) -> None:
        """Mark the end of this checkpoint's output, see `CheckpointParticipant.seal`."""
        for participant in self._participants:
            participant.seal()

    def save_devices(self) -> bytes:
        """Save the devices of the stopped guest, as a checkpoint has them."""
        return savevm.device_sections(self.machine.devices, savevm.DEVICE_SECTION_ID)

    def commit(self) -> None:
        """Release the output that the committed checkpoint covers."""
        for participant in self._participants:
            participant.commit()

    def arriving(self) -> None:
        """Leave the processor to a checkpoint, see `CheckpointParticipant.arriving`."""
        for participant in self._participants:
            participant.arriving()

    def arrived(self) -> None:
        """Go on with what has waited, see `CheckpointParticipant.arrived`."""
        for participant in self._participants:
            participant.arrived()

    def received(self) -> None:
        """Go on from this checkpoint from now on, see `CheckpointParticipant.received`."""
        for participant in self._participants:
            participant.received()

    def load(self, states: list[tuple[Device, DeviceState]]) -> None:
        """Apply device states that were parsed and checked; RAM is the checkpoint's already."""
        self.machine.load(states)
        for participant in self._participants:
            participant.loaded()

    def committed(self) -> None:
        """Count a checkpoint that is committed here."""
        self.checkpoint += 1
        self.checkpoint_time = time.monotonic()

    def statistics(self) -> dict[str, Any]:
        """Return the participants' figures of the last checkpoint, for its record."""
        return {
            name: figure
            for participant in self._participants
            for name, figure in participant.statistics().items()
        }

    # Guest without a peer.

    def cut_off(self) -> None:
        """Wait for the peer no longer, see `CheckpointParticipant.cut_off`."""
        for participant in self._participants:
            participant.cut_off()

    def take_over(self) -> None:
        """Make what lies outside of RAM the guest's, see `CheckpointParticipant.take_over`."""
        for participant in self._participants:
            participant.take_over()

    def alone(self) -> None:
        """Make the guest the only one, see `CheckpointParticipant.alone`."""
        # Dirty pages are not collected any more.
        self.machine.tracker.disarm()
        for participant in self._participants:
            participant.alone()

    def fence(self) -> None:
        """Release no more output, see `CheckpointParticipant.fence`."""
        for participant in self._participants:
            participant.fence()

    # State of the guest.

    def digests(self, device_buffer: bytes) -> dict[str, Any]:
        """Digest the stopped guest: RAM, devices as they were saved, and participants' parts."""
        parts = {
            name: digest
            for participant in self._participants
            for name, digest in participant.digests().items()
        }
        return parts | {
            "ram": f"{self.machine.ram_digest():016x}",
            "devices": hashlib.blake2b(device_buffer, digest_size=8).hexdigest(),
            "work": self.machine.work,
        }

    def checkpoint_age(self) -> float | None:
        """Return the seconds since the last checkpoint; None if there was none."""
        committed = self.checkpoint_time
        return None if committed is None else time.monotonic() - committed
