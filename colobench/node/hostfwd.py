"""Sockets of this machine's ports that are forwarded to the guest."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.settings.forward import GUEST_ADDRESS, ForwardRule

_REASONS = {
    errno.EADDRINUSE: "it in use",
    errno.EACCES: "it refused: only privileged processes may have ports below 1024",
    errno.EADDRNOTAVAIL: "no such address on this machine",
}


@dataclass(frozen=True, slots=True)
class HostForward:
    """Forwarding of a port of this machine to a port of the guest.

    Attributes
    ----------
    host
        Address at which to listen, in the loopback network; port 0 is any free one.
    guest_port
        Port of the guest.
    """

    host: Address
    guest_port: int

    @classmethod
    def parse(cls, rule: str) -> HostForward:
        """Read a rule, see `ForwardRule.parse`."""
        found = ForwardRule.parse(rule)
        return cls(Address.parse(f"tcp:{found.host}:{found.host_port}"), found.guest_port)

    def takes_any_port(self) -> bool:
        """Return whether any free port of the host is taken."""
        return self.host.target[1] == 0

    def reserve(self) -> tuple[socket.socket, Address]:
        """Bind the host's port without listening, see `Address.reserve`.

        Raises
        ------
        LocalError
            If the port cannot be bound.
        """
        try:
            return self.host.reserve()
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
            raise LocalError(
                f"hostfwd {self}: expected {self.host} to be free, found {reason}"
            ) from error

    def __str__(self) -> str:
        return f"{self.host}-{GUEST_ADDRESS}:{self.guest_port}"
