"""What two guests say on one TCP connection, compared byte by byte however they cut it.

Of the primary's segments one leaves when

* the secondary has said each of its bytes, and its SYN, FIN or RST;
* the secondary has acknowledged what it acknowledges. A client forgets what is acknowledged, so it
  must be with both guests by then.

Nothing else of a segment is compared: not window, options, or where the segments begin and end. The
guests' segments wait for each other without harm, with one exception: a guest may need the client's
acknowledgement of *part* of a segment to go on (Nagle's algorithm, a full send buffer), and the
client sees nothing of a segment that is held. So what is known to be equal is let out after a
while, as a segment of its own (`ease`).

The secondary's SYN has its own sequence number, which its filter_rewriter cannot know to translate
yet. A SYN is therefore compared by what it acknowledges: the client's SYN.
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
from colobench.net.outcome import Counters, Quirk

_MODULO = 2**32
#: How far `_eased` may be behind; segments that are held are not so long.
_BEHIND = 2**30
#: As many different RSTs of a connection are remembered.
_RESETS = 16


def later(left: int, right: int) -> int:
    """Give the sequence number that is ahead of the other one."""
    return left if sequence_difference(left, right) >= 0 else right


def _opening(segment: Segment) -> int:
    """Tell a SYN from an older one: by the client's SYN; -1 if the guest comes first."""
    return segment.ack if segment.flags & ACK else -1


class _Said:
    """What one guest has said since its SYN; sequence numbers are those that the client sees.

    Attributes
    ----------
    opened, isn
        Which SYN, as `_opening` tells; its own sequence number. None if it was not seen.
    next
        The sequence number behind the bytes that are known without a gap; None if not known yet.
    ahead
        Those bytes that the other guest has not said yet.
    gaps
        Bytes behind a gap, by their sequence number.
    fin, ack
        Where it ends; the greatest acknowledgement; None if there was none.
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
        """Begin with the byte of that sequence number."""
        self.next = seq
        self._fill()

    def say(self, seq: int, payload: bytes) -> bool:
        """Take the bytes of a segment; tell whether some are new."""
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
        """Give the sequence number behind all that was said but for FIN."""
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
    """One connection, from the guest to its client."""

    def __init__(self, limit: int, quirks: frozenset[Quirk], counters: Counters) -> None:
        super().__init__(limit, quirks, counters)
        self._primary, self._secondary = _Said(), _Said()
        #: Up to here both have said the same; where the offsets of differences begin; up to here
        #: equal parts of held segments were let out.
        self._compared = self._origin = self._eased = 0
        self._ended = False
        #: What the secondary said and the primary did not: ends of segments with their times, the
        #: time of a SYN, times of RSTs by their sequence numbers (None: the primary said it, too).
        self._waiting: deque[tuple[int, float]] = deque()
        self._opened_at: float | None = None
        self._resets: dict[int, float | None] = {}

    def primary(self, held: Held[Segment]) -> list[bytes]:
        """Take a segment of the primary."""
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
        """Take a segment of the secondary."""
        segment, said, flags = content, self._secondary, content.flags
        if flags & SYN:
            if said.opened != _opening(segment):
                self._open_secondary(segment, now)
        elif flags & RST:
            self._reset(segment.seq, now)
        elif said.opened != self._primary.opened and self._opened_at is None:
            # Of a connection that the primary's guest has closed, or opened anew.
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
        """Name the side of which more waits than shall be."""
        if len(self.held) > self._limit:
            return "primary"
        secondary = max(len(self._waiting), len(self._secondary.gaps))
        return "secondary" if secondary > self._limit else None

    def oldest(self) -> float | None:
        """Give the time since which something waits, of either side."""
        times = [time for time in self._resets.values() if time is not None]
        times += [self.held[0].arrived] if self.held else []
        times += [self._waiting[0][1]] if self._waiting else []
        times += [] if self._opened_at is None else [self._opened_at]
        return min(times, default=None)

    def checkpoint(self) -> bool:
        """Let the secondary have said and acknowledged what the primary has: it is its copy now."""
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
        """Give what is equal of segments that are held, with the secondary's acknowledgement.

        They stay held, for the rest of their bytes, FIN, and what they acknowledge.
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
        """Begin to compare with the primary's byte of that sequence number."""
        self._compared = self._origin = self._eased = seq
        self._ended = False
        self._primary.start(seq)
        if self._secondary.opened == self._primary.opened:
            self._opened_at = None
            self._secondary.start(seq)

    def _open(self, segment: Segment) -> None:
        """Begin anew with the primary's SYN; what is left of an older connection nobody wants."""
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
        """Note what the primary says; tell whether it has said all of it before."""
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
        """Say if held segments say all that this one does, which nothing of was let out yet."""
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
        """Note what the secondary says, and since when that of it waits which is new."""
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
        """Compare what both have said, and give the frames that can go."""
        if self._primary.opened == self._secondary.opened and self.difference is None:
            self._compare()
        released = []
        while self.held and self._may_go(self.held[0].content):
            released.append(self.held.popleft().frame)
        if released:
            self._counters.frames_released_equal += len(released)
            # It must stay near: sequence numbers are ahead of each other by half of all at most.
            self._eased = later(self._eased, self._compared - _BEHIND)
        if self._ended and not self.held:
            self.closed = True
        return released

    def _compare(self) -> None:
        left, right = self._primary.ahead, self._secondary.ahead
        if left and right:
            length = equal = min(len(left), len(right))
            if left[:length] != right[:length]:
                equal = first_difference(left, right)
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
