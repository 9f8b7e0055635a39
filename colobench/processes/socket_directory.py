"""Private directories for UNIX sockets, at a place whose path is short enough for their names."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from colobench.errors import LocalError

#: Bytes that the path of a UNIX socket may have (unix(7): 108 with the zero behind it).
LONGEST_PATH = 107
#: Largest number in the name of a socket: one a second for a century.
LARGEST_NUMBER = 2**32 - 1
#: Prefixes of directories' names: a session's, and that of a pair of real QEMUs.
SESSION_PREFIX, QEMU_PREFIX = "colobench-session-", "colobench-qemu-"
#: The sockets in such a directory; the braces stand for the number of a node or of a pair.
NAMES = (
    "node-{}.qmp",
    "switch.qmp",
    "arbiter.qmp",
    "switch",
    "arbiter",
    "relay",
    "colo-{}",
    "mirror-{}",
    "primary-{}.heartbeat",
    "secondary-{}.heartbeat",
    # A pair of real QEMUs has these.
    "colo",
    "primary.qmp",
    "secondary.qmp",
)
LONGEST_NAME = max((name.format(LARGEST_NUMBER) for name in NAMES), key=len)
#: Characters that `tempfile.mkdtemp` appends to a prefix.
_RANDOM_CHARACTERS = 8
#: Bytes that the path may have of the directory in which all of this is made.
LONGEST_PARENT = LONGEST_PATH - len(f"/{SESSION_PREFIX}/{LONGEST_NAME}") - _RANDOM_CHARACTERS
#: Directories to try after the temporary one and XDG_RUNTIME_DIR.
FALLBACKS = ("/tmp", "/var/tmp", "/dev/shm")


def parents() -> Iterator[Path]:
    """Give the directories in which `make_socket_directory` makes one, in its order of preference.

    Notes
    -----
    The temporary directory is the first: that of TMPDIR, or the system's. The others are for one
    whose path is too long, or in which no socket can be made.
    """
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), *FALLBACKS]
    with suppress(FileNotFoundError):
        # No directory can be written, or the current one, its last resort, is gone.
        candidates.insert(0, os.path.abspath(tempfile.gettempdir()))
    for candidate in dict.fromkeys(candidates):
        if os.path.isabs(candidate):
            yield Path(candidate)


def make_socket_directory(prefix: str) -> Path:
    """Make a new directory of our own, in which every socket of `NAMES` can be bound.

    Parameters
    ----------
    prefix
        First part of its name.

    Raises
    ------
    LocalError
        If there is no place for it.
    """
    refused = []
    for parent in parents():
        length = len(os.fsencode(parent))
        if length > LONGEST_PARENT:
            refused.append(f"{parent} with {length} bytes")
            continue
        try:
            return _make_in(parent, prefix)
        except OSError as error:
            refused.append(f"{parent}: {error.strerror or error}")
    raise LocalError(
        "directory for sockets: expected one that can be written and whose path has at most "
        f"{LONGEST_PARENT} bytes, found {'; '.join(refused) or 'none'}: set TMPDIR to such a one"
    )


def _make_in(parent: Path, prefix: str) -> Path:
    """Make a directory in `parent`, and bind a socket in it, since not every file system can."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    probe = directory / LONGEST_NAME
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(probe))
        probe.unlink()
    except OSError:
        probe.unlink(missing_ok=True)
        directory.rmdir()
        raise
    return directory
