"""One end of a TCP connection without I/O: segments and times in, segments out (RFC 9293).

It has retransmission (RFC 6298; fast after three duplicate ACKs, RFC 5681), flow control with
probes of a closed window, half-close, and resets that must have the exact number (RFC 5961). Frames
cross one machine in order or not at all, so it lacks congestion control, window scaling, SACK, time
stamps, urgent data, and a queue for segments that arrive early. A retransmission therefore sends
everything from the first missing byte on. It lacks Nagle's algorithm and delayed ACKs in favour of
low latency: an ACK waits only for its caller's turn.
"""

from __future__ import annotations

from colobench.errors import LocalError
from colobench.net.frame import (
    ACK,
    FIN,
    MSS,
    PSH,
    RST,
    SYN,
    ConnectionKey,
    Segment,
    sequence_difference,
)
from colobench.net.tcp_states import TABLE, TCPAction, TCPEvent, TCPState

#: Limits for each connection: bytes to be acknowledged or sent, received bytes not taken yet.
SEND_BYTES, RECEIVE_BYTES = 65536, 65535
#: Maximum segment size of a peer that announces none, bytes (RFC 9293, 3.7.1).
MSS_DEFAULT = 536
#: Seconds until the first retransmission: without an estimate of the round trip, and limits with
#: one.
RTO_FIRST, RTO_MIN, RTO_MAX = 1.0, 0.2, 60.0
#: Limit in seconds of the doubled time to the next retransmission, unless the round trip itself is
#: longer: the peer may be back at any time. RFC 6298 allows a limit of 60 s and more.
RTO_BACKED_OFF_MAX = 4.0
#: Seconds without an answer after which a connection is given up (RFC 9293, 3.8.3: R2).
SILENCE_LIMIT = 300.0
#: Twice the maximum segment lifetime, seconds, as in Linux.
TWICE_MSL = 60.0
_DUPLICATES = 3
#: Least seconds between two answers to unacceptable segments without data.
_ANSWER_INTERVAL = 0.5
_MODULUS = 2**32
_TAKES_DATA = frozenset({TCPState.ESTABLISHED, TCPState.FIN_WAIT_1, TCPState.FIN_WAIT_2})
_FAILURES = {TCPEvent.RST: "reset", TCPEvent.SILENCE: "no answer"}
_CONNECTING = frozenset({TCPState.SYN_SENT, TCPState.SYN_RECEIVED})


def refusal(segment: Segment) -> Segment | None:
    """Make the RST for a segment of no known connection (RFC 9293, 3.10.7.1); None for an RST."""
    if segment.flags & RST:
        return None
    back = segment.connection.reversed()
    if segment.flags & ACK:
        return Segment(back, segment.ack, 0, RST, 0)
    return Segment(back, 0, segment.end, RST | ACK, 0)


class TCPConnection:
    """One end of a connection.

    After `receive`, `send`, `consume`, `close`, `abort`, `tick` or `connection_moved` the caller
    sends the segments that `segments` returns. Times are seconds of a monotonic clock.

    Parameters
    ----------
    connection
        Addresses and ports; our end is the source.
    iss
        Our initial send sequence number.

    Attributes
    ----------
    state
        State of the connection, see `colobench.net.tcp_states`.
    inbox
        Received data that our user has not taken yet, at most RECEIVE_BYTES.
    end_of_data
        True if the peer sends no more data after `inbox`.
    failure
        Cause of a broken connection, "reset" or "no answer"; empty if it is not broken.
    deadline
        Time at which `tick` is to be called, or None.
    retransmissions
        Number of segments that were sent again.
    """

    __slots__ = (
        "_acks_due",
        "_answered_at",
        "_backoff",
        "_begin",
        "_close_later",
        "_data",
        "_duplicates",
        "_edge",
        "_extra",
        "_fin",
        "_go_back",
        "_heard_at",
        "_iss",
        "_largest_window",
        "_max",
        "_mss",
        "_next",
        "_receive_next",
        "_recover",
        "_resend",
        "_round_trip",
        "_timed",
        "_timed_at",
        "_unacknowledged",
        "_variation",
        "_window",
        "_window_from",
        "connection",
        "deadline",
        "end_of_data",
        "failure",
        "inbox",
        "retransmissions",
        "state",
    )

    # Sequence numbers in here do not wrap, so that they can be compared as plain integers.

    def __init__(self, connection: ConnectionKey, iss: int) -> None:
        self.connection = connection
        self.state = TCPState.CLOSED
        self.inbox = bytearray()
        self.end_of_data = False
        self.failure = ""
        self.deadline: float | None = None
        self.retransmissions = 0
        # Sending: unacknowledged ≤ next ≤ max. `data` begins at `begin`; FIN comes after it.
        self._iss = self._unacknowledged = self._next = self._max = self._recover = iss
        self._data, self._begin = bytearray(), iss + 1
        self._fin = self._close_later = False
        self._extra: list[Segment] = []
        self._mss = MSS_DEFAULT
        self._window = self._largest_window = 0
        self._window_from = (0, 0)
        # Sending again.
        self._resend = self._go_back = False
        self._duplicates = self._backoff = 0
        self._timed: int | None = None
        self._timed_at = self._heard_at = 0.0
        self._round_trip: float | None = None
        self._variation = 0.0
        # Receiving: `edge` is the end of the window that was announced to the peer.
        self._receive_next = self._edge = 0
        self._acks_due = 0
        self._answered_at = float("-inf")

    @classmethod
    def accept(cls, segment: Segment, iss: int, now: float) -> TCPConnection:
        """Answer a peer's SYN: the passive side."""
        tcp = cls(segment.connection.reversed(), iss)
        tcp._synchronize(segment)
        tcp._on(TCPEvent.SYN, now)
        return tcp

    # Calls of our user.

    def open(self, now: float) -> None:
        """Begin to connect."""
        self._on(TCPEvent.OPEN, now)

    @property
    def room(self) -> int:
        """Number of bytes that `send` takes."""
        closed = self._fin or self._close_later or self.state is TCPState.CLOSED
        return 0 if closed else SEND_BYTES - len(self._data)

    def send(self, data: bytes) -> None:
        """Queue data to be sent.

        Raises
        ------
        LocalError
            If there is no room for it.
        """
        if len(data) > self.room:
            raise LocalError(f"send: expected at most {self.room} bytes, found {len(data)}")
        self._data += data

    def consume(self, count: int) -> None:
        """Remove the first `count` bytes from `inbox`, which makes room for more."""
        del self.inbox[:count]
        opened = self._receive_next + RECEIVE_BYTES - len(self.inbox) - self._edge
        if opened >= min(2 * MSS, RECEIVE_BYTES // 2) and self.state in _TAKES_DATA:
            self._acks_due = self._acks_due or 1

    def close(self, now: float) -> None:
        """Send nothing after the queued data; data may still arrive. To be called once only."""
        self._on(TCPEvent.CLOSE, now)

    def abort(self, now: float) -> None:
        """End the connection with a reset, and drop queued data."""
        if self.state is not TCPState.CLOSED:
            self._on(TCPEvent.ABORT, now)

    def connection_moved(self, now: float) -> None:
        """Resend all unacknowledged data at once, because the peer has moved.

        Segments that the peer sent before may be lost. Three duplicate ACKs make it resend them
        without waiting for its timer.
        """
        if self.state in (TCPState.CLOSED, TCPState.TIME_WAIT):
            return
        self._send_again()
        self._rewind(self._unacknowledged)
        self._go_back = False
        self._backoff = 0
        self.deadline = None
        if self.state not in _CONNECTING:
            self._acks_due = _DUPLICATES

    def tick(self, now: float) -> None:
        """Do what is due if `deadline` has passed."""
        if self.deadline is None or now < self.deadline:
            return
        if self.state is TCPState.TIME_WAIT:
            self._on(TCPEvent.TWICE_MSL, now)
        elif now - self._heard_at >= SILENCE_LIMIT:
            self._on(TCPEvent.SILENCE, now)
        else:
            self._backoff += 1
            self._send_again()
            self.deadline = now + self._timeout()

    # Segments of the peer.

    def receive(self, segment: Segment, now: float) -> None:
        """Take in a segment of this connection."""
        if self.state is TCPState.SYN_SENT:
            self._receive_answer(segment, now)
        elif self.state is not TCPState.CLOSED:
            self._receive_synchronized(segment, now)

    def _receive_answer(self, segment: Segment, now: float) -> None:
        """Take in a segment in answer to our SYN."""
        flags = segment.flags
        if not flags & ACK or segment.ack != (self._iss + 1) % _MODULUS or self._max == self._iss:
            # It belongs to an earlier connection, which the reset makes the peer forget.
            self._refuse(segment)
        elif flags & RST:
            self._on(TCPEvent.RST, now)
        elif flags & SYN:
            self._synchronize(segment)
            self._advance(self._iss + 1, now)
            self._window_update(segment, self._receive_next, self._unacknowledged)
            self._on(TCPEvent.SYN_ACK, now)

    def _receive_synchronized(self, segment: Segment, now: float) -> None:
        expected, flags = self._receive_next, segment.flags
        seq = expected + sequence_difference(segment.seq, expected % _MODULUS)
        length = segment.length
        if flags & RST:
            if seq == expected:
                self._on(TCPEvent.RST, now)
            elif expected < seq <= self._edge:
                self._answer(now)
            return
        if flags & SYN:
            if self.state is TCPState.SYN_RECEIVED and seq == expected - 1:
                self._send_again()
            else:
                self._answer(now)
            return
        if not flags & ACK:
            return
        if not expected - RECEIVE_BYTES <= seq <= self._edge:
            self._answer(now, length)
            return
        self._heard_at = now
        if seq + length < expected:
            self._answer(now, length)
        if self._acknowledge(segment, seq, now) and length:
            self._take_in(segment, seq, now)

    def _synchronize(self, segment: Segment) -> None:
        """Take in the peer's SYN."""
        self._receive_next = self._edge = segment.seq + 1
        self._mss = min(MSS, max(1, segment.mss or MSS_DEFAULT))
        self._window = self._largest_window = segment.window

    def _refuse(self, segment: Segment) -> None:
        """Answer a segment that cannot belong to this connection."""
        answer = refusal(segment)
        self._extra += [] if answer is None else [answer]

    def _answer(self, now: float, length: int = 0) -> None:
        """Send an ACK; to segments without data rarely, so that ACKs do not cause ACKs for ever."""
        if length or now - self._answered_at >= _ANSWER_INTERVAL:
            self._answered_at = now if not length else self._answered_at
            self._acks_due = self._acks_due or 1

    def _acknowledge(self, segment: Segment, seq: int, now: float) -> bool:
        """Take in a segment's ACK and window; False if it acknowledges more than was sent."""
        before = self._unacknowledged
        ack = before + sequence_difference(segment.ack, before % _MODULUS)
        if self.state is TCPState.SYN_RECEIVED and not before < ack <= self._max:
            self._refuse(segment)
            return False
        if ack > self._max:
            self._answer(now)
            return False
        if ack > before:
            self._advance(ack, now)
        elif ack == before < self._max and not segment.length and segment.window == self._window:
            self._duplicates += 1
            if self._duplicates == _DUPLICATES and before > self._recover:
                self._send_again()
        self._window_update(segment, seq, ack)
        return True

    def _advance(self, ack: int, now: float) -> None:
        """Drop the data that is acknowledged."""
        if self._timed is not None and ack >= self._timed:
            self._measured(now - self._timed_at)
            self._timed = None
        taken = max(0, min(ack - self._begin, len(self._data)))
        del self._data[:taken]
        self._begin += taken
        self._unacknowledged = ack
        self._duplicates = 0
        if self._go_back and ack < self._recover:
            # The peer keeps no early segments, so the rest must be sent again, too.
            self._rewind(ack)
        self._go_back = False
        self._next = max(self._next, ack)
        self._heard_at = now
        self.deadline = now + self._timeout() if ack < self._max else None
        if self.state is TCPState.SYN_RECEIVED:
            self._on(TCPEvent.ACK_OF_SYN, now)
        if self._fin and ack > self._begin:
            self._on(TCPEvent.ACK_OF_FIN, now)

    def _window_update(self, segment: Segment, seq: int, ack: int) -> None:
        """Take over a segment's window, unless the segment is older than the last one's."""
        if (seq, ack) < self._window_from:
            return
        self._window_from = (seq, ack)
        if not self._window and segment.window and ack == self._unacknowledged:
            # A probe that the peer did not take is sent again, with the data after it.
            self._rewind(ack)
        self._window = segment.window
        self._largest_window = max(self._largest_window, segment.window)

    def _take_in(self, segment: Segment, seq: int, now: float) -> None:
        """Take in the data and the FIN that follow the data received so far."""
        skip = self._receive_next - seq
        if skip < 0:
            # A segment is missing; the peer counts duplicate ACKs.
            self._acks_due = min(self._acks_due + 1, _DUPLICATES)
            return
        self._acks_due = self._acks_due or 1
        if self.state not in _TAKES_DATA or skip > len(segment.payload):
            if self.state is TCPState.TIME_WAIT and segment.flags & FIN:
                self._on(TCPEvent.FIN, now)
            return
        new = segment.payload[skip:] if skip else segment.payload
        taken = new[: self._edge - self._receive_next]
        self.inbox += taken
        self._receive_next += len(taken)
        if segment.flags & FIN and len(taken) == len(new):
            self._receive_next += 1
            self._edge = max(self._edge, self._receive_next)
            self._on(TCPEvent.FIN, now)

    # Time.

    def _measured(self, seconds: float) -> None:
        """Take in a measured round trip (RFC 6298, 2.2 and 2.3), and end the backoff.

        The backoff must not end earlier. Otherwise a round trip that has become longer than the
        timeout would never be measured, because everything is sent twice (second half of Karn's
        algorithm).
        """
        self._backoff = 0
        if self._round_trip is None:
            self._round_trip, self._variation = seconds, seconds / 2
        else:
            self._variation += (abs(self._round_trip - seconds) - self._variation) / 4
            self._round_trip += (seconds - self._round_trip) / 8

    def _timeout(self) -> float:
        """Return the seconds until the next retransmission."""
        if self._round_trip is None:
            base = RTO_FIRST
        else:
            base = min(max(self._round_trip + 4 * self._variation, RTO_MIN), RTO_MAX)
        return min(base * 2.0 ** min(self._backoff, 10), max(base, RTO_BACKED_OFF_MAX))

    def _send_again(self) -> None:
        """Arrange to resend the first unacknowledged segment, or to probe the window."""
        self._resend = True
        self._go_back = self._unacknowledged < self._max
        self._recover = self._max
        self._timed = None

    def _rewind(self, seq: int) -> None:
        """Arrange to resend everything from a sequence number on."""
        self._next = seq
        # A segment that is sent twice cannot be timed (Karn's algorithm).
        self._timed = None

    # Our segments.

    def segments(self, now: float) -> list[Segment]:
        """Return the segments that are to be sent now."""
        out, self._extra = self._extra, []
        if self.state is TCPState.CLOSED:
            return out
        resend, self._resend = self._resend, False
        edge = max(self._unacknowledged + self._window, self._unacknowledged + resend)
        if resend and self._unacknowledged < self._next:
            self._append_piece(out, self._unacknowledged, edge, now)
        elif self._next == self._iss:
            self._next = self._append_piece(out, self._iss, edge, now)
        if self.state not in _CONNECTING:
            self._append_new(out, edge, resend, now)
        if self._acks_due and (not out or self._acks_due > 1):
            seq = min(self._max, self._unacknowledged + self._window)
            out += [self._segment(seq, ACK)] * self._acks_due
        self._acks_due = 0
        return out

    def _append_new(self, out: list[Segment], edge: int, probe: bool, now: float) -> None:
        """Append segments with the unsent data that the window allows."""
        end = self._begin + len(self._data)
        last = end + self._fin
        while self._next < last:
            usable = edge - self._next
            if usable <= 0:
                break
            if usable < min(self._mss, end - self._next, self._largest_window // 2) and not probe:
                # Segments would become ever smaller in a small window (RFC 9293, 3.8.6.2.1).
                break
            self._next = self._append_piece(out, self._next, edge, now)
        if self.deadline is None and (self._next < last or self._unacknowledged < self._max):
            self._heard_at = now
            self.deadline = now + self._timeout()

    def _append_piece(self, out: list[Segment], seq: int, edge: int, now: float) -> int:
        """Append one segment that begins at `seq`; return the sequence number after it."""
        if seq == self._iss:
            flags = SYN if self.state is TCPState.SYN_SENT else SYN | ACK
            segment = self._segment(seq, flags, b"", MSS)
        else:
            begin = seq - self._begin
            end = begin + min(self._mss, edge - seq, len(self._data) - begin)
            flags = ACK
            if end == len(self._data):
                flags |= PSH if end > begin else 0
                flags |= FIN if self._fin and seq + end - begin < edge else 0
            segment = self._segment(seq, flags, bytes(self._data[begin:end]))
        behind = seq + segment.length
        if seq < self._max:
            self.retransmissions += 1
        elif self._timed is None:
            self._timed, self._timed_at = behind, now
        self._max = max(self._max, behind)
        if self.deadline is None:
            self._heard_at = now
            self.deadline = now + self._timeout()
        out.append(segment)
        return behind

    def _segment(
        self, seq: int, flags: int, payload: bytes = b"", mss: int | None = None
    ) -> Segment:
        """Make a segment; one with ACK acknowledges the received data and announces the window."""
        if not flags & ACK:
            return Segment(self.connection, seq % _MODULUS, 0, flags, RECEIVE_BYTES, payload, mss)
        free = RECEIVE_BYTES - len(self.inbox)
        if free >= MSS:
            self._edge = max(self._edge, self._receive_next + free)
        window = self._edge - self._receive_next
        ack = self._receive_next % _MODULUS
        return Segment(self.connection, seq % _MODULUS, ack, flags, window, payload, mss)

    # The table's actions.

    def _on(self, event: TCPEvent, now: float) -> None:
        """Make the table's step for an event."""
        row = TABLE[self.state]
        if event not in row:
            expected = " or ".join(known.name for known in row)
            raise LocalError(f"TCP {self.state.name}: expected {expected}, found {event.name}")
        self.state, actions = row[event]
        for action in actions:
            self._do(action, event, now)
        if self.state is TCPState.CLOSED:
            self.deadline = None
            self._data.clear()

    def _do(self, action: TCPAction, event: TCPEvent, now: float) -> None:
        if action is TCPAction.SEND_ACK:
            self._acks_due = self._acks_due or 1
        elif action is TCPAction.SEND_FIN:
            self._fin = True
        elif action is TCPAction.SEND_RST:
            self._extra.append(self._segment(self._max, RST | ACK))
        elif action is TCPAction.CLOSE_LATER:
            self._close_later = True
        elif action is TCPAction.CONNECTED and self._close_later:
            self._on(TCPEvent.CLOSE, now)
        elif action is TCPAction.END_OF_DATA:
            self.end_of_data = True
        elif action is TCPAction.FAILED:
            self.failure = _FAILURES[event]
        elif action is TCPAction.WAIT_TWICE_MSL:
            self.deadline = now + TWICE_MSL
