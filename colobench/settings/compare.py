"""Settings of colo-compare: properties of QEMU's object of that name, and its quirks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from colobench.fields.checks import check_choice
from colobench.fields.kinds import Integer, Texts
from colobench.fields.part import Part, setting

#: QEMU's properties are unsigned numbers of 32 bits.
LIMIT = 2**32 - 1


class Quirk(StrEnum):
    """Deviation in some version of QEMU that we consider a bug; each member names its effect."""

    #: Segments without payload pass at once: a client's bytes are acknowledged, but lost with the
    #: primary.
    EMPTY_AT_ONCE = "empty-at-once"
    #: Equal payload passes with any acknowledgement, with the same loss (QEMU: if cut alike).
    ACK_UNCHECKED = "ack-unchecked"
    #: Equal payload that acknowledges more than the secondary did counts as different.
    ACK_AHEAD_DIFFERS = "ack-ahead-differs"
    #: The secondary's latest acknowledgement counts, not its greatest (unsigned `a - b > 0`).
    LATEST_ACK = "latest-ack"
    #: TCP payloads are compared as whole segments (before QEMU's commit f449c9e549).
    SEGMENTS = "segments"
    #: UDP and ICMP packets are compared beginning with the newest.
    NEWEST_FIRST = "newest-first"
    #: A frame for which a queue has no room is dropped.
    DROP_OVERFLOW = "drop-overflow"
    #: A frame that the secondary sent before a checkpoint counts even if it arrives after it.
    STALE = "stale"
    #: Each difference is counted, and requests a checkpoint of its own, although one settles them
    #: all (before QEMU's change of May 2020 from a semaphore to an event).
    SEMAPHORE = "semaphore"


@dataclass(frozen=True, slots=True)
class CompareSettings(Part):
    """Settings of `colobench.net.compare.ColoCompare`."""

    title = "comparison of output"

    compare_timeout: int = setting(
        Integer(1, LIMIT, "ms"),
        3000,
        "time after which output that waits to be compared requests a checkpoint",
        qemu="compare_timeout",
    )
    expired_scan_cycle: int = setting(
        Integer(1, LIMIT, "ms"),
        1000,
        "interval of the search for output that has waited too long",
        qemu="expired_scan_cycle",
    )
    max_queue_size: int = setting(
        Integer(1, LIMIT),
        1024,
        "frames that may wait in one connection on one side",
        qemu="max_queue_size",
    )
    quirks: tuple[str, ...] = setting(
        Texts(lambda name: check_choice("quirk", name, list(Quirk)), "NAME", known=tuple(Quirk)),
        (),
        f"deviation of some QEMU version to imitate: {', '.join(Quirk)}",
        option="--quirk",
    )
