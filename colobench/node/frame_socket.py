"""Link of a network: frames on a non-blocking stream socket."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from colobench.net.link import LinkDecoder, encode_frame
from colobench.node.pcap_file import PcapWriter

#: Most bytes that wait to be sent; beyond that, frames are dropped, as networks do.
PENDING_LIMIT = 1 << 22
_RECEIVE_BYTES = 1 << 18


class LinkDown(Exception):
    """The other end has ended the link."""


class FrameSocket:
    """One end of a link.

    Parameters
    ----------
    connection
        Connected stream socket.
    pcap
        File for all frames, or None.

    Attributes
    ----------
    sent, received, dropped
        Numbers of frames so far; frames are dropped if the other end is too slow.
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
        """Return the socket's descriptor."""
        return self._socket.fileno()

    @property
    def waits_to_send(self) -> bool:
        """Whether bytes wait that the socket did not take yet."""
        return bool(self._pending)

    def receive(self) -> list[bytes]:
        """Return the frames that have arrived.

        Raises
        ------
        LinkDown
            If the link has ended.
        LinkError
            If bytes are not a frame.
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
        """Append a frame to those that wait; `flush` sends them.

        Parameters
        ----------
        frame
            Frame to send.
        always
            Whether the frame is kept, even if too many bytes wait.
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
