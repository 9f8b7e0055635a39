"""Planted bugs of the guest's disks, see ``docs/bug-museum.md``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from colobench.block.backend import BlockBackend, BlockData
from colobench.block.clusters import CLUSTER_SIZE
from colobench.block.extents import ABSENT, Extent
from colobench.block.layers import SecondaryLayers
from colobench.node.disk.following import FollowingDisk, PrimaryView
from colobench.node.disk.forwarding import ForwardingBackend, Later, OnWritten
from colobench.node.disk.volatile_cache import VolatileCache
from colobench.settings.bug import Bug

#: Seconds from the answer to the guest until the write is forwarded.
_LATE_SECONDS: Final = 0.02


class EarlyAnswers(ForwardingBackend):
    """Backend whose changes are done when the own image has them (`Bug.EARLY_ANSWER`)."""

    def begin_write(
        self, offset: int, data: BlockData, on_written: OnWritten, later: Later
    ) -> bool:
        """Begin none, so that all changes are below."""
        return False

    def _change(self, offset: int, length: int, action: Callable[[BlockBackend], None]) -> None:
        told: Future[None] = Future()

        def on_side(side: BlockBackend) -> None:
            if side is not self.image:
                time.sleep(_LATE_SECONDS)
            action(side)
            if side is self.image:
                told.set_result(None)

        def on_both() -> None:
            try:
                super(EarlyAnswers, self)._change(offset, length, on_side)
            except BaseException as error:
                if not told.done():
                    told.set_exception(error)

        threading.Thread(target=on_both, name="early answer", daemon=True).start()
        told.result()


class OverwrittenHidden(SecondaryLayers):
    """Layers of which the hidden one is written again by each write (`OVERWRITTEN_HIDDEN`)."""

    def missing(self, offset: int, length: int) -> list[Extent]:
        """Return all extents of a range's clusters, also those that are kept already."""
        begin = offset - offset % CLUSTER_SIZE
        end = min(-(-(offset + length) // CLUSTER_SIZE) * CLUSTER_SIZE, self._base.size)
        return self._since.hidden.pieces(begin, end)

    def keep(self, missing: Sequence[Extent], old: Sequence[bytes]) -> None:
        """Keep what is in the base now."""
        pairs = list(zip(missing, old, strict=True))
        new = [pair for pair in pairs if pair[0].place == ABSENT]
        super().keep([piece for piece, _ in new], [data for _, data in new])
        for piece, data in pairs:
            if piece.place != ABSENT:
                self._buffer.write(piece.place, data)


class ForgottenDiscards(FollowingDisk):
    """A secondary's disk that the primary discards without a trace (`Bug.FORGOTTEN_DISCARD`)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.primary = _ForgetfulView(self)


class _ForgetfulView(PrimaryView):
    def discard(self, offset: int, length: int) -> None:
        self._disk.image.discard(offset, length)


class SwappedMerge(SecondaryLayers):
    """Layers that are merged in the wrong order (`Bug.SWAPPED_MERGE`)."""

    def merge(self) -> None:
        """Write the active layer, and then the hidden one."""
        since = self._since
        since.hidden, since.active = since.active, since.hidden
        super().merge()


class EmptyFlush(VolatileCache):
    """A cache whose flush says that all is written back, and writes nothing (`EMPTY_FLUSH`)."""

    def flush(self) -> None:
        """Do nothing."""


def cache_class(bug: Bug | None) -> type[VolatileCache]:
    """Return the class of a volatile cache."""
    return EmptyFlush if bug is Bug.EMPTY_FLUSH else VolatileCache


def forwarding_class(bug: Bug | None) -> type[ForwardingBackend]:
    """Return the class of the primary's disks."""
    return EarlyAnswers if bug is Bug.EARLY_ANSWER else ForwardingBackend


def following_class(bug: Bug | None) -> type[FollowingDisk]:
    """Return the class of the secondary's disks."""
    return ForgottenDiscards if bug is Bug.FORGOTTEN_DISCARD else FollowingDisk


def layers_class(bug: Bug | None) -> type[SecondaryLayers]:
    """Return the class of the secondary's layers."""
    if bug is Bug.OVERWRITTEN_HIDDEN:
        return OverwrittenHidden
    return SwappedMerge if bug is Bug.SWAPPED_MERGE else SecondaryLayers
