"""Ways in which planted bugs are caught; `colobench.lab.torture.museum` has the bugs."""

from __future__ import annotations

import enum


class Catch(enum.Enum):
    """What shows a bug, in words for a table."""

    #: Torture: nodes are killed, and clients, digests or disks show what is wrong.
    KILLS = "kills: the clients' history, their connections, digests or disks"
    #: Torture, too, but the digests differ without a kill.
    DIGESTS = "digests of both sides after a checkpoint, without a kill"
    #: Two runs of the same clients: checkpoints that colo-compare requested, counted.
    COUNTS = "checkpoints that colo-compare requests, counted with the bug and without"
    #: Answers that both guests give differently, one after the other on one connection.
    DIFFERENCES = "answers that differ, asked for one after the other on one connection"
    #: A pair that is started and has to be in COLO.
    ENTRY = "the start of a pair, which has to be in COLO"
    #: Bytes as an older QEMU sends them, received.
    OLDER_SENDER = "a multifd stream as QEMU before 9.0 sends it"
    #: Pages that are sent on a channel when COLO has ended at the receiver.
    LATE_PAGE = "pages that are sent when COLO has ended at the receiver"

    @property
    def kills(self) -> bool:
        """Whether `colobench.lab.torture.run.torture` shows the bug."""
        return self in (Catch.KILLS, Catch.DIGESTS)
