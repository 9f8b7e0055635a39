"""Sockets that processes bind; those on UNIX paths are private to their owner from the start."""

from __future__ import annotations

import os
import socket

#: Mode of a UNIX socket's file, independent of the umask.
OWNER_ONLY = 0o600


def bind(
    family: socket.AddressFamily,
    target: str | tuple[str, int],
    kind: int = socket.SOCK_STREAM,
    *,
    reuse: bool = True,
) -> socket.socket:
    """Make a socket and bind it; a UNIX socket's file has the mode 0600 from its creation on.

    The umask is not touched: it belongs to all threads of the process.

    Parameters
    ----------
    family, target
        ``AF_UNIX`` and a path, or ``AF_INET`` and host and port.
    kind
        ``SOCK_STREAM`` or ``SOCK_DGRAM``.
    reuse
        Whether a TCP port may have connections of an earlier process that linger (TIME_WAIT).

    Raises
    ------
    OSError
        If the address cannot be bound.
    """
    bound = socket.socket(family, kind)
    try:
        if family == socket.AF_UNIX:
            # Linux gives the file the mode of the socket, less the umask.
            os.fchmod(bound.fileno(), OWNER_ONLY)
        elif kind == socket.SOCK_STREAM and reuse:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
        if isinstance(target, str):
            # A umask may have taken the owner's rights, too. Nobody connects before `listen`.
            os.chmod(target, OWNER_ONLY)
    except BaseException:
        bound.close()
        raise
    return bound
