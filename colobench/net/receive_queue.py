"""The frames that wait for a guest to take them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from colobench.net import frame as frames
from colobench.net.mirror import EpochGate


class ReceiveQueue:
    """A queue in front of a NIC, and the gate that tells mirrored frames' epochs apart.

    Parameters
    ----------
    to_guest
        Rewrites a frame from outside into the frames that the guest is to see.

    Attributes
    ----------
    refused
        Frames so far whose length no NIC takes.
    """

    def __init__(self, to_guest: Callable[[bytes], Sequence[bytes]]) -> None:
        self._to_guest = to_guest
        self._frames: deque[bytes] = deque()
        self._gate = EpochGate()
        self.refused = 0

    def __len__(self) -> int:
        """Count the frames that the guest may have now."""
        return len(self._frames)

    @property
    def all(self) -> int:
        """Count all frames that wait, also for later epochs."""
        return len(self._frames) + self._gate.early

    def open_gate(self) -> None:
        """Begin a new stream of mirrored frames."""
        self._gate = EpochGate()

    def arrived(self, arrived: Iterable[bytes]) -> None:
        """Take frames from outside."""
        for frame in arrived:
            if self._fits(frame):
                self._frames.extend(self._to_guest(frame))

    def mirrored(self, arrived: Iterable[bytes]) -> None:
        """Take frames, and marks, that the primary mirrors."""
        for frame in arrived:
            if self._fits(frame):
                self.arrived(self._gate.frame(frame))

    def inject(self, waiting: Iterable[bytes]) -> None:
        """Put frames behind the others as they are."""
        self._frames.extend(waiting)

    def loaded(self) -> None:
        """Enter the epoch of a checkpoint that is loaded."""
        # The guest stood still, so all that waits here was mirrored before the primary stopped.
        self._frames.clear()
        self.arrived(self._gate.checkpoint())

    def failover(self) -> None:
        """Take what waited for a checkpoint that does not come any more."""
        self.arrived(self._gate.failover())

    def take(self, put: Callable[[bytes], bool]) -> list[bytes]:
        """Give the NIC frames for as long as it takes them; returns those that it took."""
        taken = []
        while self._frames and put(self._frames[0]):
            taken.append(self._frames.popleft())
        return taken

    def _fits(self, frame: bytes) -> bool:
        """Say whether a NIC takes frames of this length; count it if not."""
        fits = frames.FRAME_MIN <= len(frame) <= frames.FRAME_MAX
        self.refused += not fits
        return fits
