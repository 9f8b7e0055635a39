"""Planted bugs of colo-compare, see ``docs/bug-museum.md``."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Final

from colobench.net.compare import ColoCompare
from colobench.net.compare_packets import Held
from colobench.net.compare_tcp import TcpConnection
from colobench.net.frame import Segment
from colobench.settings.bug import Bug

#: Bytes of the header that virtio-net puts in front of a frame (struct virtio_net_hdr_v1).
VIRTIO_NET_HEADER: Final = 12


class MemcmpTruth(TcpConnection):
    """Connection in which unequal bytes count as equal, and equal ones not (`MEMCMP_TRUTH`)."""

    @staticmethod
    def _count_equal(left: bytearray, right: bytearray) -> int:
        length = min(len(left), len(right))
        # As if C's memcmp() said whether two strings are equal; it gives 0 for those.
        return length if left[:length] != right[:length] else 0


class ForeignSequence(TcpConnection):
    """Connection that begins where the last one had got to (`Bug.FOREIGN_SEQUENCE`)."""

    _left_behind: ClassVar[int] = 0

    def _start(self, seq: int) -> None:
        super()._start(seq)
        self._compared = ForeignSequence._left_behind

    def _settle(self) -> list[bytes]:
        released = super()._settle()
        if self._primary.next is not None:
            ForeignSequence._left_behind = self._compared
        return released


class TwiceSubtracted(TcpConnection):
    """Connection whose segments look shorter than they are, by a header (`TWICE_SUBTRACTED`)."""

    def primary(self, held: Held[Segment]) -> list[bytes]:
        """Take in a segment of the primary without its end."""
        return super().primary(held._replace(content=_shortened(held.content)))

    def secondary(self, content: Segment, now: float) -> list[bytes]:
        """Take in a segment of the secondary without its end."""
        return super().secondary(_shortened(content), now)


class KeptRequest(ColoCompare):
    """Filter that asks for one checkpoint for each connection, and never again (`KEPT_REQUEST`)."""

    def checkpoint(self) -> list[bytes]:
        """Return all held frames; each connection still counts as one that has asked."""
        asked = [flow for flow in self._flows.values() if flow.asked]
        frames = super().checkpoint()
        for flow in asked:
            flow.asked = True
        return frames


_CONNECTIONS: Final[dict[Bug | None, type[TcpConnection]]] = {
    Bug.MEMCMP_TRUTH: MemcmpTruth,
    Bug.FOREIGN_SEQUENCE: ForeignSequence,
    Bug.TWICE_SUBTRACTED: TwiceSubtracted,
}


def connection_class(bug: Bug | None) -> type[TcpConnection]:
    """Return the class of compared connections."""
    return _CONNECTIONS.get(bug, TcpConnection)


def compare_class(bug: Bug | None) -> type[ColoCompare]:
    """Return the class of the filter that compares."""
    return KeptRequest if bug is Bug.KEPT_REQUEST else ColoCompare


def _shortened(segment: Segment) -> Segment:
    """Drop as many bytes from the end of a segment's payload as a header has."""
    return replace(segment, payload=segment.payload[:-VIRTIO_NET_HEADER])
