"""Planted bugs: each breaks one promise of COLO, for experiments that must catch it.

Some were in QEMU for years; ``docs/bug-museum.md`` tells of each.
"""

from __future__ import annotations

import enum


class Bug(enum.Enum):
    """A bug, by the name that ``--bug`` takes."""

    #: Output is released when a checkpoint is sent, not when the secondary has it.
    EARLY_RELEASE = "early-release"
    #: With the capture copy-then-send, output is released that was sent after the copy.
    UNSEALED_RELEASE = "unsealed-release"
    #: The RAM cache is flushed when RAM is there, before the device state has come.
    EARLY_FLUSH = "early-flush"
    #: One dirty page of each checkpoint is not sent.
    MISSED_DIRTY_BIT = "missed-dirty-bit"
    #: The flush copies what the primary wrote, and not what the secondary's own guest did.
    FLUSH_PRIMARY_ONLY = "flush-primary-only"
    #: The guest sends nothing again.
    LOST_RETRANSMISSION = "lost-retransmission"
    #: A survivor executes each connection's last request once more.
    DOUBLE_EXECUTION = "double-execution"
