"""filter_buffer: no output before its checkpoint.

QEMU's filter-buffer may also release by a timer, its `interval`. COLO of December 2015 (patch 29)
sets it to zero, which means by the checkpoint alone; so there is none here.
"""

from __future__ import annotations


class FilterBuffer:
    """The frames that a guest has sent since the last checkpoint, in their order.

    Attributes
    ----------
    frames, bytes
        What is held now.
    frames_high_water, bytes_high_water
        The most that was ever held at once.
    frames_released, bytes_released
        What was let out so far.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self.bytes = 0
        self.frames_high_water = self.bytes_high_water = 0
        self.frames_released = self.bytes_released = 0

    @property
    def frames(self) -> int:
        """How many frames are held."""
        return len(self._held)

    def hold(self, frame: bytes) -> None:
        """Take a frame that the guest has sent."""
        self._held.append(frame)
        self.bytes += len(frame)
        self.frames_high_water = max(self.frames_high_water, len(self._held))
        self.bytes_high_water = max(self.bytes_high_water, self.bytes)

    def release(self) -> list[bytes]:
        """Give all frames, first come first: the state that sent them is committed."""
        released, self._held = self._held, []
        self.frames_released += len(released)
        self.bytes_released += self.bytes
        self.bytes = 0
        return released

    def counters(self) -> dict[str, int]:
        """Give all of the attributes."""
        return {
            "frames": self.frames,
            "bytes": self.bytes,
            "frames_high_water": self.frames_high_water,
            "bytes_high_water": self.bytes_high_water,
            "frames_released": self.frames_released,
            "bytes_released": self.bytes_released,
        }
