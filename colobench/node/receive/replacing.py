"""Replacing a file by one that was written aside: at once, and the old one stays to be reused."""

from __future__ import annotations

import ctypes
import fcntl
import glob
import os
import tempfile
from contextlib import suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: Most bytes of a file's name that are part of the name of the file aside (NAME_MAX is 255).
_NAME_BYTES = 80


def new_aside(file: Path) -> tuple[int, Path]:
    """Make an empty file beside `file`, for its owner only, and remove those that were left.

    Returns
    -------
    descriptor, path

    Raises
    ------
    OSError
    """
    prefix = f".{os.fsdecode(os.fsencode(file.name)[:_NAME_BYTES])}.receiving-"
    for left in file.parent.glob(f"{glob.escape(prefix)}*"):
        # A process that is killed leaves its file, and nobody's lock on it.
        with suppress(OSError), open(left, "rb") as old:
            fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    descriptor, path = tempfile.mkstemp(prefix=prefix, dir=file.parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        os.unlink(path)
        raise
    return descriptor, Path(path)


def is_locked(file: Path) -> bool:
    """Say whether a receiver that lives has locked the file, as `new_aside` does."""
    with suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def exchange(aside: Path, file: Path) -> bool:
    """Put `aside` in the place of `file`, and `file` in that of `aside`, at once.

    Returns
    -------
    bool
        False if this file system cannot exchange files, or `file` is gone.
    """
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(aside), os.fsencode(file)
    failed: int = call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE))
    return not failed


def synchronize_directory(directory: Path) -> None:
    """Have the names in a directory outlast a power failure.

    Raises
    ------
    OSError
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
