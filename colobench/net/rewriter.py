"""filter_rewriter: the secondary's guest takes part in connections that the primary's opened.

Each guest chooses its own initial sequence number (ISN), and the client knows the primary's alone.
So in frames to the secondary's guest acknowledgements are moved to its numbers, and in its frames
sequence numbers to the client's::

    offset = ISN of the secondary's guest - ISN of the primary's      (modulo 2**32)

The first is learned from the guest's SYN, the second from what the client's next segment
acknowledges: the primary's SYN, and nothing else, because a guest sends no data before it has read
that segment. The client may have answered the primary's SYN before the secondary's guest has sent
its own; then its segments wait for that. (QEMU gives them to the guest, which answers with RST.)

A connection that the guest opens is no different. Selective acknowledgements (RFC 2018) are not
moved; a guest must not offer them.

Idea and names: QEMU's net/filter-rewriter.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from colobench.net.frame import (
    ACK,
    ETHERNET_HEADER,
    FIN,
    RST,
    SYN,
    TCP,
    ConnectionKey,
    FrameError,
    Segment,
    parse_ipv4,
    parse_tcp,
    sequence_difference,
)

_MODULO = 2**32
#: A client's segment belongs to its SYN if it is no more than that behind it: a window (RFC 9293).
_WINDOW = 2**16
#: Where seq, ack and checksum lie in a TCP header.
_SEQ, _ACK, _CHECKSUM = 4, 8, 16
_CLIENT_ENDED, _GUEST_ENDED = 1, 2
#: As many ended connections are remembered, for what may follow still.
_ENDED = 1024


class Rewritten(NamedTuple):
    """A connection that is rewritten.

    Attributes
    ----------
    connection
        The client is its source.
    client_isn
        The client's initial sequence number; None if the guest opened the connection.
    guest_isn
        The guest's own.
    offset
        How far the guest's sequence numbers are ahead of those that the client sees; None if the
        client has not acknowledged a SYN yet.
    """

    connection: ConnectionKey
    client_isn: int | None
    guest_isn: int
    offset: int | None


class _Tracked:
    """A connection whose guest's SYN was seen."""

    __slots__ = ("client_isn", "ended", "guest_isn", "offset")

    def __init__(self, client_isn: int | None, guest_isn: int, offset: int | None = None) -> None:
        self.client_isn, self.guest_isn, self.offset = client_isn, guest_isn, offset
        self.ended = 0


class _Opening:
    """A client's SYN that the guest has not answered, and what the client has said since."""

    __slots__ = ("client_isn", "waiting")

    def __init__(self, client_isn: int) -> None:
        self.client_isn = client_isn
        self.waiting: list[tuple[bytes, int, Segment]] = []


class FilterRewriter:
    """The offsets of a guest's connections.

    Parameters
    ----------
    max_connections
        How many are remembered; those that both sides have ended are forgotten first, and of them
        no more than 1024 are remembered.
    max_waiting
        How many segments of a client wait for the guest's SYN, at most.

    Attributes
    ----------
    rewritten, malformed
        Frames that were changed, and that contradict themselves and passed as they are.
    forgotten, dropped
        Connections that nobody had ended and that were forgotten for want of room; segments that
        had to wait, and were too many.
    """

    def __init__(self, max_connections: int = 16384, max_waiting: int = 64) -> None:
        self._max_connections = max_connections
        self._max_waiting = max_waiting
        self._tracked: dict[ConnectionKey, _Tracked] = {}
        self._opening: dict[ConnectionKey, _Opening] = {}
        self._ended: dict[ConnectionKey, None] = {}
        self._alone = False
        self.rewritten = self.malformed = self.forgotten = self.dropped = 0

    def __len__(self) -> int:
        """Give the number of connections that are known."""
        return len(self._tracked)

    def to_guest(self, frame: bytes) -> list[bytes]:
        """Take a frame for the guest; give what it is to see now."""
        found = self._segment(frame)
        if found is None:
            return [frame]
        at, segment = found
        connection, flags = segment.connection, segment.flags
        if flags & (SYN | ACK) == SYN:
            self._open(connection, segment.seq)
            return [frame]
        opening = self._opening.get(connection)
        if opening is not None and _follows(segment, opening.client_isn):
            if not flags & RST:
                if len(opening.waiting) < self._max_waiting:
                    opening.waiting.append((frame, at, segment))
                else:
                    self.dropped += 1
                return []
            del self._opening[connection]
        tracked = self._tracked.get(connection)
        return [frame if tracked is None else self._moved_ack(tracked, frame, at, segment)]

    def from_guest(self, frame: bytes) -> tuple[list[bytes], list[bytes]]:
        """Take a frame of the guest.

        Returns
        -------
        list of bytes
            What the others are to see.
        list of bytes
            What the guest is to see now: what the client said too early for it.
        """
        found = self._segment(frame)
        if found is None:
            return [frame], []
        at, segment = found
        connection, flags = segment.connection.reversed(), segment.flags
        waiting = self._answered(connection, segment)
        if flags & SYN:
            self._accept(connection, segment)
        tracked = self._tracked.get(connection)
        if tracked is None:
            return [frame], [early for early, _, _ in waiting]
        to_guest = [self._moved_ack(tracked, *early) for early in waiting]
        if tracked.offset is None and flags & (SYN | RST | ACK) == ACK:
            # The guest has read the client's answer to its SYN, and that did not come by here. So
            # both came with a checkpoint.
            tracked.offset = 0
        offset = tracked.offset
        self._note_end(connection, tracked, flags, _GUEST_ENDED)
        if not offset:
            return [frame], to_guest
        self.rewritten += 1
        return [_moved(frame, at, _SEQ, -offset)], to_guest

    def checkpoint(self) -> None:
        """Forget all: the guest is the primary's now, with its sequence numbers."""
        self.load(())

    def failover(self) -> None:
        """Serve the clients alone: connections with an offset keep it, all others are untouched."""
        self._alone = True
        for connection in [key for key, each in self._tracked.items() if each.offset == 0]:
            self._forget(connection)

    def state(self) -> list[Rewritten]:
        """Give what a copy of the guest needs: a survivor's clients keep their first numbers.

        Whose client has said a new SYN has let go of the old connection. The guest may have
        accepted it already; then its SYN waits for the checkpoint that this state travels with.
        """
        return [
            Rewritten(key, each.client_isn, each.guest_isn, each.offset)
            for key, each in self._tracked.items()
            if each.offset != 0 and key not in self._opening
        ]

    def load(self, state: Iterable[Rewritten]) -> None:
        """Take on the state of the rewriter whose guest this one is a copy of."""
        self._tracked = {
            each.connection: _Tracked(each.client_isn, each.guest_isn, each.offset)
            for each in state
        }
        self._opening.clear()
        self._ended.clear()

    def _segment(self, frame: bytes) -> tuple[int, Segment] | None:
        """Give a frame's TCP segment and where it begins; None if it has none that can be read."""
        try:
            packet = parse_ipv4(frame)
            if packet is None or packet.protocol != TCP or packet.fragment:
                return None
            return ETHERNET_HEADER + packet.header, parse_tcp(packet)
        except FrameError:
            self.malformed += 1
            return None

    def _open(self, connection: ConnectionKey, client_isn: int) -> None:
        """Note a client's SYN; what is known stays until the guest says that it has accepted it."""
        tracked, opening = self._tracked.get(connection), self._opening.get(connection)
        if (tracked is not None and tracked.client_isn == client_isn) or (
            opening is not None and opening.client_isn == client_isn
        ):
            return
        self._opening.pop(connection, None)
        self._opening[connection] = _Opening(client_isn)
        if len(self._opening) > self._max_connections:
            del self._opening[next(iter(self._opening))]

    def _answered(
        self, connection: ConnectionKey, segment: Segment
    ) -> list[tuple[bytes, int, Segment]]:
        """Give what has waited for the guest to say what it makes of a SYN, if this says it."""
        opening = self._opening.get(connection)
        if opening is None or not _answers(segment, opening.client_isn):
            return []
        del self._opening[connection]
        if segment.flags & RST:
            self._forget(connection)
        return opening.waiting

    def _accept(self, connection: ConnectionKey, segment: Segment) -> None:
        """Note a guest's SYN. Its client's may not have come by here, but with a checkpoint."""
        client_isn = (segment.ack - 1) % _MODULO if segment.flags & ACK else None
        known = self._tracked.get(connection)
        if known is None or (known.client_isn, known.guest_isn) != (client_isn, segment.seq):
            self._track(connection, _Tracked(client_isn, segment.seq))

    def _track(self, connection: ConnectionKey, tracked: _Tracked) -> None:
        self._forget(connection)
        self._tracked[connection] = tracked
        if len(self._tracked) > self._max_connections:
            self.forgotten += not self._ended
            self._forget(next(iter(self._ended or self._tracked)))

    def _forget(self, connection: ConnectionKey) -> None:
        self._tracked.pop(connection, None)
        self._ended.pop(connection, None)

    def _note_end(
        self, connection: ConnectionKey, tracked: _Tracked, flags: int, side: int
    ) -> None:
        """Note FIN and RST. Segments may follow still, so it is not forgotten at once."""
        if flags & RST:
            tracked.ended |= _CLIENT_ENDED | _GUEST_ENDED
        elif flags & FIN:
            tracked.ended |= side
        if tracked.ended == _CLIENT_ENDED | _GUEST_ENDED and connection in self._tracked:
            self._ended[connection] = None
            if len(self._ended) > _ENDED:
                self._forget(next(iter(self._ended)))

    def _moved_ack(self, tracked: _Tracked, frame: bytes, at: int, segment: Segment) -> bytes:
        """Give a client's segment with the guest's own number acknowledged."""
        connection, flags = segment.connection, segment.flags
        if tracked.offset is None and flags & ACK:
            if tracked.client_isn is not None and not _follows(segment, tracked.client_isn):
                return frame
            tracked.offset = (tracked.guest_isn + 1 - segment.ack) % _MODULO
            if self._alone and not tracked.offset:
                self._forget(connection)
        self._note_end(connection, tracked, flags, _CLIENT_ENDED)
        if not tracked.offset or not flags & ACK:
            return frame
        self.rewritten += 1
        return _moved(frame, at, _ACK, tracked.offset)


def _follows(segment: Segment, isn: int) -> bool:
    """Say if a client's segment comes after its SYN: not from an older connection."""
    return 0 < sequence_difference(segment.seq, isn) <= _WINDOW


def _answers(segment: Segment, client_isn: int) -> bool:
    """Say if a guest's segment tells what it makes of a SYN: accepted, refused, known already.

    A segment of an older connection, to which the guest had not read the SYN yet, is none: it
    acknowledges what was before that SYN.
    """
    if segment.flags & SYN:
        return segment.ack == (client_isn + 1) % _MODULO
    return bool(segment.flags & ACK) and sequence_difference(segment.ack, client_isn) > 0


def _moved(frame: bytes, at: int, field: int, by: int) -> bytes:
    """Add to a sequence number of a TCP header, and set its checksum right (RFC 1624).

    A one's complement sum of 16-bit words is a number modulo 65535; so a 32-bit word counts as
    it is.
    """
    changed = bytearray(frame)
    place, sum_place = at + field, at + _CHECKSUM
    old = int.from_bytes(frame[place : place + 4], "big")
    new = (old + by) % _MODULO
    changed[place : place + 4] = new.to_bytes(4, "big")
    sum_of = 0xFFFF - int.from_bytes(frame[sum_place : sum_place + 2], "big")
    total = (sum_of + new - old) % 0xFFFF
    changed[sum_place : sum_place + 2] = (0xFFFF - (total or 0xFFFF)).to_bytes(2, "big")
    return bytes(changed)
