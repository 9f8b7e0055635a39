"""Columns of a calibration that need to know which pages each checkpoint had."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from colobench.guest.settings import PAGE_SIZE, GuestSettings
from colobench.kernels.multifd_packets import PACKET_PAGES
from colobench.lab.session.record import CheckpointRecord
from colobench.settings.checkpoint import Strategy
from colobench.settings.transport import Encoding, PageTransport

#: Encodings of which a page has fewer bytes the less is in it, or was written to it.
BY_CONTENTS = frozenset({Encoding.XBZRLE, Encoding.ZSTD, Encoding.LZ4})


def needs_pages(strategy: Strategy) -> bool:
    """Say whether the bytes of a checkpoint depend on which pages it has, not on their number."""
    in_packets = strategy.transport.pages is not PageTransport.STREAM
    return in_packets or strategy.encoding in BY_CONTENTS


def page_columns(
    records: Sequence[CheckpointRecord], guest: GuestSettings, count: int
) -> dict[str, list[float]]:
    """Give the columns of the last checkpoints of a calibration.

    Parameters
    ----------
    records
        All checkpoints since the pair entered COLO, with their bitmaps.
    guest
        Settings of the guest.
    count
        Number of the last ones, less than that of all.

    Returns
    -------
    dict
        ``known_pages``: pages that this checkpoint or one before had; ``first_pages``: those of
        them that none before had; ``packets`` and ``apart_packets``: packets of multifd that the
        pages need, and those of them for the blocks behind the first; ``age``: steps of work that
        the guest has done in all; ``colo_work``: those of them since the pair entered COLO.
    """
    sizes = [size // PAGE_SIZE for size in guest.block_sizes().values()]
    ends = list(itertools.accumulate(sizes))
    dirty = [_pages(each, ends[-1]) for each in records]
    known = np.logical_or.accumulate(dirty)
    counts = [int(each.sum()) for each in known]
    in_blocks = np.array(
        [[int(part.sum()) for part in np.split(each, ends[:-1])] for each in dirty]
    )
    packets = -(-in_blocks // PACKET_PAGES)
    ages = [each.guest_work for each in records]
    # The guest's rate is steady, as its timer is.
    lasted = records[-1].time - records[0].time
    rate = (ages[-1] - ages[0]) / lasted if lasted > 0 else 0.0
    entered = max(0.0, ages[0] - rate * records[0].time)
    columns = {
        "known_pages": counts,
        "first_pages": [after - before for before, after in itertools.pairwise([0, *counts])],
        "packets": packets.sum(axis=1).tolist(),
        "apart_packets": packets[:, 1:].sum(axis=1).tolist(),
        "age": ages,
        "colo_work": [each - entered for each in ages],
    }
    return {name: each[-count:] for name, each in columns.items()}


def _pages(record: CheckpointRecord, count: int) -> npt.NDArray[np.bool_]:
    """Give for each page whether a checkpoint had it."""
    assert record.dirty_bitmap is not None
    bits = np.unpackbits(np.frombuffer(record.dirty_bitmap, np.uint8), bitorder="little")
    return bits[:count].astype(np.bool_)
