"""An arbiter's grants on disk: a file that a crash at any moment leaves readable, with all of them.

A header line, then a line for each grant: the CRC-32 of what follows, and pairing and node in JSON.
A grant is on disk before anybody hears of it; what a crash leaves half written, nobody heard of.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path

from colobench.errors import LocalError
from colobench.protocol.arbiter import check_name

_HEADER = b"colobench arbiter grants 1\n"


class GrantsFile:
    """The file, open and locked: two arbiters that share one could grant a pairing twice.

    Parameters
    ----------
    path
        Where it is; made if it is not there.

    Attributes
    ----------
    grants
        What it said when it was opened: nodes by pairing.

    Raises
    ------
    LocalError
        If it cannot be had, another process has it, or it is damaged other than by a crash: what
        it forgot could be granted again.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError(f"grants in {path}: {error.strerror}") from error
        try:
            self.grants = self._open()
        except BaseException:
            os.close(self._file)
            raise

    def append(self, pairing: str, node: str) -> None:
        """Write a grant, and return once it is on disk.

        Raises
        ------
        LocalError
            If that failed. Nobody knows then what is on disk: read it again before any answer.
        """
        record = json.dumps([pairing, node]).encode()
        line = b"%08x %s\n" % (zlib.crc32(record), record)
        try:
            self._write(line)
        except OSError as error:
            raise LocalError(f"grants in {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file and let go of its lock."""
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def _open(self) -> dict[str, str]:
        try:
            # The kernel lets go of it when the process dies, however it does.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalError(f"grants in {self._path}: another arbiter uses the file") from error
        try:
            data = Path(self._path).read_bytes()
            if _HEADER.startswith(data) and data != _HEADER:
                # It is new, or a crash came while it was.
                os.ftruncate(self._file, 0)
                self._write(_HEADER)
                data = _HEADER
            grants, whole = _read(self._path, data)
            # What comes next must not be glued to what a crash left.
            os.ftruncate(self._file, whole)
            # What is read was written, but perhaps not to disk.
            os.fsync(self._file)
            self._sync_directory()
        except OSError as error:
            raise LocalError(f"grants in {self._path}: {error.strerror}") from error
        return grants

    def _sync_directory(self) -> None:
        directory = os.open(os.path.dirname(os.path.abspath(self._path)), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _read(path: str, data: bytes) -> tuple[dict[str, str], int]:
    """Read all grants; returns them, and how many bytes of the file are whole.

    What follows the last newline was being written in a crash, so nobody heard of it. Any other
    fault is damage, and may be that of a grant that somebody heard of.
    """
    if not data.startswith(_HEADER):
        raise LocalError(f"grants in {path}: expected {_HEADER!r}, found {data[:40]!r}")
    grants: dict[str, str] = {}
    whole = len(_HEADER)
    while (end := data.find(b"\n", whole) + 1) > 0:
        line = data[whole:end]
        found = _parse(line)
        if found is None:
            raise LocalError(
                f"grants in {path}: expected a grant with its checksum at byte {whole}, "
                f"found {line[:80]!r}"
            )
        pairing, node = found
        if grants.setdefault(pairing, node) != node:
            raise LocalError(
                f"grants in {path}: expected one node for {pairing!r}, found {grants[pairing]!r} "
                f"and {node!r}"
            )
        whole = end
    return grants, whole


def _parse(line: bytes) -> tuple[str, str] | None:
    checksum, _, record = line[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(record):
        return None
    try:
        pairing, node = json.loads(record)
        return check_name("pairing", pairing), check_name("node", node)
    except (ValueError, TypeError, LocalError):
        return None
