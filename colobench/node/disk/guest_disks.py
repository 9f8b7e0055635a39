"""The guest's disks in a node: requests are taken from the guest, and done by backends.

::

    guest's RAM ── kick, take ──► this thread ──► a pool of threads ──► backends
    guest's CPU ◄── complete, wake ──────────────────────┘

A write that need not wait is begun by this thread itself, and completed by the one that receives
the secondary's answer. Requests are done at the same time, and answered in any order, as a disk
does it. A flush covers the writes that were answered before it came: these have returned from the
backend. A request that is under way when the guest stops goes on, and its completion waits for the
guest; after a load it is dropped, and the request comes again.

Before a checkpoint the disks come to rest while the guest still runs, as their threads would take
time from the pause: no request is begun, and those that have begun are waited for, for a short time
at most. What the guest submits meanwhile is in its RAM, and is done when it runs again.
"""

from __future__ import annotations

import errno
import os
import selectors
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

from colobench.block.backend import BlockBackend, BlockData, BlockError
from colobench.block.request import RequestKind
from colobench.guest.interface import GuestDisk, SubmittedRequest
from colobench.node.disk.forwarding import Later, OnWritten
from colobench.node.disk.statistics import DiskStatistics
from colobench.node.participants import CheckpointParticipant

#: Threads that do requests; some may wait for the peer.
POOL_THREADS = 16
#: Longest time in which disks come to rest while the guest runs, seconds. Output that waits for the
#: checkpoint waits so much longer. A request that takes more time goes on in the pause.
REST_SECONDS = 0.01
#: Errors that a guest knows; any other is EIO for it.
_GUEST_ERRORS = (errno.EIO, errno.ENOSPC, errno.EINVAL, errno.EPERM)


@runtime_checkable
class WritingBackend(Protocol):
    """Backend that can begin a write: a `colobench.node.disk.forwarding.ForwardingBackend`."""

    def begin_write(
        self, offset: int, data: BlockData, on_written: OnWritten, later: Later
    ) -> bool:
        """Begin a write, or return False."""


class _Taken(NamedTuple):
    """A request that was taken from the guest: its backend, in two roles, and when that was.

    That is the number of loads before it, and a monotonic time.
    """

    disk: GuestDisk
    backend: BlockBackend
    writes: WritingBackend | None
    submitted: SubmittedRequest
    loads: int
    at: float


class GuestDisks(CheckpointParticipant):
    """Executor of the requests of all disks of a guest.

    Requests of a disk wait until it has a backend. They are taken only while the guest runs, so
    none is between a load of its RAM and the next `start`.

    Parameters
    ----------
    disks
        The guest's disks.
    on_failure
        Function that is called if this cannot go on, for another reason than an error of a disk.

    Attributes
    ----------
    figures
        Figures since the last checkpoint.
    """

    def __init__(
        self, disks: Sequence[GuestDisk], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._disks, self._on_failure = disks, on_failure
        self.figures = DiskStatistics()
        self._lock = threading.Lock()
        self._backends: list[BlockBackend | None] = [None] * len(disks)
        self._accepting = self._closing = self._resting = False
        #: Requests that were taken and have not been answered, those among them that are being
        #: done, those of which the thread sleeps until a checkpoint, and the sign that one is done.
        self._under_way = self._begun = self._asleep = 0
        #: Number of times that the guest's state was replaced.
        self._loads = 0
        self._idle = threading.Condition(self._lock)
        #: Requests that were taken, and came to no thread before the disks were to rest.
        self._waiting: list[_Taken] = []
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._wake_fd, *(disk.kick_fd for disk in disks)):
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._pool = ThreadPoolExecutor(POOL_THREADS, "disk")
        #: Threads for writes that were begun and have to wait after all. All of the pool's threads
        #: may be waiting for the range of such a write, which has to end without them.
        self._begun_pool = ThreadPoolExecutor(POOL_THREADS, "disk, begun")
        self._thread = threading.Thread(target=self._run, name="disks", daemon=True)

    def set_backend(self, disk: int, backend: BlockBackend) -> None:
        """Let requests that are taken from now on be done by a backend."""
        with self._lock:
            self._backends[disk] = backend
        self._wake()

    def drain(self) -> None:
        """Wait until no request is being done; new ones may come if the guest runs."""
        with self._idle:
            self._idle.wait_for(lambda: self._begun == 0)

    def sleeps(self, more: int) -> None:
        """Count threads of requests that begin, or end, to wait for a checkpoint: 1 or -1."""
        with self._idle:
            self._asleep += more
            self._tell_rest()

    # Methods of a `CheckpointParticipant`.

    def begin(self) -> None:
        """Start the thread, if there are disks."""
        if self._disks:
            self._thread.start()

    def start(self) -> None:
        """Take the requests of the guest, which is about to run, and those it has left."""
        with self._lock:
            self._accepting, self._resting = True, False
        self._wake()

    def rest(self) -> None:
        """Begin no request until the next `start`: the guest will be stopped soon."""
        with self._lock:
            self._resting = True

    def rested(self) -> None:
        """Wait until none is being done, but for those that wait for a checkpoint."""
        with self._idle:
            self._idle.wait_for(lambda: self._begun <= self._asleep, REST_SECONDS)

    def stop(self) -> None:
        """Take no more requests, and begin none of those that were taken until the next `start`."""
        with self._lock:
            self._accepting, self._resting = False, True
            self.figures.stopped(self._under_way)

    def loaded(self) -> None:
        """Forget requests that were taken and have not begun: those of the new state come again."""
        with self._lock:
            self._loads += 1

    def close(self) -> None:
        """End the threads; requests that have not begun are not done."""
        with self._lock:
            self._accepting, self._closing = False, True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        # First, and all of them: requests in the pool may wait for their ranges.
        self._begun_pool.shutdown()
        self._pool.shutdown(cancel_futures=True)
        self._selector.close()
        os.close(self._wake_fd)

    # Threads.

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        try:
            while not self._closing:
                for key, _ in self._selector.select():
                    os.eventfd_read(key.fd)
                self._take()
        except BaseException as error:
            traceback.print_exc()
            self._on_failure(error)

    def _take(self) -> None:
        with self._lock:
            if not self._accepting or self._resting:
                return
            taken, self._waiting = self._waiting, []
            before = len(taken)
            now = time.monotonic()
            for disk, backend in zip(self._disks, self._backends, strict=True):
                if backend is not None:
                    writes = backend if isinstance(backend, WritingBackend) else None
                    taken += (
                        _Taken(disk, backend, writes, each, self._loads, now)
                        for each in disk.take()
                    )
            self._under_way += len(taken) - before
        for each in taken:
            if not self._begin_write(each):
                self._pool.submit(self._execute, each)

    def _begin_write(self, taken: _Taken) -> bool:
        """Begin a write that need not wait for anything; return False if a thread is to do it."""
        request, backend = taken.submitted.request, taken.writes
        if request.kind is not RequestKind.WRITE or request.fua or backend is None:
            return False
        if not self._begin(taken):
            return True
        on_written = partial(self._written, taken)
        if backend.begin_write(request.offset, request.data, on_written, self._later):
            return True
        with self._idle:
            self._begun -= 1
            self._tell_rest()
        return False

    def _later(self, step: Callable[[], None]) -> None:
        self._begun_pool.submit(self._guarded, step)

    def _written(self, taken: _Taken, error: BlockError | None) -> None:
        """Answer a write, in a thread that would not tell the node of an unexpected error."""
        self._guarded(lambda: self._answer(taken, error))

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:
            traceback.print_exc()
            self._on_failure(error)

    def _execute(self, taken: _Taken) -> None:
        if self._begin(taken):
            self._guarded(lambda: self._perform(taken))

    def _begin(self, taken: _Taken) -> bool:
        """Count a request that begins; if the disks are to rest, keep it until the guest runs."""
        with self._lock:
            if taken.loads != self._loads:
                self._under_way -= 1
                return False
            if self._resting:
                self._waiting.append(taken)
            else:
                self._begun += 1
            return not self._resting

    def _perform(self, taken: _Taken) -> None:
        try:
            data, error = taken.submitted.request.perform(taken.backend), None
        except BlockError as found:
            data, error = b"", found
        except BaseException:
            self._end()
            raise
        self._answer(taken, error, data)

    def _answer(self, taken: _Taken, error: BlockError | None, data: bytes = b"") -> None:
        """Answer a request."""
        status = 0
        if error is not None:
            status = error.errno if error.errno in _GUEST_ERRORS else errno.EIO
        try:
            taken.disk.complete(taken.submitted, status, data)
            taken.disk.wake()
            if taken.submitted.request.kind is RequestKind.WRITE:
                self.figures.written(time.monotonic() - taken.at)
        finally:
            self._end()

    def _end(self) -> None:
        with self._idle:
            self._under_way -= 1
            self._begun -= 1
            self._tell_rest()

    def _tell_rest(self) -> None:
        if self._begun <= self._asleep:
            self._idle.notify_all()
