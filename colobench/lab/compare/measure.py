"""Measurement of a cell: its guest alone, protected, and taken over, in one pair's life."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import psutil

from colobench.errors import ColobenchError, RemoteError
from colobench.guest.replay_table import load_trace
from colobench.guest.settings import GuestSettings
from colobench.lab.compare.cells import Cell
from colobench.lab.compare.commit_age import commit_age
from colobench.lab.compare.load import Asked, asking_clients, wait_for_answer
from colobench.lab.compare.measurement import Measurement
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.compare.underway import (
    MeasurementStage,
    MeasurementStopped,
    Underway,
    stopped_at,
)
from colobench.lab.percentiles import percentiles
from colobench.lab.session.own_images import own_images
from colobench.lab.session.record import COLUMNS, CheckpointRecord
from colobench.lab.session.session import Session
from colobench.processes.hostinfo import Cores
from colobench.processes.process import NodeProcess
from colobench.settings.settings import Settings

#: Seconds before anything counts: buffers grow to their size, and connections open.
SETTLING_SECONDS = 0.3
#: Most seconds that a wait for the end of the measured time may take longer.
_LONGER_SECONDS = 30.0
#: Seconds of the longest trace that is measured from end to end.
LONGEST_PASS = 10.0
#: Seconds in which a guest that has just started begins to work.
WORK_TIMEOUT = 20.0
#: Copies of a check of the machine, of which the median counts, and bytes of each.
CHECK_COPIES, CHECK_BYTES = 3, 64 << 20


class CellFailed(RemoteError):
    """A pair that broke while it was measured."""


def measure_cell(
    cell: Cell,
    number: int,
    settings: ComparisonSettings,
    *,
    watch: Callable[[], None] = lambda: None,
    show: Callable[[Underway], None] = lambda underway: None,
) -> Measurement:
    """Measure a cell once, on a pair that is started for it and ended afterwards.

    Parameters
    ----------
    cell, number
        Cell, and number of the round.
    settings
        Settings of the comparison.
    watch
        Function that is called all the time; an exception from it ends the measurement.
    show
        Function that is called with the measurement before its pair is started.

    Raises
    ------
    CellFailed
        If the pair breaks; the error names the cell.
    MeasurementStopped
        If it was stopped by `Underway.stop`.
    """
    before = check_machine()
    with own_images(cell.settings) as own:
        measuring = _Measuring(cell, own, number, settings, watch)
        show(measuring.underway)
        try:
            measuring.run()
        except ColobenchError as error:
            if measuring.underway.stopped:
                raise MeasurementStopped(f"{cell}, round {number}: stopped") from error
            raise CellFailed(f"{cell}, round {number}: {error}") from error
    return Measurement(
        *cell.key,
        round=number,
        settings=cell.settings.as_json(),
        comparison=settings.of_measurement(),
        figures=measuring.figures,
        unprotected=measuring.unprotected,
        memcpy_gb_per_s=(before, check_machine()),
        checkpoints=measuring.checkpoints,
        link_use=measuring.link_use,
    )


def check_machine() -> float:
    """Copy memory with one thread; the median rate in GB/s."""
    cores = Cores(CHECK_BYTES)
    try:
        return round(statistics.median(cores.one_thread() for _ in range(CHECK_COPIES)), 2)
    finally:
        cores.close()


class _Measuring:
    """One measurement, which grows by the figures of each stage of the pair's life."""

    def __init__(
        self,
        cell: Cell,
        own: Settings,
        number: int,
        settings: ComparisonSettings,
        watch: Callable[[], None],
    ) -> None:
        self._cell, self._settings, self._watch = cell, settings, watch
        self._session = Session(own)
        self.underway = Underway(cell, number, self._session)
        self.figures: dict[str, float | None] = {}
        self.unprotected: dict[str, float | None] = {}
        self.checkpoints: dict[str, list[Any]] = {}
        self.link_use: dict[str, Any] | None = None

    def run(self) -> None:
        underway = self.underway
        with closing(self._session) as session:
            underway.enter(MeasurementStage.STARTING)
            session.start(unprotected=self._measure_unprotected)
            underway.enter(MeasurementStage.PROTECTED)
            self._measure_protected()
            underway.enter(MeasurementStage.TAKEOVER)
            session.kill("primary")
            by_itself = session.settings.heartbeat is not None
            takeover = session.takeover() if by_itself else session.failover()
            self.figures["takeover_ms"] = takeover.takeover_ms
            underway.enter(MeasurementStage.DONE)

    def _measure_unprotected(self) -> None:
        """Measure the primary's guest before there is a secondary."""
        self.underway.enter(MeasurementStage.UNPROTECTED)
        primary = self._session.nodes["primary"]
        address = self._session.address() if self._cell.serves else None
        wait_for_work(primary, address, self._watch)
        seconds = whole_passes(self._settings.unprotected_seconds, self._session.settings.guest)
        work, answers, _, _ = self._work(seconds)
        answered = answers_per_s(answers)
        self.underway.work_per_s = answered if self._cell.serves else work
        p50, p99 = _latencies(answers)
        self.unprotected = {
            "work_per_s": work,
            "answers_per_s": answered,
            "memory_bytes": proportional_bytes(primary),
            "latency_p50_ms": p50,
            "latency_p99_ms": p99,
        }
        self.underway.enter(MeasurementStage.MIGRATING)

    def _measure_protected(self) -> None:
        underway = self.underway
        seconds = whole_passes(self._settings.seconds, self._session.settings.guest)
        work, answers, begin, end = self._work(seconds, underway.begin)
        underway.end(end)
        p50, p99 = _latencies(answers)
        alone: float | None
        if self._cell.serves:
            # This guest's own work is a count of ticks.
            done, alone = answers_per_s(answers), self.unprotected["answers_per_s"]
        else:
            done, alone = work, self.unprotected["work_per_s"]
        one_guest = self.unprotected["memory_bytes"]
        assert one_guest is not None
        memory = {
            f"{role}_memory_bytes": proportional_bytes(node) - one_guest
            for role, node in self._session.nodes.items()
        }
        self.figures |= {
            "degradation": 1 - done / alone if alone and done is not None else None,
            "latency_p50_ms": p50,
            "latency_p99_ms": p99,
            **memory,
            **self._of_checkpoints(begin, end),
        }

    def _work(
        self, seconds: float, began: Callable[[float, int, list[Asked]], None] = lambda *_: None
    ) -> tuple[float, list[Asked], float, float]:
        """Let the guest work, and clients ask it, for a while.

        Parameters
        ----------
        seconds
            Length of the measured time.
        began
            Function that is called at its begin, with the monotonic time, the guest's work, and the
            list of answers, which grows.

        Returns
        -------
        tuple
            Steps of work a second, answers to requests of the measured time, and the monotonic
            times of its begin and end.
        """
        session, primary = self._session, self._session.nodes["primary"]
        address = session.address() if self._cell.serves else None
        # The measured time ends with a checkpoint, so it may be longer.
        asked = SETTLING_SECONDS + seconds + _LONGER_SECONDS
        with asking_clients(address, asked, self._settings.every_ms) as answers:
            self._wait(SETTLING_SECONDS)
            before = session.link_use()
            begin, first = work_now(primary)
            began(begin, first, answers)
            self._wait(seconds)
            end, last = work_now(primary)
            after = session.link_use()
        self.link_use = after.since(before).as_json() if before and after else None
        counted = [each for each in answers if begin <= each.time <= end]
        return (last - first) / (end - begin), counted, begin, end

    def _wait(self, seconds: float) -> None:
        """Wait, and notice a pair that breaks meanwhile."""
        end = time.monotonic() + seconds

        def over() -> bool:
            self._watch()
            return time.monotonic() >= end or self.underway.stopped

        self._session.wait_for(over, "the end of a measurement", seconds + _LONGER_SECONDS)

    def _of_checkpoints(self, begin: float, end: float) -> dict[str, float | None]:
        """Compute the figures of the checkpoints whose stop is in the measured time."""
        records = [
            record for record in self._session.records[:] if begin <= stopped_at(record) <= end
        ]
        self.checkpoints = {name: [getattr(each, name) for each in records] for name in COLUMNS}
        self.checkpoints["stopped_s"] = [stopped_at(each) - begin for each in records]
        self.checkpoints["committed_s"] = [_committed(each) - begin for each in records]
        p50, p99 = percentiles((each.pause_ms for each in records), (50, 99), without=None)
        [lag] = percentiles((each.commit_ms for each in records), (50,), without=None)
        age = self._age(begin, end)
        return {
            "pause_p50_ms": p50,
            "pause_p99_ms": p99,
            **_rates(records, end - begin, disks=bool(self._cell.settings.guest.disks)),
            "commit_lag_p50_ms": lag,
            "commit_age_mean_ms": None if age is None else 1000 * age[0],
            "commit_age_p99_ms": None if age is None else 1000 * age[1],
        }

    def _age(self, begin: float, end: float) -> tuple[float, float] | None:
        records = sorted(self._session.records[:], key=_committed)
        stopped = np.array([stopped_at(each) for each in records], dtype=np.float64)
        committed = np.array([_committed(each) for each in records], dtype=np.float64)
        return commit_age(stopped, committed, begin, end, 99)


def whole_passes(seconds: float, guest: GuestSettings) -> float:
    """Give the time that a guest is measured, if so many seconds are asked for.

    A recorded program has phases, so the time of a guest that replays a trace is as many whole
    passes as are needed. It is as asked for if a pass takes more than `LONGEST_PASS` seconds.
    """
    if guest.trace is None:
        return seconds
    a_pass = load_trace(guest.trace, guest.trace_sha256).milliseconds / 1000
    return math.ceil(seconds / a_pass) * a_pass if a_pass <= LONGEST_PASS else seconds


def _latencies(answers: Sequence[Asked]) -> list[float | None]:
    return percentiles((each.latency_ms for each in answers), (50, 99), without=None)


def answers_per_s(answers: Sequence[Asked]) -> float | None:
    """Give the rate at which answers come; None for fewer than two.

    It is the slope of the line of least squares through the number of answers over the time at
    which each came. Output that is held comes in bursts, so the answers of any interval depend on
    where it ends; bursts that come regularly hardly move the line.
    """
    came = sorted(each.time + each.latency_ms / 1000 for each in answers)
    if len(came) < 2 or came[0] == came[-1]:
        return None
    return statistics.linear_regression(came, range(len(came))).slope


def work_now(node: NodeProcess) -> tuple[float, int]:
    """Give the guest's work counter, and the monotonic time of the middle of the query."""
    asked = time.monotonic()
    work = int(node.execute("x-query-guest")["work"])
    return (asked + time.monotonic()) / 2, work


def wait_for_work(
    node: NodeProcess,
    address: tuple[str, int] | None,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Wait until the guest of a node that has just started has done some work, and serves.

    Its process loads its kernels first, which takes seconds on a machine with other work. A guest
    that has nothing to do is not waited for without end.

    Parameters
    ----------
    node
        The node.
    address
        Host and port of a guest that serves; it may load its disk before it does. None for others.
    watch
        Function that is called all the time; an exception from it ends the wait.

    Raises
    ------
    NodeGone
        If the node has ended, by itself or with its session.
    ClientsStalled
        If a guest that serves does not answer in `WORK_TIMEOUT` seconds.
    """

    def work() -> int:
        watch()
        return work_now(node)[1]

    end = time.monotonic() + WORK_TIMEOUT
    while not work() and time.monotonic() < end:
        time.sleep(0.02)
    if address is not None:
        wait_for_answer(address, WORK_TIMEOUT, work)


def _rates(
    records: Sequence[CheckpointRecord], seconds: float, disks: bool
) -> dict[str, float | None]:
    """Give bytes and checkpoints a second, from the first stop to the last; and those of disks.

    So they do not depend on where the measured time begins and ends between two checkpoints. With
    fewer than three checkpoints they are those of all the measured time.
    """
    counted, time = records, seconds
    if len(records) > 2:
        counted, time = records[1:], stopped_at(records[-1]) - stopped_at(records[0])
    return {
        "bytes_per_s": sum(each.bytes for each in counted) / time,
        "checkpoints_per_s": len(counted) / time,
        **_of_disks(counted, time if disks else None),
    }


def _of_disks(
    records: Sequence[CheckpointRecord], seconds: float | None
) -> dict[str, float | None]:
    """Give the figures of disks; they are None without one."""
    writes = [each.disk_write_p50_ms for each in records if each.disk_write_p50_ms is not None]
    return {
        "disk_bytes_per_s": seconds and sum(each.disk_bytes for each in records) / seconds,
        "disk_write_p50_ms": statistics.median(writes) if writes else None,
        "disk_wait_ms_per_s": seconds and sum(each.disk_wait_ms for each in records) / seconds,
    }


def _committed(record: CheckpointRecord) -> float:
    """Give the monotonic time at which the secondary committed."""
    return dict(record.secondary_marks)["commit"] / 1e9


def proportional_bytes(node: NodeProcess) -> int:
    """Give the memory of a node, in which a page that n processes map counts 1/n (PSS)."""
    return int(psutil.Process(node.pid).memory_full_info().pss)
