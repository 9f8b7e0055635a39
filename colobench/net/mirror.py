"""The links between the nodes carry frames of several epochs: marks, and a gate that knows them.

The client's frames go from the primary to the secondary (filter_mirror), what the secondary's guest
says goes back (filter_redirector), and the checkpoints between them go another way. So a frame can
be overtaken by a checkpoint. It must not count then: a client's frame that the primary's state has
consumed would be consumed twice; what the secondary's guest said before it took on the primary's
state is not what it says now, and would release output that it has never said.

A sender therefore puts a `MARK` into the link where a checkpoint cuts: the primary behind the last
frame that is in the state that it saves; the secondary behind the last frame of the guest that it
stopped. The receiver's `EpochGate` is told when it takes on that checkpoint, and both count. QEMU
has nothing of the kind.
"""

from __future__ import annotations

from collections import deque

#: A frame of IEEE 802's EtherType for local experiments: here is a checkpoint.
MARK = bytes(12) + b"\x88\xb5" + b"checkpoint".ljust(46, b"\0")


class EpochGate:
    """Lets frames pass in the epoch that they were sent in: not later, not sooner.

    Attributes
    ----------
    dropped
        Frames that came from an epoch that is over.
    """

    def __init__(self) -> None:
        self._awaited_marks = 0
        self._early: deque[list[bytes]] = deque()
        self.dropped = 0

    @property
    def early(self) -> int:
        """How many frames, and marks, wait for checkpoints that are to come."""
        return len(self._early) + sum(map(len, self._early))

    def frame(self, frame: bytes) -> list[bytes]:
        """Take a frame, or a mark, from the link; give it if it is of the present epoch."""
        if frame == MARK:
            if self._awaited_marks:
                self._awaited_marks -= 1
            else:
                self._early.append([])
            return []
        if self._awaited_marks:
            self.dropped += 1
            return []
        if self._early:
            self._early[-1].append(frame)
            return []
        return [frame]

    def checkpoint(self) -> list[bytes]:
        """Enter the next epoch; give the frames of it that came early."""
        if self._early:
            return self._early.popleft()
        self._awaited_marks += 1
        return []

    def failover(self) -> list[bytes]:
        """Give all that waits: the checkpoint whose mark came does not come any more."""
        frames = [frame for epoch in self._early for frame in epoch]
        self._early.clear()
        self._awaited_marks = 0
        return frames
