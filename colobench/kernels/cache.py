"""The kernels' cache on disk: numba's, in which a damaged entry counts as missing.

Every entry carries a checksum, so one that a crash or a full disk has damaged is not executed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import os
import pickle
import threading
import time
import uuid
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.runtime.nrt import rtsys

from colobench.kernels import cache_directory, sources

#: Seconds between two looks at a kernel that another process compiles.
LOOK_SECONDS = 0.02
#: States of a process in /proc/PID/stat that does not go on: stopped, traced, dead.
_STANDING = "TtZX"
_SEAL_BYTES = hashlib.sha256().digest_size


class CacheState(Enum):
    """State of a kernel on disk."""

    READY = "ready"
    MISSING = "missing"
    DAMAGED = "damaged"


def _seal(key: Any, data: bytes) -> bytes:
    """Hash an entry with its key, because a file's number may be used for two keys."""
    return hashlib.sha256(repr(key).encode() + data).digest()


class SealedFile(IndexDataCacheFile):
    """The index and the entries of one kernel, as numba keeps them, with checksums."""

    def state(self, key: Any) -> tuple[CacheState, Path | None]:
        """Check an entry; return its state, and the damaged file if there is one."""
        index = Path(self._index_path)
        try:
            name = super()._load_index().get(key)  # type: ignore[no-untyped-call]
        except Exception:
            return CacheState.DAMAGED, index
        if name is None:
            return CacheState.MISSING, None
        if self._read(key) is None:
            return CacheState.DAMAGED, Path(self._cache_path) / str(name)
        return CacheState.READY, None

    def load(self, key: Any) -> Any:
        """Return an entry, or None if it is missing or damaged."""
        data = self._read(key)
        return None if data is None else pickle.loads(data)

    def save(self, key: Any, data: Any) -> None:
        """Store an entry. The index is written first: naming a missing file does no harm."""
        names = self._load_index()
        if key not in names:
            taken = set(names.values())
            numbers = range(1, len(taken) + 2)
            names[key] = next(name for name in map(self._data_name, numbers) if name not in taken)
            self._save_index(names)  # type: ignore[no-untyped-call]
        dumped = self._dump(data)  # type: ignore[no-untyped-call]
        with self._open_for_write(self._data_path(names[key])) as file:  # type: ignore[no-untyped-call]
            file.write(_seal(key, dumped) + dumped)

    def _read(self, key: Any) -> bytes | None:
        name = self._load_index().get(key)
        if name is None:
            return None
        try:
            sealed = Path(self._data_path(name)).read_bytes()  # type: ignore[no-untyped-call]
        except OSError:
            return None
        data = sealed[_SEAL_BYTES:]
        return data if sealed[:_SEAL_BYTES] == _seal(key, data) else None

    def _load_index(self) -> dict[Any, str]:
        try:
            index = super()._load_index()  # type: ignore[no-untyped-call]
            own = self._index_name.removesuffix("nbi")
            return {key: name for key, name in index.items() if name.startswith(own)}
        except Exception:
            # A torn pickle may raise any error; the index is then written anew.
            return {}

    @contextlib.contextmanager
    def _open_for_write(self, path: str) -> Iterator[Any]:
        """Write a temporary file and rename it at the end; remove it on a failure or interrupt."""
        aside = f"{path}.tmp.{uuid.uuid4().hex[:16]}"
        try:
            with open(aside, "wb") as file:
                yield file
            if os.path.isdir(path):
                # Removes an empty directory only; the contents of another are not ours.
                os.rmdir(path)
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise


class KernelCache(FunctionCache):
    """numba's cache on disk, which misses when a file that the kernel is made of changed.

    numba itself notices only a change of the kernel's own file. If numba finds no writable
    directory, `colobench.kernels.cache_directory` makes one.

    Raises
    ------
    RuntimeError, OSError
        If no directory is writable.
    """

    def __init__(self, function: Any) -> None:
        try:
            super().__init__(function)  # type: ignore[no-untyped-call]
        except RuntimeError:
            with _given(cache_directory.private_directory()):
                super().__init__(function)  # type: ignore[no-untyped-call]
        kept = self._cache_file
        self._cache_file: Any = SealedFile(  # type: ignore[no-untyped-call]
            self._cache_path, kept._index_name.removesuffix(".nbi"), kept._source_stamp
        )

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        source = Path(inspect.getfile(self._py_func))
        return (*super()._index_key(sig, codegen), sources.digest((source,)))  # type: ignore[no-untyped-call]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return a compiled kernel, or None if it is missing or damaged.

        numba would first declare all that Python code may use, which takes longer than to load all
        kernels of a node. Machine code needs only the functions of numba's runtime.
        """
        rtsys.initialize(target_context)
        with contextlib.suppress(OSError), self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store a compiled kernel, unless the disk is full or was removed."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]

    def state(self, sig: Any, target_context: Any) -> tuple[CacheState, Path | None]:
        """Return the state of a kernel on disk for this machine, and the damaged file if any."""
        key = self._index_key(sig, target_context.codegen())
        found: tuple[CacheState, Path | None] = self._cache_file.state(key)
        return found

    @contextlib.contextmanager
    def turn(self, sig: Any, target_context: Any) -> Iterator[None]:
        """Wait while another process compiles this kernel, until it is there.

        So processes that start at the same time share the work, however long it takes. If the other
        process is stopped, the kernel is compiled here, too; if it ends, its lock ends with it.
        """
        while True:
            with self.claim(sig, target_context) as is_ours:
                ready = self.state(sig, target_context)[0] is CacheState.READY
                if is_ours or ready or _holder_stands(self._lock_path):
                    yield
                    return
            time.sleep(LOOK_SECONDS)

    @property
    def _lock_path(self) -> str:
        return f"{self._cache_file._index_path}.lock"

    @contextlib.contextmanager
    def claim(self, sig: Any, target_context: Any) -> Iterator[bool]:
        """Keep other processes from compiling this kernel; yield False if one does so already."""
        if getattr(_holding, "lock", False):
            yield True
            return
        path = self._lock_path
        descriptor = _lock(path)
        if descriptor is None:
            yield False
            return
        _holding.lock = True
        try:
            yield True
        finally:
            _holding.lock = False
            _unlock(path, descriptor)


@contextlib.contextmanager
def _given(directory: Path) -> Iterator[None]:
    """Let numba use this directory as if the user had set NUMBA_CACHE_DIR to it."""
    before = config.CACHE_DIR  # type: ignore[attr-defined]
    config.CACHE_DIR = str(directory)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        config.CACHE_DIR = before  # type: ignore[attr-defined]


#: Whether this thread holds a lock: a kernel compiled on behalf of another needs no second one.
_holding = threading.local()
#: Descriptors of the locks of this process.
_locks: set[int] = set()


def _close_in_child() -> None:
    """Close the descriptors that a fork has copied, or the locks would outlive their process."""
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_close_in_child)


def _lock(path: str) -> int | None:
    """Make and lock a file with this process's pid.

    Returns its descriptor, or None if another process holds it. If no file can be made or locked,
    the descriptor is -1, and all processes may go on.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return -1
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file meanwhile.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                _locks.add(descriptor)
                os.truncate(descriptor, 0)
                os.write(descriptor, b"%d" % os.getpid())
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except OSError:
            # This file system has no locks.
            _unlock(path, descriptor)
            return -1
        os.close(descriptor)


def _unlock(path: str, descriptor: int) -> None:
    """Remove and unlock a file that `_lock` made."""
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.unlink(path)
        _locks.discard(descriptor)
        os.close(descriptor)


def _holder_stands(path: str) -> bool:
    """Say whether the process that holds a lock is stopped.

    Nothing is known of one that has just made the file, or that this machine's /proc lacks.
    """
    try:
        pid = int(Path(path).read_bytes())
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in _STANDING
    except (OSError, ValueError):
        return False
