"""Addresses as in QEMU's migration URIs: ``unix:PATH`` and ``tcp:HOST:PORT``."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.node.sockets import bind
from colobench.node.wait import Wait
from colobench.settings.forward import loopback_address

#: Most connections that wait to be accepted: all that a pair has with 255 page channels.
_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Address:
    """Address at which a node listens, or to which it connects.

    Attributes
    ----------
    family
        ``AF_UNIX`` or ``AF_INET``.
    target
        Argument of `socket.connect`: a path, or host and port.
    """

    family: socket.AddressFamily
    target: str | tuple[str, int]

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Read a migration URI.

        Raises
        ------
        LocalError
            If it has neither form, or its TCP host is not of the loopback network: nothing protects
            the stream on its way, so it does not leave the machine.
        """
        kind, _, rest = uri.partition(":")
        if kind == "unix" and rest:
            return cls(socket.AF_UNIX, rest)
        host, _, port = rest.rpartition(":")
        if kind != "tcp" or not port.isdigit() or int(port) > 65535:
            raise LocalError(f"address: expected unix:PATH or tcp:HOST:PORT, found {uri!r}")
        try:
            host = loopback_address(host)
        except LocalError as error:
            raise LocalError(f"address {uri!r}: {error}") from error
        return cls(socket.AF_INET, (host, int(port)))

    def __str__(self) -> str:
        if isinstance(self.target, str):
            return f"unix:{self.target}"
        return f"tcp:{self.target[0]}:{self.target[1]}"

    def listen(self) -> tuple[socket.socket, Address]:
        """Listen; return the socket and its address (port 0 has become a real one).

        Raises
        ------
        LocalError
            If the address cannot be had.
        """
        try:
            listener = bind(self.family, self.target)
        except OSError as error:
            raise LocalError(f"listen on {self}: {error.strerror or error}") from error
        listener.listen(_BACKLOG)
        target = listener.getsockname()
        return listener, Address(self.family, target)

    def reserve(self) -> tuple[socket.socket, Address]:
        """Bind without listening: connections are refused, and no other process gets the address.

        Returns
        -------
        socket, address
            The bound socket, which may be made to listen, and its address (port 0 has become a
            real one).

        Raises
        ------
        OSError
            If the address cannot be had.

        Notes
        -----
        With SO_REUSEADDR two sockets may be bound to a port as long as neither listens, so it is
        not used unless it has to be: when connections of an earlier process linger (TIME_WAIT).
        """
        try:
            reserved = bind(self.family, self.target, reuse=False)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            reserved = bind(self.family, self.target)
        return reserved, Address(self.family, reserved.getsockname())

    def connect(self, timeout: float) -> socket.socket:
        """Connect within `timeout` seconds, see `connect_while`."""
        return self.connect_while(Wait(f"a connection to {self}", timeout))

    def connect_while(self, wait: Wait) -> socket.socket:
        """Connect, and retry as long as a wait goes on.

        Raises
        ------
        LocalError
            If no process answers there.
        PeerLost
            If the connection on which the wait depends has ended.
        """
        try:
            return wait.connect(self.family, self.target)
        except OSError as error:
            raise LocalError(f"connect to {self}: {error.strerror or error}") from error

    def remove(self) -> None:
        """Remove a UNIX socket's file, if there is one."""
        if isinstance(self.target, str):
            with suppress(FileNotFoundError):
                os.unlink(self.target)
