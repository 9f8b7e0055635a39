"""A connection to the store for single requests: each waits for its answer."""

from __future__ import annotations

import contextlib
import socket
import struct
from types import TracebackType
from typing import Any

from colobench.lab.clients.closed_loop import ClientsStalled
from colobench.lab.clients.resp import ReplyParser, encode

RECEIVE_BYTES = 1 << 16


class StoreConnection(contextlib.AbstractContextManager["StoreConnection"]):
    """A connection of its own, which is closed at the end.

    Parameters
    ----------
    address
        Host and port.
    timeout
        Seconds in which the connection has to be made, and each answer has to come.

    Raises
    ------
    ClientsStalled
        If there is no connection, or no answer, in time.
    """

    def __init__(self, address: tuple[str, int], timeout: float = 10.0) -> None:
        try:
            self._socket = socket.create_connection(address, timeout)
        except OSError as error:
            raise ClientsStalled(f"store: expected a connection, found none: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = ReplyParser()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, *request: bytes) -> Any:
        """Send a request and wait for its answer.

        Parameters
        ----------
        request
            The command's name and its arguments.

        Raises
        ------
        ClientsStalled
            If the answer does not come in time, or the connection ends before it.
        """
        self.send(*request)
        return self.receive()

    def send(self, *request: bytes) -> None:
        """Send a request."""
        try:
            self._socket.sendall(encode(*request))
        except OSError as error:
            raise ClientsStalled(f"store: expected to send a request, found: {error}") from error

    def receive(self) -> Any:
        """Wait for the next answer."""
        return self.receive_all(1)[0]

    def receive_all(self, count: int) -> list[Any]:
        """Wait for the answers to as many requests as are in flight, at least one."""
        replies: list[Any] = []
        try:
            while data := self._socket.recv(RECEIVE_BYTES):
                replies += self._parser.feed(data)
                if len(replies) >= count:
                    return replies
        except TimeoutError as error:
            raise ClientsStalled("store: expected an answer, found none in time") from error
        except OSError as error:
            raise ClientsStalled(f"store: expected an answer, found: {error}") from error
        raise ClientsStalled("store: expected an answer, found the connection closed")

    def reset(self) -> None:
        """Close the connection with RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
        self._socket.close()
