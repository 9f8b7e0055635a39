"""filter-rewriter: it translates TCP sequence numbers between the secondary's guest and clients.

Each guest chooses its own initial sequence number (ISN), and the client knows only the primary's.
So acknowledgements in frames to the secondary's guest are translated to its numbers, and sequence
numbers in its own frames to the client's::

    offset = ISN of the secondary's guest - ISN of the primary's      (modulo 2**32)

The first ISN is learned from the guest's SYN. The second is learned from the acknowledgement in the
client's next segment: it covers the primary's SYN and nothing else, because a guest sends no data
before it has read that segment. The client may answer the primary's SYN before the secondary's
guest has sent its own; then the client's segments wait for it. (QEMU passes them to the guest,
which answers with RST.)

Connections that the guest opens are treated alike. Selective acknowledgements (RFC 2018) are not
translated; a guest must not offer them.

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
#: Largest distance from a client's SYN to a segment that belongs to it: a window (RFC 9293).
_WINDOW = 2**16
#: Offsets of seq, ack and checksum in a TCP header.
_SEQ, _ACK, _CHECKSUM = 4, 8, 16
_CLIENT_ENDED, _GUEST_ENDED = 1, 2
#: Number of ended connections that are remembered, because segments may still follow.
_ENDED = 1024


class Rewritten(NamedTuple):
    """A connection that is rewritten.

    Attributes
    ----------
    connection
        Connection whose source is the client.
    client_isn
        The client's initial sequence number; None if the guest opened the connection.
    guest_isn
        The guest's initial sequence number.
    offset
        Distance of the guest's sequence numbers ahead of those that the client sees; None if the
        client has not acknowledged a SYN yet.
    """

    connection: ConnectionKey
    client_isn: int | None
    guest_isn: int
    offset: int | None


class _Tracked:
    """A connection in which the guest's SYN was seen."""

    __slots__ = ("client_isn", "ended", "guest_isn", "offset")

    def __init__(self, client_isn: int | None, guest_isn: int, offset: int | None = None) -> None:
        self.client_isn, self.guest_isn, self.offset = client_isn, guest_isn, offset
        self.ended = 0


class _Opening:
    """A client's SYN that the guest has not answered, and the client's segments since."""

    __slots__ = ("client_isn", "waiting")

    def __init__(self, client_isn: int) -> None:
        self.client_isn = client_isn
        self.waiting: list[tuple[bytes, int, Segment]] = []


class FilterRewriter:
    """Translator of the sequence numbers in a guest's connections.

    Parameters
    ----------
    max_connections
        Number of connections that are remembered. Connections that both sides have ended are
        forgotten first, and at most 1024 of them are remembered.
    max_waiting
        Limit of a client's segments that wait for the guest's SYN.

    Attributes
    ----------
    rewritten
        Number of frames that were changed.
    malformed
        Number of malformed frames, which pass unchanged.
    forgotten
        Number of open connections that were forgotten for lack of room.
    dropped
        Number of segments that were dropped because too many waited.
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
        """Number of connections that are known."""
        return len(self._tracked)

    def to_guest(self, frame: bytes) -> list[bytes]:
        """Take in a frame for the guest; return the frames that the guest is to receive now."""
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
        """Take in a frame of the guest.

        Returns
        -------
        list of bytes
            Frames that are to leave.
        list of bytes
            Frames of the client that were too early for the guest, which receives them now.
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
            # The guest has read the client's answer to its SYN, which did not pass here. So both
            # are from a checkpoint.
            tracked.offset = 0
        offset = tracked.offset
        self._note_end(connection, tracked, flags, _GUEST_ENDED)
        if not offset:
            return [frame], to_guest
        self.rewritten += 1
        return [_moved(frame, at, _SEQ, -offset)], to_guest

    def checkpoint(self) -> None:
        """Forget all connections: the guest has the primary's sequence numbers now."""
        self.load(())

    def failover(self) -> None:
        """Serve clients alone: connections keep a nonzero offset; others are no longer tracked."""
        self._alone = True
        for connection in [key for key, each in self._tracked.items() if each.offset == 0]:
            self._forget(connection)

    def state(self) -> list[Rewritten]:
        """Return the offsets that a copy of the guest needs to go on serving its clients.

        Connections whose client has sent a new SYN are left out: the client has dropped the old
        connection. The guest may have accepted the new one already; then its SYN waits for the
        checkpoint that this state belongs to.
        """
        return [
            Rewritten(key, each.client_isn, each.guest_isn, each.offset)
            for key, each in self._tracked.items()
            if each.offset != 0 and key not in self._opening
        ]

    def load(self, state: Iterable[Rewritten]) -> None:
        """Load the state of the rewriter whose guest was copied to this one's."""
        self._tracked = {
            each.connection: _Tracked(each.client_isn, each.guest_isn, each.offset)
            for each in state
        }
        self._opening.clear()
        self._ended.clear()

    def _segment(self, frame: bytes) -> tuple[int, Segment] | None:
        """Return a frame's TCP segment and its offset; None if the frame has no readable one."""
        try:
            packet = parse_ipv4(frame)
            if packet is None or packet.protocol != TCP or packet.fragment:
                return None
            return ETHERNET_HEADER + packet.header, parse_tcp(packet)
        except FrameError:
            self.malformed += 1
            return None

    def _open(self, connection: ConnectionKey, client_isn: int) -> None:
        """Note a client's SYN; an older connection stays known until the guest accepts the SYN."""
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
        """Return the segments that waited for the guest's answer to a SYN, if this is it."""
        opening = self._opening.get(connection)
        if opening is None or not _answers(segment, opening.client_isn):
            return []
        del self._opening[connection]
        if segment.flags & RST:
            self._forget(connection)
        return opening.waiting

    def _accept(self, connection: ConnectionKey, segment: Segment) -> None:
        """Note a guest's SYN. The client's SYN may not have passed here, but be in a checkpoint."""
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
        """Note FIN and RST. The connection is kept for a while, because segments may follow."""
        if flags & RST:
            tracked.ended |= _CLIENT_ENDED | _GUEST_ENDED
        elif flags & FIN:
            tracked.ended |= side
        if tracked.ended == _CLIENT_ENDED | _GUEST_ENDED and connection in self._tracked:
            self._ended[connection] = None
            if len(self._ended) > _ENDED:
                self._forget(next(iter(self._ended)))

    def _moved_ack(self, tracked: _Tracked, frame: bytes, at: int, segment: Segment) -> bytes:
        """Return a client's segment with its acknowledgement translated to the guest's number."""
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
    """Say whether a client's segment follows its SYN and is not from an older connection."""
    return 0 < sequence_difference(segment.seq, isn) <= _WINDOW


def _answers(segment: Segment, client_isn: int) -> bool:
    """Say whether a guest's segment answers a SYN: it accepts, refuses or already knows it.

    A segment of an older connection is no answer. The guest had not read the SYN when it sent that
    segment, which therefore acknowledges less.
    """
    if segment.flags & SYN:
        return segment.ack == (client_isn + 1) % _MODULO
    return bool(segment.flags & ACK) and sequence_difference(segment.ack, client_isn) > 0


def _moved(frame: bytes, at: int, field: int, by: int) -> bytes:
    """Add `by` to a sequence number in a TCP header, and update the checksum (RFC 1624).

    A one's complement sum of 16-bit words is a sum modulo 65535, so a 32-bit word can be added as
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
