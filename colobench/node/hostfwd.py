"""Ports of this machine that lead to the guest, written as for QEMU's user network."""

from __future__ import annotations

import re
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.node.address import Address

GUEST_ADDRESS = "10.0.2.15"
_RULE = re.compile(r"tcp:([^:]*):(\d{1,5})-([^:]*):(\d{1,5})", re.ASCII)


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
        if guest not in ("", GUEST_ADDRESS):
            raise LocalError(f"hostfwd {rule!r}: expected guest {GUEST_ADDRESS}, found {guest}")
        if not 1 <= int(guest_port) <= 65535:
            raise LocalError(
                f"hostfwd {rule!r}: expected a guest port from 1 to 65535, found {guest_port}"
            )
        return cls(Address.parse(f"tcp:{host}:{port}"), int(guest_port))

    def __str__(self) -> str:
        return f"{self.host}-{GUEST_ADDRESS}:{self.guest_port}"
