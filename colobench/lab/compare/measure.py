"""Measurement of a cell: its guest alone, protected, and taken over, in one pair's life."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import psutil

from colobench.errors import ColobenchError, RemoteError
from colobench.lab.compare.cells import Cell
from colobench.lab.compare.commit_age import commit_age
from colobench.lab.compare.load import Asked, asking_clients
from colobench.lab.compare.measurement import Measurement
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.percentiles import percentiles
from colobench.lab.session.record import COLUMNS, CheckpointRecord
from colobench.lab.session.session import Session
from colobench.processes.hostinfo import Cores
from colobench.processes.process import NodeProcess

#: Seconds before anything counts: buffers grow to their size, and connections open.
SETTLING_SECONDS = 0.5
#: Copies of a check of the machine, of which the median counts, and bytes of each.
CHECK_COPIES, CHECK_BYTES = 3, 64 << 20


class CellFailed(RemoteError):
    """A pair that broke while it was measured."""


def measure_cell(cell: Cell, number: int, settings: ComparisonSettings) -> Measurement:
    """Measure a cell once, on a pair that is started for it and ended afterwards.

    Parameters
    ----------
    cell, number
        Cell, and number of the round.
    settings
        Settings of the comparison.

    Raises
    ------
    CellFailed
        If the pair breaks; the error names the cell.
    """
    before = _check_machine()
    measuring = _Measuring(cell, settings)
    try:
        measuring.run()
    except ColobenchError as error:
        raise CellFailed(f"{cell}, round {number}: {error}") from error
    return Measurement(
        *cell.key,
        round=number,
        settings=cell.settings.as_json(),
        comparison=settings.of_measurement(),
        figures=measuring.figures,
        unprotected=measuring.unprotected,
        memcpy_gb_per_s=(before, _check_machine()),
        checkpoints=measuring.checkpoints,
    )


def _check_machine() -> float:
    cores = Cores(CHECK_BYTES)
    try:
        return round(statistics.median(cores.one_thread() for _ in range(CHECK_COPIES)), 2)
    finally:
        cores.close()


class _Measuring:
    """One measurement, which grows by the figures of each stage of the pair's life."""

    def __init__(self, cell: Cell, settings: ComparisonSettings) -> None:
        self._cell, self._settings = cell, settings
        self._session = Session(cell.settings)
        self.figures: dict[str, float | None] = {}
        self.unprotected: dict[str, float | None] = {}
        self.checkpoints: dict[str, list[Any]] = {}

    def run(self) -> None:
        with closing(self._session) as session:
            session.start(unprotected=self._measure_unprotected)
            self._measure_protected()
            session.kill("primary")
            by_itself = session.settings.heartbeat is not None
            takeover = session.takeover() if by_itself else session.failover()
            self.figures["takeover_ms"] = takeover.takeover_ms

    def _measure_unprotected(self) -> None:
        """Measure the primary's guest before there is a secondary."""
        primary = self._session.nodes["primary"]
        work, answers, _, _ = self._work(self._settings.unprotected_seconds)
        p50, p99 = _latencies(answers)
        self.unprotected = {
            "work_per_s": work,
            "memory_bytes": proportional_bytes(primary),
            "latency_p50_ms": p50,
            "latency_p99_ms": p99,
        }

    def _measure_protected(self) -> None:
        work, answers, begin, end = self._work(self._settings.seconds)
        alone, p50, p99 = self.unprotected["work_per_s"], *_latencies(answers)
        one_guest = self.unprotected["memory_bytes"]
        assert one_guest is not None
        memory = {
            f"{role}_memory_bytes": proportional_bytes(node) - one_guest
            for role, node in self._session.nodes.items()
        }
        self.figures |= {
            "degradation": 1 - work / alone if alone else None,
            "latency_p50_ms": p50,
            "latency_p99_ms": p99,
            **memory,
            **self._of_checkpoints(begin, end),
        }

    def _work(self, seconds: float) -> tuple[float, list[Asked], float, float]:
        """Let the guest work, and clients ask it, for a while.

        Returns
        -------
        tuple
            Steps of work a second, answers to requests of the measured time, and the monotonic
            times of its begin and end.
        """
        session, primary = self._session, self._session.nodes["primary"]
        address = session.address() if self._cell.serves else None
        asked = SETTLING_SECONDS + seconds
        with asking_clients(address, asked, self._settings.every_ms) as answers:
            self._wait(SETTLING_SECONDS)
            begin, first = _work_now(primary)
            self._wait(seconds)
            end, last = _work_now(primary)
        counted = [each for each in answers if begin <= each.time <= end]
        return (last - first) / (end - begin), counted, begin, end

    def _wait(self, seconds: float) -> None:
        """Wait, and notice a pair that breaks meanwhile."""
        end = time.monotonic() + seconds
        self._session.wait_for(
            lambda: time.monotonic() >= end, "the end of a measurement", seconds + 30
        )

    def _of_checkpoints(self, begin: float, end: float) -> dict[str, float | None]:
        """Compute the figures of the checkpoints whose stop is in the measured time."""
        records = [
            record for record in self._session.records[:] if begin <= _stopped(record) <= end
        ]
        self.checkpoints = {name: [getattr(each, name) for each in records] for name in COLUMNS}
        self.checkpoints["stopped_s"] = [_stopped(each) - begin for each in records]
        self.checkpoints["committed_s"] = [_committed(each) - begin for each in records]
        p50, p99 = percentiles((each.pause_ms for each in records), (50, 99), without=None)
        age = self._age(begin, end)
        return {
            "pause_p50_ms": p50,
            "pause_p99_ms": p99,
            "bytes_per_s": sum(each.bytes for each in records) / (end - begin),
            "checkpoints_per_s": len(records) / (end - begin),
            "commit_age_mean_ms": None if age is None else 1000 * age[0],
            "commit_age_p99_ms": None if age is None else 1000 * age[1],
        }

    def _age(self, begin: float, end: float) -> tuple[float, float] | None:
        records = sorted(self._session.records[:], key=_committed)
        stopped = np.array([_stopped(each) for each in records], dtype=np.float64)
        committed = np.array([_committed(each) for each in records], dtype=np.float64)
        return commit_age(stopped, committed, begin, end, 99)


def _latencies(answers: Sequence[Asked]) -> list[float | None]:
    return percentiles((each.latency_ms for each in answers), (50, 99), without=None)


def _work_now(node: NodeProcess) -> tuple[float, int]:
    """Give the guest's work counter, and the monotonic time of the middle of the query."""
    asked = time.monotonic()
    work = int(node.execute("x-query-guest")["work"])
    return (asked + time.monotonic()) / 2, work


def _stopped(record: CheckpointRecord) -> float:
    """Give the monotonic time at which the guest had stopped."""
    return dict(record.primary_marks)["stop"] / 1e9


def _committed(record: CheckpointRecord) -> float:
    """Give the monotonic time at which the secondary committed."""
    return dict(record.secondary_marks)["commit"] / 1e9


def proportional_bytes(node: NodeProcess) -> int:
    """Give the memory of a node, in which a page that n processes map counts 1/n (PSS)."""
    return int(psutil.Process(node.pid).memory_full_info().pss)
