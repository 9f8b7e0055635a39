"""Link of a node's network: a non-blocking frame socket, which may be missing."""

from __future__ import annotations

import selectors
from collections.abc import Callable

from colobench.errors import ColobenchError
from colobench.node.frame_socket import FrameSocket, LinkDown


class NetworkLink:
    """One link, watched by the selector of the network's thread.

    Its methods are called under the network's lock.

    Parameters
    ----------
    selector
        Selector whose keys' data are functions, to be called when their descriptor is ready.
    on_frames
        Function that is called with frames that have arrived.
    is_full
        Function that returns whether the other end has to wait with further frames.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        on_frames: Callable[[list[bytes]], None],
        is_full: Callable[[], bool],
    ) -> None:
        self._selector, self._on_frames, self._is_full = selector, on_frames, is_full
        self._socket: FrameSocket | None = None

    @property
    def attached(self) -> bool:
        """Whether a link is attached."""
        return self._socket is not None

    def attach(self, link: FrameSocket) -> None:
        """Attach a link; an earlier one ends."""
        self.detach()
        self._socket = link
        self._watch(link, selectors.EVENT_READ)

    def detach(self) -> None:
        """End the link, if one is attached."""
        link, self._socket = self._socket, None
        if link is not None:
            self._watch(link, 0)
            link.close()

    def send(self, frame: bytes, *, always: bool = False) -> None:
        """Append a frame to those that wait, see `FrameSocket.send`; without a link it is lost."""
        if self._socket is not None:
            self._socket.send(frame, always=always)

    def flush(self) -> None:
        """Send as many waiting frames as the link takes, and watch for its next event."""
        link = self._socket
        if link is None:
            return
        try:
            link.flush()
        except LinkDown:
            self.detach()
            return
        events = 0 if self._is_full() else selectors.EVENT_READ
        self._watch(link, events | (selectors.EVENT_WRITE if link.waits_to_send else 0))

    def _ready(self) -> None:
        if self._socket is None:
            return
        try:
            arrived = self._socket.receive()
        except (LinkDown, ColobenchError):
            self.detach()
            return
        self._on_frames(arrived)

    def _watch(self, link: FrameSocket, events: int) -> None:
        """Watch for these events of the link; 0 for none."""
        known = self._selector.get_map().get(link.fileno())
        if known is None:
            if events:
                self._selector.register(link.fileno(), events, self._ready)
        elif not events:
            self._selector.unregister(link.fileno())
        elif known.events != events:
            self._selector.modify(link.fileno(), events, self._ready)
