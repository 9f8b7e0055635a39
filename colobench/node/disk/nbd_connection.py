"""Socket of one NBD conversation, on either side: deadlines, and bytes that are not copied."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from colobench.block.nbd.conversation import NBDConversation
from colobench.node.connection import Connection, PeerStalled
from colobench.node.watchdog import MINIMUM_RATE, silence

E = TypeVar("E")

#: Seconds that a message may take, in addition to the time of its bytes.
STALL_TIMEOUT: Final = 10.0
_PERIODS_IN_TIMEOUT = 8
#: Most bytes that are sent by one call, so that progress is seen between calls.
_PIECE_BYTES: Final = 1 << 18


class NBDConnection(Connection, Generic[E]):
    """A connected socket, and the conversation on it.

    Parameters
    ----------
    connection
        Connected stream socket, which this object closes.
    conversation
        Conversation that takes the bytes.
    stall_timeout
        Seconds without a byte, while one is due, after which the peer counts as stalled.
    due
        Function that says whether the peer has to send something; a message that has begun is due
        in any case.

    Attributes
    ----------
    received
        Bytes received so far.
    """

    def __init__(
        self,
        connection: socket.socket,
        conversation: NBDConversation[E],
        stall_timeout: float,
        due: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(connection, stall_timeout)
        period = stall_timeout / _PERIODS_IN_TIMEOUT
        connection.setsockopt(
            socket.SOL_SOCKET,
            socket.SO_RCVTIMEO,
            struct.pack("@ll", int(period), max(int(period % 1 * 1e6), 1)),
        )
        self._conversation = conversation
        self._due = due
        self._sending = threading.Lock()
        self.received = 0
        self._period = period
        self._message = _MessageTime(stall_timeout)

    def receive(self) -> list[E]:
        """Receive once, and return what is complete.

        Raises
        ------
        PeerLost, PeerStalled
            If the connection ends, or the peer is silent or too slow while something is due.
        NBDError
            If the protocol does not allow the bytes.
        """
        count = self._receive_into(self._conversation.space())
        if not count:
            raise self.ended(f"connection closed: {self._conversation.ended()}")
        self.received += count
        events = self._conversation.received(count)
        if events or self._conversation.idle:
            self._message = _MessageTime(self.stall_timeout)
        else:
            self._message.moved(count)
        return events

    def send_outgoing(self) -> None:
        """Send what the conversation has to say by itself; see `send_pieces`."""
        with self._sending:
            self._send([self._conversation.take_outgoing()])

    def send_pieces(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send bytes one after the other, with nothing of another thread between them.

        Raises
        ------
        PeerLost, PeerStalled
            If the connection ends, or the peer does not receive, or too slowly.
        """
        with self._sending:
            self._send(pieces)

    def _send(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        message = _MessageTime(self.stall_timeout)
        views = [memoryview(piece) for piece in pieces if len(piece)]
        while views:
            began = time.monotonic()
            try:
                # Of several pieces all but the last are short.
                count = self._socket.sendmsg([*views[:-1], views[-1][:_PIECE_BYTES]])
            except OSError as error:
                raise self.failed("send", error.errno or 0) from error
            self.sent += count
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if views:
                views[0] = views[0][count:]
                message.spent(time.monotonic() - began, self.stall_timeout)
                message.moved(count)

    def _receive_into(self, space: memoryview) -> int:
        """Receive bytes; wait as long as nothing is due, or something moves."""
        quiet, moved = 0, -1
        while True:
            began = time.monotonic()
            try:
                return self._socket.recv_into(space)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise self.failed("receive", error.errno or 0) from error
            finally:
                if not self._conversation.idle:
                    self._message.spent(time.monotonic() - began, 2 * self._period)
            if self._conversation.idle and not self._due():
                quiet = 0
                continue
            # A peer that receives what we send is not silent.
            now = self.sent - self.in_flight
            quiet = quiet + 1 if now == moved else 1
            moved = now
            if quiet >= _PERIODS_IN_TIMEOUT:
                raise PeerStalled(f"receive: {silence(self.stall_timeout)}")


class _MessageTime:
    """Time that a message has taken, by bytes that move now and then."""

    def __init__(self, stall_timeout: float) -> None:
        self._timeout = stall_timeout
        self._seconds = 0.0
        self._bytes = 0

    def spent(self, seconds: float, at_most: float) -> None:
        """Add the time of one call; a longer one is that of a process that was stopped."""
        self._seconds += min(seconds, at_most)

    def moved(self, count: int) -> None:
        """Add bytes of one call, and refuse a peer that is too slow."""
        self._bytes += count
        if self._seconds > self._timeout + self._bytes / MINIMUM_RATE:
            raise PeerStalled(
                f"expected {MINIMUM_RATE} bytes/s after {self._timeout:g} s, found {self._bytes} "
                f"bytes in {self._seconds:.3g} s"
            )
