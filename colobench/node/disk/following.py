"""A disk of the secondary: the primary writes it, and the own guest sees the checkpoint's."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from colobench.block.backend import BlockBackend, BlockData, BlockError
from colobench.block.clusters import CLUSTER_SIZE, ByteRange, ClusterSet
from colobench.block.extents import Extent
from colobench.block.layers import LayerBuffer, LayersFull, MemoryLayerBuffer, SecondaryLayers
from colobench.block.request import BlockRequest, RequestKind
from colobench.node.disk.range_locks import RangeLocks

#: Seconds until a thread that waits for room in a layer looks whether it still has to.
_LOOK_SECONDS = 1.0


class FollowingDisk:
    """A disk of the secondary, with its image and the two layers on it.

    The primary writes the image, by `primary`. Its old contents are kept in the hidden layer first,
    so that the secondary's guest, which reads and writes by `guest`, sees the disk as it was at the
    last checkpoint, with its own writes. All of it may be called by any number of threads at once.
    One lock guards the layers, and is held while nothing of the image is read or written, so that a
    checkpoint never waits for the image. The primary's changes of a cluster are done one after the
    other. A change that is under way when the layers are emptied belongs to the checkpoint: its
    request is in the saved state, and whoever goes on from there does it again.

    Parameters
    ----------
    image
        This side's image.
    limit
        Bytes that the layers may use; a write that exceeds them waits for the next checkpoint.
    on_error
        Function that is called with each error of the image.
    is_prompt
        Function that says whether writes to the image take no time that others would wait for.

    Attributes
    ----------
    image
        As the parameter.
    """

    def __init__(
        self,
        image: BlockBackend,
        limit: int,
        on_error: Callable[[BlockError], None],
        is_prompt: Callable[[], bool] = lambda: True,
    ) -> None:
        self.image, self._limit, self._on_error = image, limit, on_error
        self._is_prompt = is_prompt
        self._changed = threading.Condition()
        self._layers: SecondaryLayers | None = None
        self._clusters = RangeLocks()
        #: Number of changes of the image that are under way.
        self._changing = 0
        #: Monotonic time at which the next may begin.
        self._begin_at = 0.0
        #: Number of times that the layers were emptied.
        self._epoch = 0
        self._closed = False
        #: Backend of the guest that goes on from here.
        self._successor: BlockBackend | None = None
        self.primary = PrimaryView(self)

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self.image.size

    def guest(self) -> BlockBackend:
        """Return the backend for requests that the guest submits until the next checkpoint."""
        return _GuestView(self, self._epoch)

    def start_layers(
        self,
        buffer: LayerBuffer | None = None,
        layers: type[SecondaryLayers] = SecondaryLayers,
    ) -> None:
        """Keep old contents, and the guest's own writes, from now on, in a buffer or in RAM."""
        with self._changed:
            self._layers = layers(self.image, buffer or MemoryLayerBuffer(self._limit))

    def empty_layers(self) -> None:
        """Make the image the checkpoint's: forget old contents, and the guest's own writes."""
        with self._changed:
            assert self._layers is not None
            self._layers.checkpoint()
            self._epoch += 1
            self._changed.notify_all()

    def wait_until(self, when: float) -> None:
        """Let the primary's changes begin no sooner than at a monotonic time; 0 for at once."""
        with self._changed:
            self._begin_at = when
            self._changed.notify_all()

    def stop(self) -> None:
        """Let no write of the primary happen any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def clusters_to_merge(self) -> ClusterSet:
        """Return the clusters that `merge` is about to write."""
        with self._changed:
            return ClusterSet(self.size) if self._layers is None else self._layers.clusters()

    def merge(self, successor: BlockBackend) -> None:
        """Write old contents into the image, then the guest's own writes.

        Requests that the guest has submitted before are then done by `successor`.

        Raises
        ------
        BlockError
            If the image cannot be written: it is of no moment that there was.
        """
        with self._changed:
            while self._changing:
                self._changed.wait(_LOOK_SECONDS)
            if self._layers is not None:
                self._layers.merge()
            self._layers = None
            self._successor = successor
            self._changed.notify_all()

    def in_use(self) -> int:
        """Return the number of bytes that the layers use."""
        with self._changed:
            return 0 if self._layers is None else self._layers.in_use

    def sizes(self) -> tuple[int, int, int]:
        """Return the bytes of the hidden and the active layer, and of the buffer in use."""
        with self._changed:
            if (layers := self._layers) is None:
                return 0, 0, 0
            return layers.hidden_bytes, layers.active_bytes, layers.in_use

    def ranges(self) -> tuple[list[ByteRange], list[ByteRange]]:
        """Return the ranges of the disk that the hidden and the active layer have, in order."""
        with self._changed:
            if (layers := self._layers) is None:
                return [], []
            return layers.hidden_ranges(), layers.active_ranges()

    # Writes of the primary.

    def change(self, offset: int, length: int, action: Callable[[BlockBackend], None]) -> None:
        """Let the primary change a range of the image, so that it can be undone if it is to be."""
        with self._reported(), self._clusters.hold(*_whole_clusters(offset, length)):
            with self._changed:
                while not self._closed and (left := self._begin_at - time.monotonic()) > 0:
                    self._changed.wait(left)
            self._begin_change(offset, length)
            self._end_change(action)

    def write_at_once(self, offset: int, data: BlockData) -> bool:
        """Write as the primary if nothing has to be waited for; else do nothing, return False."""
        if not self._is_prompt() or self._begin_at > time.monotonic():
            return False
        if (claim := self._clusters.claim(*_whole_clusters(offset, len(data)))) is None:
            return False
        try:
            with self._reported():
                if not self._begin_change(offset, len(data), waits=False):
                    return False
                self._end_change(lambda image: image.write(offset, data))
        finally:
            self._clusters.release(claim)
        return True

    def _begin_change(self, offset: int, length: int, *, waits: bool = True) -> bool:
        """Keep the old bytes of a range, whose clusters nobody else changes meanwhile.

        If there is no room, it waits for the next checkpoint, or else returns False.
        """
        while True:
            with self._changed:
                self._check_open()
                layers, epoch = self._layers, self._epoch
                missing = [] if layers is None else layers.missing(offset, length)
                if not missing:
                    self._changing += 1
                    return True
            old = [self.image.read(piece.begin, piece.length) for piece in missing]
            with self._changed:
                self._check_open()
                if layers is not self._layers or epoch != self._epoch:
                    # What is to be kept is another question since the checkpoint.
                    continue
                assert layers is not None
                try:
                    layers.keep(missing, old)
                except LayersFull:
                    if not waits:
                        return False
                    self._changed.wait(_LOOK_SECONDS)
                    continue
                self._changing += 1
                return True

    def _end_change(self, action: Callable[[BlockBackend], None]) -> None:
        try:
            action(self.image)
        finally:
            with self._changed:
                self._changing -= 1
                self._changed.notify_all()

    def flush(self) -> None:
        """Flush the image, while writes go on."""
        with self._reported():
            self.image.flush()

    def _check_open(self) -> None:
        if self._closed:
            raise BlockError(errno.ESHUTDOWN, "disk: expected to follow, found a takeover")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except BlockError as error:
            if error.errno != errno.ESHUTDOWN:
                self._on_error(error)
            raise

    # Requests of the guest.

    def of_guest(self, request: BlockRequest, epoch: int) -> bytes:
        """Do a request of the guest, which it has submitted in an epoch."""
        while True:
            with self._changed:
                if epoch != self._epoch:
                    # The guest's state has been replaced, and the request is forgotten.
                    raise BlockError(errno.EIO, "disk: expected a request since the checkpoint")
                if self._successor is not None:
                    successor = self._successor
                    break
                assert self._layers is not None
                if request.kind is not RequestKind.READ:
                    try:
                        return request.perform(self._layers.guest)
                    except LayersFull:
                        self._changed.wait(_LOOK_SECONDS)
                        continue
                plan = self._layers.plan_read(request.offset, request.length)
            if (data := self._read(plan, epoch)) is not None:
                return data
        return request.perform(successor)

    def _read(self, plan: list[bytes | Extent], epoch: int) -> bytes | None:
        """Read what the guest sees; None if the plan became wrong meanwhile."""
        parts = [
            self.image.read(part.begin, part.length) if isinstance(part, Extent) else part
            for part in plan
        ]
        of_base = [part for part in plan if isinstance(part, Extent)]
        with self._changed:
            layers = self._layers if epoch == self._epoch else None
            if not of_base or (layers is not None and all(map(layers.is_base, of_base))):
                return b"".join(parts)
        return None


def _whole_clusters(offset: int, length: int) -> tuple[int, int]:
    """Return offset and length of the clusters that have a range."""
    begin = offset - offset % CLUSTER_SIZE
    return begin, -(-(offset + length) // CLUSTER_SIZE) * CLUSTER_SIZE - begin


class PrimaryView:
    """Backend of what the primary's client asks for."""

    def __init__(self, disk: FollowingDisk) -> None:
        self._disk = disk

    @property
    def size(self) -> int:
        return self._disk.size

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.image.read(offset, length)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        self._disk.change(offset, len(data), lambda disk: disk.write(offset, data))
        if fua:
            self.flush()

    def write_at_once(self, offset: int, data: BlockData) -> bool:
        return self._disk.write_at_once(offset, data)

    def flush(self) -> None:
        self._disk.flush()

    def discard(self, offset: int, length: int) -> None:
        self._disk.change(offset, length, lambda disk: disk.discard(offset, length))

    def write_zeroes(self, offset: int, length: int) -> None:
        self._disk.change(offset, length, lambda disk: disk.write_zeroes(offset, length))


class _GuestView:
    """Backend of what the secondary's guest asks for in one epoch."""

    def __init__(self, disk: FollowingDisk, epoch: int) -> None:
        self._disk, self._epoch = disk, epoch

    @property
    def size(self) -> int:
        return self._disk.size

    def read(self, offset: int, length: int) -> bytes:
        return self._do(BlockRequest(RequestKind.READ, offset, length))

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        self._do(BlockRequest(RequestKind.WRITE, offset, len(data), bytes(data), fua))

    def flush(self) -> None:
        self._do(BlockRequest(RequestKind.FLUSH))

    def discard(self, offset: int, length: int) -> None:
        self._do(BlockRequest(RequestKind.DISCARD, offset, length))

    def write_zeroes(self, offset: int, length: int) -> None:
        self._do(BlockRequest(RequestKind.WRITE_ZEROES, offset, length))

    def _do(self, request: BlockRequest) -> bytes:
        return self._disk.of_guest(request, self._epoch)
