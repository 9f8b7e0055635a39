"""The guest as a node drives it: the machine and the other participants of its checkpoints."""

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
    """Stops, starts, saves and loads the guest. It outlives the pairs that the guest is part of.

    Parameters
    ----------
    machine
        The guest's RAM, CPU and devices.
    participants
        What takes part in its checkpoints beside them, in the order in which they are called.

    Attributes
    ----------
    run_state
        QEMU's name for what the guest is doing: prelaunch, running, paused, inmigrate,
        finish-migrate, colo, shutdown.
    checkpoint
        Number of the last checkpoint that is committed here; 0 is the state that migration brought.
    checkpoint_time
        Monotonic time of that, in seconds; None if there was none.
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
        """Have all participants begin to work."""
        for participant in self._participants:
            participant.begin()

    def close(self) -> None:
        """Close the participants."""
        for participant in self._participants:
            participant.close()

    # Run states.

    def start(self) -> None:
        """Let the guest run."""
        for participant in self._participants:
            participant.start()
        self.machine.start()
        self.run_state = "running"

    def stop(self, run_state: str) -> None:
        """Stop the guest; only its run state changes if it stands still already."""
        if self.machine.running:
            self.machine.stop()
            for participant in self._participants:
                participant.stop()
        self.run_state = run_state

    # A checkpoint's life.

    def lead(self, request_checkpoint: Callable[[CheckpointCause], None]) -> None:
        """Be a primary's guest, see `CheckpointParticipant.lead`."""
        for participant in self._participants:
            participant.lead(request_checkpoint)

    def follow(self) -> None:
        """Be a secondary's guest, which migration will bring."""
        self.run_state = "inmigrate"
        for participant in self._participants:
            participant.follow()

    def seal(self) -> None:
        """Draw the line between this checkpoint and the next one."""
        for participant in self._participants:
            participant.seal()

    def save_devices(self) -> bytes:
        """Save the devices of the stopped guest, as a checkpoint has them."""
        return savevm.device_sections(self.machine.devices, savevm.DEVICE_SECTION_ID)

    def commit(self) -> None:
        """Let go of what the committed checkpoint covers."""
        for participant in self._participants:
            participant.commit()

    def load(self, states: list[tuple[Device, DeviceState]]) -> None:
        """Take on device states that were parsed and checked; RAM is that of the checkpoint."""
        self.machine.load(states)
        for participant in self._participants:
            participant.loaded()

    def committed(self) -> None:
        """Count a checkpoint that is committed here."""
        self.checkpoint += 1
        self.checkpoint_time = time.monotonic()

    # Without a peer.

    def alone(self) -> None:
        """Be the only guest, see `CheckpointParticipant.alone`."""
        # Dirty pages are not collected any more, so writes need not be noticed.
        self.machine.tracker.disarm()
        for participant in self._participants:
            participant.alone()

    def fence(self) -> None:
        """Let nothing leave the guest any more, see `CheckpointParticipant.fence`."""
        for participant in self._participants:
            participant.fence()

    # What is known of it.

    def digests(self, device_buffer: bytes) -> dict[str, Any]:
        """Digest RAM of the stopped guest, and its devices as they were saved."""
        return {
            "ram": f"{self.machine.ram_digest():016x}",
            "devices": hashlib.blake2b(device_buffer, digest_size=8).hexdigest(),
            "work": self.machine.work,
        }

    def checkpoint_age(self) -> float | None:
        """Give the seconds since the last checkpoint, None if there was none."""
        committed = self.checkpoint_time
        return None if committed is None else time.monotonic() - committed
