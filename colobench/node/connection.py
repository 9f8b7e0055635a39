"""What every connection to the peer has: limits of patience, and words for its end."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress

from colobench.errors import RemoteError

SOCKET_BUFFER = 4 * 1024 * 1024


class PeerLost(RemoteError):
    """The connection is gone: closed, reset, or shut down by a failover."""


class PeerStalled(RemoteError):
    """The peer neither took nor gave a byte for the whole timeout, though it is its turn."""


class Connection:
    """One connected socket.

    Parameters
    ----------
    connection
        A connected stream socket; this owns it.
    stall_timeout
        Seconds without a byte, while one is due, after which the peer counts as stalled.
    send_buffer
        Bytes that the kernel keeps for a peer on a UNIX socket; TCP tunes its buffers itself.

    Attributes
    ----------
    sent
        Bytes sent so far.
    """

    def __init__(
        self,
        connection: socket.socket,
        stall_timeout: float,
        send_buffer: int = SOCKET_BUFFER,
    ) -> None:
        self._socket = connection
        self._stall_timeout = stall_timeout
        self.sent = 0
        connection.setblocking(True)
        seconds = struct.pack("@ll", int(stall_timeout), int(stall_timeout % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, seconds)
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)

    def send_now(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes as they are.

        Raises
        ------
        PeerLost, PeerStalled
        """
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self.failed("send", error.errno or 0) from error
        self.sent += len(data)

    def shut_down(self) -> None:
        """End the connection both ways; whoever is blocked on it wakes up with PeerLost."""
        # The peer may be faster.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def failed(self, what: str, number: int) -> RemoteError:
        """Give the error for a call on the socket that failed with that errno."""
        if number == errno.EAGAIN:
            return PeerStalled(
                f"{what}: expected the peer to go on in {self._stall_timeout:g} s, found silence"
            )
        return PeerLost(f"{what}: {os.strerror(number)}")
