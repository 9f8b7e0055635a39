"""Port of the switch: the socket of a link to a node, and the frames that wait for the node."""

from __future__ import annotations

import socket
import struct

from colobench.net.link import LinkDecoder, LinkError, encode_frame

#: Most bytes that wait for a node that does not read; further frames are dropped.
QUEUE_BYTES = 1 << 20
#: Number of waiting bytes from which on the host's connections make no further segments.
ENOUGH_BYTES = 1 << 18
_RECEIVE_BYTES = 1 << 18
_SEND_BYTES = 1 << 18
_CREDENTIALS = struct.Struct("iII")


class Port:
    """One link.

    Parameters
    ----------
    number
        Number of the port.
    link
        Connected stream socket, which this object closes.
    queue_bytes
        Most bytes that may wait.

    Attributes
    ----------
    pid
        Process id of the other end of a UNIX socket, or None.
    ended
        Reason of the link's end; "" while it lasts.
    """

    def __init__(self, number: int, link: socket.socket, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self.number = number
        self.socket = link
        self.ended = ""
        self.pid: int | None = None
        link.setblocking(False)
        if link.family == socket.AF_INET:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            size = _CREDENTIALS.size
            found = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            self.pid = _CREDENTIALS.unpack(found)[0]
        self._decoder = LinkDecoder()
        self._queue_bytes = queue_bytes
        self._queue = bytearray()

    @property
    def waiting(self) -> int:
        """Number of bytes that wait to be sent."""
        return len(self._queue)

    def receive(self) -> list[bytes]:
        """Return the frames that have arrived; after the last one, `ended` is set."""
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
            if not data:
                self.ended = "closed"
            return self._decoder.feed(data)
        except BlockingIOError:
            return []
        except OSError as error:
            self.ended = error.strerror or str(error)
        except LinkError as error:
            self.ended = str(error)
        return []

    def queue(self, frame: bytes) -> bool:
        """Queue a frame for the next `flush`; return False if it was dropped for lack of room."""
        if len(self._queue) + len(frame) > self._queue_bytes:
            return False
        self._queue += encode_frame(frame)
        return True

    def flush(self) -> None:
        """Send as many waiting bytes as the node takes now."""
        try:
            while self._queue:
                # In one piece, all remaining bytes would be copied at each call.
                sent = self.socket.send(self._queue[:_SEND_BYTES])
                del self._queue[:sent]
        except BlockingIOError:
            pass
        except OSError as error:
            self._queue.clear()
            self.ended = error.strerror or str(error)
