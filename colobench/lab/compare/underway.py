"""A measurement while it is made, for those who watch it, and who may stop it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.lab.compare.cells import Cell
from colobench.lab.compare.load import Asked
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session

Column = npt.NDArray[np.float64]


class MeasurementStopped(LocalError):
    """A measurement that `Underway.stop` has ended; nothing of it counts."""


class MeasurementStage(enum.Enum):
    """Stages of a measurement, in their order; the value is what is done."""

    STARTING = "starting a pair"
    UNPROTECTED = "measuring its guest alone"
    MIGRATING = "migrating its guest"
    PROTECTED = "measuring its guest while it is protected"
    TAKEOVER = "killing its primary"
    DONE = "measured"


class Progress(NamedTuple):
    """Checkpoints of the measured time so far, an element for each.

    Attributes
    ----------
    seconds
        Time from the beginning of the measured time to the stop of the guest.
    pause_ms
        Pause, milliseconds.
    bytes
        Bytes from primary to secondary, of this checkpoint.
    work
        Steps of the guest's work since the beginning of the measured time; of a guest that serves,
        answers that came.
    """

    seconds: Column
    pause_ms: Column
    bytes: Column
    work: Column


class Underway:
    """A measurement that is made, or was made.

    Parameters
    ----------
    cell, round
        Cell, and number of the round.
    session
        Session of the pair.

    Attributes
    ----------
    cell, round
        As the parameters.
    stage
        What is done now.
    work_per_s
        Work of the unprotected guest a second, or its answers if it serves; None before it is
        known.
    answers
        Answers to clients in the protected time, which may still grow.
    """

    def __init__(self, cell: Cell, round: int, session: Session) -> None:
        self.cell, self.round = cell, round
        self.stage = MeasurementStage.STARTING
        self.work_per_s: float | None = None
        self.answers: Sequence[Asked] = ()
        self._session = session
        self._begin: float | None = None
        self._end = float("inf")
        self._first_work = 0
        self._stopped = False
        self._seen: Progress | None = None

    def enter(self, stage: MeasurementStage) -> None:
        """Begin a stage.

        Raises
        ------
        MeasurementStopped
            If the measurement was stopped.
        """
        if self._stopped:
            raise MeasurementStopped(f"{self.cell}, round {self.round}: stopped while {self.doing}")
        self.stage = stage

    def begin(self, time: float, work: int, answers: Sequence[Asked]) -> None:
        """Note monotonic time and work at the begin of the protected time that counts."""
        self._first_work, self.answers = work, answers
        self._begin = time

    def end(self, time: float) -> None:
        """Note the monotonic time at which the protected time has ended."""
        self._end = time

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    @property
    def doing(self) -> str:
        """What is done now, in words."""
        return self.stage.value

    @property
    def seconds(self) -> float:
        """Length of the protected time, if it has ended; otherwise up to the last checkpoint."""
        if self._begin is None:
            return 0.0
        if self._end < float("inf"):
            return self._end - self._begin
        return float(self.progress().seconds.max(initial=0.0))

    def stop(self) -> None:
        """End the pair; whoever measures gets a `MeasurementStopped`. May be called anywhere."""
        self._stopped = True
        self._session.close()

    def progress(self) -> Progress:
        """Give the checkpoints so far."""
        if self._seen is not None:
            return self._seen
        done = self.stage is MeasurementStage.DONE
        found = self._progress()
        if done:
            self._seen = found
        return found

    def _progress(self) -> Progress:
        begin = self._begin
        if begin is None:
            return Progress(*(np.empty(0) for _ in Progress._fields))
        rows = [
            (stopped_at(each) - begin, each.pause_ms, each.bytes, each.guest_work)
            for each in self._session.records[:]
            if begin <= stopped_at(each) <= self._end
        ]
        seconds, pauses, sent, work = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        done = self._answers_by(begin + seconds) if self.cell.serves else work - self._first_work
        return Progress(seconds, pauses, sent, done)

    def _answers_by(self, times: Column) -> Column:
        """Give the number of answers of the measured time that came by each of some times."""
        came = np.sort([each.time + each.latency_ms / 1000 for each in self.answers[:]])
        before = np.searchsorted(came, self._begin or 0.0)
        return (np.searchsorted(came, times) - before).astype(np.float64)

    def latencies(self) -> list[float]:
        """Give the latencies of answers so far to requests of the measured time, milliseconds."""
        begin = self._begin
        if begin is None:
            return []
        return [each.latency_ms for each in self.answers[:] if begin <= each.time <= self._end]


def stopped_at(record: CheckpointRecord) -> float:
    """Give the monotonic time at which the guest had stopped, seconds."""
    return dict(record.primary_marks)["stop"] / 1e9
