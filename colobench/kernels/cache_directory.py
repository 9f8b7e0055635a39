"""Directory of compiled kernels: numba's cache directory, or else a private one.

A session looks for it before it starts its nodes, so this module does not import numba, which would
take long.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
PREFIX = "colobench-kernels-"
REMEDY = f"set {VARIABLE} to a directory that can be written"
#: Packages that contain kernels.
_GUEST = Path(__file__).parents[1] / "guest"
SOURCES = (Path(__file__).parent, _GUEST, _GUEST / "programs")

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
#: The private directory of this process, made on the first call.
_private: Path | None = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def can_write(directory: Path, size: int = 0) -> bool:
    """Say whether a file of that size can be written to a directory, which is made if missing."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def numba_has_one() -> bool:
    """Say whether numba can write a cache for every package with kernels.

    Notes
    -----
    The directories are numba's, in its order: NUMBA_CACHE_DIR, ``__pycache__`` next to the source,
    and the user's cache directory.
    """
    given = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    users = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    anywhere = [*given, Path(users, "numba")]
    return all(
        any(map(can_write, [*given, source / "__pycache__", *anywhere])) for source in SOURCES
    )


def private_directory() -> Path:
    """Return a directory for this process and its nodes, removed when the process ends.

    The first call prints that it is used, and how to avoid it.

    Raises
    ------
    OSError
        If the directory cannot be made.
    """
    global _private
    with _lock:
        if _private is None:
            _private = Path(tempfile.mkdtemp(prefix=PREFIX))
            atexit.register(_remove, _private, os.getpid())
            _logger.warning(
                "kernels are compiled for this run only, since numba's cache can be written "
                "nowhere: %s",
                REMEDY,
            )
        return _private


def _remove(made: Path, owner: int) -> None:
    """Remove the directory that `private_directory` made, but not in a forked child."""
    if os.getpid() == owner and made.name.startswith(PREFIX) and not made.is_symlink():
        shutil.rmtree(made, ignore_errors=True)


def environment() -> dict[str, str]:
    """Return the environment variables with which a node shares this process's kernels."""
    if _private is None and numba_has_one():
        return {}
    try:
        return {VARIABLE: str(private_directory())}
    except OSError:
        # Then each process compiles for itself.
        return {}
