"""Checks that the images of the guest's disks can be had, and their sizes, before a session."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from colobench.errors import LocalError
from colobench.fields.sizes import write_size
from colobench.guest.disk_settings import DiskSettings, check_size
from colobench.settings.settings import Settings


def identify_disks(settings: Settings) -> Settings:
    """Give settings with absolute paths and the sizes of all disks.

    Raises
    ------
    LocalError
        If an image cannot be opened or made, is none, or has another size than its disk; if two
        paths are one file; or if the directory for the secondary's layers cannot be used.
    """
    _check_buffer(settings.disk_buffer.directory)
    disks = [_identify(disk.absolute()) for disk in settings.guest.disk_settings()]
    seen: dict[tuple[int, int], str] = {}
    for path in (path for disk in disks for path in (disk.image, disk.replica)):
        if os.path.exists(path):
            status = os.stat(path)
            other = seen.setdefault((status.st_dev, status.st_ino), path)
            if other != path:
                raise LocalError(f"disk {path}: expected a file of its own, found that of {other}")
    return settings.override(disks=[str(disk) for disk in disks]) if disks else settings


def _check_buffer(directory: str | None) -> None:
    if directory is not None and not (
        os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)
    ):
        found = "none that can be written" if os.path.exists(directory) else "nothing there"
        raise LocalError(f"disk_buffer {directory}: expected a directory for files, found {found}")


def _identify(disk: DiskSettings) -> DiskSettings:
    size = _find_size(disk.image, disk.size)
    if size is None:
        raise LocalError(
            f"disk {disk.image}: expected an image, or a size with which to make one, such as "
            f"{disk.image},size=64M; found no file"
        )
    _find_size(disk.replica, size)
    return replace(disk, size=size)


def _find_size(path: str, expected: int | None) -> int | None:
    """Check that an image can be written, or made; return its size, if any is known."""
    name = f"disk {path}"
    try:
        status = os.stat(path)
    except FileNotFoundError:
        directory = os.path.dirname(path)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise LocalError(
                f"{name}: expected a directory in which an image can be made, found {directory}"
            ) from None
        return expected
    except OSError as error:
        raise LocalError(f"{name}: expected an image, found {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise LocalError(f"{name}: expected a regular file, found another kind")
    if not os.access(path, os.R_OK | os.W_OK):
        raise LocalError(f"{name}: expected an image that can be read and written, found another")
    check_size(name, status.st_size)
    if expected not in (None, status.st_size):
        raise LocalError(
            f"{name}: expected an image of {write_size(expected or 0)}, found one of "
            f"{write_size(status.st_size)}"
        )
    return status.st_size
