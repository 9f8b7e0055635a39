"""Files of results, a line for each, to which a run appends and from which it goes on."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from colobench.errors import LocalError

_T = TypeVar("_T")
#: Bytes that are read at a time from the end of a file.
_BLOCK = 1 << 16


class ResultLines:
    """A file of results, each one line of JSON.

    A process that is killed while writing leaves a torn last line, which is ignored.

    Parameters
    ----------
    path
        The file; it need not be there yet.
    beginning
        Bytes with which each line begins.
    what
        Name of the results in the plural, for errors.
    """

    def __init__(self, path: Path | str, beginning: bytes, what: str) -> None:
        self.path = Path(path)
        self._beginning, self._what = beginning, what

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from adding to the file meanwhile.

        A file that this makes is removed again if it stays empty.

        Raises
        ------
        LocalError
            If one adds to it, or it cannot be written, or is a device or a pipe.
        """
        is_new = not os.path.lexists(self.path)
        try:
            lock = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            words = error.strerror or error
            raise LocalError(f"{self.path}: cannot be written: {words}") from error
        with ExitStack() as stack:
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LocalError(
                    f"{self.path}: expected no other run that adds {self._what}, found one"
                ) from error
            self._check_regular()
            if is_new:
                stack.callback(self._remove_if_empty)
            yield

    def load(self) -> list[bytes]:
        """Read the whole lines.

        Raises
        ------
        LocalError
            If there is anything else in the file, or it cannot be read.
        """
        try:
            # A device may have no end.
            whole = self._whole()
            return self.path.read_bytes()[:whole].splitlines() if whole else []
        except OSError as error:
            words = error.strerror or error
            raise LocalError(f"{self.path}: expected {self._what}, found: {words}") from error

    def read(self, parse: Callable[[bytes], _T]) -> list[_T]:
        """Read the whole lines as values.

        Raises
        ------
        LocalError
            As of `load`, or if `parse` raises one; the error names file and line.
        """
        found = []
        for number, line in enumerate(self.load(), 1):
            try:
                found.append(parse(line))
            except LocalError as error:
                raise LocalError(f"{self.path}, line {number}: {error}") from error
        return found

    def append(self, line: str) -> None:
        """Write a line behind the others, so that it is on disk when this returns.

        Raises
        ------
        LocalError
            If there is anything else in the file, or it cannot be written, as on a full disk. The
            lines before are kept.
        """
        whole = self._whole()
        try:
            with open(self.path, "r+b" if self.path.exists() else "x+b") as file:
                file.truncate(whole)
                file.seek(whole)
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            words = error.strerror or error
            raise LocalError(
                f"{self.path}: cannot be written: {words}; the results before are kept"
            ) from error

    def _check_regular(self) -> None:
        """Refuse what may have no end, or is no file of this user's, with LocalError."""
        if not self.path.is_file():
            raise LocalError(f"{self.path}: expected a file of {self._what}, found no regular file")

    def _remove_if_empty(self) -> None:
        with suppress(FileNotFoundError):
            if not self.path.stat().st_size:
                self.path.unlink()

    def _whole(self) -> int:
        """Give the length of the whole lines; behind them there may be the beginning of one more.

        Only the end of the file is read, as long files are appended to often.
        """
        if not self.path.exists():
            return 0
        self._check_regular()
        torn = b""
        with open(self.path, "rb") as file:
            at = file.seek(0, os.SEEK_END)
            while at and b"\n" not in torn:
                size = min(at, _BLOCK)
                at = file.seek(at - size)
                torn = file.read(size) + torn
        lines = torn.rfind(b"\n") + 1
        torn = torn[lines:]
        if torn[: len(self._beginning)] != self._beginning[: len(torn)]:
            raise LocalError(f"{self.path}: expected {self._what}, found {torn[:80]!r}")
        return at + lines
