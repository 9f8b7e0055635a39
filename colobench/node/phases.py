"""Marks of a checkpoint: when each of its phases ended, in nanoseconds."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

#: The name of a phase and when it ended, in nanoseconds of CLOCK_MONOTONIC.
Mark = tuple[str, int]
#: The name of the first mark, which begins the first phase.
BEGIN = "begin"


class Phases:
    """A stopwatch; each phase lasts from the end of the one before.

    Attributes
    ----------
    marks
        The beginning, and the ends of the phases so far. All processes of a machine share the
        clock, so that the marks of both nodes can be put in one order.
    """

    def __init__(self) -> None:
        self.marks: list[Mark] = [(BEGIN, time.perf_counter_ns())]

    def end(self, phase: str) -> None:
        """Say that `phase` ends now; a phase may come in several pieces."""
        self.marks.append((phase, time.perf_counter_ns()))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Have Python's garbage collector wait: the guest stands still for part of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def durations(marks: Iterable[Mark]) -> dict[str, float]:
    """Add up the milliseconds of each phase."""
    found: dict[str, float] = {}
    last = 0
    for phase, ended in marks:
        if phase != BEGIN:
            found[phase] = found.get(phase, 0.0) + (ended - last) / 1e6
        last = ended
    return found
