"""Rules for ports of this machine that are forwarded to the guest, in QEMU's syntax."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from colobench.errors import LocalError

GUEST_ADDRESS = "10.0.2.15"
_RULE = re.compile(r"tcp:(\[[^]]*\]|[^:]*):(\d{1,9})-([^:]*):(\d{1,9})", re.ASCII)


def loopback_address(host: str) -> str:
    """Read a TCP host, which must be of the loopback network, as the bytes are not protected.

    Raises
    ------
    LocalError
        If it is another host, or not an IPv4 address.
    """
    host = "127.0.0.1" if host in ("", "localhost") else host
    try:
        loopback = ipaddress.IPv4Address(host).is_loopback
    except ValueError as error:
        raise LocalError(f"expected an IPv4 address, found {host!r}") from error
    if not loopback:
        raise LocalError(f"expected a loopback address, found {host}")
    return host


@dataclass(frozen=True, slots=True)
class ForwardRule:
    """Forwarding of a port of this machine to a port of the guest.

    Attributes
    ----------
    host, host_port
        Address at which to listen, in the loopback network, and a port; 0 for any free one.
    guest_port
        Port of the guest.
    """

    host: str
    host_port: int
    guest_port: int

    @classmethod
    def parse(cls, rule: str) -> ForwardRule:
        """Read ``tcp:[hostaddr]:hostport-[guestaddr]:guestport``.

        Raises
        ------
        LocalError
            If it has another form, if the guest is not 10.0.2.15, or if the host's address is not
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
            return cls(loopback_address(host), int(port), int(guest_port))
        except LocalError as error:
            raise LocalError(f"hostfwd {rule!r}: {error}") from error

    def takes_any_port(self) -> bool:
        """Return whether any free port of the host is taken."""
        return self.host_port == 0

    def __str__(self) -> str:
        return f"tcp:{self.host}:{self.host_port}-{GUEST_ADDRESS}:{self.guest_port}"
