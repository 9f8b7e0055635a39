"""Participants of a checkpoint: parts of the guest that lie outside of its RAM and devices.

The network is one, because frames that the guest has sent are known outside. Its disks are
another. A node calls its participants in the order of their list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colobench.node.trigger import CheckpointCause
from colobench.wire.vmstate import Device


class CheckpointParticipant:
    """Base class of participants, whose methods do nothing.

    A checkpoint is ``rest, rested, stop, seal, commit, start`` on the primary. On the secondary it
    is ``received, loaded``, and where the variant lets that guest run between checkpoints, ``rest,
    rested, stop, seal, received, loaded, start``.
    Calls come from one thread at a time, the COLO thread while the node is one of a pair. `start`,
    `started` and `stop` alternate; `start` comes first.
    """

    def devices(self) -> Sequence[Device]:
        """Return the state that travels with each checkpoint, as devices of the machine.

        Both sides, once, when the process starts.
        """
        return ()

    def begin(self) -> None:
        """Begin to work: the process is ready. Both sides, once, after `devices`."""

    def lead(self, request_checkpoint: Callable[[CheckpointCause], None]) -> None:
        """Become the primary's: from now on, hold the guest's output until it is committed.

        Primary, when live migration ends and its guest has been stopped, before the first `seal`.

        Parameters
        ----------
        request_checkpoint
            Function that requests a checkpoint, from any thread and without waiting. If the cause
            is the guest's output, the trigger decides.
        """

    def follow(self) -> None:
        """Become the secondary's: from now on, release none of the guest's output.

        Secondary, when the process starts.
        """

    def start(self) -> None:
        """Prepare for the guest, which is about to run. Both sides."""

    def started(self) -> None:
        """Go on with what needs not be ready at once: the guest runs again. Both sides."""

    def rest(self) -> None:
        """Begin no work for the guest until the next `start`: it will be stopped soon. Both sides.

        It may come more than once.
        """

    def rested(self) -> None:
        """Wait for a short time at most until work that has begun is done: the guest still runs.

        Both sides, after `rest`. What takes longer goes on while the guest stands still.
        """

    def stop(self) -> None:
        """Take in the last output of the guest, which has just stopped. Both sides."""

    def seal(self) -> None:
        """Mark the output so far as that of the coming checkpoint.

        Both sides, after `stop`, if the guest was stopped for a checkpoint, or on the primary to
        end live migration. Devices are saved after it.
        """

    def commit(self) -> None:
        """Release the output that was held before `seal`: the secondary has all of the checkpoint.

        With two open epochs there may be two calls of `seal` before the first `commit`. Each commit
        is that of the oldest seal that has none.

        Primary, after VMSTATE_RECEIVED or, if the variant is v12, after VMSTATE_LOADED.
        """

    def arriving(self) -> None:
        """Leave the processor to the checkpoint that begins to arrive: its guest stands still.

        Secondary, after VMSTATE_SEND.
        """

    def arrived(self) -> None:
        """Go on with what has waited since `arriving`: the primary's guest runs.

        Secondary, after VMSTATE_LOADED. If the checkpoint is torn, `take_over` comes instead.
        """

    def received(self) -> None:
        """Make the checkpoint that has arrived whole the state that a takeover goes on from.

        Secondary, in the action that commits, before VMSTATE_RECEIVED is sent. Then RAM and devices
        are loaded, whatever becomes of the primary.
        """

    def loaded(self) -> None:
        """Drop the guest's output since the last checkpoint: its state has been replaced.

        Secondary, after RAM and devices of a checkpoint, or of live migration, have been loaded.
        """

    def digests(self) -> Mapping[str, Any]:
        """Digest the state of the stopped guest that lies here, by the names of its parts.

        Both sides, if checkpoints are verified. On the primary it is the sealed state; on the
        secondary that of the last `received`; after `take_over` the guest's.

        Raises
        ------
        ColobenchError
            If the state cannot be read.
        """
        return {}

    def statistics(self) -> Mapping[str, Any]:
        """Return figures of the last checkpoint for its record, and begin to count anew.

        Both sides, once for each checkpoint, after `commit` and `received`.
        """
        return {}

    def cut_off(self) -> None:
        """End the connections to the peer, so that no call waits for it. Either side, any thread.

        It comes before `take_over`, or before the end of the process.
        """

    def take_over(self) -> None:
        """Make the state that lies here the guest's, which is about to go on without a peer.

        Either side, before `alone`, while its guest stands still.

        Raises
        ------
        ColobenchError
            If it cannot be made; then this node must not be the guest.
        """

    def alone(self) -> None:
        """Become the only guest's: release all held output, and hold none any more.

        Either side, when it takes over, while its guest stands still.
        """

    def fence(self) -> None:
        """Release no output ever again: another node is the guest, and this process ends.

        Either side, when the arbiter has refused it; from the thread that asked the arbiter.
        """

    def close(self) -> None:
        """Release resources. Both sides, when the process ends."""
