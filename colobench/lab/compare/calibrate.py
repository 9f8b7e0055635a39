"""Calibration of the models: a short run of a pair with another seed and rate than those judged."""

from __future__ import annotations

import itertools
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from colobench.errors import ColobenchError
from colobench.guest.programs import Program
from colobench.guest.replay_table import load_trace
from colobench.guest.settings import WRITES_LIMIT, GuestSettings
from colobench.lab.compare.cells import Cell
from colobench.lab.compare.load import Asked, asking_clients
from colobench.lab.compare.measure import CellFailed, proportional_bytes, wait_for_work
from colobench.lab.compare.page_columns import BY_CONTENTS, needs_pages, page_columns
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.compare.values import COMPUTED, OF_RECORDS
from colobench.lab.percentiles import percentiles
from colobench.lab.session.own_images import own_images
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session
from colobench.memory.dirty_curve import dirty_curve
from colobench.node.phases import durations
from colobench.processes.process import NodeProcess
from colobench.settings.checkpoint import Capture
from colobench.settings.settings import Settings
from colobench.settings.transport import Encoding
from colobench.strategy.model.checkpoint import CAPTURES
from colobench.strategy.model.spread import NEAREST

#: Runs between two checkpoints, ms: 10 a decade. Longer ones follow from the curve's end.
SHORTEST_MS, LONGEST_MS, RUNS_PER_DECADE = 1.0, 200.0, 10
#: A run is repeated, at most so often, until the repetitions take so many milliseconds.
REPETITIONS, REPEATED_MS = 3, 100.0
#: Seconds in which buffers grow and connections open, and in which the guest is measured alone.
SETTLING_SECONDS, UNPROTECTED_SECONDS = 0.3, 0.4
#: Checkpoints in that time.
_SETTLING_CHECKPOINTS = 3
#: Time for which a guest is stopped to see how it makes up for it, time that it has for that, and
#: how often.
_STOPPED_MS, _CAUGHT_UP_MS, _STOPS = 100, 10, 5
#: Seconds of checkpoints as close together as they can be, and number of those behind a long pause.
_CLOSE_SECONDS, _LONG_PAUSES = 0.3, 7
#: Seconds that a few checkpoints may take.
_CHECKPOINTS_TIMEOUT = 30.0
#: Programs whose steps of work in a tick are the setting `writes_per_tick`.
TICK_WRITERS = frozenset({Program.UNIFORM, Program.HOTCOLD, Program.SEQUENTIAL})
#: Ratio of the rate of writes of a calibration to that of the cell; below 1, as a guest may not
#: keep up with a higher one.
_RATE = 0.8
#: Runs for an encoding by contents, which needs the guest as old as when it is measured; and most
#: seconds that they may take.
_OLDER_MS, _OLDER_SECONDS = 100.0, 3.0
#: Time between checkpoints behind a calibration, while clients wait for their last answers.
_LAST_ANSWERS_MS = 20


def calibration_settings(settings: Settings) -> Settings:
    """Give the settings of the calibration that a cell with these settings needs.

    The rate of writes is another than the cell's, and `own_seed` gives the seed. Checkpoints are
    taken on request, after runs of many lengths, and no link is between the nodes. So cells that
    differ by trigger and link alone share a calibration. The passes of gap pre-copy do not change
    what a page costs, so a cell with them has the calibration of one that stops and sends.
    """
    guest = settings.guest
    changes: dict[str, Any] = {"link": "local"}
    if guest.program in TICK_WRITERS:
        slower = max(1, round(_RATE * guest.writes_per_tick))
        faster = min(WRITES_LIMIT, guest.writes_per_tick + 1)
        changes["writes_per_tick"] = slower if slower != guest.writes_per_tick else faster
    if settings.checkpoint.capture is Capture.GAP_PRECOPY:
        changes["capture"] = Capture.STOP_AND_SEND.value
    return settings.override(delay=None, **changes)


def work_ratio(guest: GuestSettings, calibrated: Mapping[str, Any]) -> float:
    """Give the work of a guest in a millisecond, divided by that in a calibration."""
    if guest.program not in TICK_WRITERS:
        return 1.0
    return guest.writes_per_tick / float(calibrated["writes_per_tick"])


def runs_ms() -> Iterator[float]:
    """Give the lengths of a calibration's runs: every other one downwards, then the rest upwards.

    So a machine that grows slower meanwhile does so for short runs and for long ones, and each run
    follows one of nearly its length, whose answers a guest's clients acknowledge in it.
    """
    ratio = 10 ** (1 / RUNS_PER_DECADE)
    lengths = [LONGEST_MS]
    while lengths[-1] / ratio >= SHORTEST_MS:
        lengths.append(lengths[-1] / ratio)
    for length in (*lengths[::2], *lengths[1::2][::-1]):
        yield from itertools.repeat(length, max(1, min(REPETITIONS, int(REPEATED_MS / length))))


def calibrate(
    cell: Cell,
    number: int,
    settings: ComparisonSettings,
    opened: Callable[[Session], None] = lambda session: None,
) -> dict[str, Any]:
    """Run a pair for the calibration of a cell.

    Parameters
    ----------
    cell, number
        Cell, and number of the round.
    settings
        Settings of the comparison.
    opened
        Function that is called with the session before it is started; closing it ends the
        calibration.

    Returns
    -------
    dict
        ``settings`` of the pair, whole, with the images of disks as the user named them;
        ``trace_curve``, see there; ``columns`` with a value for each checkpoint but the first:
        see `columns_of` and, where `needs_pages`, `page_columns`; ``close``, the former of
        checkpoints as close together as they can be, and ``behind``, those of such checkpoints
        behind a long pause, of guests that lose no work and
        stand still while a checkpoint is sent, else None; ``unprotected`` and
        ``protected``: ``work_per_ms``, ``busy`` and
        ``processor_ms_per_step`` of the guest, see `pace_between`, and ``busy_behind`` of an
        unprotected one that replays a trace, see `busy_behind`; ``latency_ms`` and
        ``latency_p99_ms`` of the unprotected guest, and
        ``protected_latency_ms`` and ``protected_latency_p99_ms``, see `between_checkpoints`, None
        if it does not serve;
        ``primary_memory_bytes`` and ``secondary_memory_bytes``, as in a measurement.

    Raises
    ------
    CellFailed
        If the pair breaks; the error names the cell.
    """
    try:
        asked = calibration_settings(cell.settings)
        asked = asked.override(seed=own_seed(cell, number))
        with own_images(asked) as own:
            session = Session(own)
            opened(session)
            found = _run(cell, session, settings)
        guest = session.settings.guest
        return {
            "settings": asked.as_json() | {"trace_sha256": guest.trace_sha256},
            "trace_curve": trace_curve(guest),
            **found,
        }
    except ColobenchError as error:
        raise CellFailed(f"calibration for {cell}, round {number}: {error}") from error


def own_seed(cell: Cell, number: int) -> int:
    """Give a seed that no other calibration has: the mean over all is nearer to any guest's."""
    seed = zlib.crc32(f"{' '.join(cell.key)} {number}".encode())
    return seed if seed != cell.settings.guest.seed else seed + 1


def _run(cell: Cell, session: Session, settings: ComparisonSettings) -> dict[str, Any]:
    alone: dict[str, Any] = {}
    with closing(session):
        session.start(unprotected=lambda: alone.update(_alone(cell, session, settings.every_ms)))
        with _asking(session, cell, 600.0, settings.every_ms) as answers:
            first, pace = _take_checkpoints(cell, session, settings.seconds)
            records = session.records[:]
            close = _close_together(session)
            behind = _behind_pauses(session) if _makes_up(session.settings) else None
            # The last answers are released, too.
            _set_delay(session, _LAST_ANSWERS_MS)
        memory = {
            f"{role}_memory_bytes": proportional_bytes(node) - alone["memory"]
            for role, node in session.nodes.items()
        }
    counted, columns = records[first:], columns_of(records[first:])
    if needs_pages(session.settings.checkpoint):
        columns |= page_columns(records, session.settings.guest, len(counted) - 1)
    latency, protected = alone["latency"], _latencies(between_checkpoints(answers, counted))
    return {
        "columns": columns,
        "close": close,
        "behind": behind,
        "unprotected": alone["pace"],
        "protected": pace,
        "latency_ms": latency[0],
        "latency_p99_ms": latency[1],
        "protected_latency_ms": protected[0],
        "protected_latency_p99_ms": protected[1],
        **memory,
    }


def _alone(cell: Cell, session: Session, every_ms: int) -> dict[str, Any]:
    """Measure the guest before it is protected: its ``pace``, ``memory`` and ``latency``."""
    node, guest = session.nodes["primary"], session.settings.guest
    wait_for_work(node, session.address() if cell.serves else None)
    begin = time.monotonic() + SETTLING_SECONDS
    seconds = SETTLING_SECONDS + UNPROTECTED_SECONDS
    with _asking(session, cell, seconds, every_ms) as answers:
        time.sleep(SETTLING_SECONDS)
        first = cpu_time(node)
        time.sleep(UNPROTECTED_SECONDS)
        pace = pace_between(first, cpu_time(node))
    if guest.trace is not None:
        trace = load_trace(guest.trace, guest.trace_sha256)
        pace["busy_behind"] = busy_behind(node, trace.writes / trace.milliseconds)
    memory = proportional_bytes(node)
    latency = _latencies([each for each in answers if each.time >= begin])
    return {"pace": pace, "memory": memory, "latency": latency}


def _take_checkpoints(cell: Cell, session: Session, seconds: float) -> tuple[int, dict[str, float]]:
    """Take checkpoints on request, after runs of many lengths.

    Returns
    -------
    tuple
        Index of the checkpoint before the first that counts, and the guest's pace since then.
    """
    primary, strategy = session.nodes["primary"], session.settings.checkpoint
    primary.execute("migrate-set-parameters", x_report_pages=needs_pages(strategy))
    for _ in range(_SETTLING_CHECKPOINTS):
        # Clients connect only with the first one, which releases the guest's answers.
        time.sleep(SETTLING_SECONDS / _SETTLING_CHECKPOINTS)
        session.checkpoint()
    first, began = len(session.records) - 1, cpu_time(primary)
    for length in runs_ms():
        time.sleep(length / 1000)
        session.checkpoint()
    if strategy.encoding in BY_CONTENTS:
        _grow_older(cell, session, seconds)
    pace = pace_between(began, cpu_time(primary))
    primary.execute("migrate-set-parameters", x_report_pages=False)
    return first, pace


def _grow_older(cell: Cell, session: Session, seconds: float) -> None:
    """Take checkpoints until the guest has done what the cell's does until it is measured."""
    ratio = work_ratio(cell.settings.guest, session.settings.guest.as_json())
    begin = session.records[-1].time
    wanted = min(begin + _OLDER_SECONDS, ratio * (2 * SETTLING_SECONDS + seconds))
    while session.records[-1].time < wanted:
        time.sleep(_OLDER_MS / 1000)
        session.checkpoint()


def _makes_up(settings: Settings) -> bool:
    """Say whether a guest does the work of a checkpoint's pause later, as that of a trace."""
    sent = CAPTURES[settings.checkpoint.capture.value].sends_in_pause
    return sent and settings.guest.program.takes_trace


def _set_delay(session: Session, milliseconds: int) -> None:
    parameters = {"x-checkpoint-delay": milliseconds}
    session.nodes["primary"].execute("migrate-set-parameters", **parameters)


def _close_together(session: Session) -> dict[str, list[Any]]:
    """Take checkpoints without any time between them, and leave the pair so; see `columns_of`."""
    first = session.records.total
    _set_delay(session, 0)
    time.sleep(_CLOSE_SECONDS)
    _wait_for_checkpoints(session, first, NEAREST)
    return columns_of(session.records.since(first))


def _behind_pauses(session: Session) -> dict[str, list[Any]]:
    """Make pauses long, and give the checkpoints behind them; see `columns_of`.

    The secondary is held and not the primary, whose threads have nothing else to do meanwhile.
    """
    first = session.records.total
    for _ in range(_LONG_PAUSES):
        session.hold("secondary", "load")
        held = session.records.total
        time.sleep(_STOPPED_MS / 1000)
        session.go_on("secondary")
        _wait_for_checkpoints(session, held, 2)
    columns = columns_of(session.records.since(first))
    behind = [pause >= _STOPPED_MS for pause in columns["last_pause_ms"]]
    return {name: list(itertools.compress(each, behind)) for name, each in columns.items()}


def _wait_for_checkpoints(session: Session, first: int, count: int) -> None:
    """Wait until a pair that takes them by itself has taken so many more than the first ones."""
    session.wait_for(
        lambda: session.records.total >= first + count, f"{count} checkpoints", _CHECKPOINTS_TIMEOUT
    )


def _asking(session: Session, cell: Cell, seconds: float, every_ms: int) -> Any:
    return asking_clients(session.address() if cell.serves else None, seconds, every_ms)


def between_checkpoints(
    answers: Sequence[Asked], records: Sequence[CheckpointRecord]
) -> list[Asked]:
    """Give the answers between the first of some checkpoints and the last that met none."""
    marks = [each.primary_marks for each in records]
    begins, ends = (np.array([each[at][1] for each in marks]) / 1e9 for at in (0, -1))
    found = []
    for each in answers:
        # The first checkpoint that was not over when it was sent.
        at = int(np.searchsorted(ends, each.time))
        if 0 < at < len(begins) and each.time + each.latency_ms / 1000 < begins[at]:
            found.append(each)
    return found


def _latencies(answers: Sequence[Asked]) -> list[float | None]:
    return percentiles((each.latency_ms for each in answers), (50, 99), without=None)


class CPUTime(NamedTuple):
    """Counters of a guest's CPU.

    Attributes
    ----------
    ns
        Monotonic time, nanoseconds.
    work
        Steps of work.
    processor_ns, waited_ns
        Time of a processor that its thread has had, and time that it waited for one.
    """

    ns: int
    work: int
    processor_ns: int
    waited_ns: int


def cpu_time(node: NodeProcess) -> CPUTime:
    """Read the counters of a node's guest.

    Source: /proc/PID/task/TID/schedstat, see the kernel's scheduler/sched-stats.rst.
    """
    guest = node.execute("x-query-guest")
    path = f"/proc/{node.pid}/task/{guest['thread-id']}/schedstat"
    processor, waited, _ = map(int, Path(path).read_text().split())
    return CPUTime(time.monotonic_ns(), guest["work"], processor, waited)


def pace_between(first: CPUTime, last: CPUTime) -> dict[str, float]:
    """Give the pace of a guest between two moments.

    Returns
    -------
    dict
        ``work_per_ms``; ``busy``, the share of the time in which it did not rest: it worked, or
        waited for a processor; and ``processor_ms_per_step``.
    """
    ns, work, processor, waited = (late - early for late, early in zip(last, first, strict=True))
    return {
        "work_per_ms": 1e6 * work / ns,
        "busy": min(1.0, (processor + waited) / ns),
        "processor_ms_per_step": processor / 1e6 / max(work, 1),
    }


def trace_curve(guest: GuestSettings) -> list[tuple[float, float]] | None:
    """Give the curve of the trace that a guest replays: page writes, and distinct pages.

    It is a mean over all windows of the trace, while the checkpoints of a calibration meet few of a
    program's phases. None without a trace, or where its pages are mapped into fewer.

    Raises
    ------
    LocalError
        If the trace cannot be read.
    """
    if guest.trace is None or guest.working_set:
        return None
    trace = load_trace(guest.trace, guest.trace_sha256)
    per_ms = trace.writes / trace.milliseconds
    return [(per_ms * milliseconds, pages) for milliseconds, pages in dirty_curve(trace)]


def busy_behind(node: NodeProcess, work_per_ms: float) -> float:
    """Stop a guest that loses no work, and give the share of time that it needs to make up for it.

    The share is the processor's time of a step of work, times the steps that are due in a
    millisecond. It is far less than that of a guest that wakes up at each tick.

    Parameters
    ----------
    node
        Its node.
    work_per_ms
        Steps that are due in a millisecond, on average: the trace has phases with fewer and more.
    """
    shares = []
    for _ in range(_STOPS):
        node.execute("stop")
        first = cpu_time(node)
        time.sleep(_STOPPED_MS / 1000)
        node.execute("cont")
        time.sleep(_CAUGHT_UP_MS / 1000)
        pace = pace_between(first, cpu_time(node))
        shares.append(pace["processor_ms_per_step"] * work_per_ms)
    return min(1.0, statistics.median(shares))


def columns_of(records: Sequence[CheckpointRecord]) -> dict[str, list[Any]]:
    """Give the columns of a calibration: of each checkpoint but the first.

    ``run_ms`` and ``work``: time that the guest ran since the last one, and its steps of work from
    stop to stop; ``last_pause_ms``: pause of the last one; ``beside_ms``: time of that run in which
    the last one was still sent and loaded; ``send_ms``: from the first byte to the commit;
    ``release_ms``: from the stop until the primary knew of the commit; ``flush_ms``: the
    secondary's flush; and some of a record's, by their names there. With the encoding divergent
    ``pages`` are those whose hashes were compared, and ``sent_pages`` those of them that differed.
    """
    columns: dict[str, list[Any]] = {name: [] for name in (*OF_RECORDS, *COMPUTED)}
    for before, each in itertools.pairwise(records):
        marks = dict(each.primary_marks)
        run = (marks["stop"] - dict(before.primary_marks)["resume"]) / 1e6
        columns["run_ms"].append(run)
        columns["last_pause_ms"].append(before.pause_ms)
        columns["beside_ms"].append(min(run, max(0.0, before.loaded_ms - before.pause_ms)))
        columns["work"].append(each.guest_work - before.guest_work)
        columns["send_ms"].append(each.commit_ms - _before_sending(each))
        columns["release_ms"].append((marks["received"] - marks["request"]) / 1e6)
        columns["flush_ms"].append(durations(each.secondary_marks)["flush"])
        for name in OF_RECORDS:
            columns[name].append(getattr(each, name))
    settings = records[0].settings
    if settings is not None and settings.checkpoint.encoding is Encoding.DIVERGENT:
        # Hashes of all dirty pages travel, and the pages that differ.
        columns["sent_pages"] = columns["pages"]
        columns["pages"] = [each.compared_pages for each in records[1:]]
    return columns


def _before_sending(record: CheckpointRecord) -> float:
    """Give the milliseconds from the stop until the first byte can be sent."""
    if record.ram_ms:
        return record.stop_ms + record.collect_ms
    # The guest runs while it is sent.
    return record.pause_ms
