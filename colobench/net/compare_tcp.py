"""Comparison of two guests' streams on one TCP connection, byte by byte, however they are cut.

A segment of the primary is released when

* the secondary has sent all of its bytes, and its SYN, FIN or RST;
* the secondary has acknowledged as much. A client discards acknowledged data, so both guests must
  have that data by then.

Nothing else of a segment is compared: not its window, its options, its beginning or its end.
Holding a segment does no harm, with one exception: a guest may need the client's acknowledgement of
*part* of a segment to go on (Nagle's algorithm, a full send buffer), and the client sees nothing of
a held segment. So after a while the part that is known to be equal is released as a segment of its
own (`ease`).

The secondary's SYN has a sequence number of its own, which its filter-rewriter cannot translate
yet. A SYN is therefore compared by its acknowledgement of the client's SYN.
"""

from __future__ import annotations

from collections import deque

from colobench.net.compare_packets import Flow, Held, first_difference
from colobench.net.frame import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Segment,
    build_tcp,
    sequence_difference,
)
from colobench.net.outcome import Counters
from colobench.settings.compare import Quirk

_MODULO = 2**32
#: Largest distance by which `_eased` may be behind; no held segment is longer.
_BEHIND = 2**30
#: Number of different RSTs that are remembered for each connection.
_RESETS = 16


def later(left: int, right: int) -> int:
    """Return the sequence number that is ahead of the other one."""
    return left if sequence_difference(left, right) >= 0 else right


def _opening(segment: Segment) -> int:
    """Identify a SYN by its acknowledgement of the client's SYN; -1 if the guest opens."""
    return segment.ack if segment.flags & ACK else -1


class _Said:
    """One guest's stream since its SYN; sequence numbers are those that the client sees.

    Attributes
    ----------
    opened
        The SYN, as `_opening` identifies it; None if it was not seen.
    isn
        Sequence number of the SYN; None if it was not seen.
    next
        Sequence number after the bytes that are known without a gap; None if not known yet.
    ahead
        Those known bytes that the other guest has not sent yet.
    gaps
        Bytes after a gap, by their sequence number.
    fin
        Sequence number of the FIN; None if there was none.
    ack
        Greatest acknowledgement; None if there was none.
    """

    __slots__ = ("ack", "ahead", "fin", "gaps", "isn", "next", "opened")

    def __init__(self, opened: int | None = None, isn: int | None = None) -> None:
        self.opened = opened
        self.isn = isn
        self.next: int | None = None
        self.ahead = bytearray()
        self.gaps: dict[int, bytes] = {}
        self.fin: int | None = None
        self.ack: int | None = None

    def start(self, seq: int) -> None:
        """Begin the stream with the byte of sequence number `seq`."""
        self.next = seq
        self._fill()

    def say(self, seq: int, payload: bytes) -> bool:
        """Take in a segment's bytes; say whether some of them are new."""
        if self.next is None or sequence_difference(seq, self.next) > 0:
            new = len(payload) > len(self.gaps.get(seq, b""))
            if new:
                self.gaps[seq] = payload
            return new
        if not self._append(seq, payload):
            return False
        if self.gaps:
            self._fill()
        return True

    def end(self) -> int | None:
        """Return the sequence number after all bytes that were sent, without the FIN."""
        end = self.next
        for seq, payload in self.gaps.items():
            behind = (seq + len(payload)) % _MODULO
            end = behind if end is None else later(end, behind)
        return end if self.fin is None or end is None else later(end, self.fin)

    def _append(self, seq: int, payload: bytes) -> bool:
        known = sequence_difference(self.next or 0, seq)
        if known >= len(payload):
            return False
        self.ahead += payload[known:] if known else payload
        self.next = (seq + len(payload)) % _MODULO
        return True

    def _fill(self) -> None:
        start = self.next or 0
        for seq in sorted(self.gaps, key=lambda seq: sequence_difference(seq, start)):
            if sequence_difference(seq, self.next or 0) > 0:
                break
            self._append(seq, self.gaps.pop(seq))


class TcpConnection(Flow[Segment]):
    """Both guests' streams of one connection, from the guest to its client."""

    def __init__(self, limit: int, quirks: frozenset[Quirk], counters: Counters) -> None:
        super().__init__(limit, quirks, counters)
        self._primary, self._secondary = _Said(), _Said()
        #: Sequence numbers: up to where both streams are equal; from where offsets of differences
        #: are counted; up to where `ease` has released equal parts of held segments.
        self._compared = self._origin = self._eased = 0
        self._ended = False
        #: Sent by the secondary, not by the primary: ends of segments with their times, the time of
        #: a SYN, times of RSTs by their sequence numbers (None: the primary has sent it, too).
        self._waiting: deque[tuple[int, float]] = deque()
        self._opened_at: float | None = None
        self._resets: dict[int, float | None] = {}

    def primary(self, held: Held[Segment]) -> list[bytes]:
        """Take in a segment of the primary."""
        segment, said = held.content, self._primary
        flags = segment.flags
        if flags & SYN and (said.opened, said.isn) != (_opening(segment), segment.seq):
            self._open(segment)
            said = self._primary
        elif said.next is None and not flags & RST:
            self._start(segment.seq)
        if Quirk.EMPTY_AT_ONCE in self._quirks and not segment.payload:
            self._acknowledge(said, segment)
            self.closed |= bool(flags & (FIN | RST))
            self._counters.frames_passed += 1
            return [held.frame]
        if self._full():
            return []
        if self._repeats(said, segment) and self._is_held(segment):
            self._counters.frames_absorbed += 1
        else:
            self.held.append(held)
        return self._settle()

    def secondary(self, content: Segment, now: float) -> list[bytes]:
        """Take in a segment of the secondary."""
        segment, said, flags = content, self._secondary, content.flags
        if flags & SYN:
            if said.opened != _opening(segment):
                self._open_secondary(segment, now)
        elif flags & RST:
            self._reset(segment.seq, now)
        elif said.opened != self._primary.opened and self._opened_at is None:
            # It belongs to a connection that the primary's guest has closed or opened anew.
            self._counters.dropped_secondary += 1
            return []
        self._acknowledge(self._secondary, segment)
        if flags & (SYN | RST):
            return self._settle()
        if self.difference is None and (segment.payload or flags & FIN):
            if len(self._waiting) > self._limit or len(said.gaps) > self._limit:
                self._counters.dropped_secondary += 1
                return []
            self._wait(segment, now)
        return self._settle()

    def overflowing(self) -> str | None:
        """Name the side on which more than the limit waits, or None."""
        if len(self.held) > self._limit:
            return "primary"
        secondary = max(len(self._waiting), len(self._secondary.gaps))
        return "secondary" if secondary > self._limit else None

    def oldest(self) -> float | None:
        """Return the time since which the oldest content of either side waits, seconds."""
        times = [time for time in self._resets.values() if time is not None]
        times += [self.held[0].arrived] if self.held else []
        times += [self._waiting[0][1]] if self._waiting else []
        times += [] if self._opened_at is None else [self._opened_at]
        return min(times, default=None)

    def checkpoint(self) -> bool:
        """Give the secondary the primary's stream and acknowledgement: it is a copy now."""
        self._counters.dropped_secondary += len(self._waiting)
        self.held.clear()
        self._waiting.clear()
        self._resets.clear()
        self._opened_at = self.difference = None
        said, end = self._primary, self._primary.end()
        if end is None:
            return False
        said.next = self._compared = self._eased = end
        said.ahead.clear()
        said.gaps.clear()
        self._secondary = both = _Said(said.opened, said.isn)
        both.next, both.fin, both.ack = end, said.fin, said.ack
        self._ended = said.fin == end
        self.closed |= self._ended
        return True

    def ease(self) -> list[bytes]:
        """Make frames of the equal parts of held segments, with the secondary's acknowledgement.

        The segments stay held for the rest of their bytes, their FIN and their acknowledgement.
        """
        frames = []
        for _, _, frame, segment in self.held:
            if segment.flags & (SYN | RST) or self._secondary.ack is None:
                break
            begin = later(segment.seq, self._eased)
            skip = sequence_difference(begin, segment.seq)
            end = sequence_difference(self._compared, segment.seq)
            payload = segment.payload[skip : max(end, 0)]
            if payload:
                ack = segment.ack
                if sequence_difference(ack, self._secondary.ack) > 0:
                    ack = self._secondary.ack
                flags = segment.flags & ~(FIN | PSH)
                part = Segment(segment.connection, begin, ack, flags, segment.window, payload)
                frames.append(build_tcp(frame[:6], frame[6:12], part))
                self._eased = (begin + len(payload)) % _MODULO
            if end < len(segment.payload):
                break
        self._counters.frames_eased += len(frames)
        return frames

    def _start(self, seq: int) -> None:
        """Begin the comparison with the primary's byte of sequence number `seq`."""
        self._compared = self._origin = self._eased = seq
        self._ended = False
        self._primary.start(seq)
        if self._secondary.opened == self._primary.opened:
            self._opened_at = None
            self._secondary.start(seq)

    def _open(self, segment: Segment) -> None:
        """Begin anew with the primary's SYN, and drop the rest of an older connection."""
        self._counters.dropped_primary += len(self.held)
        self.held.clear()
        self.difference = None
        self.closed = False
        self._primary = _Said(_opening(segment), segment.seq)
        self._start((segment.seq + 1) % _MODULO)

    def _open_secondary(self, segment: Segment, now: float) -> None:
        self._secondary = _Said(_opening(segment), segment.seq)
        self._counters.dropped_secondary += len(self._waiting)
        self._waiting.clear()
        self._resets.clear()
        if self._primary.opened == self._secondary.opened:
            self._secondary.start(self._origin)
        else:
            self._opened_at = now

    def _repeats(self, said: _Said, segment: Segment) -> bool:
        """Take in the primary's segment; say whether all of it was sent before."""
        flags, payload = segment.flags, segment.payload
        self._acknowledge(said, segment)
        if flags & RST:
            return False
        seq = (segment.seq + 1) % _MODULO if flags & SYN else segment.seq
        new = bool(payload) and said.say(seq, payload)
        if flags & FIN and said.fin is None:
            said.fin = (seq + len(payload)) % _MODULO
            new = True
        return not new

    def _is_held(self, segment: Segment) -> bool:
        """Say whether held segments contain all of this one, and nothing of it was released."""
        if not self.held or not segment.length or segment.flags & RST:
            return False
        last = self.held[-1].content
        if (segment.ack, segment.window) != (last.ack, last.window):
            return False
        if segment.flags & SYN:
            return bool(last.flags & SYN)
        return sequence_difference(segment.seq, self._confirmed()) >= 0

    def _acknowledge(self, said: _Said, segment: Segment) -> None:
        if segment.flags & ACK and (
            said.ack is None
            or sequence_difference(segment.ack, said.ack) > 0
            or Quirk.LATEST_ACK in self._quirks
        ):
            said.ack = segment.ack

    def _wait(self, segment: Segment, now: float) -> None:
        """Take in the secondary's segment, and note since when its new bytes wait."""
        said = self._secondary
        new = bool(segment.payload) and said.say(segment.seq, segment.payload)
        if segment.flags & FIN and said.fin is None:
            if Quirk.EMPTY_AT_ONCE in self._quirks and not segment.payload:
                return
            said.fin = (segment.seq + len(segment.payload)) % _MODULO
            new = True
        if new:
            end = segment.end
            if self._waiting:
                end = later(end, self._waiting[-1][0])
            self._waiting.append((end, now))

    def _reset(self, seq: int, now: float) -> None:
        if seq not in self._resets and Quirk.EMPTY_AT_ONCE not in self._quirks:
            if len(self._resets) == _RESETS:
                del self._resets[next(iter(self._resets))]
            self._resets[seq] = now

    def _settle(self) -> list[bytes]:
        """Compare both streams, and return the frames that may leave."""
        if self._primary.opened == self._secondary.opened and self.difference is None:
            self._compare()
        released = []
        while self.held and self._may_go(self.held[0].content):
            released.append(self.held.popleft().frame)
        if released:
            self._counters.frames_released_equal += len(released)
            # It must stay near, because sequence numbers compare only within half of their range.
            self._eased = later(self._eased, self._compared - _BEHIND)
        if self._ended and not self.held:
            self.closed = True
        return released

    def _compare(self) -> None:
        left, right = self._primary.ahead, self._secondary.ahead
        if left and right:
            equal = self._count_equal(left, right)
            if equal < min(len(left), len(right)):
                self._differ((self._compared + equal) % _MODULO, "payload")
            del left[:equal], right[:equal]
            self._compared = (self._compared + equal) % _MODULO
            self._counters.bytes_compared += equal
        if self.difference is None:
            ends = (self._primary.fin, self._secondary.fin)
            if (left and ends[1] == self._compared) or (right and ends[0] == self._compared):
                self._differ(self._compared, "end")
            self._ended = ends[0] == ends[1] == self._compared
        confirmed = self._confirmed()
        while self._waiting and sequence_difference(self._waiting[0][0], confirmed) <= 0:
            self._waiting.popleft()

    @staticmethod
    def _count_equal(left: bytearray, right: bytearray) -> int:
        """Count the bytes up to the first difference, or to the end of the shorter one."""
        length = min(len(left), len(right))
        return length if left[:length] == right[:length] else first_difference(left, right)

    def _differ(self, seq: int, what: str) -> None:
        self.difference = (sequence_difference(seq, self._origin) % _MODULO, what)

    def _confirmed(self) -> int:
        return (self._compared + self._ended) % _MODULO

    def _may_go(self, segment: Segment) -> bool:
        said, flags = self._secondary, segment.flags
        if flags & RST:
            if segment.seq not in self._resets:
                return False
        elif (
            said.opened != self._primary.opened
            or sequence_difference(segment.end, self._confirmed()) > 0
        ):
            return False
        if (
            flags & ACK
            and (said.ack is None or sequence_difference(segment.ack, said.ack) > 0)
            and not (segment.payload and Quirk.ACK_UNCHECKED in self._quirks)
        ):
            if Quirk.ACK_AHEAD_DIFFERS in self._quirks and segment.payload:
                self._differ(segment.seq, "ack")
            return False
        if flags & RST:
            self._resets[segment.seq] = None
            self.closed = True
        return True
