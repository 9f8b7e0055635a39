"""Output files: checked before a run, and written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from colobench.errors import LocalError


def check_output_file(path: Path | str) -> Path:
    """Check that a file can be written, before there is anything to write.

    Parameters
    ----------
    path
        An old file that will be replaced, a new one, or a device such as ``/dev/stdout``.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    LocalError
        If it is a directory, or nothing can be written there.
    """
    place = _place(path)
    try:
        if place.is_dir():
            raise LocalError(f"{path}: expected a file that can be written, found a directory")
        if _is_written_in_place(place):
            os.close(os.open(place, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        else:
            # A trial in the directory, which a file is renamed in, and one of the old file.
            with tempfile.TemporaryFile(dir=place.parent):
                pass
            if place.exists() and not os.access(place, os.W_OK):
                raise PermissionError(0, "it may not be written")
    except OSError as error:
        raise LocalError(
            f"{path}: expected a file that can be written, found: {error.strerror or error}"
        ) from error
    return Path(path)


def write_output_file(path: Path | str, text: str) -> Path:
    """Write a text as UTF-8; see `write_output_bytes`."""
    return write_output_bytes(path, text.encode())


def write_output_bytes(path: Path | str, data: bytes) -> Path:
    """Write bytes: aside first, then whole in the place of an old file.

    Parameters
    ----------
    path
        Path of the file. A symbolic link stays one, and a device or a pipe is written in place.
    data
        The whole content.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    LocalError
        If it cannot be written, as on a full disk; an old file is kept.
    """
    place = _place(path)
    try:
        if _is_written_in_place(place):
            with open(place, "wb") as device:
                device.write(data)
        else:
            _replace(place, data)
    except OSError as error:
        kept = "; the old file is kept" if place.is_file() else ""
        raise LocalError(f"{path}: cannot be written: {error.strerror or error}{kept}") from error
    return Path(path)


def _place(path: Path | str) -> Path:
    """Follow links to the file.

    A link of /proc, as /dev/stdout is one, may stand for a pipe, which has no other path.
    """
    place = Path(os.path.realpath(path))
    return Path(path) if os.path.exists(path) and not place.exists() else place


def _is_written_in_place(place: Path) -> bool:
    """Say whether the file exists and is not a regular one, over which nothing may be renamed."""
    with suppress(FileNotFoundError):
        return place.is_symlink() or not stat.S_ISREG(place.stat().st_mode)
    return False


def _replace(place: Path, data: bytes) -> None:
    descriptor, aside = tempfile.mkstemp(prefix=f".{place.name[:40]}.", dir=place.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), _mode(place))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, place)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise


def _mode(place: Path) -> int:
    """Give the mode of the old file, or that of a new one."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(place.stat().st_mode)
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask
