"""When a peer counts as lost: beats as bytes, and a failure detector that is told of them.

The detector is of the class "eventually perfect", ◇P (T. D. Chandra and S. Toueg, *Unreliable
Failure Detectors for Reliable Distributed Systems*, Journal of the ACM 43(2), 1996). It is strongly
complete: a peer that is dead is suspected after the limit, and stays so. It is eventually strongly
accurate wherever, from some time on, beats follow each other within the limit; before that it may
be wrong. A limit that grows with each mistake, as theirs does, need not know such a bound, but here
the first mistake already ends the pairing: there is no second one to learn for.

Nothing here does I/O or knows a clock. Times are seconds of a clock that never goes back and is the
same for all calls.
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
#: A beat is one datagram of so many bytes.
BEAT_BYTES: Final = _BEAT.size
SEQUENCE_LIMIT: Final = 1 << 64


class InvalidBeat(RemoteError):
    """A datagram that is no beat of this version."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life.

    Attributes
    ----------
    sender
        `sender_digest` of the node that lives and the pairing that it lives for.
    sequence
        Beats of one sender count upwards.
    """

    sender: bytes
    sequence: int


def sender_digest(pairing: str, node: str) -> bytes:
    """Digest who beats, 16 bytes: one node in one pairing, as the arbiter knows them by name.

    So an old pairing's beats, and a node's own that come back to it, are those of somebody else.
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
        If it is no beat of this version.
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
    """What a datagram turned out to be."""

    #: A new sign of life of the peer: the only kind that counts.
    BEAT = "beats"
    #: Of this peer and pairing, but not newer than what was heard before.
    REPEATED = "repeated"
    #: Of another node or another pairing.
    FOREIGN = "foreign"
    #: No beat.
    MALFORMED = "malformed"


def check_timing(interval: float, limit: float) -> None:
    """Check how often a node beats, and how long a peer may be silent; both in seconds.

    Raises
    ------
    LocalError
        If one of them is not positive and finite, or the limit is less than two intervals: then one
        lost or late beat would be a lost peer.
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
    """One node's opinion of its peer.

    Whoever drives it reads the clock each time that it runs again, and calls `turn` with that, then
    `receive` with all that came meanwhile, then `suspects`, with the first reading again: whatever
    came before it has been heard by then, however long the receiving took.

    Parameters
    ----------
    pairing, peer
        Whose beats count.
    interval, limit
        Seconds, see `check_timing`. Whoever drives it does so at least once in an interval.
    now
        The time: silence counts from here.

    Attributes
    ----------
    limit
        As given.
    pause
        Seconds: a longer time between two turns is a pause, see `turn`. It lies halfway between
        interval and limit, so that a turn which is merely late is none.
    counts
        How many datagrams there were of each kind.
    pauses
        How many there were.
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
        """Learn that this process runs.

        If it did not for a while (it was stopped, or starved), then it could not have heard
        anybody. Beats may have found its socket full, and whatever held it up, a frozen machine for
        one, may have held up its peer as well, whose next beat is yet to come. So the peer is given
        one more limit from now on. A process that pauses again and again suspects nobody; but nor
        does it beat in time, so its peer suspects it.
        """
        if now - self._ran_at > self.pause:
            self.pauses += 1
            self._silent_since = now
        self._ran_at = now

    def receive(self, datagram: bytes, now: float) -> Heard:
        """Take in a datagram, whatever it is, and say what it was."""
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
        """Give the seconds of the peer's silence that count against it."""
        return max(0.0, now - self._silent_since)

    def deadline(self) -> float:
        """Give the time at which the peer is suspected if nothing is heard of it until then."""
        return self._silent_since + self.limit

    def suspects(self, now: float) -> bool:
        """Say whether the peer counts as lost; a beat that comes after all takes that back."""
        return now >= self.deadline()
