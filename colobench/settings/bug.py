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
    #: With the capture copy-on-write, pages are sent with what the guest wrote after the cut.
    UNFROZEN_PAGES = "unfrozen-pages"
    #: With the capture copy-on-write-2, the commit of an epoch releases the next one's output, too.
    JOINT_RELEASE = "joint-release"
    #: The RAM cache is flushed when RAM is there, before the device state has come.
    EARLY_FLUSH = "early-flush"
    #: With the capture gap-precopy, a takeover flushes pages that came between checkpoints.
    FLUSHED_GAP = "flushed-gap"
    #: One dirty page of each checkpoint is not sent.
    MISSED_DIRTY_BIT = "missed-dirty-bit"
    #: With the encoding divergent, a page that both guests have alike does not enter the RAM cache.
    STALE_CACHE = "stale-cache"
    #: The flush copies what the primary wrote, and not what the secondary's own guest did.
    FLUSH_PRIMARY_ONLY = "flush-primary-only"
    #: The guest sends nothing again.
    LOST_RETRANSMISSION = "lost-retransmission"
    #: A survivor executes each connection's last request once more.
    DOUBLE_EXECUTION = "double-execution"
    #: The layers of the secondary's disks are emptied when a checkpoint is requested.
    EARLY_EMPTIED = "early-emptied"
    #: The guest is told that a write to its disk is done before the secondary has it.
    EARLY_ANSWER = "early-answer"
    #: The hidden layer keeps what the primary's last write but one has left in a cluster.
    OVERWRITTEN_HIDDEN = "overwritten-hidden"
    #: The hidden layer keeps nothing of what the primary discards.
    FORGOTTEN_DISCARD = "forgotten-discard"
    #: A takeover merges the active layer before the hidden one.
    SWAPPED_MERGE = "swapped-merge"
    #: A flush of a disk with a volatile cache writes nothing back.
    EMPTY_FLUSH = "empty-flush"
    #: The result of a comparison of bytes is taken for a truth value: different passes as equal.
    MEMCMP_TRUTH = "memcmp-truth"
    #: The flush takes pages that are all zero for pages of which there is nothing to copy.
    SKIPPED_ZERO_PAGES = "skipped-zero-pages"
    #: A state of migration that is new comes between `active` and `colo`, and COLO never begins.
    PASSED_ENTRY = "passed-entry"
    #: The comparison of a new connection begins at another one's sequence number.
    FOREIGN_SEQUENCE = "foreign-sequence"
    #: The length of a header is subtracted twice from what is compared of a frame.
    TWICE_SUBTRACTED = "twice-subtracted"
    #: That a connection has requested a checkpoint is not forgotten at the checkpoint.
    KEPT_REQUEST = "kept-request"
    #: A packet with the flag SYNC is taken for empty, and one of an older sender is not.
    EMPTY_SYNC = "empty-sync"
    #: Page channels go on when COLO has ended, and pages that come late enter the RAM cache.
    PAGE_AFTER_CLOSE = "page-after-close"
    #: The first write to a page that nobody has touched yet is not seen.
    UNTOUCHED_PAGES = "untouched-pages"
    #: Device state is loaded over what the secondary's guest has left, a part of which stays.
    DIRTY_LOAD = "dirty-load"
