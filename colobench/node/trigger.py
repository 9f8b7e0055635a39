"""The trigger of a checkpoint: when the next one is due, and why."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from colobench.errors import LocalError

DELAY_DEFAULT_MS = 20_000
DELAY_LIMIT_MS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class CheckpointCause:
    """Why a checkpoint is taken.

    Attributes
    ----------
    name
        timer, requested, shutdown, or what colo-compare calls it: miscompare, timeout, overflow.
    connection, offset
        Whose output it was, and where it differed; see `colobench.net.outcome`.
    """

    name: str
    connection: str | None = None
    offset: int | None = None


class CheckpointTrigger:
    """Tells when the next checkpoint is due: after the delay, or at once if one is asked for.

    Attributes
    ----------
    delay_ms
        Milliseconds from one checkpoint to the next (``x-checkpoint-delay``).
    wake_fd
        Readable when `due` has a new answer, or the COLO thread is to end.
    """

    def __init__(self) -> None:
        self.delay_ms = DELAY_DEFAULT_MS
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: `wake` may come after `close`, when the descriptor's number may be another file's.
        self._lock = threading.Lock()
        self._closed = False
        self._due_from = 0.0
        self._requested: CheckpointCause | None = None
        #: What colo-compare wants a checkpoint for; set in the network's thread, without a lock.
        self._wanted: CheckpointCause | None = None

    def set_delay(self, delay_ms: int) -> None:
        """Change the delay.

        Raises
        ------
        LocalError
            If it is out of range.
        """
        if not 0 <= delay_ms <= DELAY_LIMIT_MS:
            raise LocalError(
                f"x-checkpoint-delay: expected 0 to {DELAY_LIMIT_MS} ms, found {delay_ms}"
            )
        self.delay_ms = delay_ms

    def begin(self) -> None:
        """Count the delay from now on."""
        self._due_from = time.monotonic()

    def request(self, cause: str) -> None:
        """Ask for a checkpoint at once; a shutdown goes before any other cause."""
        with self._lock:
            if self._requested is None or self._requested.name != "shutdown":
                self._requested = CheckpointCause(cause)
        self.wake()

    def want(self, cause: CheckpointCause) -> None:
        """Ask for a checkpoint unless one comes first, from any thread and without delay."""
        self._wanted = cause
        self.wake()

    def satisfy(self) -> None:
        """Drop what was wanted: a checkpoint has made both guests equal."""
        self._wanted = None

    def due(self) -> CheckpointCause | float:
        """Give the cause of a checkpoint that is due now, or the seconds until one will be.

        The delay is counted from the time at which the last checkpoint was due.
        """
        with suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)
        with self._lock:
            cause, self._requested = self._requested or self._wanted, None
        now, delay = time.monotonic(), self.delay_ms / 1000
        if cause is not None:
            self._due_from = now
            return cause
        left = self._due_from + delay - now
        if left > 0:
            return left
        # Late ones follow at once, but do not pile up.
        self._due_from = max(self._due_from + delay, now - delay)
        return CheckpointCause("timer")

    def wake(self) -> None:
        """Make `wake_fd` readable."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.wake_fd, 1)

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.wake_fd)
