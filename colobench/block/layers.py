"""The secondary's disk in three layers, so that the primary's writes can be undone.

From the bottom upwards, as in QEMU's block replication (docs/block-replication.txt, Zhang and Wen,
2016)::

    base    the image file: all that the primary has written until now
    hidden  for each cluster that the primary has written since the checkpoint: its bytes at the
            checkpoint. They are copied before the first write, and a later write changes nothing.
    active  the sectors that the secondary's own guest has written since the checkpoint

The secondary's guest reads the active layer, else the hidden one, else the base. A checkpoint
empties both layers: its disk is what the primary has written. A failover of the secondary merges
the hidden layer into the base, which undoes the primary's writes, and then the active one.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from colobench.block.backend import BlockBackend, BlockData, BlockError
from colobench.block.clusters import CLUSTER_SIZE, ByteRange, ClusterSet
from colobench.block.extents import ABSENT, ZEROES, Extent, ExtentMap

#: Bytes that count for each extent beside its data: its numbers, and the lists that have them.
EXTENT_COST: Final = 160
#: Bytes that a merge moves at once.
_MERGE_LENGTH: Final = 1 << 20


class LayersFull(BlockError):
    """A write for which the layers have no room until the next checkpoint; it changed nothing."""


class LayerBuffer(Protocol):
    """Memory or a file that has the bytes of both layers, from place 0 on."""

    @property
    def limit(self) -> int:
        """Its size in bytes."""

    def write(self, place: int, data: BlockData) -> None:
        """Write bytes; raises `BlockError` if that failed."""

    def read(self, place: int, length: int) -> bytes:
        """Return bytes; raises `BlockError` if that failed."""

    def keep(self, offset: int, length: int, place: int) -> None:
        """Take note, before the base is changed, of old bytes of it that are at a place."""

    def empty(self) -> None:
        """Take note of a checkpoint: the layers are empty, whenever this process ends."""


class MemoryLayerBuffer:
    """Buffer in RAM, which the kernel provides when it is first written.

    Parameters
    ----------
    limit
        Its size in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._bytes = np.zeros(limit, np.uint8).data

    def write(self, place: int, data: BlockData) -> None:
        """Write bytes."""
        self._bytes[place : place + len(data)] = data

    def read(self, place: int, length: int) -> bytes:
        """Return bytes."""
        return bytes(self._bytes[place : place + length])

    def keep(self, offset: int, length: int, place: int) -> None:
        """Do nothing: the buffer is lost with the process."""

    def empty(self) -> None:
        """Do nothing."""


class _Since:
    """What both layers have since the checkpoint."""

    def __init__(self) -> None:
        self.hidden, self.active = ExtentMap(), ExtentMap()
        #: Bytes of the buffer that are used, from place 0 on, and those of the active layer.
        self.used = self.active_used = 0


class SecondaryLayers:
    """A secondary's disk. It has no lock: its owner lets one thread in at a time.

    Parameters
    ----------
    base
        The image: equal to the primary's disk at this moment.
    buffer
        Where the bytes of the hidden and the active layer are.

    Attributes
    ----------
    forwarded
        The disk as the primary writes it, for a server of NBD.
    guest
        The disk as the secondary's guest sees it.
    checkpoints
        Number of checkpoints, at each of which the layers were emptied.
    """

    def __init__(self, base: BlockBackend, buffer: LayerBuffer) -> None:
        self._base, self._buffer = base, buffer
        self._since = _Since()
        self.checkpoints = 0
        self.forwarded: BlockBackend = ForwardedDisk(self, base)
        self.guest: BlockBackend = SecondaryGuestDisk(self, base)

    @property
    def in_use(self) -> int:
        """Bytes that both layers use, with those of their extents."""
        return self._with_extents(self._since.used, 0)

    @property
    def limit(self) -> int:
        """Most bytes that both layers may use."""
        return self._buffer.limit

    @property
    def hidden_bytes(self) -> int:
        """Bytes of the clusters that the primary has written since the checkpoint."""
        return self._since.hidden.byte_count

    @property
    def active_bytes(self) -> int:
        """Bytes of the sectors that the secondary's guest has written since the checkpoint."""
        return self._since.active.byte_count

    def hidden_ranges(self) -> list[ByteRange]:
        """Return the ranges that the hidden layer has, in order."""
        return [ByteRange(each.begin, each.length) for each in self._since.hidden]

    def active_ranges(self) -> list[ByteRange]:
        """Return the ranges that the active layer has, in order."""
        return [ByteRange(each.begin, each.length) for each in self._since.active]

    def clusters(self) -> ClusterSet:
        """Return the clusters that a merge would write."""
        clusters = ClusterSet(self._base.size)
        for layer in (self._since.hidden, self._since.active):
            for extent in layer:
                clusters.touch(extent.begin, extent.length)
        return clusters

    def checkpoint(self) -> None:
        """Empty both layers, by one assignment: what the primary has written is the disk now.

        It belongs to the action that commits the checkpoint, before VMSTATE_RECEIVED is said.

        Raises
        ------
        BlockError
            If a buffer in a file failed. The layers are as before, and nothing may be committed.
        """
        self._buffer.empty()
        self._since = _Since()
        self.checkpoints += 1

    def merge(self) -> None:
        """Write the hidden layer and then the active one into the base, and flush it.

        No write may be forwarded any more. The layers are empty afterwards, but not a buffer in a
        file: until the takeover is noted, for all disks, the merge can be undone from it.

        Raises
        ------
        BlockError
            If the base or the buffer failed. The layers are as before, and the merge may be
            repeated; until it succeeds, the base alone is no disk of any moment.
        """
        for layer in (self._since.hidden, self._since.active):
            for begin, end, place in layer:
                if place == ZEROES:
                    self._base.write_zeroes(begin, end - begin)
                    continue
                for offset in range(begin, end, _MERGE_LENGTH):
                    length = min(_MERGE_LENGTH, end - offset)
                    self._base.write(offset, self._buffer.read(place + offset - begin, length))
        self._base.flush()
        self._since = _Since()

    def missing(self, offset: int, length: int) -> list[Extent]:
        """Return the extents of a range's clusters whose bytes the hidden layer has yet to keep."""
        begin = offset - offset % CLUSTER_SIZE
        end = min(-(-(offset + length) // CLUSTER_SIZE) * CLUSTER_SIZE, self._base.size)
        return [piece for piece in self._since.hidden.pieces(begin, end) if piece.place == ABSENT]

    def keep(self, missing: Sequence[Extent], old: Sequence[bytes]) -> None:
        """Keep extents in the hidden layer, with the bytes that the base has there.

        Raises
        ------
        LayersFull
            If they do not fit.
        BlockError
            If the buffer failed.
        """
        self._check_room(sum(piece.length for piece in missing), len(missing))
        for piece, data in zip(missing, old, strict=True):
            place = self._store(data)
            self._buffer.keep(piece.begin, piece.length, place)
            self._since.hidden.put(piece.begin, piece.end, place)

    def keep_old(self, offset: int, length: int) -> None:
        """Copy the clusters of a range into the hidden layer, but for those that it has.

        Raises
        ------
        LayersFull
            If they do not fit.
        BlockError
            If the base or the buffer failed. The base has not been changed.
        """
        missing = self.missing(offset, length)
        self.keep(missing, [self._base.read(piece.begin, piece.length) for piece in missing])

    def plan_read(self, offset: int, length: int) -> list[bytes | Extent]:
        """Return the parts of what the secondary's guest reads; an extent is the base's.

        If the base's parts are read later, the plan may have changed: `is_base` tells.
        """
        parts: list[bytes | Extent] = []
        for piece in self._since.active.pieces(offset, offset + length):
            if piece.place != ABSENT:
                parts.append(self._read_place(piece.place, piece.length))
                continue
            parts += (
                under if under.place == ABSENT else self._read_place(under.place, under.length)
                for under in self._since.hidden.pieces(piece.begin, piece.end)
            )
        return parts

    def is_base(self, extent: Extent) -> bool:
        """Say whether no layer has a part of an extent, so that the base is the checkpoint's."""
        return all(
            piece.place == ABSENT
            for layer in (self._since.hidden, self._since.active)
            for piece in layer.pieces(extent.begin, extent.end)
        )

    def read_active(self, offset: int, length: int) -> bytes:
        """Read as the secondary's guest does."""
        return b"".join(
            self._base.read(part.begin, part.length) if isinstance(part, Extent) else part
            for part in self.plan_read(offset, length)
        )

    def write_active(self, offset: int, data: BlockData) -> None:
        """Write sectors into the active layer.

        Raises
        ------
        LayersFull
            If they do not fit.
        BlockError
            If the buffer failed.
        """
        active = self._since.active
        pieces = active.pieces(offset, offset + len(data))
        new = [piece for piece in pieces if piece.place < 0]
        self._check_guests_room(sum(piece.length for piece in new), len(new))
        view = memoryview(data)
        for piece in pieces:
            part = view[piece.begin - offset : piece.end - offset]
            if piece.place >= 0:
                self._buffer.write(piece.place, part)
            else:
                active.put(piece.begin, piece.end, self._store(part))
                self._since.active_used += piece.length

    def zero_active(self, offset: int, length: int) -> None:
        """Let sectors of the active layer be zeros; errors are those of `write_active`."""
        active = self._since.active
        pieces = active.pieces(offset, offset + length)
        self._check_guests_room(0, sum(piece.place == ABSENT for piece in pieces))
        for piece in pieces:
            if piece.place >= 0:
                # In place, so that a sector that is written again needs no further room.
                self._buffer.write(piece.place, bytes(piece.length))
            elif piece.place == ABSENT:
                active.put(piece.begin, piece.end, ZEROES)

    def _read_place(self, place: int, length: int) -> bytes:
        return bytes(length) if place == ZEROES else self._buffer.read(place, length)

    def _store(self, data: BlockData) -> int:
        """Append bytes to the buffer; returns their place."""
        place = self._since.used
        self._buffer.write(place, data)
        self._since.used = place + len(data)
        return place

    def _with_extents(self, used: int, extents: int) -> int:
        since = self._since
        return used + EXTENT_COST * (len(since.hidden) + len(since.active) + extents)

    def _check_guests_room(self, length: int, extents: int) -> None:
        """Check room for the guest's writes, which leave half of the buffer to the primary's.

        The primary asks for a checkpoint when its own have used up their half. It knows nothing of
        the guest's here, and would wait for room that no checkpoint makes.
        """
        self._check_room(length, extents)
        active, half = self._since.active, self.limit // 2
        needed = self._since.active_used + length + EXTENT_COST * (len(active) + extents)
        if (length or extents) and needed > half:
            raise LayersFull(
                errno.ENOSPC,
                f"layers of the secondary's disk: expected at most {half} bytes of its own guest "
                f"between two checkpoints, found {needed}",
            )

    def _check_room(self, length: int, extents: int) -> None:
        needed = self._with_extents(self._since.used + length, extents)
        # Only what is new counts: a write into sectors that the layers have always fits.
        if (length or extents) and needed > self.limit:
            raise LayersFull(
                errno.ENOSPC,
                f"layers of the secondary's disk: expected at most {self.limit} bytes between two "
                f"checkpoints, found {needed}",
            )


class ForwardedDisk:
    """The disk as the primary writes it: each write goes to the base at once, and can be undone."""

    def __init__(self, layers: SecondaryLayers, base: BlockBackend) -> None:
        self._layers, self._base = layers, base

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self._base.size

    def read(self, offset: int, length: int) -> bytes:
        """Read what the primary has written until now."""
        return self._base.read(offset, length)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write; raises `LayersFull` if the old bytes cannot be kept."""
        self._layers.keep_old(offset, len(data))
        self._base.write(offset, data, fua)

    def flush(self) -> None:
        """Flush the base. The layers are lost with this process, so they need none."""
        self._base.flush()

    def discard(self, offset: int, length: int) -> None:
        """Discard; raises `LayersFull` if the old bytes cannot be kept."""
        self._layers.keep_old(offset, length)
        self._base.discard(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros; raises `LayersFull` if the old bytes cannot be kept."""
        self._layers.keep_old(offset, length)
        self._base.write_zeroes(offset, length)


class SecondaryGuestDisk:
    """The disk of the secondary's guest: that of the checkpoint, with its own writes over it."""

    def __init__(self, layers: SecondaryLayers, base: BlockBackend) -> None:
        self._layers, self._base = layers, base

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self._base.size

    def read(self, offset: int, length: int) -> bytes:
        """Read the active layer, else the hidden one, else the base."""
        return self._layers.read_active(offset, length)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write; raises `LayersFull` if there is no room until the next checkpoint."""
        self._layers.write_active(offset, data)

    def flush(self) -> None:
        """Do nothing: these writes last until the next checkpoint, or a failover's merge."""

    def discard(self, offset: int, length: int) -> None:
        """Discard: the range reads as zeros."""
        self._layers.zero_active(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros."""
        self._layers.zero_active(offset, length)
