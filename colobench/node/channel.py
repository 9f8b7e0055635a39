"""Main connection to the peer: a blocking socket, bytes to be sent, bytes to be parsed."""

from __future__ import annotations

import errno
import select
import socket
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from colobench.node.connection import Connection
from colobench.node.migration.page_path import PagePath
from colobench.node.watchdog import CALL_BYTES, Watchdog
from colobench.wire.reading import PageSource, Parser, Parsing, StreamBuffer

T = TypeVar("T")

#: Least room for page records, bytes, so that one call receives many of them.
_RUN_BYTES = 64 * 1024


class Channel(Connection):
    """The main connection; see `Connection` for its parameters.

    Attributes
    ----------
    buffer
        Received bytes that are not parsed yet.
    pages
        Sender or receiver of pages on this side; its connections end with this one.
    waits
        Whether the COLO thread waits for bytes of the peer on this connection.
    """

    watchdog: Watchdog

    def __init__(self, connection: socket.socket, stall_timeout: float) -> None:
        super().__init__(connection, stall_timeout)
        self._pending = bytearray()
        self.buffer = StreamBuffer()
        self.pages = PagePath()
        self._source = PageSource()
        self.waits = False
        self.watchdog = Watchdog(stall_timeout, self._moved, self.shut_down)

    def attach(self, pages: PagePath) -> None:
        """Include a sender of pages in the counts and the end of this connection."""
        self.pages = pages

    def receive_with(self, source: PageSource) -> None:
        """Let a receiver of pages fulfil the parsers' requests for pages."""
        self._source = source

    def fileno(self) -> int:
        """Return the socket's descriptor, for a kernel."""
        return self._socket.fileno()

    def _moved(self) -> int:
        """Count the bytes that were received here, or have arrived at the peer."""
        return self.sent + self.received - self.in_flight + self.pages.moved

    @property
    def all_sent(self) -> int:
        """Number of bytes sent so far, on this connection and on the page channels."""
        return self.sent + self.pages.sent

    @property
    def received(self) -> int:
        """Number of bytes received so far."""
        return self.buffer.offset + len(self.buffer)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes to those that wait; `flush` or the next page records send them."""
        self._pending += data

    def flush(self) -> None:
        """Send the bytes that wait.

        Raises
        ------
        PeerLost, PeerStalled
        """
        if self._pending:
            self.send_in_time(self._pending)
            self._pending.clear()

    def send_in_time(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes at once, not slower than the watchdog allows.

        Raises
        ------
        PeerLost, PeerStalled
        """
        with self.watchdog.due(unseen=min(len(data), CALL_BYTES)):
            self.send_now(data)

    def take_pending(self, into: npt.NDArray[np.uint8]) -> int:
        """Hand over the bytes that wait, for the caller to send; send too many of them now.

        Parameters
        ----------
        into
            uint8 array, to which the bytes are copied.

        Returns
        -------
        int
            Number of bytes handed over.

        Raises
        ------
        PeerLost, PeerStalled
        """
        pending = self._pending
        count = len(pending)
        if count > len(into):
            self.flush()
            return 0
        into.data[:count] = pending
        pending.clear()
        return count

    def parse(self, parser: Parser[T], at_most: float = float("inf")) -> T:
        """Receive until the parser ends, and return its result.

        Parameters
        ----------
        parser
            Parser of the bytes that are due.
        at_most
            Number of bytes for which there is time, see `Watchdog.due`.

        Raises
        ------
        PeerLost, PeerStalled
            If the connection ends or stalls first.
        StreamError
            If the parser does not accept the bytes.
        """
        parsing = Parsing(parser, self.buffer, self._source)
        with self.watchdog.due(at_most=at_most):
            while not parsing.step():
                self._receive(parsing)
        return parsing.value

    def wait(self, timeout: float | None = None, *wake_fds: int) -> bool:
        """Wait while nothing is due, until the peer sends something or the connection ends.

        Parameters
        ----------
        timeout
            Seconds, None for no limit.
        wake_fds
            Descriptors that also end the wait when they become readable.

        Returns
        -------
        bool
            Whether there is something to receive, or the end.
        """
        if len(self.buffer):
            return True
        descriptor = self._socket.fileno()
        self.waits = timeout != 0
        readable, _, _ = select.select([descriptor, *wake_fds], [], [], timeout)
        self.waits = False
        return descriptor in readable

    def shut_down(self) -> None:
        """Shut down this connection and the page channels, both ways."""
        super().shut_down()
        self.pages.shut_down()

    def close(self) -> None:
        """Close this connection and the page channels."""
        self.watchdog.close()
        super().close()
        self.pages.close()

    def _receive(self, parsing: Parsing[T]) -> None:
        """Receive bytes for a parser: as many as it asks for, or as many page records as arrive."""
        request = parsing.request
        space = self.buffer.space(
            request - len(self.buffer) if isinstance(request, int) else _RUN_BYTES
        )
        while True:
            self.waits = True
            try:
                count = self._socket.recv_into(space)
                # Before the bytes are counted: whoever has seen the count sees this, too.
                self.waits = False
                break
            except OSError as error:
                # A peer that still receives our request is not silent.
                if error.errno == errno.EAGAIN and self.watchdog.peer_goes_on():
                    continue
                raise self.failed("receive", error.errno or 0) from error
        if not count:
            raise self.ended(f"connection closed: {parsing.ended()}")
        self.buffer.received(count)
