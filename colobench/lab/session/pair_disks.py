"""Images of a session's disks: two for each disk, of which each node has one."""

from __future__ import annotations

import os
import uuid
from typing import Any

from colobench.block.generation import Generation, Relation, relate
from colobench.errors import LocalError
from colobench.guest.disk_settings import DiskSettings
from colobench.node.disk.generation_file import GENERATION_SUFFIX, load_generation
from colobench.processes.process import NodeProcess
from colobench.settings.settings import Settings


class PairDisks:
    """Images of a session's disks, and the nodes that have them.

    Parameters
    ----------
    settings
        Settings of the session.
    """

    def __init__(self, settings: Settings) -> None:
        self._disks = disks = settings.guest.disk_settings()
        self._images = ([each.image for each in disks], [each.replica for each in disks])
        #: Which of the two lists the primary has.
        self._of_primary = 0

    def __bool__(self) -> bool:
        """Whether the guest has disks."""
        return bool(self._images[0])

    @property
    def of_primary(self) -> list[str]:
        """Paths of the primary's images."""
        return self._images[self._of_primary]

    @property
    def of_secondary(self) -> list[str]:
        """Paths of the secondary's images."""
        return self._images[1 - self._of_primary]

    def choose(self) -> None:
        """Let the primary have the images that are current, after whatever earlier session.

        Raises
        ------
        LocalError
            If it cannot be said which they are.
        """
        swaps = {disk.image: _is_replica_current(disk) for disk in self._disks}
        if len(set(swaps.values())) > 1:
            current = ", ".join(
                disk.replica if swaps[disk.image] else disk.image for disk in self._disks
            )
            raise LocalError(
                f"disks: expected the images or the replicas to be current, all of them, found "
                f"{current}; see colobench disk show"
            )
        if True in swaps.values():
            self.swap()

    def swap(self) -> None:
        """Take note that the secondary has taken over: its images are the primary's."""
        self._of_primary = 1 - self._of_primary

    def serve(self, secondary: NodeProcess) -> dict[str, Any]:
        """Let a secondary serve its images; returns what its primary is told of them."""
        generation = uuid.uuid4().hex
        served: dict[str, Any] = secondary.execute(
            "x-disks-serve", images=self.of_secondary, generation=generation
        )
        return served


def _is_replica_current(disk: DiskSettings) -> bool:
    image, replica = (_known(path, disk.known_size()) for path in (disk.image, disk.replica))
    if replica is None:
        return False
    if image is None:
        # The copy to the replica would overwrite what may be the only good image.
        raise LocalError(
            f"disk {disk.image}: expected the image that {disk.replica} is the replica of, found "
            f"{_found(disk.image)}; --disk {disk.replica} goes on from the replica; remove the "
            "replica to begin anew"
        )
    relation = relate(image, replica)
    if relation is Relation.SPLIT:
        raise LocalError(
            f"disk {disk.image}: expected one image to be current, found that a guest has gone on "
            f"from it and another one from {disk.replica}; see colobench disk repair"
        )
    return relation is Relation.SECOND_IS_CURRENT


def _known(path: str, size: int) -> Generation | None:
    """Read what an image is; a generation whose image is missing is that of no image."""
    real = os.path.realpath(path)
    return load_generation(real, size) if os.path.exists(real) else None


def _found(image: str) -> str:
    if not os.path.exists(image):
        return "no file"
    return f"no {image}{GENERATION_SUFFIX}"
