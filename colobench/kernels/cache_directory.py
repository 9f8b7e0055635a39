"""Where compiled kernels are kept: where numba keeps its cache, or else in a private directory.

This does without numba, which takes long to import: a session asks before it starts its nodes.
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
#: The packages with kernels in them.
_GUEST = Path(__file__).parents[1] / "guest"
SOURCES = (Path(__file__).parent, _GUEST, _GUEST / "programs")

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
#: The private directory of this process, once it was asked for.
_private: Path | None = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def can_write(directory: Path, size: int = 0) -> bool:
    """Try whether a file of that size can be written there; the directory is made if need be."""
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
    The places are numba's, in its order: NUMBA_CACHE_DIR, ``__pycache__`` beside the source, and
    the user's cache directory.
    """
    given = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    users = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    anywhere = [*given, Path(users, "numba")]
    return all(
        any(map(can_write, [*given, source / "__pycache__", *anywhere])) for source in SOURCES
    )


def private_directory() -> Path:
    """Give a directory for this process and its nodes, removed when the process ends.

    It says once that there is one, and how to do without.

    Raises
    ------
    OSError
        If not even that can be made.
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
    """Remove the directory that `private_directory` has made in this process, not in a fork."""
    if os.getpid() == owner and made.name.startswith(PREFIX) and not made.is_symlink():
        shutil.rmtree(made, ignore_errors=True)


def environment() -> dict[str, str]:
    """Give what a node's environment has to say so that it shares its kernels with this process."""
    if _private is None and numba_has_one():
        return {}
    try:
        return {VARIABLE: str(private_directory())}
    except OSError:
        # Then each process compiles for itself.
        return {}
