"""A node's filter-rewriter, from its time as a secondary on.

Only a node that is or was a secondary with a running guest has a filter-rewriter. The node also
knows the primary's offsets, which it needs when it takes over.
"""

from __future__ import annotations

from collections.abc import Sequence

from colobench.net.rewriter import FilterRewriter, Rewritten


class Rewriting:
    """Rewriter of the sequence numbers in a guest's frames; it does nothing before `follow`."""

    def __init__(self) -> None:
        self._own: FilterRewriter | None = None
        self._primarys: list[Rewritten] = []

    def follow(self) -> None:
        """Begin to rewrite: the node is a secondary whose guest runs beside the primary's."""
        self._own = FilterRewriter()

    def to_guest(self, frame: bytes) -> Sequence[bytes]:
        """Take in a frame for the guest; return the frames that the guest is to receive now."""
        return (frame,) if self._own is None else self._own.to_guest(frame)

    def from_guest(self, frame: bytes) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """Take in a frame of the guest; return the frames to send, and those for the guest."""
        return ((frame,), ()) if self._own is None else self._own.from_guest(frame)

    def checkpoint(self) -> None:
        """Forget the secondary's own offsets: its guest has the primary's state now."""
        if self._own is not None:
            self._own.checkpoint()

    def failover(self) -> None:
        """Serve clients alone, with the primary's offsets where this node has none of its own."""
        if self._own is None:
            return
        self._own.failover()
        ours = {each.connection: each for each in self._own.state()}
        theirs = {each.connection: each for each in self._primarys}
        self._own.load((theirs | ours).values())

    def state(self) -> list[Rewritten]:
        """Return the connections, with the offsets by which their frames are rewritten."""
        return [] if self._own is None else self._own.state()

    def primarys(self) -> list[Rewritten]:
        """Return the primary's offsets, last set by `take_primarys`."""
        return self._primarys

    def take_primarys(self, rewrites: list[Rewritten]) -> None:
        """Set the primary's offsets, which came with a checkpoint."""
        self._primarys = rewrites
