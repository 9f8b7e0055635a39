"""Sets of a disk's clusters: to be copied, changed since a generation, forwarded since a commit."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.block.backend import BlockData
from colobench.errors import LocalError

#: Bytes of a cluster: the unit of the hidden layer and of copies. QEMU's hidden disk has the same.
CLUSTER_SIZE: Final = 64 << 10


class ByteRange(NamedTuple):
    """A range of a disk in bytes."""

    offset: int
    length: int


def clusters_of(offset: int, length: int) -> range:
    """Give the numbers of the clusters that a range of bytes lies in."""
    return range(offset // CLUSTER_SIZE, -(-(offset + length) // CLUSTER_SIZE))


def cluster_count(size: int) -> int:
    """Return the number of clusters of a disk of `size` bytes."""
    return -(-size // CLUSTER_SIZE)


class ClusterSet:
    """Set of clusters of one disk, a byte for each.

    Parameters
    ----------
    size
        Size of the disk in bytes; its last cluster may be shorter.
    filled
        Whether all clusters are in it at first.
    """

    def __init__(self, size: int, filled: bool = False) -> None:
        self.size = size
        self._has: npt.NDArray[np.bool_] = np.zeros(cluster_count(size), np.bool_)
        self._has[:] = filled

    @classmethod
    def over(cls, size: int, memory: BlockData) -> ClusterSet:
        """Make a set out of memory, a byte for each cluster, which it changes from then on."""
        clusters = cls(0)
        clusters.size = size
        clusters._has = np.frombuffer(memory, np.bool_, cluster_count(size))
        return clusters

    def __len__(self) -> int:
        """Number of clusters in the set."""
        return int(np.count_nonzero(self._has))

    def __eq__(self, other: object) -> bool:
        """Say whether the other set is of a disk of the same size, and has the same clusters."""
        if not isinstance(other, ClusterSet):
            return NotImplemented
        return self.size == other.size and bool(np.array_equal(self._has, other._has))

    @property
    def byte_count(self) -> int:
        """Bytes of the disk that the clusters in the set have."""
        short = -self.size % CLUSTER_SIZE
        last = len(self._has) and self._has[-1]
        return len(self) * CLUSTER_SIZE - (short if last else 0)

    def touch(self, offset: int, length: int) -> None:
        """Add each cluster that a range of bytes lies in, if only with a byte."""
        self._has[offset // CLUSTER_SIZE : -(-(offset + length) // CLUSTER_SIZE)] = True

    def remove_whole(self, offset: int, length: int) -> None:
        """Remove each cluster that lies wholly in a range of bytes."""
        end = offset + length
        last = len(self._has) if end >= self.size else end // CLUSTER_SIZE
        self._has[-(-offset // CLUSTER_SIZE) : last] = False

    def meets(self, offset: int, length: int) -> bool:
        """Say whether a range of bytes lies in a cluster of the set."""
        return bool(self._has[offset // CLUSTER_SIZE : -(-(offset + length) // CLUSTER_SIZE)].any())

    def next_run(self, offset: int, length_max: int) -> ByteRange | None:
        """Find the first clusters of the set that lie together, from an offset on.

        Parameters
        ----------
        offset
            Where to begin, in bytes; a multiple of the cluster's size.
        length_max
            Most bytes of the run; at least one cluster's.

        Returns
        -------
        ByteRange or None
            The run, or None if the set has no cluster from there on.
        """
        first = offset // CLUSTER_SIZE
        rest = self._has[first:]
        step = int(rest.argmax()) if len(rest) else 0
        if not len(rest) or not rest[step]:
            return None
        run = rest[step : step + length_max // CLUSTER_SIZE]
        count = len(run) if run.all() else int(run.argmin())
        begin = (first + step) * CLUSTER_SIZE
        return ByteRange(begin, min(begin + count * CLUSTER_SIZE, self.size) - begin)

    def union(self, other: ClusterSet) -> ClusterSet:
        """Return the clusters that are in this set or in the other one of the same disk."""
        both = ClusterSet(self.size)
        both._has = self._has | other._has
        return both

    def update(self, other: ClusterSet) -> None:
        """Add the clusters of another set of the same disk."""
        self._has |= other._has

    def copy(self) -> ClusterSet:
        """Return a set with the same clusters, in memory of its own."""
        return self.union(self)

    def to_bytes(self) -> bytes:
        """Pack the set: bit i of byte b, from the lowest, is cluster 8 b + i."""
        return np.packbits(self._has, bitorder="little").tobytes()

    @classmethod
    def from_bytes(cls, size: int, packed: bytes) -> ClusterSet:
        """Unpack the set of a disk of `size` bytes.

        Raises
        ------
        LocalError
            If it has another length than this disk's set, or a cluster behind the disk's end.
        """
        clusters = cls(size)
        count = len(clusters._has)
        if len(packed) != -(-count // 8):
            raise LocalError(
                f"set of clusters: expected {-(-count // 8)} bytes for a disk of {size} bytes, "
                f"found {len(packed)}"
            )
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
        if bits[count:].any():
            raise LocalError(
                f"set of clusters: expected clusters below {count}, found one behind the end"
            )
        clusters._has = bits[:count].astype(np.bool_)
        return clusters
