"""Layers of a pair's disk at one moment: what each node has written, keeps and would undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from colobench.block.clusters import ByteRange
from colobench.block.generation import ImageState
from colobench.errors import ColobenchError

if TYPE_CHECKING:
    from colobench.lab.session.session import Session

Ranges: TypeAlias = tuple[ByteRange, ...]


@dataclass(frozen=True, slots=True)
class NodeDisk:
    """A disk of one node, as its node tells of it.

    Attributes
    ----------
    size
        Size in bytes.
    state
        State of the image, as in docs/disks.md: ``in-use``, ``following`` and so on.
    changed
        Clusters of 64 KiB that a primary's guest has changed since the last checkpoint.
    hidden
        Clusters whose bytes at the checkpoint a secondary keeps; its image has newer ones.
    active
        Sectors that a secondary's own guest has written since the checkpoint.
    """

    size: int
    state: ImageState
    changed: Ranges
    hidden: Ranges
    active: Ranges

    @property
    def follows(self) -> bool:
        """Whether it is a secondary's."""
        return self.state is ImageState.FOLLOWING


def query_disk(session: Session, role: str, disk: int = 0) -> NodeDisk | None:
    """Ask a node for its layers of a disk.

    Parameters
    ----------
    session
        A session whose guest has disks.
    role
        Node to ask.
    disk
        Number of the disk.

    Returns
    -------
    NodeDisk or None
        None if there is no such node, it is dead or does not answer, or it has no image yet.
    """
    node = session.nodes.get(role)
    if node is None or not node.alive():
        return None
    try:
        disks: Sequence[Mapping[str, Any]] = node.execute("x-query-disks", ranges=True)
    except ColobenchError:
        return None
    if disk >= len(disks):
        return None
    found = disks[disk]
    return NodeDisk(
        found["size"],
        ImageState(found["state"]),
        *(_ranges(found[name]) for name in ("changed", "hidden", "active")),
    )


def _ranges(found: Sequence[Sequence[int]]) -> Ranges:
    return tuple(ByteRange(offset, length) for offset, length in found)
