"""The connection to the peer: a blocking socket, what waits to be sent, what is not parsed."""

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

#: Room that is made for page records at least: more of them come with one call.
_RUN_BYTES = 64 * 1024


class Channel(Connection):
    """The main connection; see `Connection` for its parameters.

    Attributes
    ----------
    buffer
        What was received and is not parsed yet.
    pages
        What sends or receives pages on this side; its own connections end with this one.
    """

    watchdog: Watchdog

    def __init__(self, connection: socket.socket, stall_timeout: float) -> None:
        super().__init__(connection, stall_timeout)
        self._pending = bytearray()
        self.buffer = StreamBuffer()
        self.pages = PagePath()
        self._source = PageSource()
        self.watchdog = Watchdog(stall_timeout, self._moved, self.shut_down)

    def attach(self, pages: PagePath) -> None:
        """Have a sender of pages share the end of this connection, and what is counted."""
        self.pages = pages

    def receive_with(self, source: PageSource) -> None:
        """Have the requests of parsers for pages fulfilled by a receiver."""
        self._source = source

    def fileno(self) -> int:
        """Give the socket's descriptor, for a kernel."""
        return self._socket.fileno()

    def _moved(self) -> int:
        """Count what came and what has arrived, with what kernels are about to tell."""
        return self.sent + self.received - self.in_flight + self.pages.moved

    @property
    def all_sent(self) -> int:
        """Bytes sent so far, on this connection and on the page channels."""
        return self.sent + self.pages.sent

    @property
    def received(self) -> int:
        """Bytes received so far."""
        return self.buffer.offset + len(self.buffer)

    def write(self, data: bytes | memoryview) -> None:
        """Put bytes behind those that wait; nothing is sent before `flush` or page records."""
        self._pending += data

    def flush(self) -> None:
        """Send what waits.

        Raises
        ------
        PeerLost, PeerStalled
        """
        if self._pending:
            self.send_in_time(self._pending)
            self._pending.clear()

    def send_in_time(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes as they are, not slower than the watchdog allows.

        Raises
        ------
        PeerLost, PeerStalled
        """
        with self.watchdog.due(unseen=min(len(data), CALL_BYTES)):
            self.send_now(data)

    def take_pending(self, into: npt.NDArray[np.uint8]) -> int:
        """Hand over what waits, to be sent with something else; what is too long is sent now.

        Parameters
        ----------
        into
            uint8, gets the bytes.

        Returns
        -------
        int
            The number of bytes handed over.

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
        """Receive until the parser has what it wants.

        Parameters
        ----------
        parser
            What is due.
        at_most
            Bytes for which there is time, see `Watchdog.due`.

        Raises
        ------
        PeerLost, PeerStalled
            If the connection ends or stalls first.
        StreamError
            If the bytes are not what the parser expects.
        """
        parsing = Parsing(parser, self.buffer, self._source)
        with self.watchdog.due(at_most=at_most):
            while not parsing.step():
                self._receive(parsing)
        return parsing.value

    def wait(self, timeout: float | None = None, *wake_fds: int) -> bool:
        """Wait where nothing is due: until the peer says something or the connection ends.

        Parameters
        ----------
        timeout
            Seconds, None for no limit.
        wake_fds
            Descriptors that end the wait too when they become readable.

        Returns
        -------
        bool
            Whether there is something to receive, if only the end.
        """
        if len(self.buffer):
            return True
        descriptor = self._socket.fileno()
        readable, _, _ = select.select([descriptor, *wake_fds], [], [], timeout)
        return descriptor in readable

    def shut_down(self) -> None:
        """End the connection and those for pages alone both ways."""
        super().shut_down()
        self.pages.shut_down()

    def close(self) -> None:
        """Close the socket, and those for pages alone."""
        self.watchdog.close()
        super().close()
        self.pages.close()

    def _receive(self, parsing: Parsing[T]) -> None:
        """Receive bytes for a parser: what it asks for, or whatever of page records comes."""
        request = parsing.request
        space = self.buffer.space(
            request - len(self.buffer) if isinstance(request, int) else _RUN_BYTES
        )
        while True:
            try:
                count = self._socket.recv_into(space)
                break
            except OSError as error:
                # A peer that still takes what it has to answer is not silent.
                if error.errno == errno.EAGAIN and self.watchdog.peer_goes_on():
                    continue
                raise self.failed("receive", error.errno or 0) from error
        if not count:
            raise self.ended(f"connection closed: {parsing.ended()}")
        self.buffer.received(count)
