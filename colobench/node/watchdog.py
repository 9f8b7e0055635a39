"""A deadline for all of what a peer owes: it may be slow, but not for ever.

The limits of a socket (SO_RCVTIMEO, SO_SNDTIMEO) notice a peer that is silent. One that gives or
takes a byte now and then keeps to them, and still holds a checkpoint up for ever. So each part of
the conversation (a message, a RAM section, a device buffer) has to be over within the stall timeout
and the time that its bytes take at `MINIMUM_RATE`. While nothing is due, nothing is counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from colobench.errors import LocalError

#: Bytes in a second (2 Mbit/s) that a peer has to give, or to take, on average.
MINIMUM_RATE: Final = 256 * 1024
#: The most that one system call sends; only when it returns is known how much that was.
CALL_BYTES: Final = 4 << 20
_PERIODS_IN_TIMEOUT = 8
_SHORTEST_PERIOD, _LONGEST_PERIOD = 0.005, 0.5


class DueTransfer(NamedTuple):
    """What is due: bytes that move without being counted, the most that it may be."""

    unseen: int = 0
    at_most: float = float("inf")


class Reckoning:
    """How long a part has taken so far, by a clock that is looked at now and then.

    Parameters
    ----------
    stall_timeout
        See `Watchdog`.
    period
        Seconds between two looks. Of more only twice that counts: this process stood still.
    now
        The clock.

    Attributes
    ----------
    idle
        Seconds of the part for which nothing has moved.
    """

    def __init__(self, stall_timeout: float, period: float, now: float) -> None:
        self._timeout, self._period, self._last = stall_timeout, period, now
        self._part: DueTransfer | None = None
        self._moved_before = self._moved = 0
        self._spent = 0.0
        self.idle = 0.0

    def look(self, now: float, part: DueTransfer | None, moved: int) -> str:
        """Look at the clock, at what is due, and how much has moved; say why that is too little.

        Returns
        -------
        str
            Empty as long as it is enough.
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
        # A peer that is silent is found out by its socket, one period sooner.
        if self._spent <= seconds + self._period:
            return ""
        if not counted:
            return silence(self._timeout)
        return (
            f"expected {MINIMUM_RATE} bytes/s after {self._timeout:g} s, "
            f"found {counted} bytes in {self._spent:.3g} s"
        )


def silence(stall_timeout: float) -> str:
    """Say that a peer has been silent for the whole timeout."""
    return f"expected the peer to go on in {stall_timeout:g} s, found silence"


class Watchdog:
    """Cuts a peer off that lets a part take too long; a thread of its own watches.

    Time in which this process was stopped, or had no core, is not counted.

    Parameters
    ----------
    stall_timeout
        Seconds that a part may take besides the time for its bytes.
    moved
        Gives how many bytes have come, and how many of those that went have arrived; called in the
        watchdog's thread.
    cut_off
        Called once, in the watchdog's thread: has to wake whoever waits for the peer.

    Attributes
    ----------
    why
        Why the peer was cut off; empty as long as it was not.

    Raises
    ------
    LocalError
        If there are no more threads to be had.
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
        """Hold the peer to the deadline as long as the context lasts that this gives.

        Parameters
        ----------
        unseen
            Bytes of one system call: how they get on shows only when it returns.
        at_most
            Bytes for which there is time, though more may come.
        """
        self._due = DueTransfer(unseen, at_most)
        return self

    def __enter__(self) -> None:
        """See `due`."""

    def __exit__(self, *_: object) -> None:
        """See `due`."""
        self._due = None

    def peer_goes_on(self) -> bool:
        """Say whether something has moved in the last three quarters of the stall timeout."""
        return self._reckoning.idle < self._timeout * 3 / 4

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._period):
            self.why = self._reckoning.look(time.monotonic(), self._due, self._moved())
            if self.why:
                self._cut_off()
                return
