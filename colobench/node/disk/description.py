"""Description of an image for people and programs; the image is not opened for writing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from colobench.block.clusters import CLUSTER_SIZE
from colobench.block.generation import (
    Generation,
    ImageState,
    Relation,
    differing,
    relate,
)
from colobench.errors import LocalError
from colobench.guest.disk_settings import check_size
from colobench.node.disk.generation_file import load_generation
from colobench.node.disk.image import FileImage, ImageInUse

_STATES = {
    ImageState.CLEAN: ("clean", "clean"),
    ImageState.IN_USE: ("a guest runs on it", "left by a killed node while a guest ran on it"),
    ImageState.FOLLOWING: ("a secondary's, which follows", "left by a secondary"),
    ImageState.COPYING: ("a primary's disk is being copied to it", "an incomplete copy"),
}


@dataclass(frozen=True, slots=True)
class ImageDescription:
    """What is known of an image.

    Attributes
    ----------
    path
        The path that was asked for.
    size, allocated
        Size of the disk, and of what the file takes on its own disk, bytes.
    is_open
        Whether a process has it open for writing.
    generation
        What it is, or None if it is not known.
    problem
        Why FILE.generation cannot be read, or "".
    """

    path: str
    size: int
    allocated: int
    is_open: bool
    generation: Generation | None
    problem: str = ""

    @property
    def refusal(self) -> str:
        """Why no guest can be started on it now, or ""."""
        if self.problem:
            return self.problem
        if self.is_open:
            return "a process has it open"
        try:
            check_size(self.path, self.size)
            if self.generation is not None:
                self.generation.check_guest()
        except LocalError as error:
            return str(error)
        return ""

    @property
    def state(self) -> str:
        """Words for its state."""
        if self.problem:
            return "unknown"
        if self.generation is None:
            return "never used by colobench"
        return _STATES[self.generation.state][not self.is_open]

    def as_json(self) -> dict[str, Any]:
        """Return what is known as an object of JSON."""
        found = self.generation
        return {
            "path": self.path,
            "size": self.size,
            "allocated": self.allocated,
            "open": self.is_open,
            "state": found and found.state.value,
            "generation": found and found.identifier,
            "peer": found and found.peer,
            "checkpoint": found and found.checkpoint,
            "changed": None if found is None or found.changed is None else found.changed.byte_count,
            "refusal": self.refusal,
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return what is known as pairs of a name and words."""
        lines = [("state", self.state)]
        if self.generation is not None:
            lines += _lines(self.generation)
        lines.append(
            ("guest", f"cannot be started: {self.refusal}" if self.refusal else "can be started")
        )
        return lines


def _lines(generation: Generation) -> list[tuple[str, str]]:
    lines = [("generation", generation.identifier)]
    if generation.shared:
        lines.append(("pair", "the other image of the pair has the same generation"))
    elif generation.peer:
        lines.append(("pair", f"it went on without the other image, whose is {generation.peer}"))
    else:
        lines.append(("pair", "none"))
    if generation.checkpoint is not None:
        lines.append(("checkpoint", f"{generation.checkpoint}, the last one that was committed"))
    if generation.peer:
        changed = generation.changed
        words = (
            "not known" if changed is None else f"{len(changed)} clusters of {CLUSTER_SIZE} bytes"
        )
        lines.append(("changed", f"{words} since the other image knew it"))
    return lines


def describe_image(path: str) -> ImageDescription:
    """Find out what an image is.

    Raises
    ------
    LocalError
        If the image itself cannot be read.
    """
    is_open = False
    try:
        with FileImage(path, read_only=True) as image:
            size, allocated = image.size, image.allocated
    except ImageInUse:
        is_open = True
        status = os.stat(path)
        size, allocated = status.st_size, status.st_blocks * 512
    try:
        return ImageDescription(
            path, size, allocated, is_open, load_generation(os.path.realpath(path), size)
        )
    except LocalError as error:
        return ImageDescription(path, size, allocated, is_open, None, str(error))


def compare_images(first: ImageDescription, second: ImageDescription) -> tuple[Relation, int]:
    """Say which of two images is current, and in how many bytes they may differ.

    Raises
    ------
    LocalError
        If they have different sizes.
    """
    if first.size != second.size:
        raise LocalError(
            f"{first.path} and {second.path}: expected the same size, found {first.size} and "
            f"{second.size} bytes"
        )
    if first.generation is None or second.generation is None:
        return Relation.UNRELATED, first.size
    one, other = first.generation, second.generation
    return relate(one, other), differing(one, other).byte_count
