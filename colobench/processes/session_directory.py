"""Directories of sessions and of QEMUs: locked while their process lives, later removed if killed.

The lock is on the directory itself (flock(2)): the kernel releases it, however the process ends.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from colobench.processes.socket_directory import (
    QEMU_PREFIX,
    SESSION_PREFIX,
    make_socket_directory,
    parents,
)

#: Limit of attempts: a new directory may be taken for a left one in the moment before its lock.
_TRIES = 100


class SessionDirectory:
    """A new directory of this process, locked until `remove`.

    Parameters
    ----------
    make
        Function that makes the directory.

    Attributes
    ----------
    path
        Path of the directory.

    Raises
    ------
    LocalError, OSError
        If it cannot be made.
    """

    def __init__(
        self, make: Callable[[], Path] = lambda: make_socket_directory(SESSION_PREFIX)
    ) -> None:
        for _ in range(_TRIES):
            self.path = make()
            try:
                self._descriptor = _open(self.path)
            except FileNotFoundError:
                continue
            with suppress(OSError):
                # On a file system without locks, no process finds the directory unlocked either.
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if _is_at(self._descriptor, self.path):
                return
            os.close(self._descriptor)
        raise FileNotFoundError(f"{self.path}: expected a new directory to last, found it removed")

    def remove(self) -> None:
        """Remove the directory with its files, and release the lock."""
        try:
            with suppress(OSError):
                _remove(self._descriptor, self.path)
        finally:
            os.close(self._descriptor)


def qemu_directory(closing: ExitStack) -> Path:
    """Make a directory for real QEMUs, and remove those that killed processes have left.

    Parameters
    ----------
    closing
        Stack that removes the directory.

    Raises
    ------
    LocalError, OSError
        If it cannot be made.
    """
    directory = SessionDirectory(lambda: make_socket_directory(QEMU_PREFIX))
    closing.callback(directory.remove)
    remove_left(directory.path.parent)
    return directory.path


def remove_left(parent: Path) -> list[Path]:
    """Remove the directories of sessions and of real QEMUs whose process was killed.

    A directory is removed only if all of this holds: it is in `parent`, is named like one of these,
    is no symbolic link, belongs to this user, has no subdirectory, is not locked, and has no socket
    of a living process in it.

    Parameters
    ----------
    parent
        Directory to search, in which a session has just been made, like its predecessors.

    Returns
    -------
    list of Path
        Directories that were removed.
    """
    removed = []
    for path in _candidates(parent, SESSION_PREFIX, QEMU_PREFIX):
        with suppress(OSError):
            descriptor = _open(path)
            try:
                if _is_left(descriptor, path):
                    _remove(descriptor, path)
                    removed.append(path)
            finally:
                os.close(descriptor)
    return removed


def running() -> list[Path]:
    """Find the directories of this user's sessions that run, wherever sessions are made."""
    return [
        path
        for parent in parents()
        for path in _candidates(parent, SESSION_PREFIX)
        if is_running(path)
    ]


def is_running(path: Path) -> bool:
    """Say whether a living process of this user has a session in the directory."""
    try:
        descriptor = _open(path)
    except OSError:
        return False
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _candidates(parent: Path, *prefixes: str) -> Iterator[Path]:
    with suppress(OSError):
        for name in sorted(os.listdir(parent)):
            if name.startswith(prefixes):
                yield parent / name


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _is_at(descriptor: int, path: Path) -> bool:
    """Say whether the open directory is still the one at `path`."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def _is_left(descriptor: int, path: Path) -> bool:
    """Lock the directory, and say whether it is this user's and unused."""
    if os.fstat(descriptor).st_uid != os.geteuid():
        return False
    # Held until the descriptor is closed: a process that has just made it cannot lock it meanwhile.
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return _is_at(descriptor, path) and not _has_socket_in_use(path)


def _has_socket_in_use(directory: Path) -> bool:
    """Say whether a process has bound a UNIX socket to a path in the directory."""
    inside = f"{directory}/"
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as sockets:
        return any(inside in line for line in sockets)


def _remove(descriptor: int, path: Path) -> None:
    """Remove the open directory, which has files only; one with a directory in it is left alone."""
    names = os.listdir(descriptor)
    for name in names:
        if stat.S_ISDIR(os.lstat(name, dir_fd=descriptor).st_mode):
            raise IsADirectoryError(f"{path}: expected files only, found the directory {name}")
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=descriptor)
    if _is_at(descriptor, path):
        os.rmdir(path)
