"""One direction of a link as a schedule: when the bytes that are sent now arrive.

Bytes go one after the other, each at the link's rate, and arrive after its delay. A sender must
wait while more than a queue's worth is before it, as at a switch with a small buffer. Times are
nanoseconds of any clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from colobench.settings.link import Link

#: Longest wait of the link's queue, so that a late wake-up of the relay leaves no gap. Switches
#: have such queues.
QUEUE_NS: Final = 10_000_000
#: Most bytes in the queue.
QUEUE_BYTES: Final = 8 << 20
#: Bytes that are put onto the link at once: those of `_PIECE_NS`, within these bounds.
PIECE_MIN, PIECE_MAX = 16 << 10, 256 << 10
_PIECE_NS: Final = 250_000
_BITS_NS: Final = 8_000_000_000


class Pacing:
    """The schedule of one direction.

    Parameters
    ----------
    link
        Rate, delay and jitter.
    random
        Gives numbers from 0 to 1, for the jitter.

    Attributes
    ----------
    piece
        Most bytes to put onto the link at once.
    bytes
        Bytes that were put onto the link.
    sending_ns
        Nanoseconds that these bytes take at the link's rate.
    lost_ns
        Nanoseconds in which the link had nothing to send although bytes waited: the relay was late.
    """

    def __init__(self, link: Link, random: Callable[[], float]) -> None:
        self._link, self._random = link, random
        self._free = 0
        self._arrival_min = 0
        rate = link.rate
        self.piece = PIECE_MAX
        self._queue_ns = QUEUE_NS
        if rate:
            self.piece = min(max(rate * _PIECE_NS // _BITS_NS, PIECE_MIN), PIECE_MAX)
            self._queue_ns = min(QUEUE_NS, QUEUE_BYTES * _BITS_NS // rate)
        self.bytes = self.sending_ns = self.lost_ns = 0

    @property
    def room(self) -> int:
        """Bytes that can be on their way at once, with those in the queue and one piece."""
        link = self._link
        if not link.rate:
            return 4 * QUEUE_BYTES if link.delay_us else QUEUE_BYTES
        queue = self._queue_ns * link.rate // _BITS_NS
        return link.in_flight_bytes + queue + 2 * self.piece

    def opens_at(self) -> int:
        """Give the time at which the queue has room."""
        return self._free - self._queue_ns

    def put(self, count: int, now: int, since: int) -> int:
        """Put bytes onto the link.

        Parameters
        ----------
        count
            Number of bytes.
        now
            The time.
        since
            Earliest time at which they can have been there; `now` if they have just come.

        Returns
        -------
        int
            Time at which the last of them arrives; never earlier than that of bytes before.
        """
        free = self._free
        if now > free:
            self.lost_ns += max(0, now - max(free, since))
            free = now
        link = self._link
        if link.rate:
            taken = -(-count * _BITS_NS // link.rate)
            self.sending_ns += taken
            free += taken
        self._free = free
        self.bytes += count
        delay = link.delay_us * 1000
        if link.jitter_us:
            delay += int(link.jitter_us * 1000 * self._random())
        self._arrival_min = max(self._arrival_min, free + delay)
        return self._arrival_min
