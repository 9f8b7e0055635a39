"""Heartbeats as bytes, and a failure detector that decides when the peer counts as lost.

The detector is of the class "eventually perfect", ◇P (T. D. Chandra and S. Toueg, *Unreliable
Failure Detectors for Reliable Distributed Systems*, Journal of the ACM 43(2), 1996). It is strongly
complete: a dead peer is suspected after the limit, and for ever. It is eventually strongly accurate
if, from some time on, beats follow each other within the limit; before that time it may be wrong.
Their limit grows with each mistake, so they need not know such a bound. Here the limit is fixed,
because the first mistake already ends the pairing.

This module does no I/O and has no clock. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import enum
import math
import struct
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from colobench.errors import LocalError, RemoteError

_BEAT = struct.Struct(">4sB16sQ")
_MAGIC: Final = b"COLB"
_VERSION: Final = 1
#: Length of a beat, which is one datagram, bytes.
BEAT_BYTES: Final = _BEAT.size
SEQUENCE_LIMIT: Final = 1 << 64


class InvalidBeat(RemoteError):
    """A datagram that is not a beat of this version."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life.

    Attributes
    ----------
    sender
        `sender_digest` of the sending node and its pairing.
    sequence
        Number of the beat, ascending for each sender.
    """

    sender: bytes
    sequence: int


def sender_digest(pairing: str, node: str) -> bytes:
    """Compute the 16 bytes that identify a node in a pairing, with the arbiter's names for both.

    So beats of an old pairing, and a node's own beats that return to it, count as foreign.
    """
    of_pairing = blake2b(pairing.encode(), digest_size=16).digest()
    return blake2b(node.encode(), key=of_pairing, digest_size=16).digest()


def encode_beat(beat: Beat) -> bytes:
    """Encode a beat: magic ``COLB``, version (one byte), sender (16 bytes), sequence (be64).

    Raises
    ------
    LocalError
        If a field does not fit.
    """
    if len(beat.sender) != 16 or not 0 <= beat.sequence < SEQUENCE_LIMIT:
        raise LocalError(f"beat: expected a digest of 16 bytes and a be64 sequence, found {beat}")
    return _BEAT.pack(_MAGIC, _VERSION, beat.sender, beat.sequence)


def decode_beat(datagram: bytes) -> Beat:
    """Decode a datagram.

    Raises
    ------
    InvalidBeat
        If it is not a beat of this version.
    """
    if len(datagram) != BEAT_BYTES:
        raise InvalidBeat(f"beat: expected {BEAT_BYTES} bytes, found {len(datagram)}")
    magic, version, sender, sequence = _BEAT.unpack(datagram)
    if (magic, version) != (_MAGIC, _VERSION):
        raise InvalidBeat(
            f"beat: expected magic {_MAGIC!r}, version {_VERSION}, found {magic!r}, {version}"
        )
    return Beat(sender, sequence)


class Heard(enum.Enum):
    """Kind of a received datagram."""

    #: A new beat of the peer, the only kind that counts as a sign of life.
    BEAT = "beats"
    #: A beat of the peer that is not newer than the last one.
    REPEATED = "repeated"
    #: A beat of another node or another pairing.
    FOREIGN = "foreign"
    #: Not a beat.
    MALFORMED = "malformed"


def check_timing(interval: float, limit: float) -> None:
    """Check the interval between beats and the limit of a peer's silence, both in seconds.

    Raises
    ------
    LocalError
        If one of them is not positive and finite, or the limit is less than two intervals. With
        less, a single lost or late beat would count as a lost peer.
    """
    if not (interval > 0 and math.isfinite(interval) and math.isfinite(limit)):
        raise LocalError(
            f"heartbeat: expected a positive interval and a limit in seconds, "
            f"found {interval:g} and {limit:g}"
        )
    if not limit >= 2 * interval:
        raise LocalError(
            f"heartbeat limit: expected at least two intervals, {2 * interval:g} s, found {limit:g}"
        )


class FailureDetector:
    """Detector by which one node suspects its peer.

    At least once in an interval, the caller reads the clock. It calls `turn` with that time, then
    `receive` with each datagram that has arrived, then `suspects` with the same time. So all beats
    that arrived before that time are counted, however long the receiving took.

    Parameters
    ----------
    pairing, peer
        Names of the pairing and of the peer whose beats count.
    interval, limit
        Seconds, see `check_timing`.
    now
        Present time, from which silence counts.

    Attributes
    ----------
    limit
        Limit of the peer's silence, seconds.
    pause
        Seconds; a longer time between two turns is a pause, see `turn`. It lies halfway between
        interval and limit, so that a slightly late turn is not a pause.
    counts
        Number of datagrams of each kind.
    pauses
        Number of pauses.
    """

    def __init__(
        self, pairing: str, peer: str, *, interval: float, limit: float, now: float
    ) -> None:
        check_timing(interval, limit)
        self.limit = limit
        self.pause = (interval + limit) / 2
        self.counts: Counter[Heard] = Counter()
        self.pauses = 0
        self._sender = sender_digest(pairing, peer)
        self._newest = -1
        self._silent_since = self._ran_at = now

    def turn(self, now: float) -> None:
        """Note that this process runs at time `now`.

        While the process did not run (it was stopped or starved), it could not receive beats. The
        socket may have been full, and the peer may have been held up by the same cause, such as a
        frozen machine, so that its next beat is yet to come. So after a pause the peer's silence
        counts from `now`. A process that pauses again and again never suspects its peer; but it
        does not beat in time either, so its peer suspects it.
        """
        if now - self._ran_at > self.pause:
            self.pauses += 1
            self._silent_since = now
        self._ran_at = now

    def receive(self, datagram: bytes, now: float) -> Heard:
        """Take in any datagram, and return its kind."""
        heard = self._judge(datagram)
        self.counts[heard] += 1
        if heard is Heard.BEAT:
            self._silent_since = now
        return heard

    def _judge(self, datagram: bytes) -> Heard:
        try:
            beat = decode_beat(datagram)
        except InvalidBeat:
            return Heard.MALFORMED
        if beat.sender != self._sender:
            return Heard.FOREIGN
        if beat.sequence <= self._newest:
            return Heard.REPEATED
        self._newest = beat.sequence
        return Heard.BEAT

    def silence(self, now: float) -> float:
        """Return the seconds of silence that count against the peer."""
        return max(0.0, now - self._silent_since)

    def deadline(self) -> float:
        """Return the time at which the peer is suspected if no beat arrives until then."""
        return self._silent_since + self.limit

    def suspects(self, now: float) -> bool:
        """Say whether the peer counts as lost; a late beat revokes that."""
        return now >= self.deadline()
