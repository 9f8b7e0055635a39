"""How pages travel, by name: as page records, in multifd packets, or through shared memory."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.guest.checks import check_integer, check_type, show

#: A handshake has one byte for the number of channels.
CHANNELS_LIMIT = 255


class PageTransport(enum.Enum):
    """What brings pages from the primary to the secondary."""

    #: QEMU's classic page records, in the main stream.
    STREAM = "stream"
    #: QEMU's multifd packets, on connections of their own.
    MULTIFD = "multifd"
    #: On one host: the page list travels, the secondary copies from the primary's RAM.
    MEMFD = "memfd"


class Encoding(enum.Enum):
    """What is sent of a page."""

    #: All of it.
    NONE = "none"
    #: What has changed in it since it was sent last.
    XBZRLE = "xbzrle"


@dataclass(frozen=True, slots=True)
class Transport:
    """How a session's pages travel.

    Attributes
    ----------
    pages
        What brings them.
    socket
        ``unix`` or ``tcp``: the family of all connections.
    """

    pages: PageTransport
    socket: str

    @classmethod
    def parse(cls, text: str) -> Transport:
        """Read a name such as ``multifd``, ``tcp`` or ``multifd+tcp``; ``stream+unix`` is usual.

        Raises
        ------
        LocalError
            If it is none, or memfd over TCP, which passes no descriptors.
        """
        check_type("transport", text, str)
        names = [each.value for each in PageTransport]
        pages, plus, socket = text.partition("+")
        if not plus and pages in ("unix", "tcp"):
            pages, socket = PageTransport.STREAM.value, pages
        elif not plus:
            socket = "unix"
        if pages not in names or socket not in ("unix", "tcp"):
            raise LocalError(
                f"transport: expected {', '.join(names)}, unix or tcp, or such as multifd+tcp, "
                f"found {text!r}"
            )
        check_socket(PageTransport(pages), socket)
        return cls(PageTransport(pages), socket)

    def __str__(self) -> str:
        return f"{self.pages.value}+{self.socket}"


def check_socket(pages: PageTransport, uri: str) -> None:
    """Refuse, with LocalError, to pass descriptors where that is not possible."""
    if pages is PageTransport.MEMFD and not uri.startswith("unix"):
        raise LocalError(
            f"transport memfd: expected unix, whose sockets pass descriptors, found {uri}"
        )


def check_layout(pages: PageTransport, layout: str) -> None:
    """Refuse, with LocalError, to take pages out of a stream that carries them in one buffer."""
    if layout == "buffered" and pages is not PageTransport.STREAM:
        raise LocalError(
            f"layout buffered: expected transport stream, whose pages fit into the buffer, "
            f"found {pages.value}"
        )


def check_encoding(pages: PageTransport, encoding: str) -> None:
    """Refuse, with LocalError, to encode pages where their records have no flag for it."""
    if encoding != Encoding.NONE.value and pages is not PageTransport.STREAM:
        raise LocalError(
            f"encoding {encoding}: expected transport stream, whose records say how a page is "
            f"encoded, found {pages.value}"
        )


def usable_cores() -> int:
    """Give the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def check_channels(pages: PageTransport, count: int | None) -> int:
    """Give the number of channels, or for None one that suits this machine.

    With `MEMFD` the primary waits while the secondary copies, on one thread for each channel. With
    `MULTIFD` a channel keeps two cores busy, one on each side.

    Raises
    ------
    LocalError
        If it is not from 1 to 255, or `STREAM` is to have any.
    """
    if pages is PageTransport.STREAM:
        if count is not None and not (type(count) is int and count == 0):
            raise LocalError(
                f"multifd_channels: expected none with transport stream, found {show(count)}"
            )
        return 0
    if count is None:
        cores = usable_cores()
        return max(1, min(2, cores) if pages is PageTransport.MEMFD else min(4, cores // 2))
    return check_integer("multifd_channels", count, 1, CHANNELS_LIMIT)
