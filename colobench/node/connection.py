"""Base class of connections to the peer: their deadlines, and the errors at their end."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from contextlib import suppress

from colobench.errors import RemoteError
from colobench.node.watchdog import Watchdog, silence

SOCKET_BUFFER = 4 * 1024 * 1024
#: Most bytes that are sent by one call, so that progress is counted between calls.
_PIECE_BYTES = 1 << 18


class PeerLost(RemoteError):
    """The connection has ended: closed, reset, or shut down by a failover."""


class PeerStalled(RemoteError):
    """The peer transferred no byte, or too few, within the timeout, although some were due."""


class Connection:
    """Base class of a connected socket.

    Parameters
    ----------
    connection
        Connected stream socket, which this object closes.
    stall_timeout
        Seconds without a byte, while one is due, after which the peer counts as stalled.
    send_buffer
        Size of the kernel's send buffer of a UNIX socket, bytes; TCP tunes its buffers itself.

    Attributes
    ----------
    stall_timeout
        As in the parameters.
    sent
        Bytes sent so far.
    watchdog
        Watchdog, which ends the connection to a peer that is too slow; None without one.
    """

    def __init__(
        self,
        connection: socket.socket,
        stall_timeout: float,
        send_buffer: int = SOCKET_BUFFER,
    ) -> None:
        self._socket = connection
        self.stall_timeout = stall_timeout
        self.sent = 0
        self.watchdog: Watchdog | None = None
        connection.setblocking(True)
        seconds = struct.pack("@ll", int(stall_timeout), int(stall_timeout % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, seconds)
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)

    @property
    def in_flight(self) -> int:
        """Number of bytes that were sent and that the peer's side has not received yet."""
        try:
            found = fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            # The socket was closed meanwhile.
            return 0
        return int.from_bytes(found, sys.byteorder)

    def has_ended(self, within: float = 0.0) -> bool:
        """Say whether the peer has ended it, even if bytes that it sent before are yet to come.

        Parameters
        ----------
        within
            Seconds to wait for that.
        """
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLRDHUP)
        except ValueError:
            # It was closed here.
            return True
        return bool(poll.poll(1000 * within))

    def send_now(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes at once.

        Raises
        ------
        PeerLost, PeerStalled
        """
        view = memoryview(data)
        while view:
            try:
                count = self._socket.send(view[:_PIECE_BYTES])
            except OSError as error:
                raise self.failed("send", error.errno or 0) from error
            self.sent += count
            view = view[count:]

    def shut_down(self) -> None:
        """Shut down both directions; threads that are blocked on them raise PeerLost."""
        # The peer may have done it before.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def failed(self, what: str, number: int) -> RemoteError:
        """Return the error for a call on the socket that failed with an errno."""
        if self.watchdog is not None and self.watchdog.why:
            return PeerStalled(f"{what}: {self.watchdog.why}")
        if number == errno.EAGAIN:
            return PeerStalled(f"{what}: {silence(self.stall_timeout)}")
        return PeerLost(f"{what}: {os.strerror(number)}")

    def ended(self, words: str) -> RemoteError:
        """Return the error for a stream that has ended, by the peer or by the watchdog."""
        if self.watchdog is not None and self.watchdog.why:
            return PeerStalled(f"receive: {self.watchdog.why}")
        return PeerLost(words)
