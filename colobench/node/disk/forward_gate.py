"""Gate between a primary's disks and the secondary's: which writes pass, and when."""

from __future__ import annotations

import enum
import errno
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from colobench.block.backend import BlockError
from colobench.errors import ColobenchError, LocalError

#: Seconds until a thread that waits at the gate looks whether it still has to.
_LOOK_SECONDS = 1.0


class Cluster(NamedTuple):
    """A cluster of one of the guest's disks, by its number."""

    disk: int
    number: int


class ForwardedWrite:
    """A change to the disk that has begun, and is done when both sides have done it.

    Attributes
    ----------
    clusters
        Clusters that it changes; none of a flush.
    held_by
        Number of the seal after which it was submitted, whose checkpoint it waits for; or None.
    """

    __slots__ = ("clusters", "held_by")

    def __init__(self, clusters: frozenset[Cluster], held_by: int | None) -> None:
        self.clusters, self.held_by = clusters, held_by


class Passage(enum.Enum):
    """What a write that was done on this side's disk is to do."""

    #: It is done: there is no secondary.
    ALONE = enum.auto()
    #: Go to the secondary's disk.
    PASSES = enum.auto()
    #: Wait until the guest runs, or until its checkpoint is committed.
    WAITS = enum.auto()
    #: Wait until it is known who the guest is: an earlier one has failed.
    FAILED = enum.auto()


class ForwardGate:
    """Gate that all writes of a guest's disks pass on their way to the secondary.

    It counts the clusters that were changed since the last checkpoint, which the secondary keeps
    in memory. At half of the limit a checkpoint is asked for; at the limit writes wait for it.

    Parameters
    ----------
    limit
        Number of clusters that may be changed from one checkpoint to the next.

    Attributes
    ----------
    forwarding
        Whether there is a secondary.
    on_error
        Function that is called with the error of a failed write, in the thread of that write.
    request_checkpoint
        Function that requests a checkpoint, from any thread and without waiting.
    on_wait
        Function that is called with the seconds that a write has waited because of the limit.
    on_sleep
        Function that is called with 1 when a write begins to wait, and with -1 when it goes on.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        #: Condition of those that wait for the end of writes. Each end would else wake all writes
        #: that wait for the end of a pause, which then takes longer.
        self._ended = threading.Condition(lock)
        self.forwarding = False
        self.on_error: Callable[[Exception], None] = lambda error: None
        self.request_checkpoint: Callable[[], None] = lambda: None
        self.on_wait: Callable[[float], None] = lambda seconds: None
        self.on_sleep: Callable[[int], None] = lambda more: None
        #: Whether clusters are counted: the secondary has layers.
        self._counting = False
        self._counted: set[Cluster] = set()
        #: Whether a checkpoint was asked for since they are counted.
        self._asked = False
        #: Number of seals, and of those whose checkpoint is committed.
        self._seals = self._commits = 0
        #: Number of secondaries that were left.
        self._left = 0
        self._failed = self._closed = self._standing = self._draining = False
        self._under_way: set[ForwardedWrite] = set()

    # Steps of replication.

    def open(self) -> None:
        """Forward each write from now on; none is counted yet."""
        with self._changed:
            self.forwarding, self._failed, self._counting = True, False, False
            self._counted = set()

    def count(self) -> None:
        """Count the changed clusters from now on; those of writes under way are among them."""
        with self._changed:
            self._counting = True
            asks = self._count_anew()
        if asks:
            self.request_checkpoint()

    def stand(self) -> None:
        """Begin no write from now on: the guest stands still, and its state is being saved.

        Those that have begun go on to the secondary when the guest runs again, unless they are
        waited for (`drain`): they would take a processor from the pause.
        """
        with self._changed:
            self._standing = self.forwarding

    def go(self) -> None:
        """Begin writes again: the guest is about to run."""
        with self._changed:
            self._standing = False
            self._changed.notify_all()

    def hold(self) -> None:
        """Hold the writes that are submitted from now on, and count for the next checkpoint."""
        with self._changed:
            self._seals += 1
            asks = self._count_anew()
            # Writes that the pause keeps from beginning are woken at its end, and not in it.
            if not self._standing:
                self._changed.notify_all()
        if asks:
            self.request_checkpoint()

    def release(self) -> None:
        """Forward the writes that the oldest open seal holds: its checkpoint is committed."""
        with self._changed:
            held = any(map(self.is_held, self._under_way))
            self._commits = min(self._commits + 1, self._seals)
            if held:
                self._changed.notify_all()

    def fail(self) -> None:
        """Forward nothing any more; writes wait until it is known who the guest is."""
        with self._changed:
            self._failed, self._standing = self.forwarding, False
            self._notify_all()

    def leave(self) -> None:
        """Forward nothing any more: there is no secondary, and no write waits for one."""
        with self._changed:
            self.forwarding = self._failed = self._counting = self._standing = False
            self._counted, self._left = set(), self._left + 1
            # A write that was held may meet the next secondary.
            self._commits = self._seals
            self._notify_all()

    def close(self) -> None:
        """Let no thread wait any more: the process ends."""
        with self._changed:
            self._closed = True
            self._notify_all()

    # One write.

    def begin(self, clusters: Iterable[Cluster]) -> ForwardedWrite:
        """Begin a write; wait while it would exceed the limit, or the guest's state is saved."""
        changed = frozenset(clusters)
        with self._changed:
            began, full = time.monotonic(), not self._fits(changed)
            self._sleep(lambda: self._may_begin(changed))
            if full:
                self.on_wait(time.monotonic() - began)
            write, asks = self._begin(changed)
        if asks:
            self.request_checkpoint()
        return write

    def begin_at_once(self, clusters: Iterable[Cluster]) -> ForwardedWrite | None:
        """Begin a write, or return None if it has to wait, here or on its way."""
        changed = frozenset(clusters)
        with self._changed:
            if self._failed or self._seals > self._commits or not self._may_begin(changed):
                return None
            write, asks = self._begin(changed)
        if asks:
            self.request_checkpoint()
        return write

    def passage(self, write: ForwardedWrite) -> tuple[Passage, int]:
        """Say what a write is to do at this moment, and which secondary it meets: for `lost`."""
        with self._changed:
            return self._passage(write), self._left

    def forward(self, write: ForwardedWrite, action: Callable[[], None]) -> None:
        """Do a write on the secondary's disk, when it may; return when the guest may be told.

        Parameters
        ----------
        write
            The write, which has been done on this side's disk.
        action
            Function that does it on the secondary's disk.

        Raises
        ------
        BlockError
            If this process ends first.
        """
        with self._changed:
            self._sleep(lambda: self._passage(write) is not Passage.WAITS)
            passage, left = self._passage(write), self._left
        if passage is Passage.ALONE:
            return
        if passage is Passage.PASSES:
            try:
                action()
                return
            except (ColobenchError, OSError) as error:
                self.lost(error, left)
                return
        self._wait_for_guest(left)

    def lost(self, error: Exception, left: int) -> None:
        """Tell of a write that has failed on its way; return when the guest may be told.

        An error of a secondary that was left meanwhile is no error of the next one.

        Raises
        ------
        BlockError
            If this process ends first.
        """
        with self._changed:
            was_left = self._left != left
        if not was_left:
            self.on_error(error)
        self._wait_for_guest(left)

    def end(self, write: ForwardedWrite) -> None:
        """End a write, successful or not."""
        with self._changed:
            self._under_way.discard(write)
            self._ended.notify_all()

    def drain(self) -> None:
        """Wait until both sides have done every write that has begun.

        Those that wait in `begin` have not begun, and those that are held are of the next
        checkpoint.

        Raises
        ------
        LocalError
            If a forwarded write has failed, or this process ends.
        """
        with self._changed:
            self._draining = True
            self._changed.notify_all()
            try:
                self._wait(
                    lambda: self._failed or all(map(self.is_held, self._under_way)), self._ended
                )
            finally:
                self._draining = False
            if self._failed:
                raise LocalError("disks: expected the secondary to do all writes, found an error")

    def statistics(self) -> dict[str, int]:
        """Count the changed clusters since the last checkpoint, and the writes under way."""
        with self._changed:
            return {"clusters": len(self._counted), "writes-under-way": len(self._under_way)}

    def held(self, disk: int) -> list[int]:
        """Return the numbers of a disk's clusters that held writes change."""
        with self._changed:
            held = filter(self.is_held, self._under_way)
            clusters = {cluster for write in held for cluster in write.clusters}
            return sorted(each.number for each in clusters if each.disk == disk)

    def changed(self, disk: int) -> list[int]:
        """Return the numbers of a disk's clusters that were changed since the last checkpoint."""
        with self._changed:
            return sorted(each.number for each in self._counted if each.disk == disk)

    def _may_begin(self, changed: frozenset[Cluster]) -> bool:
        return not self._standing and self._fits(changed)

    def _begin(self, changed: frozenset[Cluster]) -> tuple[ForwardedWrite, bool]:
        held_by = self._seals if self._seals > self._commits and changed else None
        write = ForwardedWrite(changed, held_by)
        self._under_way.add(write)
        if self._counting:
            self._counted |= changed
        return write, self._asks()

    def _passage(self, write: ForwardedWrite) -> Passage:
        if not self.forwarding:
            return Passage.ALONE
        if self._failed:
            return Passage.FAILED
        if self.is_held(write) or (self._standing and not self._draining):
            return Passage.WAITS
        return Passage.PASSES

    def _wait_for_guest(self, left: int) -> None:
        """Wait until a secondary was left: who the guest is, is known; there may be another."""
        with self._changed:
            self._sleep(lambda: not self.forwarding or self._left != left)

    def _sleep(self, until: Callable[[], bool]) -> None:
        """Wait for a step of replication."""
        if until():
            return
        self.on_sleep(1)
        try:
            self._wait(until)
        finally:
            self.on_sleep(-1)

    def _wait(
        self, until: Callable[[], bool], condition: threading.Condition | None = None
    ) -> None:
        while not until():
            if self._closed:
                raise BlockError(errno.EIO, "expected to complete a request, found the node's end")
            (condition or self._changed).wait(_LOOK_SECONDS)

    def _notify_all(self) -> None:
        self._changed.notify_all()
        self._ended.notify_all()

    def is_held(self, write: ForwardedWrite) -> bool:
        """Say whether a write waits for its checkpoint; the state is that of this moment."""
        return write.held_by is not None and write.held_by > self._commits

    def _fits(self, changed: frozenset[Cluster]) -> bool:
        if not self._counting or self._failed or changed <= self._counted:
            return True
        return len(self._counted) + len(changed - self._counted) <= self._limit

    def _count_anew(self) -> bool:
        """Count those of writes under way alone, which the secondary may do after its commit."""
        self._counted, self._asked = self._clusters_under_way(), False
        return self._asks()

    def _asks(self) -> bool:
        """Tell, once, that half as many clusters are changed as may be."""
        if self._asked or not self._counting or len(self._counted) < -(-self._limit // 2):
            return False
        self._asked = True
        return True

    def _clusters_under_way(self) -> set[Cluster]:
        return {cluster for write in self._under_way for cluster in write.clusters}
