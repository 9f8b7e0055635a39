"""Marks and gates that tell the epochs of frames between the nodes apart.

Clients' frames travel from the primary to the secondary (filter-mirror), the frames of the
secondary's guest travel back (filter-redirector), and checkpoints travel on another connection. So
a checkpoint can overtake a frame, which must be dropped then. A client's frame that is already part
of the primary's state would be consumed twice. A frame that the secondary's guest sent before it
was loaded with the primary's state would release output that this state has never sent.

A sender therefore sends a `MARK` on the link where a checkpoint cuts: the primary after the last
frame that its saved state contains, the secondary after the last frame of its stopped guest. The
receiver's `EpochGate` counts marks, and checkpoints when they are loaded. QEMU has nothing of the
kind.
"""

from __future__ import annotations

from collections import deque

#: Frame that marks a checkpoint; its EtherType is IEEE 802's for local experiments.
MARK = bytes(12) + b"\x88\xb5" + b"checkpoint".ljust(46, b"\0")


class EpochGate:
    """Gate that lets a frame pass only in the epoch in which it was sent.

    Attributes
    ----------
    dropped
        Number of frames that arrived after the end of their epoch.
    """

    def __init__(self) -> None:
        self._awaited_marks = 0
        self._early: deque[list[bytes]] = deque()
        self.dropped = 0

    @property
    def early(self) -> int:
        """Number of frames and marks that wait for later checkpoints."""
        return len(self._early) + sum(map(len, self._early))

    def frame(self, frame: bytes) -> list[bytes]:
        """Take in a frame or a mark from the link; return it if it is of the present epoch."""
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
        """Enter the next epoch; return those of its frames that arrived early."""
        if self._early:
            return self._early.popleft()
        self._awaited_marks += 1
        return []

    def failover(self) -> list[bytes]:
        """Return all frames that wait: the checkpoints of their marks will not come."""
        frames = [frame for epoch in self._early for frame in epoch]
        self._early.clear()
        self._awaited_marks = 0
        return frames
