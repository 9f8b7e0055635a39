"""Queue of Ethernet frames between a NIC and the program that it belongs to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError

#: Frames of a queue.
NIC_QUEUE_LENGTH = 64
#: Longest frame, bytes; without the checksum, which the link adds.
NIC_FRAME_SIZE = 1514


class FrameQueue:
    """A bounded ring of Ethernet frames with one producer and one consumer.

    Attributes
    ----------
    ends
        uint64[2]: number of frames taken out so far, number of frames put in so far.
    lengths, frames
        uint64[64] and uint8[64 * 1514]; frame n is in slot n % 64.
    """

    def __init__(self) -> None:
        self.ends: npt.NDArray[np.uint64] = np.zeros(2, dtype=np.uint64)
        self.lengths: npt.NDArray[np.uint64] = np.zeros(NIC_QUEUE_LENGTH, dtype=np.uint64)
        self.frames: npt.NDArray[np.uint8] = np.zeros(NIC_QUEUE_LENGTH * NIC_FRAME_SIZE, np.uint8)

    def __len__(self) -> int:
        return int(self.ends[1] - self.ends[0])

    def put(self, frame: bytes) -> bool:
        """Append a frame; return False if the queue is full."""
        if not 14 <= len(frame) <= NIC_FRAME_SIZE:
            raise LocalError(
                f"Ethernet frame: expected 14 to {NIC_FRAME_SIZE} bytes, found {len(frame)}"
            )
        if len(self) == NIC_QUEUE_LENGTH:
            return False
        slot = int(self.ends[1]) % NIC_QUEUE_LENGTH
        begin = slot * NIC_FRAME_SIZE
        self.frames[begin : begin + len(frame)] = np.frombuffer(frame, np.uint8)
        self.lengths[slot] = len(frame)
        self.ends[1] += 1
        return True

    def take_all(self) -> list[bytes]:
        """Take every frame out, oldest first; the guest may put more meanwhile."""
        taken = self.list()
        self.ends[0] += np.uint64(len(taken))
        return taken

    def list(self) -> list[bytes]:
        """Return the frames, oldest first."""
        frames = []
        for n in range(*self.ends.tolist()):
            begin = n % NIC_QUEUE_LENGTH * NIC_FRAME_SIZE
            length = int(self.lengths[n % NIC_QUEUE_LENGTH])
            frames.append(self.frames[begin : begin + length].tobytes())
        return frames

    def replace(self, lengths: npt.NDArray[np.uint32], data: npt.NDArray[np.uint8]) -> None:
        """Replace the frames by others, given as lengths and joined bytes."""
        self.ends[:] = 0
        if not len(lengths):
            return
        ends = np.cumsum(lengths, dtype=np.int64)
        for begin, end in zip(ends - lengths, ends, strict=True):
            self.put(data[begin:end].tobytes())
