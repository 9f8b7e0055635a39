"""Waits for connections, with a deadline, which end with the main connection."""

from __future__ import annotations

import select
import socket
import time

from colobench.node.connection import PeerLost, PeerStalled

#: Seconds until a UNIX socket whose queue of connections is full is tried again.
_AGAIN_SECONDS = 0.02


class Wait:
    """Deadline of a wait, and connections that end it.

    Parameters
    ----------
    expected
        Description of the expected event, for errors.
    timeout
        Seconds from now for all waits of this object; None for no limit.
    main
        Main connection, whose end ends the wait.
    wake_fd
        Descriptor that ends the wait when it is readable, or -1.

    Attributes
    ----------
    expected
        As in the parameters; it may be changed.
    """

    def __init__(
        self,
        expected: str,
        timeout: float | None,
        main: socket.socket | None = None,
        wake_fd: int = -1,
    ) -> None:
        self.expected = expected
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._main = main
        self._wake_fd = wake_fd

    def left(self) -> float | None:
        """Return the seconds that are left; None for no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def until_readable(self, waited_for: socket.socket) -> None:
        """Wait until there is something to receive, or to accept.

        Raises
        ------
        PeerStalled
            If the time is over.
        PeerLost
            If the main connection has ended, or `wake_fd` was made readable.
        """
        if not self._poll(waited_for, select.POLLIN, self.left()):
            raise PeerStalled(f"expected {self.expected} in {self._timeout:g} s")

    def accept(self, listener: socket.socket) -> socket.socket:
        """Wait for a connection; a shutdown of the listener ends the wait with PeerLost.

        Raises
        ------
        PeerStalled, PeerLost
            See `until_readable`.
        """
        self.until_readable(listener)
        try:
            connection, _ = listener.accept()
        except OSError as error:
            raise PeerLost(f"accept: {error.strerror}") from error
        return connection

    def connect(self, family: socket.AddressFamily, target: str | tuple[str, int]) -> socket.socket:
        """Connect a socket.

        Raises
        ------
        OSError
            If no process answers in time.
        PeerLost
            See `until_readable`.
        """
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            while True:
                try:
                    connection.connect(target)
                except BlockingIOError as error:
                    self._connecting(connection, error)
                    continue
                connection.settimeout(self.left())
                return connection
        except BaseException:
            connection.close()
            raise

    def _connecting(self, connection: socket.socket, error: BlockingIOError) -> None:
        """Wait until the next attempt, or until a TCP connection is established."""
        left = self.left()
        if left == 0:
            raise TimeoutError("timed out") from error
        if connection.family != socket.AF_UNIX:
            self._poll(connection, select.POLLOUT, left)
        else:
            self._poll(None, 0, _AGAIN_SECONDS if left is None else min(left, _AGAIN_SECONDS))

    def _poll(self, waited_for: socket.socket | None, events: int, timeout: float | None) -> bool:
        """Wait for events of a socket; return False if the time is over first."""
        poll = select.poll()
        if waited_for is not None:
            poll.register(waited_for, events)
        if self._main is not None:
            poll.register(self._main, select.POLLRDHUP)
        if self._wake_fd >= 0:
            poll.register(self._wake_fd, select.POLLIN)
        found = dict(poll.poll(None if timeout is None else timeout * 1000))
        if self._main is not None and self._main.fileno() in found:
            raise PeerLost(f"connection closed: expected {self.expected}")
        if self._wake_fd in found:
            raise PeerLost(f"told to end: expected {self.expected}")
        return waited_for is not None and waited_for.fileno() in found
