"""A recording: a program is run, and the pages that it writes are listed each millisecond."""

from __future__ import annotations

import enum
import math
import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from colobench.errors import LocalError
from colobench.fields.checks import check_integer
from colobench.lab.percentiles import percentiles
from colobench.lab.traces.contents import ContentSample
from colobench.lab.traces.page_numbers import Scan, number_pages
from colobench.lab.traces.tracee import END_SECONDS, Stop, Tracee
from colobench.lab.traces.written_pages import AddressRange, Runs, WrittenPages
from colobench.memory.dirty_curve import dirty_at, dirty_curve
from colobench.memory.ram import PAGE_SIZE
from colobench.memory.trace import INTERVAL_LIMIT, INTERVAL_MS_LIMIT, Numbers, Trace
from colobench.processes.hostinfo import processor_model

#: Limit of a recording: pages written, each once for each interval.
WRITE_LIMIT = 20_000_000
#: Characters of a command that a data sheet has.
COMMAND_LIMIT = 1 << 16
#: T in milliseconds for which a data sheet has D(T).
SHEET_MS = (1, 10, 100, 1000)


class RecordingClock(enum.Enum):
    """Clock by which a trace's intervals are counted."""

    #: The program's processor time: intervals are comparable although recording slows it down.
    CPU = "cpu"
    #: Time, with the moments in which the program waits.
    WALL = "wall"


class _Timeline:
    """Time and processor time of a program, in each interval of its clock."""

    def __init__(self, pid: int, clock: RecordingClock, interval_ms: int) -> None:
        self._pid, self._clock, self._interval_ms = pid, clock, interval_ms
        self.begin = time.monotonic()
        self._cpu_begin = self._cpu_us()
        self._before = {RecordingClock.CPU: 0, RecordingClock.WALL: 0}
        self.numbers: set[int] = set()
        self.spent_us: dict[RecordingClock, list[int]] = {each: [] for each in RecordingClock}

    def tick(self) -> int:
        """Give the number of the interval that lasts now; count the time since the last call."""
        now = dict(self._before)
        now[RecordingClock.WALL] = int((time.monotonic() - self.begin) * 1e6)
        with suppress(OSError):  # The program has gone.
            now[RecordingClock.CPU] = self._cpu_us() - self._cpu_begin
        # Of an interval that is just over there is as much to say as of one that lasts.
        number = max(0, now[self._clock] - 1) // (1000 * self._interval_ms)
        for clock, spent in self.spent_us.items():
            spent += [0] * (number + 1 - len(spent))
            spent[number] += now[clock] - self._before[clock]
        self._before = now
        self.numbers.add(number)
        return number

    def _cpu_us(self) -> int:
        # The clock of another process, see clock_getcpuclockid(3).
        return time.clock_gettime_ns((~self._pid << 3) | 2) // 1000


@dataclass(frozen=True, slots=True)
class Recording:
    """A trace, and how it came about.

    Attributes
    ----------
    trace
        The trace.
    status
        Exit status of the program; None if the recording ended it.
    end
        Reason for its end: ``exit``, ``seconds``, ``interrupted`` or ``full``.
    """

    trace: Trace
    status: int | None
    end: str


def record(
    command: Sequence[str],
    *,
    interval_ms: int = 1,
    clock: RecordingClock = RecordingClock.CPU,
    seconds: float = math.inf,
    description: str = "",
    version: str = "",
    stdin: int | None = None,
    progress: Callable[[float, int], None] = lambda seconds, pages: None,
) -> Recording:
    """Run a program to its end, and record the pages that it writes.

    An interrupt ends program and recording, and keeps what was recorded.

    Parameters
    ----------
    command
        The program and its arguments.
    interval_ms
        Length of an interval in milliseconds of the clock, and milliseconds between two scans.
    clock
        Clock of the intervals.
    seconds
        Seconds after which the program is ended, by SIGTERM at first.
    description
        Text for the data sheet, such as the program's version.
    version
        Version of colobench for the data sheet.
    stdin
        As for `subprocess.Popen`.
    progress
        Called after each scan with the seconds so far, and the pages written so far.

    Raises
    ------
    LocalError
        If the interval is too long, or the program cannot be started, or writes no page.
    RecordingUnavailable
        If the machine cannot record it.
    """
    check_integer("interval_ms", interval_ms, 1, INTERVAL_MS_LIMIT, unit="ms")
    tracee = Tracee(command, stdin=stdin)
    recorder = _Recorder(tracee, interval_ms, clock, seconds, progress)
    try:
        end = recorder.run()
    finally:
        recorder.close()
    sheet = {
        "command": _shown(command),
        "description": description,
        "colobench": version,
    }
    trace = recorder.trace(sheet | {"end": end, "exit_status": recorder.status})
    return Recording(trace, recorder.status, end)


def _shown(command: Sequence[str]) -> str:
    """Write a command as for a shell; of a very long one, the beginning."""
    words = shlex.join(command)
    return words if len(words) <= COMMAND_LIMIT else f"{words[:COMMAND_LIMIT]}…"


class _Recorder:
    """The loop of a recording."""

    def __init__(
        self,
        tracee: Tracee,
        interval_ms: int,
        clock: RecordingClock,
        seconds: float,
        progress: Callable[[float, int], None],
    ) -> None:
        self._tracee, self._interval_ms, self._clock = tracee, interval_ms, clock
        self._limit_seconds = seconds
        self._progress = progress
        self._scans: list[Scan] = []
        self._seconds: list[float] = []
        self._programs: list[Sequence[AddressRange]] = []
        self._writes = 0
        self._pages: WrittenPages | None = None
        self._sample: ContentSample | None = None
        self.status: int | None = None
        try:
            self._pages = WrittenPages(tracee)
            self._sample = ContentSample(tracee.pid)
        except BaseException:
            self.close()
            raise
        self._timeline = _Timeline(tracee.pid, clock, interval_ms)
        self._cpu_begin = time.process_time()
        self._cpu_share = 0.0

    def run(self) -> str:
        """Record until the program ends or is ended; return the reason."""
        self._tracee.go_on()
        next_scan = time.monotonic()
        try:
            while True:
                next_scan = max(time.monotonic(), next_scan + self._interval_ms / 1000)
                time.sleep(max(0.0, next_scan - time.monotonic()))
                stop = self._tracee.poll()
                number = self._take()
                if stop is Stop.EXEC:
                    self._next_program()
                elif stop is Stop.EXITING:
                    self._tracee.go_on()
                elif stop is Stop.ENDED:
                    self.status = self._tracee.status
                    return "exit"
                if time.monotonic() - self._timeline.begin >= self._limit_seconds:
                    return "seconds"
                if self._writes > WRITE_LIMIT or number + 2 >= INTERVAL_LIMIT:
                    return "full"
        except KeyboardInterrupt:
            return "interrupted"
        finally:
            # What is computed from the scans afterwards costs the program nothing.
            wall = time.monotonic() - self._timeline.begin
            self._cpu_share = (time.process_time() - self._cpu_begin) / wall

    def close(self) -> None:
        """End the program if it lives, and release all resources."""
        if self._tracee.status is None:
            self._tracee.terminate()
            until = time.monotonic() + END_SECONDS
            with suppress(KeyboardInterrupt):
                while self._tracee.poll() is not Stop.ENDED and time.monotonic() < until:
                    self._tracee.go_on()
                    time.sleep(0.01)
        # Children of the program may be left.
        self._tracee.kill()
        if self._pages is not None:
            self._programs.append(list(self._pages.ranges))
            self._pages.close()
            self._pages = None
        if self._sample is not None:
            self._sample.close()

    def trace(self, sheet: dict[str, Any]) -> Trace:
        """Make the trace of what was recorded; `sheet` has the beginning of its data sheet."""
        found = number_pages(self._scans, self._programs)
        if not len(found.lengths):
            raise LocalError("record: expected a program that writes pages, found none written")
        cpu_us, wall_us = (
            interval_times(self._timeline.spent_us[clock])
            for clock in (RecordingClock.CPU, RecordingClock.WALL)
        )
        intervals = len(cpu_us)
        sheet |= {
            "interval_ms": self._interval_ms,
            "clock": self._clock.value,
            "page_size": PAGE_SIZE,
            "machine": f"{processor_model()}, {platform.system()} {platform.release()}",
            "recorder": self._figures(intervals),
            "content": {} if self._sample is None else self._sample.figures(),
            "mappings": found.mappings,
        }
        trace = Trace(
            sheet,
            np.bincount(found.intervals, minlength=intervals).astype(np.uint32),
            cpu_us,
            wall_us,
            found.first_pages.astype(np.uint32),
            found.lengths.astype(np.uint32),
        )
        return complete_sheet(trace)

    def _take(self) -> int:
        """Scan once; return the number of the interval."""
        assert self._pages is not None
        assert self._sample is not None
        number = self._timeline.tick()
        begin = time.perf_counter()
        runs: Runs = self._pages.scan()
        self._seconds.append(time.perf_counter() - begin)
        if len(runs):
            self._scans.append(Scan(len(self._programs), number, runs))
            self._sample.look(runs)
            self._writes += int((runs[:, 1] - runs[:, 0]).sum()) // PAGE_SIZE
        self._progress(time.monotonic() - self._timeline.begin, self._writes)
        return number

    def _next_program(self) -> None:
        assert self._pages is not None
        assert self._sample is not None
        self._programs.append(list(self._pages.ranges))
        self._pages.close()
        self._pages = None
        self._pages = WrittenPages(self._tracee)
        self._sample.next_program()
        self._tracee.go_on()

    def _figures(self, intervals: int) -> dict[str, Any]:
        """Give the recorder's own cost, and the intervals in which it was late."""
        p50, p99 = percentiles(np.array(self._seconds) * 1e6, [50, 99], without=0.0)
        return {
            "scan_us_p50": round(p50, 1),
            "scan_us_p99": round(p99, 1),
            "cpu_share": round(self._cpu_share, 3),
            "intervals_without_scan": intervals - len(self._timeline.numbers),
        }


def interval_times(microseconds: Sequence[int]) -> Numbers:
    """Give the array of times of intervals; one of more than 71 minutes counts as 71.

    By the processor's clock, an interval of a program that waits lasts as long as it waits.
    """
    most = np.iinfo(np.uint32).max
    return np.minimum(np.array(microseconds, dtype=np.int64), most).astype(np.uint32)


def complete_sheet(trace: Trace) -> Trace:
    """Give the same trace with the figures of its data sheet that follow from the arrays."""
    return Trace(
        dict(trace.sheet) | sheet_figures(trace),
        trace.runs_per_interval,
        trace.cpu_us,
        trace.wall_us,
        trace.first_pages,
        trace.lengths,
    )


def sheet_figures(trace: Trace) -> dict[str, Any]:
    """Compute the figures of a data sheet from a trace's arrays."""
    curve = dirty_curve(trace)
    seconds = trace.intervals * trace.interval_ms / 1000
    at = {str(ms): dirty_at(trace, ms) for ms in SHEET_MS}
    return {
        "intervals": trace.intervals,
        "seconds": seconds,
        "cpu_seconds": round(int(trace.cpu_us.sum(dtype=np.uint64)) / 1e6, 3),
        "wall_seconds": round(int(trace.wall_us.sum(dtype=np.uint64)) / 1e6, 3),
        "writes": trace.writes,
        "pages_written": round(curve[-1][1]),
        "writes_per_second": round(trace.writes / seconds, 1),
        "dirty_pages": {ms: None if pages is None else round(pages, 2) for ms, pages in at.items()},
        "curve": [[ms, round(pages, 2)] for ms, pages in curve],
        "digest": trace.digest(),
    }


@dataclass(frozen=True, slots=True)
class Alone:
    """A run of a command without recording: its seconds, and seconds of processor time."""

    seconds: float
    cpu_seconds: float


def run_alone(command: Sequence[str], stdin: int | None = None) -> Alone:
    """Run a command without recording it, to compare.

    Raises
    ------
    LocalError
        If it cannot be started.
    """
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    try:
        subprocess.run(command, stdin=stdin, check=False)
    except OSError as error:
        raise LocalError(f"record: {command[0]} cannot be started: {error}") from error
    seconds = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Alone(seconds, cpu)
