"""Gap pre-copy: passes that send dirty pages between checkpoints, while the guest runs.

A pass collects the dirty pages and sends them in parts. Between two parts a checkpoint may come,
and takes what is left of the pass. The guest stores first and marks then, so a page that it writes
while it is sent is dirty again, and is sent again.
"""

from __future__ import annotations

import math
import time
from typing import Final

import numpy as np

from colobench.node.channel import Channel
from colobench.node.migration.checkpoint_sender import CheckpointSender
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.page_path import Pages

#: Pages of one part, 2 MiB: so long a checkpoint waits for a pass.
PART_PAGES: Final = 512
_NONE: Pages = np.zeros(0, dtype=np.int32)


class Passes:
    """Passes between checkpoints; this base class has none."""

    def begin(self) -> None:
        """Begin the time between two checkpoints."""

    def due(self, checkpoint: float) -> float:
        """Give the seconds until a part of a pass is due, 0 for now.

        Parameters
        ----------
        checkpoint
            Seconds until a checkpoint may be due, which are the answer if that is sooner.
        """
        return checkpoint

    def send(self) -> None:
        """Send the next part of a pass."""

    def end(self) -> dict[str, float]:
        """Leave what is unsent to a checkpoint.

        Returns
        -------
        dict
            Passes that were sent whole, and pages, bytes and milliseconds of all parts since
            `begin`, by their names in a record.
        """
        return {"passes": 0, "pass-pages": 0, "pass-bytes": 0, "pass-ms": 0.0}


class GapPrecopy(Passes):
    """Passes of one primary.

    Parameters
    ----------
    sender, channel
        Sender of the pages, and the main connection.
    dirty
        The pages that the guest writes.
    period
        Least time from the beginning of a pass to that of the next, in seconds. After a pass, there
        is a rest that is not shorter than it was.
    """

    def __init__(
        self, sender: CheckpointSender, channel: Channel, dirty: DirtyPages, period: float
    ) -> None:
        self._sender, self._channel, self._dirty = sender, channel, dirty
        self._period = period
        #: Pages of the pass that is being sent.
        self._left = _NONE
        self._began = self._next = math.inf
        #: Seconds that the last pass took.
        self._lasted = 0.0
        self._passes = self._pages = self._bytes = 0
        self._seconds = 0.0

    def begin(self) -> None:
        """Begin the time between two checkpoints, see `Passes`."""
        self._next = time.monotonic() + self._period
        self._passes = self._pages = self._bytes = 0
        self._seconds = 0.0

    def due(self, checkpoint: float) -> float:
        """Give the seconds until a part is due, see `Passes`."""
        if len(self._left):
            return 0.0
        wait = max(0.0, self._next - time.monotonic())
        if wait + max(self._period, 2 * self._lasted) < checkpoint:
            return wait
        # The last pass before a checkpoint ends just before it, so that least is left for it.
        latest = checkpoint - max(self._lasted, self._period / 4)
        return min(checkpoint, max(wait, latest))

    def send(self) -> None:
        """Send the next part of a pass; the first one collects the dirty pages.

        Raises
        ------
        PeerLost, PeerStalled
        """
        began, sent = time.monotonic(), self._channel.all_sent
        if not len(self._left):
            self._began, self._left = began, self._dirty.collect()
        part, self._left = self._left[:PART_PAGES], self._left[PART_PAGES:]
        if len(part):
            self._sender.send_pass(part)
        ended = time.monotonic()
        self._pages += len(part)
        self._bytes += self._channel.all_sent - sent
        self._seconds += ended - began
        if not len(self._left):
            self._passes += len(part) > 0
            self._lasted = ended - self._began
            self._next = max(self._began + self._period, ended + self._lasted)

    def end(self) -> dict[str, float]:
        """Leave the rest of a pass to a checkpoint, see `Passes`."""
        if len(self._left):
            self._dirty.put_back(int(self._left[0]))
            self._left = _NONE
        return {
            "passes": self._passes,
            "pass-pages": self._pages,
            "pass-bytes": self._bytes,
            "pass-ms": self._seconds * 1000,
        }
