"""A client's socket, and the host's end of its connection to the guest: bytes go across both ways.

What one side cannot take yet waits in the connection, 64 KiB each way; then the other side is not
read from, or its window closes. The end of one side's data is passed on behind the data, and so is
a reset, either way.
"""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from colobench.net.tcp import TCPConnection

#: What the kernel keeps for a client, each way; listening sockets pass it on to theirs.
KERNEL_BYTES = 1 << 16
#: A client is read from as soon as there is room for so many bytes.
_READ_ROOM = 1 << 14
_RESET_ON_CLOSE = struct.pack("@ii", 1, 0)


class Client:
    """One client.

    Parameters
    ----------
    connection
        The client's socket; this owns it.
    tcp
        The connection to the guest.
    selector
        Where the socket is watched; its events go to `on_events`.
    wake
        Called when `tcp` has something to do.
    """

    def __init__(
        self,
        connection: socket.socket,
        tcp: TCPConnection,
        selector: selectors.BaseSelector,
        wake: Callable[[TCPConnection], None],
    ) -> None:
        self.closed = False
        self._socket = connection
        self._tcp = tcp
        self._selector = selector
        self._wake = wake
        self._watched = 0
        self._read_to_end = self._written_to_end = False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def on_events(self, events: int, now: float) -> None:
        """Take what the client has sent; what it can take is given to it by `deliver`."""
        if events & selectors.EVENT_READ and not self._read_to_end:
            self._read(now)
        self._wake(self._tcp)

    def _read(self, now: float) -> None:
        tcp = self._tcp
        room = tcp.room
        if not room:
            return
        try:
            data = self._socket.recv(room)
        except BlockingIOError:
            return
        except OSError:
            self._abort(now)
            return
        if data:
            tcp.send(data)
        else:
            self._read_to_end = True
            tcp.close(now)

    def deliver(self, now: float) -> None:
        """Give the client what has come for it, and the end behind it."""
        if self.closed:
            return
        tcp = self._tcp
        try:
            if tcp.inbox:
                tcp.consume(self._socket.send(tcp.inbox))
            if tcp.end_of_data and not tcp.inbox and not self._written_to_end:
                self._written_to_end = True
                self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._abort(now)
        if tcp.failure:
            self._reset()
        elif self._written_to_end and self._read_to_end:
            self.close()
        else:
            self._watch()

    def _abort(self, now: float) -> None:
        """Pass on that the client wants no more."""
        self._tcp.abort(now)
        self.close()

    def _reset(self) -> None:
        """Pass on that the guest wants no more."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close()

    def close(self) -> None:
        """Close the client's socket."""
        if not self.closed:
            if self._watched:
                self._selector.unregister(self._socket)
            self.closed = True
            self._watched = 0
            self._socket.close()

    def _watch(self) -> None:
        """Watch for what can be dealt with now."""
        if self.closed:
            return
        wanted = 0 if self._read_to_end or self._tcp.room < _READ_ROOM else selectors.EVENT_READ
        if self._tcp.inbox:
            wanted |= selectors.EVENT_WRITE
        if wanted == self._watched:
            return
        if not self._watched:
            self._selector.register(self._socket, wanted, self.on_events)
        elif wanted:
            self._selector.modify(self._socket, wanted, self.on_events)
        else:
            self._selector.unregister(self._socket)
        self._watched = wanted
