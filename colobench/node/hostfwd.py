"""Ports of this machine that lead to the guest, written as for QEMU's user network."""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.node.address import Address

GUEST_ADDRESS = "10.0.2.15"
_RULE = re.compile(r"tcp:(\[[^]]*\]|[^:]*):(\d{1,9})-([^:]*):(\d{1,9})", re.ASCII)
_REASONS = {
    errno.EADDRINUSE: "it in use",
    errno.EACCES: "it refused: only privileged processes may have ports below 1024",
    errno.EADDRNOTAVAIL: "no such address on this machine",
}


@dataclass(frozen=True, slots=True)
class HostForward:
    """Connections to a port of this machine go on to a port of the guest.

    Attributes
    ----------
    host
        Where to listen: an address of the loopback network and a port, 0 for any that is free.
    guest_port
        The guest's port.
    """

    host: Address
    guest_port: int

    @classmethod
    def parse(cls, rule: str) -> HostForward:
        """Read ``tcp:[hostaddr]:hostport-[guestaddr]:guestport``.

        Raises
        ------
        LocalError
            If it is something else, if the guest is not 10.0.2.15, or if the host's address is not
            of the loopback network; without an address it is 127.0.0.1.
        """
        found = _RULE.fullmatch(rule)
        if found is None:
            raise LocalError(
                f"hostfwd: expected tcp:[hostaddr]:hostport-[guestaddr]:guestport, found {rule!r}"
            )
        host, port, guest, guest_port = found.groups()
        if host.startswith("["):
            raise LocalError(
                f"hostfwd {rule!r}: expected an IPv4 address of this host, found the IPv6 address "
                f"{host}: the guest speaks IPv4"
            )
        if int(port) > 65535:
            raise LocalError(
                f"hostfwd {rule!r}: expected a host port from 0 to 65535, found {port}"
            )
        if guest not in ("", GUEST_ADDRESS):
            raise LocalError(f"hostfwd {rule!r}: expected guest {GUEST_ADDRESS}, found {guest}")
        if not 1 <= int(guest_port) <= 65535:
            raise LocalError(
                f"hostfwd {rule!r}: expected a guest port from 1 to 65535, found {guest_port}"
            )
        try:
            return cls(Address.parse(f"tcp:{host}:{port}"), int(guest_port))
        except LocalError as error:
            raise LocalError(f"hostfwd {rule!r}: {error}") from error

    def takes_any_port(self) -> bool:
        """Say whether any free port of the host will do."""
        return self.host.target[1] == 0

    def reserve(self) -> tuple[socket.socket, Address]:
        """Take the host's port without listening there, see `Address.reserve`.

        Raises
        ------
        LocalError
            If it cannot be had.
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
