"""Copy of a whole disk between files and NBD servers, with many requests in flight."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final, Protocol, TypeAlias

import numpy as np

from colobench.block.nbd.conversation import fresh_memory
from colobench.block.nbd.format import TransmissionFlag
from colobench.block.nbd.uri import is_nbd_uri, parse_nbd_uri
from colobench.block.request import NBD_LENGTH_MAX, SECTOR_SIZE, BlockRequest, RequestKind
from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.disk.generation_file import GENERATION_SUFFIX
from colobench.node.disk.image import FileImage
from colobench.node.disk.nbd_client import NBDClient

#: Bytes of a request, and requests at once.
REQUEST_BYTES: Final = 1 << 20
REQUESTS: Final = 16
_ZEROES: Final = bytes(REQUEST_BYTES)
#: Bytes whose extents are asked for at once, and most of these.
_EXTENT_BYTES: Final = 1 << 30
_EXTENTS: Final = 4096

#: Function that hears that a request is done, or of its error.
_Done: TypeAlias = Callable[[Exception | None], None]


class _End(Protocol):
    """One end of a copy."""

    @property
    def size(self) -> int:
        """Size, bytes."""

    @property
    def largest(self) -> int:
        """Most bytes that are read or written at once."""

    @property
    def largest_clear(self) -> int:
        """Most bytes that are cleared at once."""

    def extents(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """Return length and emptiness of each extent from an offset on."""

    def read(self, offset: int, memory: memoryview, done: _Done) -> None:
        """Begin to fill a memory."""

    def write(self, offset: int, memory: memoryview, done: _Done) -> None:
        """Begin to write."""

    def clear(self, offset: int, length: int, done: _Done) -> None:
        """Begin to write zeros, as a hole if that can be."""

    def flush(self) -> None:
        """Bring everything to stable storage."""

    def close(self) -> None:
        """Close."""


def copy_disk(
    source: str, destination: str, progress: Callable[[int, int], None] = lambda done, size: None
) -> int:
    """Copy a disk.

    Parameters
    ----------
    source, destination
        Path of an image file, or URI of an NBD export. A missing file is created, an existing one
        must be as large as the source; an export may be larger.
    progress
        Function that is called with the bytes that are copied, and all.

    Returns
    -------
    int
        Size of the source, bytes.

    Raises
    ------
    LocalError
        If both ends are one file, or one cannot be opened or has another size; a `BlockError` if a
        request failed.
    RemoteError
        If a server fails.
    """
    if not is_nbd_uri(source) and os.path.realpath(source) == os.path.realpath(destination):
        raise LocalError(f"{destination}: expected another file than the source, found the same")
    with ExitStack() as stack:
        end = _open_source(source)
        stack.callback(end.close)
        into = _open_destination(destination, end.size)
        stack.callback(into.close)
        _copy(end, into, progress)
        into.flush()
        return end.size


def _copy(source: _End, destination: _End, progress: Callable[[int, int], None]) -> None:
    #: What is to be done in this thread; each returns the bytes that are copied by it.
    happened: queue.SimpleQueue[Callable[[], int]] = queue.SimpleQueue()

    #: Memory of requests that are over: new memory costs as much time as a copy.
    spare: list[memoryview] = []

    def clear(offset: int, length: int) -> None:
        destination.clear(offset, length, lambda error: happened.put(lambda: over(length, error)))

    def copy(offset: int, length: int) -> None:
        whole = spare.pop() if spare else fresh_memory(REQUEST_BYTES)
        memory = whole[:length]

        def arrived(error: Exception | None) -> None:
            happened.put(lambda: store(error))

        def store(error: Exception | None) -> int:
            over(0, error)
            if np.asarray(memory).any():
                destination.write(offset, memory, stored)
            else:
                destination.clear(offset, length, stored)
            return 0

        def stored(error: Exception | None) -> None:
            spare.append(whole)
            happened.put(lambda: over(length, error))

        source.read(offset, memory, arrived)

    def over(length: int, error: Exception | None) -> int:
        if error is not None:
            raise error
        return length

    copied = in_flight = 0
    largest = min(source.largest, destination.largest)
    for offset, length, empty in _ranges(source, largest, destination.largest_clear):
        (clear if empty else copy)(offset, length)
        in_flight += 1
        while in_flight >= REQUESTS:
            done = happened.get()()
            copied, in_flight = copied + done, in_flight - bool(done)
            progress(copied, source.size)
    while copied < source.size:
        copied += happened.get()()
        progress(copied, source.size)


def _ranges(source: _End, largest: int, largest_clear: int) -> Iterator[tuple[int, int, bool]]:
    """Divide a disk into requests: offset, length, and whether the range is empty."""
    at = 0
    while at < source.size:
        for size, empty in source.extents(at, min(_EXTENT_BYTES, source.size - at)):
            most = largest_clear if empty else largest
            for offset in range(at, at + size, most):
                yield offset, min(most, at + size - offset), empty
            at += size


class _NBDEnd:
    """An export of a server."""

    def __init__(self, uri: str) -> None:
        location = parse_nbd_uri(uri)
        self._client = NBDClient(Address.parse(location.address), location.export, allocation=True)

    @property
    def size(self) -> int:
        return self._client.size

    @property
    def largest(self) -> int:
        return min(REQUEST_BYTES, self._limit())

    @property
    def largest_clear(self) -> int:
        return self._limit() if self._clears() else self.largest

    def _limit(self) -> int:
        """Return the most bytes that the server takes at once, in whole sectors."""
        limit = min(NBD_LENGTH_MAX, self._client.export.largest)
        return max(limit - limit % SECTOR_SIZE, SECTOR_SIZE)

    def _clears(self) -> bool:
        return bool(self._client.export.flags & TransmissionFlag.SEND_WRITE_ZEROES)

    def extents(self, offset: int, length: int) -> list[tuple[int, bool]]:
        return self._client.extents(offset, length)

    def read(self, offset: int, memory: memoryview, done: _Done) -> None:
        request = BlockRequest(RequestKind.READ, offset, len(memory))
        self._client.submit(request, lambda _, error: done(error), memory)

    def write(self, offset: int, memory: memoryview, done: _Done) -> None:
        request = BlockRequest(RequestKind.WRITE, offset, len(memory), memory)
        self._client.submit(request, lambda _, error: done(error))

    def clear(self, offset: int, length: int, done: _Done) -> None:
        if not self._clears():
            self.write(offset, memoryview(_ZEROES)[:length], done)
            return
        request = BlockRequest(RequestKind.DISCARD, offset, length)
        self._client.submit(request, lambda _, error: done(error))

    def flush(self) -> None:
        self._client.flush()

    def close(self) -> None:
        self._client.close()


class _FileEnd:
    """An image file, read and written in the thread that copies."""

    def __init__(self, image: FileImage) -> None:
        self._image = image

    @property
    def size(self) -> int:
        return self._image.size

    @property
    def largest(self) -> int:
        return REQUEST_BYTES

    @property
    def largest_clear(self) -> int:
        return NBD_LENGTH_MAX

    def extents(self, offset: int, length: int) -> list[tuple[int, bool]]:
        return self._image.extents(offset, length, _EXTENTS)

    def read(self, offset: int, memory: memoryview, done: _Done) -> None:
        self._image.read_into(offset, memory)
        done(None)

    def write(self, offset: int, memory: memoryview, done: _Done) -> None:
        self._image.write(offset, memory)
        done(None)

    def clear(self, offset: int, length: int, done: _Done) -> None:
        self._image.discard(offset, length)
        done(None)

    def flush(self) -> None:
        self._image.flush()

    def close(self) -> None:
        self._image.close()


def _open_source(name: str) -> _End:
    return _NBDEnd(name) if is_nbd_uri(name) else _FileEnd(FileImage(name, read_only=True))


def _open_destination(name: str, size: int) -> _End:
    if not is_nbd_uri(name):
        if os.path.exists(os.path.realpath(name) + GENERATION_SUFFIX):
            raise LocalError(
                f"{name}: expected a file that no guest has used, found {name}{GENERATION_SUFFIX}, "
                "which says what is in it"
            )
        return _FileEnd(FileImage(name, size))
    end = _NBDEnd(name)
    if end.size < size:
        end.close()
        raise LocalError(f"{name}: expected at least {size} bytes, found {end.size}")
    return end
