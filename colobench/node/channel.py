"""The connection to the peer: a blocking socket, what waits to be sent, what is not parsed."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from contextlib import suppress
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from colobench.errors import RemoteError
from colobench.kernels import transport
from colobench.memory.ram import PageMemory
from colobench.wire.ram import RecordSlice
from colobench.wire.reading import PageRun, Parser, Parsing, StreamBuffer, page_run_error

T = TypeVar("T")

SOCKET_BUFFER = 4 * 1024 * 1024
_NO_NAME: npt.NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)


class PeerLost(RemoteError):
    """The connection is gone: closed, reset, or shut down by a failover."""


class PeerStalled(RemoteError):
    """The peer neither took nor gave a byte for the whole timeout, though it is its turn."""


class Channel:
    """One connected socket.

    Parameters
    ----------
    connection
        A connected stream socket; the channel owns it.
    stall_timeout
        Seconds without a byte, while one is due, after which the peer counts as stalled.

    Attributes
    ----------
    buffer
        What was received and is not parsed yet.
    sent
        Bytes sent so far.
    """

    def __init__(self, connection: socket.socket, stall_timeout: float) -> None:
        self._socket = connection
        self._stall_timeout = stall_timeout
        self._pending = bytearray()
        self.buffer = StreamBuffer()
        self._headers = np.zeros(transport.HEADERS_BYTES, dtype=np.uint8)
        self._iov = np.zeros(transport.IOV_WORDS, dtype=np.uint64)
        self._progress = np.zeros(2, dtype=np.int64)
        self._cursor = np.zeros(transport.CURSOR_SLOTS, dtype=np.int64)
        self.sent = 0
        connection.setblocking(True)
        seconds = struct.pack("@ll", int(stall_timeout), int(stall_timeout % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, seconds)
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            # TCP tunes its buffers itself; a UNIX socket keeps what it is given.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)

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
            self.send_now(self._pending)
            self._pending.clear()

    def send_now(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes as they are, before what waits.

        Raises
        ------
        PeerLost, PeerStalled
        """
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._failed("send", error.errno or 0) from error
        self.sent += len(data)

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
        status = transport.send_page_records(
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
        if status < 0:
            raise self._failed("send", -status)
        return int(self._progress[1])

    def parse(self, parser: Parser[T]) -> T:
        """Receive until the parser has what it wants.

        Raises
        ------
        PeerLost, PeerStalled
            If the connection ends or stalls first.
        StreamError
            If the bytes are not what the parser expects.
        """
        parsing = Parsing(parser, self.buffer)
        while not parsing.step():
            if isinstance(parsing.request, PageRun):
                self._receive_pages(parsing, parsing.request)
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
        """End the connection both ways; whoever is blocked on it wakes up with PeerLost."""
        # The peer may be faster.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _receive(self, parsing: Parsing[T], needed: int) -> None:
        try:
            count = self._socket.recv_into(self.buffer.space(needed - len(self.buffer)))
        except OSError as error:
            raise self._failed("receive", error.errno or 0) from error
        if not count:
            raise PeerLost(f"connection closed: {parsing.ended()}")
        self.buffer.received(count)

    def _receive_pages(self, parsing: Parsing[T], run: PageRun) -> None:
        buffer, cursor = self.buffer, self._cursor
        buffer.space()
        cursor[:] = (buffer.start, buffer.end, 0, 0, 0, 0)
        status = transport.receive_page_records(
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
        if status == transport.NEXT:
            parsing.answer((pages, zero_pages))
        elif status < 0:
            raise self._failed("receive", -status)
        elif status == transport.END:
            raise PeerLost(f"connection closed: {parsing.ended()}")
        else:
            raise page_run_error(run, status, cursor, buffer.offset)

    def _failed(self, what: str, number: int) -> RemoteError:
        if number == errno.EAGAIN:
            return PeerStalled(
                f"{what}: expected the peer to go on in {self._stall_timeout:g} s, found silence"
            )
        return PeerLost(f"{what}: {os.strerror(number)}")
