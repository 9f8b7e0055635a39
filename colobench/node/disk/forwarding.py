"""A disk of the primary's guest: what it writes goes to its image and to the secondary's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Protocol, TypeAlias, runtime_checkable

from colobench.block.backend import BlockBackend, BlockData, BlockError
from colobench.block.clusters import ClusterSet, clusters_of
from colobench.block.request import BlockRequest, RequestKind
from colobench.errors import ColobenchError
from colobench.node.disk.forward_gate import Cluster, ForwardedWrite, ForwardGate, Passage
from colobench.node.disk.nbd_client import OnDone
from colobench.node.disk.range_locks import RangeLocks

#: Bytes that are copied at a time; the guest's writes to them wait meanwhile.
COPY_SIZE: Final = 1 << 20
_NOTHING: Final = memoryview(b"")
#: Function that hears of a write's end: with its error, or None.
OnWritten: TypeAlias = Callable[[BlockError | None], None]
#: Function that has another one called in a thread that may wait.
Later: TypeAlias = Callable[[Callable[[], None]], object]


@runtime_checkable
class SubmittingBackend(Protocol):
    """A backend that takes a request, and tells later that it is done: an `NBDClient`."""

    def submit(
        self, request: BlockRequest, on_done: OnDone, into: memoryview | None = None
    ) -> None:
        """Begin a request."""


class ForwardingBackend:
    """Backend of a guest's disk, by which the secondary's disk follows.

    A change is done when both sides have answered; reads are local. Any number of threads may call
    it at once. Changes that overlap are done one after the other, so that both sides have the same
    order.

    Parameters
    ----------
    disk
        Number of the disk.
    image
        This side's image.
    gate
        Gate of all disks.
    on_replicated
        Function that is called with the bytes of each write that both sides have done.
    is_prompt
        Function that says whether writes to the image take no time that others would wait for.

    Attributes
    ----------
    image
        As the parameter.
    to_copy, copied
        Bytes that had to be copied to the present secondary, and those that have been.
    """

    def __init__(
        self,
        disk: int,
        image: BlockBackend,
        gate: ForwardGate,
        on_replicated: Callable[[int], None] = lambda length: None,
        is_prompt: Callable[[], bool] = lambda: True,
    ) -> None:
        self.image, self._disk, self._gate = image, disk, gate
        self._on_replicated, self._is_prompt = on_replicated, is_prompt
        self._remote: BlockBackend | None = None
        #: The same, if it need not be waited for.
        self._submitting: SubmittingBackend | None = None
        self._locks = RangeLocks()
        self.to_copy = self.copied = 0

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self.image.size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes of the image."""
        return self.image.read(offset, length)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write bytes on both sides; with `fua`, they are then on stable storage there."""
        self._change(
            offset,
            len(data),
            lambda backend: backend.write(offset, data, fua),
        )
        if self._gate.forwarding:
            self._on_replicated(len(data))

    def begin_write(
        self, offset: int, data: BlockData, on_written: OnWritten, later: Later
    ) -> bool:
        """Write bytes on both sides without a thread that waits for the other one.

        Parameters
        ----------
        offset, data
            What to write.
        on_written
            Function that is called once it is done: in this call, in the thread that receives the
            secondary's answers, or in one of `later`.
        later
            Function for what has to wait after all.

        Returns
        -------
        bool
            Whether it has begun. If it would have to wait, nothing was done: `write` is to be used.
        """
        waits = self._remote is not None and self._submitting is None
        if waits or not self._is_prompt():
            return False
        if (claim := self._locks.claim(offset, len(data))) is None:
            return False
        clusters = clusters_of(offset, len(data))
        write = self._gate.begin_at_once(Cluster(self._disk, each) for each in clusters)

        def end(error: BlockError | None = None) -> None:
            if write is not None:
                self._gate.end(write)
            self._locks.release(claim)
            if error is None and self._gate.forwarding:
                self._on_replicated(len(data))
            on_written(error)

        if write is None:
            self._locks.release(claim)
            return False
        try:
            self.image.write(offset, data)
        except BlockError as error:
            end(error)
            return True
        self._forward_write(
            write, BlockRequest(RequestKind.WRITE, offset, len(data), data), end, later
        )
        return True

    def flush(self) -> None:
        """Flush both sides."""
        self._change(0, 0, lambda backend: backend.flush())

    def discard(self, offset: int, length: int) -> None:
        """Give space back on both sides."""
        self._change(offset, length, lambda backend: backend.discard(offset, length))

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros on both sides."""
        self._change(offset, length, lambda backend: backend.write_zeroes(offset, length))

    def connect(self, remote: BlockBackend) -> None:
        """Set the secondary's disk, to which writes go while the gate is open."""
        self._remote = remote
        self._submitting = remote if isinstance(remote, SubmittingBackend) else None

    def copy(self, differing: ClusterSet, goes_on: Callable[[], None]) -> None:
        """Copy clusters to the secondary's image, while the guest writes to both.

        Each is copied once: what the guest writes is forwarded from the beginning.

        Parameters
        ----------
        differing
            Clusters that may differ.
        goes_on
            Function that is called between two ranges, and raises if the copy is to end.

        Raises
        ------
        BlockError
            If an image cannot be read, or the secondary's cannot be written.
        """
        assert self._remote is not None
        self.to_copy, self.copied = differing.byte_count, 0
        begin = 0
        while run := differing.next_run(begin, COPY_SIZE):
            goes_on()
            with self._locks.hold(*run):
                data = self.image.read(*run)
                if data != bytes(run.length):
                    self._remote.write(run.offset, data)
                else:
                    # Its image stays as sparse as this side's.
                    self._remote.discard(*run)
            self.copied += run.length
            begin = run.offset + run.length
        # What was on stable storage here is so there, before the copy counts as equal.
        self._remote.flush()

    def settled(self) -> AbstractContextManager[None]:
        """Return a context in which no change is under way, on either side."""
        return self._locks.hold(0, self.size)

    def _change(self, offset: int, length: int, action: Callable[[BlockBackend], None]) -> None:
        clusters = clusters_of(offset, length)
        with self._locks.hold(offset, length):
            write = self._gate.begin(Cluster(self._disk, each) for each in clusters)
            try:
                # If this fails, the guest is told, and the secondary's disk stays as it is.
                action(self.image)
                self._gate.forward(write, lambda: self._forward(action))
            finally:
                self._gate.end(write)

    def _forward_write(
        self, write: ForwardedWrite, request: BlockRequest, end: OnWritten, later: Later
    ) -> None:
        """Forward a write that this side has done."""
        passage, left = self._gate.passage(write)
        if passage is Passage.ALONE:
            end(None)
            return

        def wait(step: Callable[[], None]) -> None:
            try:
                step()
            except BlockError as error:
                end(error)
            else:
                end(None)

        def heard(_: memoryview, error: Exception | None) -> None:
            if error is None:
                end(None)
            else:
                later(lambda: wait(lambda: self._gate.lost(error, left)))

        remote = self._submitting
        if passage is not Passage.PASSES or remote is None:
            again = request.offset, request.data
            action = partial(self._forward, lambda backend: backend.write(*again))
            later(lambda: wait(lambda: self._gate.forward(write, action)))
            return
        try:
            remote.submit(request, heard)
        except (ColobenchError, OSError) as error:
            heard(_NOTHING, error)

    def _forward(self, action: Callable[[BlockBackend], None]) -> None:
        assert self._remote is not None
        action(self._remote)
