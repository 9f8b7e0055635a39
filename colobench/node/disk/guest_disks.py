"""The guest's disks in a node: requests are taken from the guest, and done by backends.

::

    guest's RAM ── kick, take ──► this thread ──► a pool of threads ──► backends
    guest's CPU ◄── complete, wake ──────────────────────┘

Requests are done at the same time, and answered in any order, as a disk does it. A flush covers the
writes that were answered before it came: these have returned from the backend. A request that is
under way when the guest stops goes on, and its completion waits for the guest; after a load it is
dropped, and the request comes again.
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

from colobench.block.backend import BlockBackend, BlockError
from colobench.block.request import RequestKind
from colobench.guest.interface import GuestDisk, SubmittedRequest
from colobench.node.disk.statistics import DiskStatistics
from colobench.node.participants import CheckpointParticipant

#: Threads that do requests; some may wait for the peer.
POOL_THREADS = 16
#: Errors that a guest knows; any other is EIO for it.
_GUEST_ERRORS = (errno.EIO, errno.ENOSPC, errno.EINVAL, errno.EPERM)


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
        self._accepting = self._closing = False
        #: Requests that are being done, and the sign that there are none.
        self._under_way = 0
        self._idle = threading.Condition(self._lock)
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._wake_fd, *(disk.kick_fd for disk in disks)):
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._pool = ThreadPoolExecutor(POOL_THREADS, "disk")
        self._thread = threading.Thread(target=self._run, name="disks", daemon=True)

    def set_backend(self, disk: int, backend: BlockBackend) -> None:
        """Let requests that are taken from now on be done by a backend."""
        with self._lock:
            self._backends[disk] = backend
        self._wake()

    def drain(self) -> None:
        """Wait until no request is being done; new ones may come if the guest runs."""
        with self._idle:
            self._idle.wait_for(lambda: self._under_way == 0)

    # Methods of a `CheckpointParticipant`.

    def begin(self) -> None:
        """Start the thread, if there are disks."""
        if self._disks:
            self._thread.start()

    def start(self) -> None:
        """Take the requests of the guest, which is about to run, and those it has left."""
        with self._lock:
            self._accepting = True
        self._wake()

    def stop(self) -> None:
        """Take no more requests."""
        with self._lock:
            self._accepting = False
            self.figures.stopped(self._under_way)

    def close(self) -> None:
        """End the threads; requests that have not begun are not done."""
        with self._lock:
            self._accepting, self._closing = False, True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
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
            if not self._accepting:
                return
            now = time.monotonic()
            for disk, backend in zip(self._disks, self._backends, strict=True):
                if backend is None:
                    continue
                for submitted in disk.take():
                    self._under_way += 1
                    self._pool.submit(self._execute, disk, backend, submitted, now)

    def _execute(
        self, disk: GuestDisk, backend: BlockBackend, submitted: SubmittedRequest, began: float
    ) -> None:
        try:
            status, data = 0, b""
            try:
                data = submitted.request.perform(backend)
            except BlockError as error:
                status = error.errno if error.errno in _GUEST_ERRORS else errno.EIO
            disk.complete(submitted, status, data)
            disk.wake()
            if submitted.request.kind is RequestKind.WRITE:
                self.figures.written(time.monotonic() - began)
        except BaseException as error:
            traceback.print_exc()
            self._on_failure(error)
        finally:
            with self._idle:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.notify_all()
