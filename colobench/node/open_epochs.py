"""Open epochs of a primary: checkpoints that were cut, and that the secondary has not loaded.

There are two at most, and their pages are sent in parts. Between two parts the guest may be cut for
the next epoch, and the secondary's messages are read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from colobench.kernels.copy_on_write import EPOCHS
from colobench.memory.ram import WORD_BITS
from colobench.memory.tracker import Words
from colobench.node.breakpoints import TWO_OPEN_POINTS, Breakpoints
from colobench.node.channel import Channel
from colobench.node.guest_control import GuestControl
from colobench.node.migration.checkpoint_sender import CheckpointSender
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.page_path import Pages
from colobench.node.phases import Phases
from colobench.node.trigger import CheckpointCause
from colobench.settings.bug import Bug
from colobench.settings.settings import Settings
from colobench.wire.messages import Message, encode_message

#: Least and most pages of a part, and the time that it may take: so long a cut waits for it. Fewer
#: would be less than a packet, or a block that is compressed together.
LEAST_PAGES, MOST_PAGES, PART_SECONDS = 128, 512, 0.005
#: Pages that are copied for each part that is sent: the fewer are frozen, the less the guest
#: copies. More than MOST_PAGES, so that each page is copied before it is sent.
COPIED_PAGES: Final = 2048
_TWO_OPEN: Final = {point: name for name, point in TWO_OPEN_POINTS.items()}


@dataclass(slots=True)
class OpenEpoch:
    """An epoch from its cut to its load.

    Attributes
    ----------
    number, cause, began, phases
        Number of the checkpoint, its cause, the monotonic time at which it was due, its stopwatch.
    pages, bitmap, devices, work
        The guest at the cut: written pages as a list and as a bitmap, devices, work counter.
    copied, copied_words, sent
        Pages of the list that were copied, the words of the bitmap that these are, and pages that
        were sent.
    sent_bytes, frames, statistics
        Bytes that it took, frames that it released, and the sender's counts.
    """

    number: int
    cause: CheckpointCause
    began: float
    phases: Phases = field(default_factory=Phases)
    pages: Pages = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    bitmap: Words = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    devices: bytes = b""
    work: int = 0
    copied: int = 0
    copied_words: int = 0
    sent: int = 0
    sent_bytes: int = 0
    frames: int = 0
    statistics: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> int:
        """Which of the memories for copies it has."""
        return self.number % EPOCHS

    @property
    def is_copied(self) -> bool:
        """Whether no page of it is frozen any more."""
        return self.copied_words == len(self.bitmap)


class OpenEpochs:
    """The open epochs of one primary, oldest first; the methods are actions of its table.

    Parameters
    ----------
    settings, guest, breakpoints
        The node's settings, guest and breakpoints.
    sender, channel, dirty
        Sender of checkpoints, the main connection, and the pages that the guest writes.
    announce
        Function that reports the digests of the checkpoint with this number and these devices.

    Attributes
    ----------
    at
        Number of the checkpoint that was dealt with last.
    """

    def __init__(
        self,
        settings: Settings,
        guest: GuestControl,
        breakpoints: Breakpoints,
        sender: CheckpointSender,
        channel: Channel,
        dirty: DirtyPages,
        announce: Callable[[int, bytes], None],
    ) -> None:
        self._settings = settings
        self._guest = guest
        self._breakpoints = breakpoints
        self._sender, self._copies = sender, sender.epochs
        self._channel = channel
        self._dirty = dirty
        self._announce = announce
        self._open: deque[OpenEpoch] = deque()
        #: The epoch that is being sent.
        self._sending: OpenEpoch | None = None
        self._part = LEAST_PAGES
        self.at = 0

    def __len__(self) -> int:
        """Count the open epochs."""
        return len(self._open)

    def __getitem__(self, index: int) -> OpenEpoch:
        return self._open[index]

    def reach(self, point: str) -> None:
        """Pass a point of a checkpoint, and the one that exists only while two epochs are open."""
        self._breakpoints.reach(point)
        if len(self._open) > 1 and point in _TWO_OPEN:
            self._breakpoints.reach(_TWO_OPEN[point])

    def begin(self, cause: CheckpointCause) -> OpenEpoch:
        """Open an epoch; the guest is about to be stopped for it."""
        number = self._guest.checkpoint + len(self._open) + 1
        epoch = OpenEpoch(number, cause, time.monotonic())
        self._open.append(epoch)
        self.at = number
        return epoch

    def freeze(self) -> None:
        """Save the devices of the stopped guest, and freeze the pages that it has written."""
        epoch, guest = self._open[-1], self._guest
        epoch.devices, epoch.work = guest.save_devices(), guest.machine.work
        epoch.phases.end("devices")
        if self._settings.checkpoint.verify:
            self._announce(epoch.number, epoch.devices)
            epoch.phases.end("verify")
        missed = self._settings.experiment.bug is Bug.MISSED_DIRTY_BIT
        epoch.pages = (self._dirty.collect_but_one() if missed else self._dirty.collect()).copy()
        epoch.bitmap = self._dirty.bitmap.copy()
        epoch.phases.end("collect")
        self._copies.freeze(epoch.bitmap, epoch.place)
        epoch.phases.end("copy")
        self.reach("frozen")

    def request(self) -> None:
        """Begin to send the oldest epoch of which nothing is sent.

        Raises
        ------
        PeerLost, PeerStalled
        """
        epoch = next(each for each in self._open if not each.sent_bytes)
        self._sending, self.at = epoch, epoch.number
        epoch.sent_bytes = -self._channel.all_sent
        self._copies.choose(epoch.place)
        self._channel.write(encode_message(Message.CHECKPOINT_REQUEST))
        self._channel.flush()
        self.reach("request")
        self._sender.begin()
        self._sender.begin_ram(len(epoch.pages))

    def send_part(self) -> bool:
        """Send a part of the epoch that was requested last; return whether it was the last one.

        Raises
        ------
        PeerLost, PeerStalled
        """
        epoch = self._sending
        assert epoch is not None
        self.at = epoch.number
        self._copy_some()
        count, half, begin = len(epoch.pages), len(epoch.pages) // 2, epoch.sent
        end = min(begin + self._part, half if begin < half else count)
        began = time.monotonic()
        self._sender.send_part(epoch.pages[begin:end])
        self._fit(time.monotonic() - began)
        epoch.sent = end
        if begin < half == end or half == begin == 0:
            self.reach("ram")
        if end < count:
            return False
        self._finish(epoch)
        return True

    def close(self) -> OpenEpoch:
        """Close the oldest epoch, which the secondary has loaded."""
        return self._open.popleft()

    def _finish(self, epoch: OpenEpoch) -> None:
        self._sender.end_ram()
        epoch.phases.end("ram")
        self.reach("ram-sent")
        self._sender.send_devices(epoch.devices)
        epoch.phases.end("devices")
        epoch.statistics = self._sender.statistics()
        epoch.sent_bytes += self._channel.all_sent
        self._sending = None

    def _fit(self, seconds: float) -> None:
        """Fit the size of a part to the time that the last one took."""
        if seconds > PART_SECONDS:
            self._part = max(LEAST_PAGES, self._part // 2)
        elif seconds < PART_SECONDS / 4:
            self._part = min(MOST_PAGES, 2 * self._part)

    def _copy_some(self) -> None:
        """Copy the next frozen pages, those of the older epoch first."""
        left = COPIED_PAGES
        for epoch in self._open:
            if epoch.is_copied or left <= 0:
                continue
            pages, before = epoch.pages, epoch.copied
            words = len(epoch.bitmap)
            if before + left < len(pages):
                words = int(pages[before + left]) // WORD_BITS + 1
            self._copies.copy(epoch.bitmap, epoch.copied_words, words, epoch.place)
            epoch.copied = int(np.searchsorted(pages, words * WORD_BITS))
            epoch.copied_words = words
            left -= epoch.copied - before
            if words == len(epoch.bitmap):
                self.reach("copied")
