"""Repair of images that no node has open."""

from __future__ import annotations

import os
from contextlib import suppress

from colobench.block.backend import BlockBackend
from colobench.block.clusters import ClusterSet
from colobench.block.copying import DiskCopy
from colobench.block.generation import (
    ImageEvent,
    ImageState,
    InvalidGeneration,
    Relation,
    differing,
    relate,
)
from colobench.errors import LocalError
from colobench.node.disk.generation_file import GENERATION_SUFFIX, DiskImage, new_generation
from colobench.node.disk.image import FileImage
from colobench.node.disk.layer_file import layers_path, load_hidden


def accept(path: str) -> None:
    """Take an image as it is, and mark it as clean.

    Raises
    ------
    LocalError
        If the image cannot be opened, or not be marked.
    """
    try:
        image = DiskImage(path)
    except InvalidGeneration:
        # Nothing is known of it; it begins a generation that is related to no other one.
        with FileImage(path) as locked, suppress(FileNotFoundError):
            os.unlink(locked.path + GENERATION_SUFFIX)
        image = DiskImage(path)
    try:
        # A clean image is one that a loss of power leaves as it is.
        image.flush()
        image.on(ImageEvent.REPAIRED)
    finally:
        image.close()


def undo(path: str, directory: str) -> int:
    """Undo what no checkpoint has committed, out of the layers that a killed secondary has left.

    Parameters
    ----------
    path
        The image.
    directory
        The secondary's ``--disk-buffer``.

    Returns
    -------
    int
        Number of bytes that were undone.

    Raises
    ------
    LocalError
        If the image is not a killed secondary's, its layers are not there whole, or the secondary
        was killed while it merged writes of its own guest into clusters that the primary had not
        written. The image is as before.
    """
    image = DiskImage(path)
    try:
        found = image.generation
        if found.state is not ImageState.FOLLOWING:
            raise LocalError(
                f"{path}: expected a killed secondary's image, found {found.state.value}"
            )
        layers = layers_path(directory, image.file.path)
        hidden = load_hidden(layers, found.identifier)
        undone = ClusterSet(image.size)
        for place, _ in hidden:
            undone.touch(*place)
        if found.changed is None or len(found.changed.union(undone)) > len(undone):
            raise LocalError(
                f"{path}: expected no writes of the secondary's own guest, found that it may have "
                "some: the node was killed while it took over"
            )
        image.note(undone)
        for place, data in hidden:
            image.file.write(place.offset, data)
        image.file.flush()
        image.on(ImageEvent.CLEAN_END)
        os.unlink(layers)
        return sum(place.length for place, _ in hidden)
    finally:
        image.close()


def restore(path: str, current: str) -> int:
    """Copy what differs from the current image; both are a pair afterwards, and clean.

    Parameters
    ----------
    path
        The image that is changed. If it is killed in between, it is an incomplete copy.
    current
        The image that is read. A guest can be started on it before and afterwards.

    Returns
    -------
    int
        Number of bytes that were copied.

    Raises
    ------
    LocalError
        If both are the same image, the first is the current one of the two, no guest can be started
        on the other, or they have different sizes. `BlockError` if one cannot be read or written.
    """
    if os.path.realpath(path) == os.path.realpath(current):
        raise LocalError(f"{path}: expected another image than the current one, found the same")
    source = DiskImage(current)
    try:
        source.generation.check_guest()
        target = DiskImage(path, source.size)
        try:
            if relate(target.generation, source.generation) is Relation.FIRST_IS_CURRENT:
                raise LocalError(f"expected {current} to be the current image, found {path}")
            copy = DiskCopy(differing(target.generation, source.generation))
            target.on(ImageEvent.COPY_BEGINS)
            _copy(copy, source.file, target.file)
            # A killed node may have written it, and flushed nothing.
            source.flush()
            shared = new_generation()
            target.on(ImageEvent.PAIRED, identifier=shared)
            target.on(ImageEvent.CLEAN_END)
            source.on(ImageEvent.OPENED_BY_GUEST)
            source.on(ImageEvent.PAIRED, identifier=shared)
            source.on(ImageEvent.CLEAN_END)
            return copy.progress.copied
        finally:
            target.close()
    finally:
        source.close()


def _copy(copy: DiskCopy, source: BlockBackend, target: BlockBackend) -> None:
    while run := copy.next_run():
        data = source.read(*run)
        if data.count(0) == len(data):
            target.discard(*run)
        else:
            target.write(run.offset, data)
        copy.run_ended(run, True)
    target.flush()
