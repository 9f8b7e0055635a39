"""One direction of a link: bytes of all connections, paced together in one thread.

Each connection has a ring of bytes that are on their way. A ring is full when its receiver does not
read, or when the link's delay is full; then its sender is not read from, and blocks.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from colobench.net.pacing import Pacing
from colobench.settings.link import Link

_FOREVER_NS = 2**62
_NS = 1e-9


class PacedStream:
    """One connection's bytes in one direction.

    Parameters
    ----------
    source, sink
        Non-blocking sockets that are read from and written to.
    room
        Bytes that may be on their way.
    ended
        Called once, when no more bytes will be moved.
    """

    def __init__(
        self, source: socket.socket, sink: socket.socket, room: int, ended: Callable[[], None]
    ) -> None:
        self.source, self.sink, self._ended = source, sink, ended
        self._ring = memoryview(bytearray(room))
        self._begin = self._held = 0
        #: Arrival times and sizes of what is in the ring; size 0 is the stream's end.
        self._on_their_way: deque[list[int]] = deque()
        self.reads, self.blocked, self.finished = True, False, False
        self._late_by_sink = False

    def has_room(self) -> bool:
        """Say whether the source is to be read from."""
        return self.reads and self._held < len(self._ring)

    def arrival(self) -> int:
        """Give the time at which the next bytes arrive; they are not due if the sink is blocked."""
        due = bool(self._on_their_way) and not self.blocked
        return self._on_their_way[0][0] if due else _FOREVER_NS

    def receive(self, piece: int) -> int:
        """Read at most `piece` bytes from the source into the ring, and return their number.

        At the end of the stream it returns 0, and -1 if nothing was there.
        """
        size = len(self._ring)
        if not self._held:
            # The beginning is still in the processor's cache.
            self._begin = 0
        at = (self._begin + self._held) % size
        stop = min(size, at + size - self._held, at + piece)
        try:
            count = self.source.recv_into(self._ring[at:stop])
        except BlockingIOError:
            return -1
        except OSError:
            # A reset is an end, too.
            count = 0
        self._held += count
        self.reads = count > 0
        return count

    def on_its_way(self, count: int, arrival: int) -> None:
        """Note that the last `count` bytes that were read arrive then; 0: the stream's end."""
        self._on_their_way.append([arrival, count])

    def deliver(self, now: int) -> int:
        """Write what has arrived to the sink; return the nanoseconds by which we are late."""
        late = 0 if self._late_by_sink else now - self._on_their_way[0][0]
        self._late_by_sink = False
        while self._on_their_way and self._on_their_way[0][0] <= now:
            if not self._on_their_way[0][1]:
                _shut_down(self.sink, socket.SHUT_WR)
                self.finish()
                break
            try:
                self._sent(self.sink.send(self._arrived(now)))
            except BlockingIOError:
                self.blocked = self._late_by_sink = True
                break
            except OSError:
                self.abandon()
                break
        return late

    def abandon(self) -> None:
        """Let the sender find out that its bytes are not read any more."""
        # TCP: by a reset. A mere close can leave it waiting before a window that never opens again.
        self.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
        _shut_down(self.source, socket.SHUT_RD)
        self.finish()

    def finish(self) -> None:
        """Move no more bytes."""
        self.reads, self.blocked = False, False
        self._on_their_way.clear()
        if not self.finished:
            self.finished = True
            self._ended()

    def _arrived(self, now: int) -> memoryview:
        """Give all bytes that have arrived and lie side by side in the ring."""
        arrived = 0
        for arrival, count in self._on_their_way:
            if arrival > now or not count:
                break
            arrived += count
        return self._ring[self._begin : min(len(self._ring), self._begin + arrived)]

    def _sent(self, count: int) -> None:
        self._begin = (self._begin + count) % len(self._ring)
        self._held -= count
        while count:
            first = self._on_their_way[0]
            taken = min(count, first[1])
            first[1] -= taken
            count -= taken
            if not first[1]:
                self._on_their_way.popleft()


class Lane:
    """One direction of a link, with a thread that moves its bytes.

    Parameters
    ----------
    name
        Name of the direction, for the thread.
    link
        Rate, delay and jitter.

    Attributes
    ----------
    pacing
        Schedule of the direction, with its counts.
    deliveries, late_ns
        Number of times that bytes were delivered, and the nanoseconds in all that they were late.
    """

    def __init__(self, name: str, link: Link) -> None:
        self.pacing = Pacing(link, random.Random(name).random)
        self.deliveries = self.late_ns = 0
        self._flows: list[PacedStream] = []
        self._new: deque[PacedStream] = deque()
        self._ending = False
        self._looked = 0
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, source: socket.socket, sink: socket.socket, ended: Callable[[], None]) -> None:
        """Move the bytes of one more connection; `ended` is called when there are no more."""
        self._new.append(PacedStream(source, sink, self.pacing.room, ended))
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Stop moving bytes."""
        self._ending = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        os.close(self._wake_fd)

    def _run(self) -> None:
        self._looked = time.monotonic_ns()
        while not self._ending:
            self._deliver()
            self._receive(*self._wait())
            while self._new:
                self._flows.append(self._new.popleft())
        for flow in [*self._flows, *self._new]:
            flow.finish()

    def _deliver(self) -> None:
        """Deliver what has arrived."""
        now = time.monotonic_ns()
        for flow in self._flows:
            if flow.arrival() <= now:
                self.late_ns += flow.deliver(now)
                self.deliveries += 1
        self._flows = [flow for flow in self._flows if not flow.finished]

    def _wait(self) -> tuple[list[PacedStream], int]:
        """Wait for something to do.

        Returns
        -------
        flows, since
            The connections that can be read from, and the earliest time at which their bytes can
            have come.
        """
        now, looked = time.monotonic_ns(), self._looked
        opens = self.pacing.opens_at()
        is_open = opens <= now
        until = min([_FOREVER_NS, *(flow.arrival() for flow in self._flows)])
        sources = {flow.source: flow for flow in self._flows if is_open and flow.has_room()}
        if not is_open and any(flow.has_room() for flow in self._flows):
            until = min(until, opens)
        sinks = {flow.sink: flow for flow in self._flows if flow.blocked}
        readable, writable, _ = select.select([*sources], [*sinks], [], 0)
        if not readable and not writable and until > now:
            timeout = None if until == _FOREVER_NS else (until - now) * _NS
            watched: list[socket.socket | int] = [self._wake_fd, *sources]
            woken, writable, _ = select.select(watched, [*sinks], [], timeout)
            readable = [each for each in woken if isinstance(each, socket.socket)]
            if self._wake_fd in woken:
                os.eventfd_read(self._wake_fd)
            if is_open:
                looked = time.monotonic_ns()
        for each in writable:
            sinks[each].blocked = False
        if is_open:
            self._looked = time.monotonic_ns()
        return [sources[each] for each in readable], looked

    def _receive(self, flows: list[PacedStream], since: int) -> None:
        """Put a piece of each connection's bytes onto the link."""
        for flow in flows:
            count = flow.receive(self.pacing.piece)
            if count >= 0:
                now = time.monotonic_ns()
                # A short message that has just come has not waited for a relay that was late.
                waited_since = since if count >= self.pacing.piece else now
                flow.on_its_way(count, self.pacing.put(count, now, waited_since))


def _shut_down(end: socket.socket, how: int) -> None:
    with suppress(OSError):
        end.shutdown(how)
