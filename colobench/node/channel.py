"""The connection to the peer: a blocking socket, what waits to be sent, what is not parsed."""

from __future__ import annotations

import errno
import select
import socket
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from colobench.kernels import page_records, socket_io
from colobench.memory.ram import PageMemory
from colobench.node.connection import Connection
from colobench.node.page_channels import PageChannels
from colobench.node.watchdog import CALL_BYTES, Watchdog
from colobench.wire.ram import RecordSlice
from colobench.wire.reading import PageRun, PageSync, Parser, Parsing, StreamBuffer, page_run_error

T = TypeVar("T")

_NO_NAME: npt.NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)


class Channel(Connection):
    """The main connection; see `Connection` for its parameters.

    Attributes
    ----------
    buffer
        What was received and is not parsed yet.
    pages
        The connections that pages come and go on, or None if they do on this one.
    """

    watchdog: Watchdog

    def __init__(self, connection: socket.socket, stall_timeout: float) -> None:
        super().__init__(connection, stall_timeout)
        self._pending = bytearray()
        self.buffer = StreamBuffer()
        self._headers = np.zeros(socket_io.HEADERS_BYTES, dtype=np.uint8)
        self._iov = np.zeros(socket_io.IOV_WORDS, dtype=np.uint64)
        self._progress = np.zeros(2, dtype=np.int64)
        self._cursor = np.zeros(page_records.CURSOR_SLOTS, dtype=np.int64)
        self.pages: PageChannels | None = None
        self.watchdog = Watchdog(stall_timeout, self._moved, self.shut_down)

    def attach(self, pages: PageChannels) -> None:
        """Have pages come and go on other connections from now on."""
        pages.watchdog = self.watchdog
        self.pages = pages

    def _moved(self) -> int:
        """Count what came and what has arrived, with what kernels are about to tell."""
        kernels = int(self._progress[0]) + int(self._cursor[page_records.BYTES_READ])
        pages = self.pages
        of_pages = pages.moved if pages else 0
        return self.sent + self.received + kernels - self.in_flight + of_pages

    @property
    def all_sent(self) -> int:
        """Bytes sent so far, on this connection and on the page channels."""
        return self.sent + (self.pages.sent if self.pages else 0)

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

    def send_pages(
        self, memory: PageMemory, pages: npt.NDArray[np.int32], part: RecordSlice
    ) -> int:
        """Send the records of ``pages[part.begin:part.end]``, and before them what waits.

        Parameters
        ----------
        memory, pages
            Where the pages are, and int32[n], their numbers.
        part
            Which of them, all of one block.

        Returns
        -------
        int
            How many of them were zero pages.

        Raises
        ------
        PeerLost, PeerStalled
        """
        lead = np.frombuffer(bytes(self._pending), np.uint8).copy() if self._pending else _NO_NAME
        self._pending.clear()
        size = len(lead) + (part.end - part.begin) * page_records.PAGE_RECORD_BYTES
        with self.watchdog.due(unseen=min(size, CALL_BYTES)):
            status = socket_io.send_page_records(
                self._socket.fileno(),
                memory.array,
                pages,
                part.begin,
                part.end,
                part.block.first_page,
                part.named,
                part.name,
                lead,
                len(lead),
                self._headers,
                self._iov,
                self._progress,
            )
        self.sent += int(self._progress[0])
        self._progress[0] = 0
        if status < 0:
            raise self.failed("send", -status)
        return int(self._progress[1])

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
        parsing = Parsing(parser, self.buffer)
        with self.watchdog.due(at_most=at_most):
            while not parsing.step():
                if isinstance(parsing.request, PageRun):
                    self._receive_pages(parsing, parsing.request)
                elif isinstance(parsing.request, PageSync):
                    assert self.pages is not None
                    parsing.answer(self.pages.receive(parsing.request.memory))
                else:
                    self._receive(parsing, parsing.request)
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
        """End the connection and the page channels both ways."""
        super().shut_down()
        if self.pages is not None:
            self.pages.shut_down()

    def close(self) -> None:
        """Close the socket, and the page channels."""
        self.watchdog.close()
        super().close()
        if self.pages is not None:
            self.pages.close()

    def _receive(self, parsing: Parsing[T], needed: int) -> None:
        space = self.buffer.space(needed - len(self.buffer))
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

    def _receive_pages(self, parsing: Parsing[T], run: PageRun) -> None:
        buffer, cursor = self.buffer, self._cursor
        buffer.space()
        cursor[:] = (buffer.start, buffer.end, 0, 0, 0, 0)
        status = socket_io.receive_page_records(
            self._socket.fileno(),
            buffer.array,
            cursor,
            run.memory.array,
            run.memory.bitmap,
            run.block.first_page,
            run.block.pages,
        )
        start, end, pages, zero_pages, _, read = cursor.tolist()
        buffer.kernel_took(start, end, read)
        cursor[page_records.BYTES_READ] = 0
        if status == page_records.NEXT:
            parsing.answer((pages, zero_pages))
        elif status < 0:
            raise self.failed("receive", -status)
        elif status == page_records.END:
            raise self.ended(f"connection closed: {parsing.ended()}")
        else:
            raise page_run_error(run, status, cursor, buffer.offset)
