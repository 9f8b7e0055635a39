"""What colo_compare answers: frames to let out, and why it asks for a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from colobench.net.frame import ConnectionKey

#: Stands for a protocol: IPv4 packets in fragments, whose ports nobody knows.
FRAGMENTS = 256


class Quirk(StrEnum):
    """A way of QEMU's, of today or before, that is not the right one; each has its price."""

    #: Segments without payload pass at once: a client is told that its bytes are there, and they
    #: are lost with the primary.
    EMPTY_AT_ONCE = "empty-at-once"
    #: Equal payload passes whatever it acknowledges, with the same loss (QEMU: if cut alike).
    ACK_UNCHECKED = "ack-unchecked"
    #: Equal payload that acknowledges more than the secondary did is called different.
    ACK_AHEAD_DIFFERS = "ack-ahead-differs"
    #: The secondary's latest acknowledgement counts, not its greatest (unsigned `a - b > 0`).
    LATEST_ACK = "latest-ack"
    #: TCP payloads are compared as whole segments (before QEMU's commit f449c9e549).
    SEGMENTS = "segments"
    #: UDP and ICMP are looked for from the newest packet.
    NEWEST_FIRST = "newest-first"
    #: A frame for which a queue has no room is gone.
    DROP_OVERFLOW = "drop-overflow"
    #: What the secondary said before a checkpoint, and comes after it, counts.
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Miscompare:
    """The guests said different things.

    Attributes
    ----------
    protocol, connection
        Where; the guest is the connection's source. Ports are 0 where the protocol has none. The
        protocol is IPv4's number, or FRAGMENTS.
    offset
        The first byte that differs. TCP: counted in the guest's stream, whose first byte after the
        SYN is 0 (if the SYN was not seen: the first byte that was); else in the packet's payload.
    what
        "payload"; "end" if only one of the guests closed there; "ack" with Quirk.ACK_AHEAD_DIFFERS.
    """

    protocol: int
    connection: ConnectionKey
    offset: int
    what: str = "payload"


@dataclass(frozen=True, slots=True)
class Timeout:
    """One guest said something, and the other one did not say it for too long.

    Attributes
    ----------
    protocol, connection
        As in Miscompare; the connection is None for frames that are not understood.
    age
        How long it has waited, in seconds.
    """

    protocol: int
    connection: ConnectionKey | None
    age: float


@dataclass(frozen=True, slots=True)
class Overflow:
    """More waits for comparison than there shall be.

    Attributes
    ----------
    protocol, connection
        As in Timeout.
    side
        Whose queue it is: "primary" or "secondary".
    """

    protocol: int
    connection: ConnectionKey | None
    side: str


CompareCause: TypeAlias = Miscompare | Timeout | Overflow


class Outcome(NamedTuple):
    """What is to be done now.

    Attributes
    ----------
    frames
        Frames to let out, in this order.
    cause
        Why a checkpoint is asked for, or None. A connection asks once until the next one.
    """

    frames: tuple[bytes, ...] = ()
    cause: CompareCause | None = None


NOTHING = Outcome()


@dataclass(slots=True)
class Counters:
    """What happened since the beginning.

    Attributes
    ----------
    checkpoints_requested, miscompares, timeouts, overflows
        Requests, and by which cause.
    frames_primary, frames_secondary
        Frames that came.
    frames_released_equal, frames_released_checkpoint, frames_passed, frames_eased
        The primary's frames that went out since the secondary said the same; by a checkpoint or a
        failover; without comparison; and frames made of the part that was equal.
    frames_absorbed
        Retransmissions by the primary of what is held anyway.
    bytes_compared
        Payload that was found equal.
    malformed, dropped_primary, dropped_secondary
        Frames that contradict themselves; frames that were thrown away: the primary's (the client
        has opened the connection anew, or Quirk.DROP_OVERFLOW), the secondary's (no room, stale,
        not comparable).
    queue_high_water, connections_high_water
        The most frames that were held, and connections that were known, at once.
    connections_forgotten
        Connections that were closed, or of which nothing waited when there were too many.
    """

    checkpoints_requested: int = 0
    miscompares: int = 0
    timeouts: int = 0
    overflows: int = 0
    frames_primary: int = 0
    frames_secondary: int = 0
    frames_released_equal: int = 0
    frames_released_checkpoint: int = 0
    frames_passed: int = 0
    frames_eased: int = 0
    frames_absorbed: int = 0
    bytes_compared: int = 0
    malformed: int = 0
    dropped_primary: int = 0
    dropped_secondary: int = 0
    queue_high_water: int = 0
    connections_high_water: int = 0
    connections_forgotten: int = 0
