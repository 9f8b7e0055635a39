"""The rewriter of a node, through the sides that the node is on.

Only a node that is, or was, a secondary whose guest runs has a filter-rewriter of its own. It also
knows what the primary's does, for the case that it takes over.
"""

from __future__ import annotations

from collections.abc import Sequence

from colobench.net.rewriter import FilterRewriter, Rewritten


class Rewriting:
    """Rewrites the sequence numbers in a guest's frames, once it has to."""

    def __init__(self) -> None:
        self._own: FilterRewriter | None = None
        self._primarys: list[Rewritten] = []

    def follow(self) -> None:
        """Be a secondary's, whose guest runs beside the primary's."""
        self._own = FilterRewriter()

    def to_guest(self, frame: bytes) -> Sequence[bytes]:
        """Take a frame for the guest; give the frames that the guest is to see now."""
        return (frame,) if self._own is None else self._own.to_guest(frame)

    def from_guest(self, frame: bytes) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """Take a frame of the guest; give the frames that go out, and those for the guest."""
        return ((frame,), ()) if self._own is None else self._own.from_guest(frame)

    def checkpoint(self) -> None:
        """Forget the secondary's own offsets: its guest is the primary's now."""
        if self._own is not None:
            self._own.checkpoint()

    def failover(self) -> None:
        """Be a survivor's: the primary's offsets count where this node has none of its own."""
        if self._own is None:
            return
        self._own.failover()
        ours = {each.connection: each for each in self._own.state()}
        theirs = {each.connection: each for each in self._primarys}
        self._own.load((theirs | ours).values())

    def state(self) -> list[Rewritten]:
        """Give the offsets that this node's frames are rewritten by."""
        return [] if self._own is None else self._own.state()

    def primarys(self) -> list[Rewritten]:
        """Give the primary's offsets, as `take_primarys` was given them."""
        return self._primarys

    def take_primarys(self, rewrites: list[Rewritten]) -> None:
        """Take the primary's offsets, which came with a checkpoint."""
        self._primarys = rewrites
