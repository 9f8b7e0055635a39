"""Copy of a disk to another one while a guest writes both: which clusters come next, and when.

Every write of the guest goes to both disks from the beginning. So a cluster becomes equal by being
copied once, or by being written whole. A write and the copy of the same cluster exclude each other:
a copy that has read old bytes could otherwise overwrite new ones. A pass over the disk follows the
other, because a write that failed on the target makes its clusters differ again.
"""

from __future__ import annotations

from collections import Counter
from itertools import dropwhile, takewhile
from typing import Final, NamedTuple

from colobench.block.clusters import CLUSTER_SIZE, ByteRange, ClusterSet, clusters_of
from colobench.errors import LocalError

#: Longest run that is copied at once, bytes.
RUN_LENGTH: Final = 1 << 20


class CopyProgress(NamedTuple):
    """State of a copy.

    Attributes
    ----------
    total
        Bytes that differed when it began.
    remaining
        Bytes that may differ now.
    copied
        Bytes that were copied; more than `total` if some differed again.
    passes
        Number of passes over the disk that were begun.
    """

    total: int
    remaining: int
    copied: int
    passes: int


class DiskCopy:
    """State of a copy. It has no lock: its owner lets one thread in at a time.

    Parameters
    ----------
    differing
        Clusters that may differ; the set is changed.
    """

    def __init__(self, differing: ClusterSet) -> None:
        self._differing = differing
        self._total = differing.byte_count
        self._copied = self._passes = self._cursor = 0
        self._runs: list[ByteRange] = []
        self._writes: list[ByteRange] = []
        self._copying: set[int] = set()
        #: Number of writes in flight, by the number of the cluster that they change.
        self._writing: Counter[int] = Counter()

    @property
    def done(self) -> bool:
        """Whether both disks are equal, but for writes in flight."""
        return not self._runs and not len(self._differing)

    @property
    def progress(self) -> CopyProgress:
        """How far the copy is."""
        remaining = self._differing.byte_count + sum(run.length for run in self._runs)
        return CopyProgress(self._total, remaining, self._copied, self._passes)

    def next_run(self) -> ByteRange | None:
        """Give the next clusters to read from the source and to write to the target.

        The owner calls `run_ended` for each run. Several runs may be in flight.

        Returns
        -------
        ByteRange or None
            At most 1 MiB, or None if each cluster that differs is in flight, as a run or a write.
        """
        run = self._free_run(self._cursor) or self._free_run(0)
        if run is None:
            return None
        self._passes += not self._passes or run.offset < self._cursor
        self._cursor = -(-(run.offset + run.length) // CLUSTER_SIZE) * CLUSTER_SIZE
        self._differing.remove_whole(*run)
        self._runs.append(run)
        self._copying.update(clusters_of(*run))
        return run

    def run_ended(self, run: ByteRange, copied: bool) -> None:
        """Take in the end of a run. If it failed, its clusters differ as before.

        Raises
        ------
        LocalError
            If this run is not in flight.
        """
        _remove(self._runs, run, "run of a copy")
        self._copying.difference_update(clusters_of(*run))
        if copied:
            self._copied += run.length
        else:
            self._differing.touch(*run)

    def write_begins(self, offset: int, length: int) -> bool:
        """Let a write of the guest begin on both disks, and say whether it may.

        It must wait if one of its clusters is being copied. It must also wait if another write of
        the same bytes is in flight, because each disk could do the two in another order. The owner
        calls `write_ended` for each write that may begin.
        """
        clusters = clusters_of(offset, length)
        if not self._copying.isdisjoint(clusters) or any(
            offset < other.offset + other.length and other.offset < offset + length
            for other in self._writes
        ):
            return False
        self._writes.append(ByteRange(offset, length))
        self._writing.update(clusters)
        return True

    def write_ended(self, offset: int, length: int, equal: bool) -> None:
        """Take in the end of a write; `equal` says that it succeeded on both disks.

        Raises
        ------
        LocalError
            If this write is not in flight.
        """
        _remove(self._writes, ByteRange(offset, length), "write")
        for cluster in clusters_of(offset, length):
            self._writing[cluster] -= 1
            if not self._writing[cluster]:
                del self._writing[cluster]
        if equal:
            self._differing.remove_whole(offset, length)
        else:
            self._differing.touch(offset, length)

    def _free_run(self, begin: int) -> ByteRange | None:
        """Find the first run from an offset on whose clusters no write is changing."""
        while run := self._differing.next_run(begin, RUN_LENGTH):
            begin = run.offset + run.length
            waiting = dropwhile(self._writing.__contains__, clusters_of(*run))
            free = list(takewhile(lambda cluster: cluster not in self._writing, waiting))
            if free:
                first = free[0] * CLUSTER_SIZE
                return ByteRange(first, min((free[-1] + 1) * CLUSTER_SIZE, begin) - first)
            begin = -(-begin // CLUSTER_SIZE) * CLUSTER_SIZE
        return None


def _remove(known: list[ByteRange], place: ByteRange, what: str) -> None:
    if place not in known:
        raise LocalError(f"{what}: expected one in flight, found {place}, which is not")
    known.remove(place)
