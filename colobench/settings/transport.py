"""Transports of pages from the primary to the secondary, and their sockets."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.fields.checks import check_type

#: Most channels: a handshake has one byte for their number.
CHANNELS_LIMIT = 255


class PageTransport(enum.Enum):
    """Way in which pages travel from the primary to the secondary."""

    #: QEMU's classic page records, in the main stream.
    STREAM = "stream"
    #: QEMU's multifd packets, on connections of their own.
    MULTIFD = "multifd"
    #: On one host: the page list travels, the secondary copies from the primary's RAM.
    MEMFD = "memfd"


class Encoding(enum.Enum):
    """Encoding of a page."""

    #: All bytes of the page.
    NONE = "none"
    #: Bytes that changed since the page was sent last.
    XBZRLE = "xbzrle"
    #: Many pages together, compressed by Zstandard.
    ZSTD = "zstd"
    #: Many pages together, compressed by LZ4.
    LZ4 = "lz4"
    #: All bytes of those pages alone that the secondary's own guest does not have, by their hashes.
    DIVERGENT = "divergent"

    @property
    def compression(self) -> str | None:
        """Name of the compression in `colobench.wire.compression`, or None if it has none."""
        return self.value if self in (Encoding.ZSTD, Encoding.LZ4) else None


@dataclass(frozen=True, slots=True)
class Transport:
    """Transport of pages, with the family of its sockets.

    Attributes
    ----------
    pages
        Way in which pages travel.
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
            If it is not a transport, or is memfd over TCP, which passes no descriptors.
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


#: All transports, as texts.
TRANSPORTS = (
    *("stream+unix", "stream+tcp", "multifd+unix", "multifd+tcp"),
    "memfd+unix",  # TCP passes no descriptors
)


def check_socket(pages: PageTransport, uri: str) -> None:
    """Raise LocalError for memfd over sockets that cannot pass descriptors."""
    if pages is PageTransport.MEMFD and not uri.startswith("unix"):
        raise LocalError(
            f"transport memfd: expected unix, whose sockets pass descriptors, found {uri}"
        )


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def usual_channels(pages: PageTransport) -> int:
    """Return the default number of page channels on this machine.

    With `MEMFD` the primary waits while the secondary copies, on one thread for each channel. With
    `MULTIFD` a channel keeps two cores busy, one on each side. `STREAM` has none.
    """
    if pages is PageTransport.STREAM:
        return 0
    cores = usable_cores()
    return max(1, min(2, cores) if pages is PageTransport.MEMFD else min(4, cores // 2))
