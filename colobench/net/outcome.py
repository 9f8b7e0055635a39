"""Results of colo-compare: frames to release, and causes of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from colobench.net.frame import ConnectionKey

#: Number that stands for the protocol of IPv4 fragments, whose ports are unknown.
FRAGMENTS = 256


@dataclass(frozen=True, slots=True)
class Miscompare:
    """A difference between the guests' output.

    Attributes
    ----------
    protocol
        IPv4's number of the protocol, or FRAGMENTS.
    connection
        Connection whose source is the guest. Ports are 0 if the protocol has none.
    offset
        Offset of the first byte that differs. For TCP it counts from the first byte after the SYN,
        or from the first byte seen if the SYN was not; otherwise from the packet's payload.
    what
        "payload"; "end" if only one guest closed there; "ack" with Quirk.ACK_AHEAD_DIFFERS.
    """

    protocol: int
    connection: ConnectionKey
    offset: int
    what: str = "payload"


@dataclass(frozen=True, slots=True)
class Timeout:
    """Output of one guest that the other one did not send in time.

    Attributes
    ----------
    protocol, connection
        As in Miscompare; the connection is None for malformed frames.
    age
        Seconds that the output has waited.
    """

    protocol: int
    connection: ConnectionKey | None
    age: float


@dataclass(frozen=True, slots=True)
class Overflow:
    """More frames, or connections, than the limit.

    Attributes
    ----------
    protocol, connection
        As in Timeout.
    side
        "primary" or "secondary" for the queue of that side, "connections" for their number.
    """

    protocol: int
    connection: ConnectionKey | None
    side: str


CompareCause: TypeAlias = Miscompare | Timeout | Overflow


class Outcome(NamedTuple):
    """Result of a filter's step.

    Attributes
    ----------
    frames
        Frames to release, in order.
    cause
        Cause to request a checkpoint, or None. A connection requests one once until it is made.
    """

    frames: tuple[bytes, ...] = ()
    cause: CompareCause | None = None


NOTHING = Outcome()


@dataclass(slots=True)
class Counters:
    """Counters of colo-compare since its start.

    Attributes
    ----------
    checkpoints_requested, miscompares, timeouts, overflows
        Requests for a checkpoint, in all and by cause.
    frames_primary, frames_secondary
        Frames received from each side.
    frames_released_equal, frames_released_checkpoint, frames_passed, frames_eased
        Frames of the primary that left because the secondary sent the same, by a checkpoint or a
        failover, and without comparison; frames made of equal parts of held ones.
    frames_absorbed
        Retransmissions by the primary of segments that are held anyway.
    bytes_compared
        Bytes of payload that were found equal.
    malformed
        Frames whose fields contradict each other.
    dropped_primary
        Frames of the primary that were dropped: the client opened the connection anew, or
        Quirk.DROP_OVERFLOW.
    dropped_secondary
        Frames of the secondary that were dropped: no room, stale, or not comparable.
    queue_high_water, connections_high_water
        Most frames that were held, and most connections that were known, at once.
    connections_forgotten
        Connections that were forgotten: closed, or idle when there were too many.
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
