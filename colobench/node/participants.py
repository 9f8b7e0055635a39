"""Participants of a checkpoint: parts of the guest that lie outside of its RAM and devices.

The network is one: frames that the guest has sent are part of what the world knows of it. Disks are
others. A node tells all of its participants, in the order of their list, what becomes of the guest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from colobench.node.trigger import CheckpointCause
from colobench.wire.vmstate import Device


class CheckpointParticipant(Protocol):
    """Takes part in checkpoints. A class that inherits from this one may leave methods out.

    A checkpoint is ``stop, seal, commit, start`` on the primary. On the secondary it is ``loaded``,
    and where the variant lets that guest run between checkpoints, ``stop, seal, loaded, start``.
    Calls come from one thread at a time, the COLO thread while the node is one of a pair. `start`
    and `stop` alternate; `start` comes first.
    """

    def devices(self) -> Sequence[Device]:
        """Give what of it travels with each checkpoint, as devices of the machine.

        Both sides, once, when the process starts.
        """
        return ()

    def begin(self) -> None:
        """Begin to work: the process is ready. Both sides, once, before anything but `devices`."""

    def lead(self, request_checkpoint: Callable[[CheckpointCause], None]) -> None:
        """Be the primary's: from now on, hold back what leaves the guest until it is committed.

        Primary, when live migration ends and its guest has been stopped, before the first `seal`.

        Parameters
        ----------
        request_checkpoint
            Asks for a checkpoint, from any thread and without delay.
        """

    def follow(self) -> None:
        """Be the secondary's: from now on, let nothing leave the guest.

        Secondary, when the process starts.
        """

    def start(self) -> None:
        """Get ready: the guest is about to run. Both sides."""

    def stop(self) -> None:
        """Take in the last of what the guest has done: it has just stopped. Both sides."""

    def seal(self) -> None:
        """Draw a line: all that the guest has done until now belongs to the coming checkpoint.

        Both sides, after `stop`, if the guest was stopped for a checkpoint, or on the primary to
        end live migration. Devices are saved after it.
        """

    def commit(self) -> None:
        """Let go of what was held back before `seal`: the secondary has all of the checkpoint.

        Primary, after VMSTATE_RECEIVED or, if the variant is v12, after VMSTATE_LOADED.
        """

    def loaded(self) -> None:
        """Drop what the guest did since the last checkpoint: its state is another one now.

        Secondary, after RAM and devices of a checkpoint, or of live migration, have been loaded.
        """

    def alone(self) -> None:
        """Be the only guest: what was held back leaves, and nothing is held back any more.

        Either side, when it takes over, while its guest stands still.
        """

    def fence(self) -> None:
        """Let nothing leave, for ever: another node is the guest, and this process ends.

        Either side, when the arbiter has refused it; from the thread that asked the arbiter.
        """

    def close(self) -> None:
        """Give back what it has. Both sides, when the process ends."""
