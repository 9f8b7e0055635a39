"""Image files: a disk's bytes in a raw file with holes, which one process has open at a time."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final

from colobench.block.backend import BlockData, BlockError
from colobench.block.request import DISK_SIZE_MAX, SECTOR_SIZE
from colobench.errors import LocalError

#: Modes of fallocate(2).
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
#: Most zeros that are written at once where a file system has no better way, bytes.
_ZEROES: Final = bytes(1 << 20)
#: Numbers that a guest and NBD's clients know; all others are EIO to them.
_TOLD: Final = {
    errno.ENOSPC: errno.ENOSPC,
    errno.EDQUOT: errno.ENOSPC,
    errno.EPERM: errno.EPERM,
    errno.EACCES: errno.EPERM,
    errno.EROFS: errno.EPERM,
    errno.ENOMEM: errno.ENOMEM,
}
#: Bytes of an image that QEMU locks if it writes to it, and if nobody else may write to it.
_QEMU_LOCKS: Final = (101, 201)
#: struct flock: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("@hhqqi4x")
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class ImageInUse(LocalError):
    """An image that another process, or another part of this one, has open."""


class FileImage:
    """Backend over a raw image. Several threads may use it at once.

    Parameters
    ----------
    path
        Path of the file. A symbolic link is followed.
    size
        Size of the disk in bytes, or None for that of the file. A missing file is created with
        this size, as one hole; an existing one must have it.
    read_only
        Whether the image is only read. Several readers may have it open at once.

    Attributes
    ----------
    path
        The file's real path.
    size
        Size of the disk in bytes.
    created
        Whether the file was missing, and has been made.

    Raises
    ------
    ImageInUse
        If the file is locked by whoever else has it open: by flock(2), or in QEMU's way.
    LocalError
        If it cannot be opened or created, is no regular file, or has another size.
    """

    def __init__(self, path: str, size: int | None = None, *, read_only: bool = False) -> None:
        if not path or "\0" in path:
            raise LocalError(f"image: expected the path of a file, found {path!r}")
        if size is not None:
            _check_size(path, size)
        self.path = os.path.realpath(path)
        self.read_only = read_only
        #: Error of the first flush that failed: later ones may not say that all is well.
        self._lost: OSError | None = None
        try:
            self._file, self.created = _open(self.path, size, read_only)
        except OSError as error:
            raise LocalError(f"image {path}: cannot be opened: {error.strerror}") from error
        try:
            self._lock()
            self.size = self._find_size(size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FileImage:
        """Do nothing: it is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the file without a flush. No request may be in flight or come later."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    @property
    def allocated(self) -> int:
        """Bytes that the file takes on its own disk, less than its size if it has holes."""
        return os.fstat(self._file).st_blocks * 512

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes.

        Raises
        ------
        BlockError
            With EIO, also if the file has become shorter.
        """
        parts = []
        done = 0
        while done < length:
            with _Told(self.path, "read", offset + done):
                part = os.pread(self._file, length - done, offset + done)
            if not part:
                raise self._shrunk("read", offset)
            parts.append(part)
            done += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, memory: memoryview) -> None:
        """Read as many bytes as a memory has; errors are those of `read`."""
        done = 0
        while done < len(memory):
            with _Told(self.path, "read", offset + done):
                count = os.preadv(self._file, (memory[done:],), offset + done)
            if not count:
                raise self._shrunk("read", offset)
            done += count

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write bytes; with `fua`, return once they are on stable storage.

        Raises
        ------
        BlockError
            With EIO, ENOSPC or EPERM.
        """
        self._check_writable("write", offset, len(data))
        view, done = memoryview(data), 0
        flags = os.RWF_DSYNC if fua else 0
        while done < len(view):
            with _Told(self.path, "write", offset + done):
                done += os.pwritev(self._file, (view[done:],), offset + done, flags)

    def flush(self) -> None:
        """Return once every write that has returned is on stable storage.

        Raises
        ------
        BlockError
            If that failed, now or before: Linux reports an error of writing back once, and the
            bytes that were lost then are not written by a later flush.
        """
        if self.read_only:
            return
        if self._lost is None:
            try:
                os.fdatasync(self._file)
                return
            except OSError as error:
                self._lost = error
        raise _block_error(self.path, "flush", None, self._lost) from self._lost

    def discard(self, offset: int, length: int) -> None:
        """Make a hole of a range; errors are those of `write`."""
        self._zero("discard", offset, length, _KEEP_SIZE | _PUNCH_HOLE)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros, and keep the space for later writes if the file system can do that."""
        self._zero("write zeroes", offset, length, _KEEP_SIZE | _ZERO_RANGE)

    def extents(self, offset: int, length: int, limit: int) -> list[tuple[int, bool]]:
        """Return the file's extents; see `Extents`.

        Raises
        ------
        BlockError
            With EIO.
        """
        found: list[tuple[int, bool]] = []
        at, end = offset, offset + length
        while at < end and len(found) < limit:
            with _Told(self.path, "find extents", at):
                data = min(self._seek(at, os.SEEK_DATA, end), end)
                stop = data if data > at else min(self._seek(at, os.SEEK_HOLE, end), end)
            found.append((stop - at, data > at))
            at = stop
        return found

    def _seek(self, at: int, what: int, end: int) -> int:
        """Find data or a hole from a place on; without any, give the end."""
        try:
            return os.lseek(self._file, at, what)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return end

    def _zero(self, what: str, offset: int, length: int, mode: int) -> None:
        self._check_writable(what, offset, length)
        if _fallocate(self._file, mode, offset, length) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise _block_error(self.path, what, offset, OSError(number, os.strerror(number)))
        end = offset + length
        while offset < end:
            step = min(end - offset, len(_ZEROES))
            self.write(offset, memoryview(_ZEROES)[:step])
            offset += step

    def _lock(self) -> None:
        try:
            fcntl.flock(
                self._file, (fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB
            )
        except BlockingIOError as error:
            raise ImageInUse(
                f"image {self.path}: expected one that is not in use, found it locked by a process "
                "that has it open"
            ) from error
        if not self.read_only and any(self._is_locked_at(byte) for byte in _QEMU_LOCKS):
            raise ImageInUse(
                f"image {self.path}: expected one that is not in use, found it locked by a QEMU"
            )

    def _is_locked_at(self, byte: int) -> bool:
        """Say whether another open file description has a lock of fcntl(2) on a byte."""
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        try:
            kind, *_ = _FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, wanted))
        except OSError:
            # A file system without such locks has none.
            return False
        return bool(kind != fcntl.F_UNLCK)

    def _find_size(self, size: int | None) -> int:
        """Check what the file is, and give its size; give a new one its size."""
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise LocalError(f"image {self.path}: expected a regular file, found another kind")
        if self.created and size is not None and not status.st_size:
            try:
                os.ftruncate(self._file, size)
            except OSError as error:
                raise LocalError(
                    f"image {self.path}: cannot be made as large as {size} bytes: {error.strerror}"
                ) from error
            return size
        _check_size(self.path, status.st_size)
        if size is not None and status.st_size != size:
            raise LocalError(
                f"image {self.path}: expected {size} bytes, found a file of {status.st_size}"
            )
        return status.st_size

    def _check_writable(self, what: str, offset: int, length: int) -> None:
        if self.read_only:
            raise BlockError(
                errno.EPERM, f"image {self.path}, {what} at offset {offset}: it is read-only"
            )
        # A write behind the end of a file that has become shorter would make it longer again.
        if os.fstat(self._file).st_size < offset + length:
            raise self._shrunk(what, offset)

    def _shrunk(self, what: str, offset: int) -> BlockError:
        return BlockError(
            errno.EIO,
            f"image {self.path}, {what} at offset {offset}: expected a file of {self.size} bytes, "
            f"found one of {os.fstat(self._file).st_size}",
        )


class _Told:
    """Context in which an OSError becomes a BlockError that names path, request and offset."""

    __slots__ = ("_offset", "_path", "_what")

    def __init__(self, path: str, what: str, offset: int) -> None:
        self._path, self._what, self._offset = path, what, offset

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise _block_error(self._path, self._what, self._offset, error) from error


def _block_error(path: str, what: str, offset: int | None, error: OSError) -> BlockError:
    place = "" if offset is None else f" at offset {offset}"
    return BlockError(
        _TOLD.get(error.errno or 0, errno.EIO), f"image {path}, {what}{place}: {error.strerror}"
    )


def _check_size(path: str, size: int) -> None:
    if not SECTOR_SIZE <= size <= DISK_SIZE_MAX or size % SECTOR_SIZE:
        raise LocalError(
            f"image {path}: expected a size of {SECTOR_SIZE} to {DISK_SIZE_MAX} bytes, a multiple "
            f"of {SECTOR_SIZE}, found {size}"
        )


def _open(path: str, size: int | None, read_only: bool) -> tuple[int, bool]:
    """Open a file, or create it if there is a size for it; say whether it was created."""
    # Not to wait for the other end of a FIFO.
    flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
    with suppress(FileNotFoundError):
        return os.open(path, flags), False
    if size is None or read_only:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with suppress(FileExistsError):
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
    return os.open(path, flags), False
