"""A client's socket, and the host's end of its connection to the guest: bytes go across both ways.

What the guest cannot take yet waits in the connection, 64 KiB of it; then the client is not read
from. What the client does not read waits here, as much as `Backlog` allows: clients may send all
of their requests before they read any reply, and a guest whose replies nobody takes would read no
more requests. One that is behind by more is reset. The end of one side's data is passed on behind
the data, and so is a reset, either way.
"""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from colobench.net.tcp import TCPConnection

#: What the kernel keeps for a client, each way; listening sockets pass it on to theirs.
KERNEL_BYTES = 1 << 16
#: A client is read from as soon as there is room for so many bytes.
_READ_ROOM = 1 << 14
_RESET_ON_CLOSE = struct.pack("@ii", 1, 0)
#: Bytes of replies that may wait for one client, and for all of them together.
OUTPUT_LIMIT, TOTAL_OUTPUT_LIMIT = 256 << 20, 1 << 30


@dataclass(slots=True)
class Backlog:
    """Replies that wait for clients to read them, of all clients.

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
        """Say why a client that is behind must not get behind by so many bytes more, or nothing."""
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
    """Give the address and the port that a client comes from."""
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
        The client's socket; this owns it.
    tcp
        The connection to the guest.
    selector
        Where the socket is watched; its events go to `on_events`.
    wake
        Called when `tcp` has something to do.
    backlog
        What waits for all clients; this one's share is part of it.

    Attributes
    ----------
    closed
        Whether the socket is closed.
    name
        Where it comes from.
    refusal
        Why it was reset, if that was for what waited for it; empty otherwise.
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
        """How many bytes of replies wait for the client."""
        return len(self._replies) + len(self._tcp.inbox)

    def _forget(self, sent: int) -> None:
        """Take bytes that were sent out of those that wait."""
        del self._replies[:sent]
        self._backlog.waiting -= sent

    def _keep(self, now: float) -> None:
        """Keep what the client has not read yet, so that the guest goes on; or give it up."""
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
            self._forget(len(self._replies))
            self._socket.close()

    def _watch(self) -> None:
        """Watch for what can be dealt with now."""
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
