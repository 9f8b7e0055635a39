"""Grants of an arbiter on disk: a file from which a crash at any moment loses none.

The file is a header line and a line for each grant: a CRC-32, then pairing and node in JSON.
A grant is on disk before it is answered, so a line that a crash left incomplete was not answered.

A new file gets its name only when its header is on disk. So a file that is empty, or has half a
header, was not left by a crash: it has lost grants.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import zlib
from contextlib import suppress
from typing import BinaryIO

from colobench.errors import LocalError
from colobench.protocol.arbiter import GRANTS_LIMIT, LINE_LIMIT, check_name

_HEADER = b"colobench arbiter grants 1\n"
_SIZE_LIMIT = GRANTS_LIMIT * LINE_LIMIT
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class GrantsFile:
    """Open and locked file: two arbiters that share one could grant a pairing twice.

    Parameters
    ----------
    path
        Path of the file, which is created if it is missing.

    Attributes
    ----------
    grants
        Grants that it had when it was opened: nodes by pairing.

    Raises
    ------
    LocalError
        If it cannot be opened, another process has locked it, or it is damaged other than by a
        crash: a grant that it has lost could be granted again.
    """

    def __init__(self, path: str) -> None:
        if not path or "\0" in path:
            raise LocalError(f"grants: expected the path of a file, found {path!r}")
        self._path = path
        try:
            # A new file is made at the target of a link.
            self._file = _open(os.path.realpath(path))
        except OSError as error:
            raise self._failed(error) from error
        try:
            self.grants = self._read_all()
        except BaseException:
            os.close(self._file)
            raise

    def append(self, pairing: str, node: str) -> None:
        """Write a grant, and return once it is on disk.

        Raises
        ------
        LocalError
            If that failed. The file may have the grant or not: read it again before any answer.
        """
        record = json.dumps([pairing, node]).encode()
        line = b"%08x %s\n" % (zlib.crc32(record), record)
        try:
            self._check_still_there()
            _write(self._file, line)
        except OSError as error:
            raise self._failed(error) from error
        self._size += len(line)

    def close(self) -> None:
        """Close the file and release its lock."""
        os.close(self._file)

    def _failed(self, error: OSError) -> LocalError:
        return LocalError(f"grants in {self._path!r}: {error.strerror or error}")

    def _read_all(self) -> dict[str, str]:
        try:
            # The kernel releases the lock when the process dies.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalError(f"grants in {self._path!r}: another arbiter uses the file") from error
        try:
            found = os.fstat(self._file)
            if not stat.S_ISREG(found.st_mode):
                kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
                raise LocalError(f"grants in {self._path!r}: expected a file, found {kind}")
            if found.st_size > _SIZE_LIMIT:
                raise LocalError(
                    f"grants in {self._path!r}: expected at most {_SIZE_LIMIT} bytes, "
                    f"found {found.st_size}"
                )
            with open(self._file, "rb", closefd=False) as lines:
                grants, self._size = _read(self._path, lines)
            # Remove a line that a crash left incomplete, so that the next one begins a line.
            os.ftruncate(self._file, self._size)
            # The lines were written, but perhaps not to disk.
            os.fsync(self._file)
            _sync_directory(os.path.realpath(self._path))
        except OSError as error:
            raise self._failed(error) from error
        return grants

    def _check_still_there(self) -> None:
        """Check that the file has not been replaced or changed by another process."""
        ours = os.fstat(self._file)
        there = os.stat(self._path)
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise LocalError(f"grants in {self._path!r}: expected the file, found another one")
        if ours.st_size != self._size:
            raise LocalError(
                f"grants in {self._path!r}: expected {self._size} bytes, as were written, "
                f"found {ours.st_size}"
            )


def _open(path: str) -> int:
    """Open the file; if it is missing, make one with the header."""
    # Do not wait for a FIFO or a device.
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        _make(path)
        return os.open(path, flags)
    except OSError:
        # A socket, for example, cannot be opened: name the kind of file.
        if (kind := _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))) is not None:
            raise LocalError(f"grants in {path!r}: expected a file, found {kind}") from None
        raise


def _make(path: str) -> None:
    """Make a file with the header, in one step, unless another process has made it."""
    directory, name = os.path.split(path)
    made, temporary = tempfile.mkstemp(prefix=f".{name[:100]}-", dir=directory)
    try:
        _write(made, _HEADER)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.close(made)
        os.unlink(temporary)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)


def _sync_directory(path: str) -> None:
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: str, lines: BinaryIO) -> tuple[dict[str, str], int]:
    """Read all grants; return them, and the number of bytes with complete lines.

    Bytes after the last newline were being written in a crash, so they were not answered. Any other
    fault is damage, perhaps of a grant that was answered.
    """
    header = lines.read(len(_HEADER))
    if header != _HEADER:
        what = repr(header) if header else "an empty file, which may have lost its grants"
        raise LocalError(f"grants in {path!r}: expected {_HEADER!r}, found {what}")
    grants: dict[str, str] = {}
    whole = len(_HEADER)
    while line := lines.readline(LINE_LIMIT):
        if not line.endswith(b"\n") and len(line) < LINE_LIMIT:
            break
        found = _parse(line)
        if found is None:
            raise LocalError(
                f"grants in {path!r}: expected a grant with its checksum at byte {whole}, "
                f"found {line[:80]!r}"
            )
        pairing, node = found
        if grants.setdefault(pairing, node) != node:
            raise LocalError(
                f"grants in {path!r}: expected one node for {pairing!r}, "
                f"found {grants[pairing]!r} and {node!r}"
            )
        whole += len(line)
    return grants, whole


def _parse(line: bytes) -> tuple[str, str] | None:
    checksum, _, record = line[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(record):
        return None
    try:
        pairing, node = json.loads(record)
        return check_name("pairing", pairing), check_name("node", node)
    except (ValueError, TypeError, RecursionError, LocalError):
        return None
