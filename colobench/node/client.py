"""Client's socket, joined to the host's end of a connection to the guest.

Bytes that the guest cannot take yet wait in the connection, at most 64 KiB; then the client is not
read. Replies that the client does not read wait here, as many as `Backlog` allows: clients may send
all of their requests before they read any reply, and a guest whose replies are not taken would
read no more requests. A client that is behind by more is reset. The end of one side's data is
passed on after the data, and so is a reset, in both directions.
"""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from colobench.net.tcp import TCPConnection

#: Bytes of a client's socket buffers in the kernel; a listening socket's clients inherit them.
KERNEL_BYTES = 1 << 16
#: A client is read when there is room for at least this number of bytes.
_READ_ROOM = 1 << 14
_RESET_ON_CLOSE = struct.pack("@ii", 1, 0)
#: Bytes of replies that may wait for one client, and for all of them together.
OUTPUT_LIMIT, TOTAL_OUTPUT_LIMIT = 256 << 20, 1 << 30


@dataclass(slots=True)
class Backlog:
    """Replies that wait until clients read them, of all clients.

    Attributes
    ----------
    limit, total_limit
        Bytes that may wait for one client, and for all of them together.
    waiting
        Bytes that wait for all of them now.
    """

    limit: int = OUTPUT_LIMIT
    total_limit: int = TOTAL_OUTPUT_LIMIT
    waiting: int = 0

    def refusal(self, behind: int, more: int) -> str:
        """Return the reason why no more bytes may wait for a client, or "" if they may."""
        if behind + more > self.limit:
            return (
                f"replies for a client that does not read: expected at most {self.limit} bytes, "
                f"found {behind + more}"
            )
        if self.waiting + more > self.total_limit:
            return (
                "replies for all clients that do not read: expected at most "
                f"{self.total_limit} bytes, found {self.waiting + more}"
            )
        return ""


def _name(connection: socket.socket) -> str:
    """Return a client's address and port."""
    try:
        host, port = connection.getpeername()[:2]
    except OSError:
        return "a client that is gone"
    return f"client {host}:{port}"


class Client:
    """One client.

    Parameters
    ----------
    connection
        Client's socket, which this object closes.
    tcp
        Connection to the guest.
    selector
        Selector of the socket; its events go to `on_events`.
    wake
        Function to call when `tcp` has something to do.
    backlog
        Replies that wait for all clients, this one included.

    Attributes
    ----------
    closed
        Whether the socket is closed.
    name
        Client's address and port.
    refusal
        Reason of a reset because of too many waiting replies; otherwise "".
    """

    def __init__(
        self,
        connection: socket.socket,
        tcp: TCPConnection,
        selector: selectors.BaseSelector,
        wake: Callable[[TCPConnection], None],
        backlog: Backlog,
    ) -> None:
        self.closed = False
        self.refusal = ""
        self.name = _name(connection)
        self._backlog = backlog
        self._replies = bytearray()
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
        """Take in the client's bytes, and deliver bytes that it can take."""
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
        """Send the client the guest's replies, and the end after them."""
        if self.closed:
            return
        tcp = self._tcp
        try:
            if self._replies:
                self._forget(self._socket.send(self._replies))
            if tcp.inbox and not self._replies:
                tcp.consume(self._socket.send(tcp.inbox))
            if tcp.end_of_data and not self.behind and not self._written_to_end:
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
            self._keep(now)
            self._watch()

    @property
    def behind(self) -> int:
        """Number of bytes of replies that wait for the client."""
        return len(self._replies) + len(self._tcp.inbox)

    def _forget(self, sent: int) -> None:
        """Subtract bytes that were sent from those that wait."""
        del self._replies[:sent]
        self._backlog.waiting -= sent

    def _keep(self, now: float) -> None:
        """Keep replies that the client has not read; reset a client that is too far behind."""
        more = len(self._tcp.inbox)
        if not more or self.closed:
            return
        self.refusal = self._backlog.refusal(len(self._replies), more)
        if self.refusal:
            self._tcp.abort(now)
            self._wake(self._tcp)
            self._reset()
            return
        self._replies += self._tcp.inbox
        self._backlog.waiting += more
        self._tcp.consume(more)

    def _abort(self, now: float) -> None:
        """Pass a reset by the client on to the guest."""
        self._tcp.abort(now)
        self.close()

    def _reset(self) -> None:
        """Pass a reset by the guest on to the client."""
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
            self._forget(len(self._replies))
            self._socket.close()

    def _watch(self) -> None:
        """Watch for the events that can be handled now."""
        if self.closed:
            return
        wanted = 0 if self._read_to_end or self._tcp.room < _READ_ROOM else selectors.EVENT_READ
        if self._replies:
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
