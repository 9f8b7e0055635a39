"""Sources of a stream to decode: a file, a pipe, or a UNIX socket that QEMU migrates to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from colobench.errors import LocalError

#: Prefix of a UNIX socket's path.
UNIX = "unix:"
#: First bytes of compressed recordings, as in datasets/qemu.
_XZ = b"\xfd7zXZ\0"


class StreamSource(NamedTuple):
    """A stream that can be read once.

    Attributes
    ----------
    name
        Its name.
    position
        Function of the number of bytes read; it gives the place in the file, and its length.
    read_into
        Function that reads into a memoryview, and gives the number of bytes, 0 at the end.
    """

    name: str
    position: Callable[[int], tuple[int, int]]
    read_into: Callable[[memoryview], int]


@contextmanager
def open_stream(source: str | os.PathLike[str]) -> Iterator[StreamSource]:
    """Open a stream.

    Parameters
    ----------
    source
        Path of a file, which may be compressed with xz; ``-`` for standard input; or ``unix:PATH``,
        a socket that is bound here, and to which one connection is accepted.

    Raises
    ------
    LocalError
        If there is no such file, or it cannot be read.
    """
    name = os.fspath(source)
    if name == "-":
        yield _of_file("standard input", sys.stdin.buffer)
    elif name.startswith(UNIX):
        with _accepted(Path(name.removeprefix(UNIX))) as file:
            yield _of_file(name, file)
    else:
        try:
            file = open(name, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise LocalError(
                f"{name}: expected a file that can be read, found: {error.strerror}"
            ) from error
        with file:
            yield from _plain_or_compressed(name, file)


def _plain_or_compressed(name: str, file: BinaryIO) -> Iterator[StreamSource]:
    seekable = file.seekable()
    if seekable and file.read(len(_XZ)) == _XZ:
        import lzma

        file.seek(0)
        with lzma.open(file) as decompressed:
            length = os.fstat(file.fileno()).st_size
            yield StreamSource(
                name, lambda _: (file.tell(), length), _reader(name, decompressed.readinto)
            )
        return
    if seekable:
        file.seek(0)
    yield _of_file(name, file)


def _of_file(name: str, file: BinaryIO) -> StreamSource:
    length = os.fstat(file.fileno()).st_size if file.seekable() else None
    # A pipe gives what is there, and does not wait until the window is full.
    read = getattr(file, "readinto1", None) or file.readinto  # type: ignore[attr-defined]
    return StreamSource(name, lambda count: (count, length or count), _reader(name, read))


def _reader(name: str, read: Callable[[memoryview], int | None]) -> Callable[[memoryview], int]:
    def read_into(place: memoryview) -> int:
        import lzma

        try:
            return read(place) or 0
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise LocalError(f"{name}: expected bytes, found: {error}") from error

    return read_into


@contextmanager
def _accepted(path: Path) -> Iterator[BinaryIO]:
    # Who reads a file waits for none of these.
    import socket

    from colobench.node import sockets

    try:
        listener = sockets.bind(socket.AF_UNIX, str(path))
    except OSError as error:
        raise LocalError(
            f"{UNIX}{path}: expected a path for a new socket, found: {error.strerror or error}"
        ) from error
    with listener:
        try:
            listener.listen(1)
            connection, _ = listener.accept()
            with connection, connection.makefile("rb", buffering=0) as file:
                yield file  # type: ignore[misc]
        finally:
            path.unlink(missing_ok=True)


def read_places(source: str, offsets: Sequence[int], size: int) -> dict[int, bytes]:
    """Read a few bytes at each of some places of a file again.

    Parameters
    ----------
    source
        As for `open_stream`. Of a pipe or a socket, whose bytes are gone, there are none.
    offsets
        The places, ascending.
    size
        Bytes at each place.
    """
    if source.startswith(UNIX) or not Path(source).is_file():
        return {}
    found = {}
    with suppress(OSError, EOFError), open(source, "rb") as plain:
        file: BinaryIO = plain
        if plain.read(len(_XZ)) == _XZ:
            import lzma

            plain.seek(0)
            file = lzma.open(plain)  # type: ignore[assignment] # noqa: SIM115
        for offset in offsets:
            file.seek(offset)
            found[offset] = file.read(size)
    return found
