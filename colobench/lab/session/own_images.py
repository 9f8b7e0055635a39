"""Images that a pair has for itself, in which no earlier pair has left anything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from colobench.errors import LocalError
from colobench.guest.disk_settings import DiskSettings
from colobench.settings.settings import Settings


@contextmanager
def own_images(settings: Settings, layers_in_files: bool = False) -> Iterator[Settings]:
    """Give settings in which each missing image is a new one, for as long as a context.

    They are in a directory of their own, beside the place of the image that is missing. So are the
    files of the secondary's layers: in the settings' directory for them, if there is one.

    Parameters
    ----------
    settings
        Settings of a pair.
    layers_in_files
        Whether layers are in files although the settings have no directory for them.

    Raises
    ------
    LocalError
        If the directory cannot be made.
    """
    with ExitStack() as stack:
        disks = [_own(each, stack) for each in settings.guest.disk_settings()]
        if not disks:
            yield settings
            return
        own = settings.override(disks=[str(each) for each in disks])
        # Layers of an image that stays are where its owner wants them.
        beside = settings.disk_buffer.directory if have_own_images(settings) else None
        if beside is None and layers_in_files:
            beside = os.path.dirname(disks[0].image)
        if beside is not None:
            own = own.override(disk_buffer=_directory(beside, stack))
        yield own


def have_own_images(settings: Settings) -> bool:
    """Say whether `own_images` gives every disk of a pair new images."""
    return all(map(_is_missing, settings.guest.disk_settings()))


def _is_missing(disk: DiskSettings) -> bool:
    # Without a size none can be made; the session says so of the path that the user knows.
    there = os.path.exists(disk.image) or os.path.exists(disk.replica)
    return disk.size is not None and not there


def _own(disk: DiskSettings, stack: ExitStack) -> DiskSettings:
    if not _is_missing(disk):
        return disk
    directory = _directory(os.path.dirname(os.path.abspath(disk.image)), stack)
    image = os.path.join(directory, "disk")
    return replace(disk, image=image, replica=f"{image}.replica")


def _directory(beside: str, stack: ExitStack) -> str:
    """Make a directory that is removed with the stack."""
    try:
        return stack.enter_context(tempfile.TemporaryDirectory(prefix="colobench-", dir=beside))
    except OSError as error:
        raise LocalError(f"{beside}: expected a directory for files, found: {error}") from error
