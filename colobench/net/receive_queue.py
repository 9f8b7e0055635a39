"""Queue of the frames that wait until the guest's NIC takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from colobench.net import frame as frames
from colobench.net.mirror import MARK, EpochGate


class ReceiveQueue:
    """Queue in front of a NIC, with the gate that tells mirrored frames' epochs apart.

    Parameters
    ----------
    to_guest
        Function that rewrites a frame from outside into frames for the guest.

    Attributes
    ----------
    refused
        Number of frames whose length no NIC takes, or that would count as a `MARK` when mirrored.
    """

    def __init__(self, to_guest: Callable[[bytes], Sequence[bytes]]) -> None:
        self._to_guest = to_guest
        self._frames: deque[bytes] = deque()
        self._gate = EpochGate()
        self.refused = 0

    def __len__(self) -> int:
        """Number of frames that the guest may receive now."""
        return len(self._frames)

    @property
    def all(self) -> int:
        """Number of all frames that wait, including those of later epochs."""
        return len(self._frames) + self._gate.early

    def open_gate(self) -> None:
        """Begin a new stream of mirrored frames."""
        self._gate = EpochGate()

    def arrived(self, arrived: Iterable[bytes]) -> None:
        """Take in frames from outside."""
        for frame in arrived:
            if frame == MARK:
                self.refused += 1
            elif self._fits(frame):
                self._frames.extend(self._to_guest(frame))

    def mirrored(self, arrived: Iterable[bytes]) -> None:
        """Take in frames and marks that the primary mirrors."""
        for frame in arrived:
            if self._fits(frame):
                self.arrived(self._gate.frame(frame))

    def inject(self, waiting: Iterable[bytes]) -> None:
        """Append frames to the queue without rewriting them."""
        self._frames.extend(waiting)

    def loaded(self) -> None:
        """Enter the epoch of a loaded checkpoint."""
        # The guest stood still, so all frames here were mirrored before the primary stopped.
        self._frames.clear()
        self.arrived(self._gate.checkpoint())

    def failover(self) -> None:
        """Take in the frames that waited for a checkpoint, which will not come."""
        self.arrived(self._gate.failover())

    def take(self, put: Callable[[bytes], bool]) -> list[bytes]:
        """Hand frames to the NIC until it refuses one; return those that it took."""
        taken = []
        while self._frames and put(self._frames[0]):
            taken.append(self._frames.popleft())
        return taken

    def _fits(self, frame: bytes) -> bool:
        """Say whether a NIC takes a frame of this length; count the frame if not."""
        fits = frames.FRAME_MIN <= len(frame) <= frames.FRAME_MAX
        self.refused += not fits
        return fits
