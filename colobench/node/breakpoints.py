"""Breakpoints in a checkpoint: a node stops at a named point until it is told to go on.

They show a checkpoint message by message, and let a node be killed at a chosen point.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from colobench.errors import LocalError
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.transport import Encoding

#: Points at which a primary can be held, in the order of a checkpoint.
PRIMARY_POINTS = (
    "request",  # CHECKPOINT_REQUEST is sent
    "reply",  # CHECKPOINT_REPLY is here, the guest still runs
    "stop",  # the guest has stopped
    "ram",  # half of the pages are sent; buffered: they are in the buffer, none is sent
    "ram-sent",  # all of the pages are sent; buffered: never
    "buffer",  # half of the sized buffer is sent
    "sent",  # all is sent
    "received",  # VMSTATE_RECEIVED is here
    "loaded",  # VMSTATE_LOADED is here; unless it was copied, the guest still stands
)
#: Where a primary whose checkpoints are copied can be held besides, after ``stop``.
COPY_POINTS = {
    Capture.COPY_THEN_SEND: (
        "copied",  # the checkpoint is copied, the guest still stands
        "resumed",  # the guest runs, nothing of the checkpoint is sent
    ),
    Capture.COPY_ON_WRITE: (
        "frozen",  # the written pages are frozen, the guest still stands
        "resumed",  # the guest runs, no page is copied but those that it wrote since
        "copied",  # all pages are copied, nothing of the checkpoint is sent
    ),
}
#: Points of a primary whose capture has two open epochs, instead of all others.
TWO_EPOCHS_POINTS = (
    "stop",  # the guest has stopped for a cut
    "frozen",  # the written pages are frozen, the guest still stands
    "resumed",  # the guest runs, nothing of the epoch is sent
    "request",  # CHECKPOINT_REQUEST is sent
    "ram",  # half of the pages are sent
    "copied",  # all pages of the epoch are copied
    "ram-sent",  # all of the pages are sent
    "buffer",  # half of the sized buffer is sent
    "sent",  # all of the epoch is sent
    "received",  # VMSTATE_RECEIVED is here, the epoch's output is held
    "released",  # its output is released
    "loaded",  # VMSTATE_LOADED is here
)
#: Those points at which a primary can also be held only if two epochs are open then.
TWO_OPEN_POINTS = {
    f"two-open-{point}": point
    for point in ("frozen", "resumed", "ram", "ram-sent", "sent", "received", "released")
}
#: Where both sides can be held besides if there are passes between checkpoints.
PASS_POINTS = {
    Role.PRIMARY: (
        "pass",  # half of a part of a pass is sent, the guest runs
        "pass-sent",  # all of the part is sent
    ),
    Role.SECONDARY: (
        "pass",  # MIGRATE_RAM_BACKGROUND is here
        "pass-received",  # the part is in the RAM cache, which is not flushed
    ),
}
#: Where a node whose pages are compared can be held besides, after the point that is named.
COMPARISON_POINTS = {
    Role.PRIMARY: (
        "stop",
        (
            "hashes",  # the numbers of the pages are sent, and no hash
            "hashes-sent",  # the hashes are sent
            "compared",  # DIVERGENT_PAGES is here, nothing of the checkpoint is sent
        ),
    ),
    Role.SECONDARY: (
        "reply",
        (
            "hashes",  # PAGE_HASHES is here
            "hashes-received",  # all hashes are here
            "compared",  # DIVERGENT_PAGES is sent
        ),
    ),
}
#: Points at which a secondary can be held, in the order of a checkpoint.
SECONDARY_POINTS = (
    "request",  # CHECKPOINT_REQUEST is here
    "reply",  # CHECKPOINT_REPLY is sent
    "send",  # VMSTATE_SEND is here
    "ram-received",  # all pages are in the RAM cache; buffered: never
    "size",  # VMSTATE_SIZE is here
    "buffer-received",  # the buffer is here and checked, nothing is committed
    "received",  # VMSTATE_RECEIVED is sent: committed
    "flush",  # the RAM cache is flushed, no device is loaded
    "load",  # the devices are loaded, VMSTATE_LOADED is not sent
)


#: Points that exist only in the layout in which RAM travels outside of the buffer.
_SEPARATED_ONLY = ("ram-sent", "ram-received")


def points_of(
    role: Role, layout: Layout, capture: Capture, encoding: Encoding = Encoding.NONE
) -> tuple[str, ...]:
    """Return the points that a node's checkpoints pass, in order."""
    points: tuple[str, ...] = PRIMARY_POINTS if role is Role.PRIMARY else SECONDARY_POINTS
    if capture is Capture.TWO_EPOCHS:
        if role is Role.PRIMARY:
            return (*TWO_EPOCHS_POINTS, *TWO_OPEN_POINTS)
        return tuple(point for point in points if point != "reply")
    if role is Role.PRIMARY and capture in COPY_POINTS:
        after = points.index("stop") + 1
        points = (*points[:after], *COPY_POINTS[capture], *points[after:])
    if capture is Capture.GAP_PRECOPY:
        points = (*PASS_POINTS[role], *points)
    if encoding is Encoding.DIVERGENT:
        before, compared = COMPARISON_POINTS[role]
        after = points.index(before) + 1
        points = (*points[:after], *compared, *points[after:])
    if layout is Layout.SEPARATED:
        return points
    return tuple(point for point in points if point not in _SEPARATED_ONLY)


def is_between_checkpoints(point: str) -> bool:
    """Say whether a point is one of a pass, which no checkpoint has to be asked for."""
    return any(point in points for points in PASS_POINTS.values())


def check_point(
    role: Role, layout: Layout, capture: Capture, encoding: Encoding, point: str
) -> None:
    """Refuse a point that a node's checkpoints never pass.

    Raises
    ------
    LocalError
        If it is one; the message lists the points that they pass.
    """
    points = points_of(role, layout, capture, encoding)
    if point not in points:
        raise LocalError(
            f"point of the {role.value}, layout {layout.value}, capture {capture.value}, encoding "
            f"{encoding.value}: expected one of {', '.join(points)}; found {point!r}"
        )


class Breakpoints:
    """Breakpoints of one node; at most one is set.

    Parameters
    ----------
    role, layout, capture, encoding
        Role of the node, and layout, capture and encoding of its checkpoints.
    on_held
        Function that is called with the point, in the thread that is held.

    Attributes
    ----------
    held
        The point at which the node is held; None while it is not.
    """

    def __init__(
        self,
        role: Role,
        layout: Layout,
        capture: Capture,
        encoding: Encoding,
        on_held: Callable[[str], None],
    ) -> None:
        self._form = (role, layout, capture, encoding)
        self._points = frozenset(points_of(*self._form))
        self._on_held = on_held
        self._at: str | None = None
        #: Whether the node is held at whichever point it reaches next.
        self._every = False
        self.held: str | None = None
        self._go_on = threading.Event()
        self._lock = threading.Lock()

    def set(self, point: str) -> None:
        """Hold the node when it reaches `point` next.

        Raises
        ------
        LocalError
            If checkpoints never pass it.
        """
        check_point(*self._form, point)
        self._at = point

    def go_on(self) -> None:
        """Remove the breakpoint, and let a held node go on."""
        with self._lock:
            self._at = self.held = None
            self._every = False
            self._go_on.set()

    def step(self) -> None:
        """Hold the node at whichever point it reaches next, and let a held node go on."""
        with self._lock:
            self._at = self.held = None
            self._every = True
            self._go_on.set()

    def is_set(self, point: str) -> bool:
        """Return whether the node will be held at `point`."""
        return self._at == point or (self._every and point in self._points)

    def reach(self, point: str) -> None:
        """Pass `point`: hold there if its breakpoint is set."""
        if not self.is_set(point):
            return
        with self._lock:
            if not self.is_set(point):
                return
            self._at, self._every = None, False
            self._go_on.clear()
            self.held = point
        self._on_held(point)
        self._go_on.wait()
