"""How a strategy's figures grow with the protected time, over all of its rounds so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from colobench.lab.compare.underway import Column, Underway


class Growth(NamedTuple):
    """Figures of a strategy against its protected time; the rounds follow each other.

    Attributes
    ----------
    seconds
        Protected time when the guest stopped, for each checkpoint.
    pause_ms
        Pause of each checkpoint.
    bytes
        Bytes from primary to secondary, of all checkpoints up to this one.
    degradation
        1 − work so far / work of the unprotected guest in that time; of each round, its own
        unprotected guest counts. Answers take the place of work where the guest serves.
    latencies_ms
        Latencies of all answers so far, in no order.
    """

    seconds: Column
    pause_ms: Column
    bytes: Column
    degradation: Column
    latencies_ms: Column


def grow(rounds: Sequence[Underway]) -> Growth:
    """Give the growth of a strategy.

    Parameters
    ----------
    rounds
        Its measurements, in their order; the last may still be made.
    """
    parts: list[tuple[Column, ...]] = []
    latencies: list[float] = []
    before = sent = done = alone = 0.0
    for each in rounds:
        found = each.progress()
        latencies += each.latencies()
        if each.work_per_s is None or not len(found.seconds):
            continue
        moved = sent + np.cumsum(found.bytes)
        work, unprotected = done + found.work, alone + found.seconds * each.work_per_s
        with np.errstate(divide="ignore", invalid="ignore"):
            lost = 1 - work / unprotected
        parts.append((before + found.seconds, found.pause_ms, moved, lost))
        before += each.seconds
        sent, done, alone = moved[-1], work[-1], unprotected[-1]
    empty = (np.empty(0),) * 4
    seconds, pauses, moved, lost = map(np.concatenate, zip(empty, *parts, strict=True))
    return Growth(seconds, pauses, moved, lost, np.array(latencies, dtype=np.float64))
