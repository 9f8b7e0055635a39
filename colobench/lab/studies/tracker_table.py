"""Table of trackers side by side, from the epochs of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from colobench.lab.studies.trackers import Epoch, UnavailableTracker
from colobench.text_table import align


@dataclass(frozen=True, slots=True)
class TrackerStatistics:
    """Statistics of one tracker.

    Attributes
    ----------
    tracker
        Name of the tracker.
    epochs, exact
        Number of epochs, and of those in which it named exactly the pages written.
    pages, write_ns, collect_ms
        Medians over the epochs, see `Epoch`; None without epochs.
    reason
        Reason for which it cannot run here; None if it can.
    """

    tracker: str
    epochs: int
    exact: int
    pages: float | None = None
    write_ns: float | None = None
    collect_ms: float | None = None
    reason: str | None = None

    def cells(self) -> tuple[str, ...]:
        """Write the statistics in the order of `HEADS`."""
        if self.reason is not None:
            return (self.tracker, f"not here: {self.reason}", "", "", "")
        if self.pages is None or self.write_ns is None or self.collect_ms is None:
            return (self.tracker, "–", "–", "–", "–")
        exact = f"in {self.exact} of {self.epochs} epochs"
        collect = f"{1000 * self.collect_ms:,.1f} µs"
        write = f"{self.write_ns:,.0f} ns" if self.write_ns >= 0.5 else "too short to tell"
        return (self.tracker, exact, f"{self.pages:,.0f}", write, collect)


#: Heads of the columns.
HEADS = ("tracker", "exact", "pages", "a step", "a collection")


class TrackerTable(tuple[TrackerStatistics, ...]):
    """Statistics of several trackers; prints itself as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [HEADS, *(each.cells() for each in self)]
        return "\n".join(align(rows, right=(2, 3, 4)))

    @property
    def available(self) -> tuple[str, ...]:
        """The trackers that run here."""
        return tuple(each.tracker for each in self if each.reason is None)


def tabulate_trackers(found: Iterable[Epoch | UnavailableTracker]) -> TrackerTable:
    """Sum up what `compare_trackers` found, a row for each tracker, in order of appearance."""
    epochs: dict[str, list[Epoch]] = {}
    reasons = {}
    for each in found:
        of_tracker = epochs.setdefault(each.tracker, [])
        if isinstance(each, UnavailableTracker):
            reasons[each.tracker] = each.reason
        else:
            of_tracker.append(each)
    return TrackerTable(
        _sum_up(tracker, of_tracker, reasons.get(tracker)) for tracker, of_tracker in epochs.items()
    )


def _sum_up(tracker: str, epochs: list[Epoch], reason: str | None) -> TrackerStatistics:
    exact = sum(epoch.exact for epoch in epochs)
    if not epochs:
        return TrackerStatistics(tracker, 0, 0, reason=reason)
    pages, write_ns, collect_ms = (
        float(np.median([getattr(epoch, name) for epoch in epochs]))
        for name in ("pages", "write_ns", "collect_ms")
    )
    return TrackerStatistics(tracker, len(epochs), exact, pages, write_ns, collect_ms, reason)
