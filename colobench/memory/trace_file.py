"""The file of a trace: its bytes and its checksum, without NumPy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from colobench.errors import LocalError

#: Limit of a file, bytes.
FILE_LIMIT = 64 << 20


def file_digest(path: str | Path) -> str:
    """Compute the SHA-256 of a trace's file, in hexadecimal.

    Raises
    ------
    LocalError
        If it cannot be read, or is larger than a trace may be.
    """
    return hashlib.sha256(read_trace_file(path)).hexdigest()


def read_trace_file(path: str | Path) -> bytes:
    """Read a file, with LocalError if it cannot be read or is larger than a trace may be."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise LocalError(f"trace {path}: cannot be read: {error.strerror}") from error
    if len(data) > FILE_LIMIT:
        raise LocalError(f"trace {path}: expected at most {FILE_LIMIT} bytes, found more")
    return data
