"""A live map of a disk's layers on both sides of a pair."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import traitlets

from colobench.block.clusters import ByteRange
from colobench.lab.report.palette import (
    ACTIVE_COLOUR,
    COLD_COLOUR,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    TAKEOVER_COLOUR,
)
from colobench.lab.session.disk_layers import NodeDisk, query_disk
from colobench.lab.session.session import Session
from colobench.ui.base.feed import LiveView, read_module
from colobench.ui.base.pump import FRAME_SECONDS

#: Height of all squares, pixels, and most squares of a layer: a square is a range of a large disk.
HEIGHT, SQUARES_MAX = 260, 8192
SECTOR_BYTES: Final = 512
#: What a square can be.
AS_COMMITTED, WRITTEN, KEPT, OWN, UNDONE = range(5)
KINDS: Final = (
    ("as at the last checkpoint", COLD_COLOUR),
    ("written by the primary's guest since then", PRIMARY_COLOUR),
    ("kept: the bytes of the checkpoint", SECONDARY_COLOUR),
    ("written by the secondary's own guest", ACTIVE_COLOUR),
    ("undone by the takeover", TAKEOVER_COLOUR),
)
#: Layers from the top down; the last one is the image.
LAYERS: Final = (
    "primary's disk",
    "secondary: active layer",
    "secondary: hidden layer",
    "secondary's disk",
)

_Squares = npt.NDArray[np.uint8]


class DiskMap(LiveView):
    """Shows the sectors of a disk: the primary's image, and the three layers of the secondary's.

    The nodes are asked four times a second, by a thread of this view.

    Parameters
    ----------
    session
        A session whose guest has disks; it need not be started.
    disk
        Number of the disk.

    Examples
    --------
    >>> ui.DiskMap(session)
    """

    _esm = read_module("pages.js", "disk_map.js")
    _height = traitlets.Int().tag(sync=True)

    def __init__(self, session: Session, disk: int = 0) -> None:
        super().__init__(_height=HEIGHT)
        self._session, self._disk = session, disk
        self._lock = threading.Lock()
        size = session.settings.guest.disk_settings()[disk].known_size()
        self._bytes = SECTOR_BYTES
        while -(-size // self._bytes) > SQUARES_MAX:
            self._bytes *= 2
        self._count = -(-size // self._bytes)
        #: What the secondary's image had that was no checkpoint's, and what a takeover undid.
        self._newer, self._undone = self._none(), self._none()
        self._closed = threading.Event()
        self.refresh()
        self._thread = threading.Thread(target=self._run, name="disk map", daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        """Ask both nodes, and show what they tell."""
        with self._lock:
            nodes = {role: query_disk(self._session, role, self._disk) for role in _ROLES}
            committed = self._session.records.total
            shown = self._layers(nodes["primary"], nodes["secondary"])
            title = _title(nodes, committed)
            data = np.concatenate(shown).tobytes()
            self.update((title, data), lambda: (self._frame(title), data))

    def _run(self) -> None:
        while not self._closed.wait(FRAME_SECONDS):
            self.refresh()

    def _layers(self, primary: NodeDisk | None, secondary: NodeDisk | None) -> list[_Squares]:
        """Give the squares of each of `LAYERS`."""
        of_primary, active, hidden, image = (self._none() for _ in LAYERS)
        if primary is not None:
            self._mark(of_primary, primary.changed, WRITTEN)
        if secondary is None:
            self._newer = self._undone = self._none()
        elif secondary.follows:
            self._mark(hidden, secondary.hidden, KEPT)
            self._mark(active, secondary.active, OWN)
            self._newer = np.where(hidden == KEPT, np.uint8(WRITTEN), hidden)
            self._undone = self._none()
            image = self._newer
        else:
            # It has taken over: what was newer than the checkpoint is the checkpoint's again.
            self._undone[self._newer == WRITTEN] = UNDONE
            image = self._undone
        return [of_primary, active, hidden, image]

    def _none(self) -> _Squares:
        return np.zeros(self._count, np.uint8)

    def _mark(self, squares: _Squares, ranges: Iterable[ByteRange], kind: int) -> None:
        for offset, length in ranges:
            squares[offset // self._bytes : -(-(offset + length) // self._bytes)] = kind

    def _frame(self, title: str) -> dict[str, Any]:
        unit = "sector" if self._bytes == SECTOR_BYTES else f"{self._bytes >> 10} KiB range"
        return {
            "title": title,
            "kinds": [{"name": name, "colour": colour} for name, colour in KINDS],
            "blocks": [
                {
                    "name": name,
                    "first_page": number * self._count,
                    "pages": self._count,
                    "unit": unit,
                }
                for number, name in enumerate(LAYERS)
            ],
        }

    def close(self) -> None:
        """Close the map."""
        self._closed.set()
        super().close()


_ROLES: Final = ("primary", "secondary")


def _title(nodes: dict[str, NodeDisk | None], committed: int) -> str:
    """Say what each image is, and how much the secondary would undo."""
    words = [
        f"{role}'s image: {'none' if disk is None else disk.state.value}"
        for role, disk in nodes.items()
    ]
    words.append(f"{committed:,} checkpoints")
    secondary = nodes["secondary"]
    if secondary is not None and secondary.follows:
        undo = sum(length for _, length in secondary.hidden)
        words.append(f"a takeover now would undo {undo >> 10:,} KiB")
    return ", ".join(words)
