"""A layer buffer in a file, from which an image can be undone after its secondary was killed.

The file begins with a header: a line that names the format, the image's generation and the boot in
which it was written, and the number of the epoch, which each checkpoint raises by one. Then comes
the index of the hidden layer, entries of the epoch, the offset on the disk, the length, and the
place in the buffer, each of 64 bits; and then the buffer. The entries that count are the first
ones whose epoch is the header's, so that one small write empties the layers. A guest with several
disks has a file for each. The first of them whose epoch is raised commits the checkpoint for all:
the epoch that counts is the newest of all files of a generation in the directory.

SIGKILL keeps the order of what was written: old bytes are in the buffer and in the index before
the image is changed. A crash of the machine does not, so after another boot a file is not used.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from colobench.block.backend import BlockData, BlockError
from colobench.block.clusters import CLUSTER_SIZE, ByteRange
from colobench.errors import LocalError
from colobench.node.disk.generation_file import boot_identifier
from colobench.node.disk.image import ImageInUse

LAYERS_SUFFIX: Final = ".layers"
_PAGE: Final = 4096
_EPOCH = struct.Struct("<Q")
#: Where the header's epoch is.
_EPOCH_PLACE: Final = 1024
#: Epoch, offset, length and place. No entry crosses a page.
_ENTRY = struct.Struct("<QQQQ")


def layers_path(directory: str, image: str) -> str:
    """Return the path of an image's layers in the directory of ``--disk-buffer``."""
    return os.path.join(directory, os.path.basename(os.path.realpath(image)) + LAYERS_SUFFIX)


class FileLayerBuffer:
    """Buffer in a file. Several threads may use it at once.

    Parameters
    ----------
    path
        Path of the file, of which an old one is overwritten.
    limit
        Size of the buffer in bytes.
    generation
        Generation that the image shares with the primary's, before a write is forwarded.
    reserves
        Whether the whole space is allocated now, so that a full disk is found now.

    Raises
    ------
    ImageInUse
        If another process uses the file.
    LocalError
        If it cannot be made, as on a full disk.
    """

    def __init__(self, path: str, limit: int, generation: str, *, reserves: bool = True) -> None:
        self._path, self.limit = path, limit
        self._data = _data_place(limit)
        self._epoch, self._kept = 0, 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _cannot(path, "opened", error) from error
        try:
            _lock(self._file, path)
            # An old file is none from here on, whenever this process ends.
            os.ftruncate(self._file, 0)
            if reserves:
                os.posix_fallocate(self._file, 0, self._data + limit)
            self.empty()
            header = _header(generation, limit)
            os.pwrite(self._file, header, 0)
        except OSError as error:
            os.close(self._file)
            raise _cannot(path, "made", error) from error
        except LocalError:
            os.close(self._file)
            raise

    def write(self, place: int, data: BlockData) -> None:
        """Write bytes; raises `BlockError` if that failed."""
        self._write(self._data + place, data)

    def read(self, place: int, length: int) -> bytes:
        """Return bytes; raises `BlockError` if that failed."""
        try:
            data = os.pread(self._file, length, self._data + place)
        except OSError as error:
            raise self._failed(error) from error
        if len(data) != length:
            raise BlockError(
                errno.EIO, f"{self._path}: expected {length} bytes at {place}, found {len(data)}"
            )
        return data

    def keep(self, offset: int, length: int, place: int) -> None:
        """Enter old bytes into the index; raises `BlockError` if that failed."""
        entry = _ENTRY.pack(self._epoch, offset, length, place)
        self._write(_PAGE + self._kept * _ENTRY.size, entry)
        self._kept += 1

    def empty(self) -> None:
        """Begin the next epoch; raises `BlockError` if that failed."""
        self.begin(self._epoch + 1)

    def begin(self, epoch: int) -> None:
        """Begin an epoch, empty; raises `BlockError` if that failed."""
        self._write(_EPOCH_PLACE, _EPOCH.pack(epoch))
        self._epoch, self._kept = epoch, 0

    def close(self, *, remove: bool = True) -> None:
        """Close the file, and remove it: the layers were merged, or are no longer needed."""
        if self._file < 0:
            return
        try:
            if remove:
                os.unlink(self._path)
        except OSError as error:
            raise _cannot(self._path, "removed", error) from error
        finally:
            os.close(self._file)
            self._file = -1

    def _write(self, place: int, data: BlockData) -> None:
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                done += os.pwrite(self._file, view[done:], place + done)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> BlockError:
        return BlockError(errno.EIO, f"{self._path}: {error.strerror}")


def load_hidden(path: str, generation: str) -> list[tuple[ByteRange, bytes]]:
    """Read the hidden layer that a killed secondary has left behind.

    If it was killed while a checkpoint emptied the layers of one disk after the other, those of
    all its disks in the directory become empty now.

    Parameters
    ----------
    path
        Path of the file.
    generation
        The image's generation.

    Returns
    -------
    list of ByteRange and bytes
        Ranges of the image, and their bytes at the last checkpoint.

    Raises
    ------
    ImageInUse
        If a process uses the file.
    LocalError
        If it is not readable, of another generation, of another boot, or damaged.
    """
    with ExitStack() as stack:
        file, size = _open(path, generation, stack)
        try:
            files = {path: file, **_of_other_disks(path, generation, stack)}
            return list(_load(file, path, size, _settle(files)))
        except OSError as error:
            raise _cannot(path, "read", error) from error


@contextmanager
def epoch_in(path: str, generation: str) -> Iterator[tuple[int, Iterator[tuple[ByteRange, bytes]]]]:
    """Give the number of a file's epoch, and its old bytes as `load_hidden` does; errors too."""
    with ExitStack() as stack:
        file, size = _open(path, generation, stack)
        try:
            epoch = _epoch_of(path, file)
            yield epoch, _load(file, path, size, epoch)
        except OSError as error:
            raise _cannot(path, "read", error) from error


def _open(path: str, generation: str, stack: ExitStack) -> tuple[int, int]:
    """Open and lock a file until a stack is closed; give it and its buffer's size."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(path, "opened", error) from error
    stack.callback(os.close, file)
    _lock(file, path)
    try:
        found = os.pread(file, _EPOCH_PLACE, 0).rstrip(b"\0")
    except OSError as error:
        raise _cannot(path, "read", error) from error
    if (size := _buffer_size(found, generation)) is None:
        raise LocalError(
            f"{path}: expected layers of the generation {generation}, written in this boot "
            f"of the machine, found {found[:120]!r}"
        )
    return file, size


def _of_other_disks(path: str, generation: str, stack: ExitStack) -> dict[str, int]:
    """Open the layers of the secondary's other disks, until a stack is closed."""
    found = {}
    directory, own = os.path.split(path)
    for name in os.listdir(directory or "."):
        if name == own or not name.endswith(LAYERS_SUFFIX):
            continue
        other = os.path.join(directory, name)
        try:
            file = os.open(other, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            # The secondary's own can all be opened by the one who repairs its images.
            continue
        stack.callback(os.close, file)
        with suppress(OSError):
            header = os.pread(file, _EPOCH_PLACE, 0).rstrip(b"\0")
            if _buffer_size(header, generation) is not None:
                _lock(file, other)
                found[other] = file
    return found


def _settle(files: dict[str, int]) -> int:
    """Give all files the epoch of the last checkpoint; returns it."""
    epochs: dict[str, int] = {}
    for path, file in files.items():
        epochs[path] = _epoch_of(path, file)
    newest = max(epochs.values())
    for path, epoch in epochs.items():
        if epoch != newest:
            os.pwrite(files[path], _EPOCH.pack(newest), _EPOCH_PLACE)
    return newest


def _epoch_of(path: str, file: int) -> int:
    packed = os.pread(file, _EPOCH.size, _EPOCH_PLACE)
    if len(packed) != _EPOCH.size:
        raise LocalError(f"{path}: expected the number of an epoch, found the file's end")
    return int.from_bytes(packed, "little")


def _load(file: int, path: str, size: int, epoch: int) -> Iterator[tuple[ByteRange, bytes]]:
    for entry in _ENTRY.iter_unpack(os.pread(file, _data_place(size) - _PAGE, _PAGE)):
        of_epoch, offset, length, place = entry
        if of_epoch != epoch:
            break
        data = os.pread(file, length, _data_place(size) + place) if place + length <= size else b""
        if len(data) != length:
            raise LocalError(f"{path}: expected an entry within {size} bytes, found {entry}")
        yield ByteRange(offset, length), data


def _data_place(limit: int) -> int:
    """Return where the buffer begins: behind as many entries as it can have clusters, and one."""
    return _PAGE + -(-(limit // CLUSTER_SIZE + 1) * _ENTRY.size // _PAGE) * _PAGE


def _buffer_size(header: bytes, generation: str) -> int | None:
    """Return the buffer's size if this is the header of layers of a generation and this boot."""
    limit = header.rpartition(b" ")[2].strip()
    size = int(limit) if limit.isdigit() and len(limit) < 16 else 0
    return size if header == _header(generation, size) else None


def _header(generation: str, limit: int) -> bytes:
    return f"colobench layers 1 {generation} {boot_identifier()} {limit}\n".encode()


def _lock(file: int, path: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ImageInUse(
            f"{path}: expected layers that no process uses, found them locked"
        ) from error


def _cannot(path: str, done: str, error: OSError) -> LocalError:
    return LocalError(f"layers {path}: cannot be {done}: {error.strerror}")
