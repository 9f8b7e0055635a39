"""Breakpoints in a checkpoint: a node stops at a named point until it is told to go on.

They show a checkpoint message by message, and let a node be killed at a chosen point.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from colobench.errors import LocalError
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout

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
COPY_POINTS = (
    "copied",  # the checkpoint is copied, the guest still stands
    "resumed",  # the guest runs, nothing of the checkpoint is sent
)
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


def points_of(role: Role, layout: Layout, capture: Capture) -> tuple[str, ...]:
    """Return the points that a node's checkpoints pass, in order."""
    points: tuple[str, ...] = PRIMARY_POINTS if role is Role.PRIMARY else SECONDARY_POINTS
    if role is Role.PRIMARY and capture is Capture.COPY_THEN_SEND:
        after = points.index("stop") + 1
        points = (*points[:after], *COPY_POINTS, *points[after:])
    if layout is Layout.SEPARATED:
        return points
    return tuple(point for point in points if point not in _SEPARATED_ONLY)


def check_point(role: Role, layout: Layout, capture: Capture, point: str) -> None:
    """Refuse a point that a node's checkpoints never pass.

    Raises
    ------
    LocalError
        If it is one; the message lists the points that they pass.
    """
    points = points_of(role, layout, capture)
    if point not in points:
        raise LocalError(
            f"point of the {role.value}, layout {layout.value}, capture {capture.value}: expected "
            f"one of {', '.join(points)}; found {point!r}"
        )


class Breakpoints:
    """Breakpoints of one node; at most one is set.

    Parameters
    ----------
    role, layout, capture
        Role of the node, and layout and capture of its checkpoints.
    on_held
        Function that is called with the point, in the thread that is held.
    """

    def __init__(
        self, role: Role, layout: Layout, capture: Capture, on_held: Callable[[str], None]
    ) -> None:
        self._form = (role, layout, capture)
        self._on_held = on_held
        self._at: str | None = None
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
            self._at = None
            self._go_on.set()

    def is_set(self, point: str) -> bool:
        """Return whether the node will be held at `point`."""
        return self._at == point

    def reach(self, point: str) -> None:
        """Pass `point`: hold there if its breakpoint is set."""
        if self._at != point:
            return
        with self._lock:
            if self._at != point:
                return
            self._at = None
            self._go_on.clear()
        self._on_held(point)
        self._go_on.wait()
