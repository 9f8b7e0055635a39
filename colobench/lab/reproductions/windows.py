"""Windows of time in which a running pair takes checkpoints at a given interval."""

from __future__ import annotations

import time

from colobench.lab.compare.load import Asked, asking_clients
from colobench.lab.compare.measure import work_now
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session

#: Intervals that a window lasts at least, and its least seconds.
INTERVALS, LEAST_SECONDS = 4, 0.6


class WatchedTime:
    """A window that was measured.

    Attributes
    ----------
    seconds
        Its length.
    records
        Checkpoints that were committed in it.
    answers
        Requests of it that were answered.
    work
        Steps of the guest's work in it.
    """

    def __init__(
        self, seconds: float, records: list[CheckpointRecord], answers: list[Asked], work: int
    ) -> None:
        self.seconds, self.records, self.answers = seconds, records, answers
        self.work = work

    @property
    def stopped_share(self) -> float:
        """Share of the time for which the guest stood still."""
        return sum(each.pause_ms for each in self.records) / 1000 / self.seconds

    @property
    def work_per_s(self) -> float:
        """Steps of the guest's work a second."""
        return self.work / self.seconds

    @property
    def pages_per_s(self) -> float:
        """Pages sent a second."""
        return sum(each.pages for each in self.records) / self.seconds


def set_trigger(session: Session, trigger: str) -> None:
    """Have the primary of a running pair follow another trigger."""
    session.nodes["primary"].execute("migrate-set-parameters", **{"x-trigger": trigger})


def watch(session: Session, interval_ms: float, every_ms: float | None = None) -> WatchedTime:
    """Let a pair run, and count nothing of the first interval.

    Parameters
    ----------
    session
        The pair.
    interval_ms
        Time between its checkpoints.
    every_ms
        Time from one request to the next; None asks nothing.
    """
    settling = max(interval_ms / 1000, 0.1)
    seconds = max(INTERVALS * interval_ms / 1000, LEAST_SECONDS)
    address = None if every_ms is None else session.address()
    primary = session.nodes["primary"]
    with asking_clients(address, settling + seconds, every_ms or 1.0) as answers:
        wait(session, settling)
        (begin, before), first = work_now(primary), len(session.records)
        wait(session, seconds)
        (end, after), last = work_now(primary), len(session.records)
    asked = [each for each in answers if begin <= each.time <= end]
    return WatchedTime(end - begin, list(session.records[first:last]), asked, after - before)


def wait(session: Session, seconds: float) -> None:
    """Wait, and notice a pair that breaks meanwhile."""
    end = time.monotonic() + seconds
    session.wait_for(lambda: time.monotonic() >= end, "the end of a window", seconds + 30)
