"""A link: frames on a stream socket that is never waited for."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from colobench.net.link import LinkDecoder, encode_frame
from colobench.node.pcap_file import PcapWriter

#: Bytes that may wait to be sent; a link that takes nothing loses frames beyond, as networks do.
PENDING_LIMIT = 1 << 22
_RECEIVE_BYTES = 1 << 18


class LinkDown(Exception):
    """The other end is gone."""


class FrameSocket:
    """One end of a link.

    Parameters
    ----------
    connection
        A connected stream socket.
    pcap
        Gets all frames, or None.

    Attributes
    ----------
    sent, received, dropped
        Frames so far; dropped are those that the other end was too slow for.
    """

    def __init__(self, connection: socket.socket, pcap: PcapWriter | None = None) -> None:
        connection.setblocking(False)
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._decoder = LinkDecoder()
        self._pending = bytearray()
        self._pcap = pcap
        self.sent = self.received = self.dropped = 0

    def fileno(self) -> int:
        """Give the socket's descriptor."""
        return self._socket.fileno()

    @property
    def waits_to_send(self) -> bool:
        """Say whether the socket did not take everything yet."""
        return bool(self._pending)

    def receive(self) -> list[bytes]:
        """Give the frames that are there.

        Raises
        ------
        LinkDown
            If the link has ended.
        LinkError
            If what came is no frame.
        """
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise LinkDown(error.strerror) from error
        if not data:
            raise LinkDown("closed by the other end")
        frames = self._decoder.feed(data)
        self.received += len(frames)
        for frame in frames:
            self._capture(frame)
        return frames

    def send(self, frame: bytes, *, always: bool = False) -> None:
        """Put a frame behind those that wait; `flush` sends them.

        Parameters
        ----------
        frame
            The frame.
        always
            Whether it must not be dropped, however much waits.
        """
        if len(self._pending) > PENDING_LIMIT and not always:
            self.dropped += 1
            return
        self._pending += encode_frame(frame)
        self.sent += 1
        self._capture(frame)

    def flush(self) -> None:
        """Send as much as the socket takes.

        Raises
        ------
        LinkDown
            If the link has ended.
        """
        if self._pcap is not None:
            self._pcap.flush()
        while self._pending:
            try:
                count = self._socket.send(self._pending)
            except BlockingIOError:
                return
            except OSError as error:
                raise LinkDown(error.strerror) from error
            del self._pending[:count]

    def close(self) -> None:
        """End the link."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._pcap is not None:
            self._pcap.close()
            self._pcap = None

    def _capture(self, frame: bytes) -> None:
        if self._pcap is not None:
            self._pcap.write(frame, time.time_ns())
