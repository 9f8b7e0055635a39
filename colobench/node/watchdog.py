"""Deadline for each part of the conversation, which also ends a peer that is too slow.

The limits of a socket (SO_RCVTIMEO, SO_SNDTIMEO) detect a silent peer. A peer that sends or
receives a byte now and then keeps to them, but can delay a checkpoint for ever. So each part of
the conversation (a message, a RAM section, a device buffer) has to be over within the stall timeout
and the time that its bytes take at `MINIMUM_RATE`. While nothing is due, nothing is counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from colobench.errors import LocalError

#: Least mean rate at which a peer has to send or receive, bytes/s (2 Mbit/s).
MINIMUM_RATE: Final = 256 * 1024
#: Most bytes that one system call sends; their number is known only when it returns.
CALL_BYTES: Final = 4 << 20
_PERIODS_IN_TIMEOUT = 8
_SHORTEST_PERIOD, _LONGEST_PERIOD = 0.005, 0.5


class DueTransfer(NamedTuple):
    """Part that is due: bytes of a system call that are not counted yet, and most bytes of it."""

    unseen: int = 0
    at_most: float = float("inf")


class Reckoning:
    """Time that a part has taken so far, by a clock that is read periodically.

    Parameters
    ----------
    stall_timeout
        See `Watchdog`.
    period
        Seconds between two readings. A longer gap, as of a stopped process, counts as two periods.
    now
        Present time, seconds.

    Attributes
    ----------
    idle
        Seconds of the part since a byte has moved.
    """

    def __init__(self, stall_timeout: float, period: float, now: float) -> None:
        self._timeout, self._period, self._last = stall_timeout, period, now
        self._part: DueTransfer | None = None
        self._moved_before = self._moved = 0
        self._spent = 0.0
        self.idle = 0.0

    def look(self, now: float, part: DueTransfer | None, moved: int) -> str:
        """Judge the progress of the part that is due, at the present time.

        Returns
        -------
        str
            Reason why the progress is too small; "" if it is not.
        """
        elapsed, self._last = min(now - self._last, 2 * self._period), now
        if part is not self._part:
            self._part, self._moved_before, self._moved = part, moved, moved
            self._spent = self.idle = 0.0
            return ""
        if part is None:
            return ""
        self._spent += elapsed
        self.idle = self.idle + elapsed if moved <= self._moved else 0.0
        self._moved = max(self._moved, moved)
        counted = self._moved - self._moved_before
        seconds = self._timeout + (min(counted, part.at_most) + part.unseen) / MINIMUM_RATE
        # The socket detects a silent peer, one period sooner.
        if self._spent <= seconds + self._period:
            return ""
        if not counted:
            return silence(self._timeout)
        return (
            f"expected {MINIMUM_RATE} bytes/s after {self._timeout:g} s, "
            f"found {counted} bytes in {self._spent:.3g} s"
        )


def silence(stall_timeout: float) -> str:
    """Describe the silence of a peer for the whole timeout."""
    return f"expected the peer to go on in {stall_timeout:g} s, found silence"


class Watchdog:
    """Thread that ends the connection to a peer if a part takes too long.

    Time in which this process was stopped, or had no core, is not counted.

    Parameters
    ----------
    stall_timeout
        Seconds that a part may take in addition to the time for its bytes.
    moved
        Function that returns the number of bytes received here or by the peer; called in the
        watchdog's thread.
    cut_off
        Function that is called once, in the watchdog's thread, and must wake threads that wait.

    Attributes
    ----------
    why
        Reason why the peer was cut off; "" while it is not.

    Raises
    ------
    LocalError
        If no more threads can be started.
    """

    def __init__(
        self, stall_timeout: float, moved: Callable[[], int], cut_off: Callable[[], None]
    ) -> None:
        self._timeout = stall_timeout
        self._moved = moved
        self._cut_off = cut_off
        period = stall_timeout / _PERIODS_IN_TIMEOUT
        self._period = min(max(period, _SHORTEST_PERIOD), _LONGEST_PERIOD)
        self._reckoning = Reckoning(stall_timeout, self._period, time.monotonic())
        self._due: DueTransfer | None = None
        self._closed = threading.Event()
        self.why = ""
        try:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        except RuntimeError as error:
            raise LocalError(f"watchdog: {error}") from error

    def due(self, unseen: int = 0, at_most: float = float("inf")) -> Watchdog:
        """Return a context, while which lasts the peer is held to the deadline.

        Parameters
        ----------
        unseen
            Bytes of one system call, whose progress shows only when it returns.
        at_most
            Number of bytes for which there is time; more may arrive.
        """
        self._due = DueTransfer(unseen, at_most)
        return self

    def __enter__(self) -> None:
        """See `due`."""

    def __exit__(self, *_: object) -> None:
        """See `due`."""
        self._due = None

    def peer_goes_on(self) -> bool:
        """Return whether a byte has moved in the last three quarters of the stall timeout."""
        return self._reckoning.idle < self._timeout * 3 / 4

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._period):
            self.why = self._reckoning.look(time.monotonic(), self._due, self._moved())
            if self.why:
                self._cut_off()
                return
