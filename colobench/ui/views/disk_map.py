"""A live map of a disk's layers on both sides of a pair."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import traitlets

from colobench.block.clusters import ByteRange
from colobench.errors import LocalError
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
from colobench.ui.base.pump import FRAME_SECONDS, Pump

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

#: Apart from the frames, as a node may answer late.
watches = Pump(FRAME_SECONDS)

_Squares = npt.NDArray[np.uint8]
_Nodes = dict[str, NodeDisk | None]


class DiskMap(LiveView):
    """Shows the sectors of a disk: the primary's image, and the three layers of the secondary's.

    The nodes are asked four times a second, once for all maps of a disk, until the session has
    ended.

    Parameters
    ----------
    session
        A session whose guest has disks; it need not be started.
    disk
        Number of the disk.

    Raises
    ------
    LocalError
        If the guest has no such disk.

    Examples
    --------
    >>> ui.DiskMap(session)
    """

    _esm = read_module("pages.js", "disk_map.js")
    _height = traitlets.Int().tag(sync=True)

    def __init__(self, session: Session, disk: int = 0) -> None:
        disks = session.settings.guest.disk_settings()
        if not 0 <= disk < len(disks):
            raise LocalError(f"disk: expected one of the guest's {len(disks)}, found number {disk}")
        size = disks[disk].known_size()
        super().__init__(_height=HEIGHT)
        self._session, self._disk = session, disk
        self._lock = threading.Lock()
        self._bytes = SECTOR_BYTES
        while -(-size // self._bytes) > SQUARES_MAX:
            self._bytes *= 2
        self._count = -(-size // self._bytes)
        #: What the secondary's image had that was no checkpoint's, and what a takeover undid.
        self._newer, self._undone = self._none(), self._none()
        #: Title and squares that were shown last of nodes that lived; None before there were any.
        self._last: tuple[str, bytes] | None = None
        self.refresh()
        _Watch.join(self, session, disk)

    def refresh(self) -> None:
        """Ask both nodes, and show what they tell."""
        self.show(_ask(self._session, self._disk))

    def show(self, nodes: _Nodes) -> None:
        """Show what nodes have told, by their roles."""
        with self._lock:
            committed = self._session.records.total
            if self._last is not None and all(disk is None for disk in nodes.values()):
                # Of a node that answers late, this is what it has told before.
                title, data = self._last
                if _has_ended(self._session):
                    title += "; both nodes have ended"
            else:
                shown = self._layers(nodes["primary"], nodes["secondary"])
                title, data = _title(nodes, committed), np.concatenate(shown).tobytes()
                if any(disk is not None for disk in nodes.values()):
                    self._last = title, data
            self.update((title, data), lambda: (self._frame(title), data))

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
        unit = {"unit": "sector"}
        if self._bytes != SECTOR_BYTES:
            unit = {"unit": "range", "size": f"{self._bytes >> 10} KiB"}
        return {
            "title": title,
            "kinds": [{"name": name, "colour": colour} for name, colour in KINDS],
            "blocks": [
                {
                    "name": name,
                    "first_page": number * self._count,
                    "pages": self._count,
                    **unit,
                }
                for number, name in enumerate(LAYERS)
            ],
        }

    def close(self) -> None:
        """Close the map."""
        _Watch.leave(self)
        super().close()


class _Watch:
    """Asks the nodes of a session for a disk, for all maps of it, until the session has ended."""

    _all: ClassVar[dict[tuple[Session, int], _Watch]] = {}
    _lock = threading.Lock()

    def __init__(self, session: Session, disk: int) -> None:
        self._session, self._disk = session, disk
        self._maps: list[DiskMap] = []

    @classmethod
    def join(cls, disk_map: DiskMap, session: Session, disk: int) -> None:
        """Show a map what the nodes tell from now on."""
        with cls._lock:
            watch = cls._all.setdefault((session, disk), cls(session, disk))
            watch._maps.append(disk_map)
        watches.add(watch)

    @classmethod
    def leave(cls, disk_map: DiskMap) -> None:
        """Show a map nothing more."""
        with cls._lock:
            left = [each for each in cls._all.values() if disk_map in each._maps]
            for watch in left:
                watch._maps.remove(disk_map)
                if not watch._maps:
                    del cls._all[watch._session, watch._disk]
        for watch in left:
            if not watch._maps:
                watches.remove(watch)

    def refresh(self) -> None:
        """Ask both nodes; called by the pump."""
        over = _has_ended(self._session)
        nodes = _ask(self._session, self._disk)
        for each in list(self._maps):
            each.show(nodes)
        if over:
            with self._lock:
                self._all.pop((self._session, self._disk), None)
            watches.remove(self)


_ROLES: Final = ("primary", "secondary")


def _ask(session: Session, disk: int) -> _Nodes:
    return {role: query_disk(session, role, disk) for role in _ROLES}


def _has_ended(session: Session) -> bool:
    nodes = list(session.nodes.values())
    return bool(nodes) and session.state is None and not any(each.alive() for each in nodes)


def _title(nodes: _Nodes, committed: int) -> str:
    """Say what each image is, and how much the secondary would undo."""
    words = [
        f"{role}'s image: {'none' if disk is None else disk.state.value}"
        for role, disk in nodes.items()
    ]
    words.append(f"{committed:,} checkpoint{'s' * (committed != 1)}")
    secondary = nodes["secondary"]
    if secondary is not None and secondary.follows:
        undo = sum(length for _, length in secondary.hidden)
        words.append(f"a takeover now would undo {undo >> 10:,} KiB")
    return ", ".join(words)
