"""Costs of a pair, fitted to its calibrations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from colobench.guest.programs import Program, program_named
from colobench.guest.settings import TICK_NS
from colobench.kernels.multifd_packets import PACKET_PAGES
from colobench.lab.compare.page_columns import BY_CONTENTS
from colobench.node.workers import PAGES_FOR_A_THREAD
from colobench.settings.transport import PageTransport, Transport
from colobench.strategy.model.checkpoint import CAPTURES, pause_alone
from colobench.strategy.model.costs import (
    COPIES,
    TIMES,
    CheckpointCosts,
    KnownOfCosts,
    PagePackets,
    fit_costs,
)
from colobench.strategy.model.curve import Numbers, measured_curve
from colobench.strategy.model.inputs import Calibration
from colobench.strategy.model.slack import AT_ONCE, GuestPace, Preparation, done_ms
from colobench.strategy.model.spread import Spread, measured_spread

#: A calibration as `calibrate` returns it, and as a line of results has it.
Calibrated = Mapping[str, Any]


def fit_calibration(found: Sequence[Calibrated]) -> Calibration:
    """Fit the costs of a checkpoint to the calibrations of one pair."""
    settings = found[0]["settings"]
    names = ("pages", "work", "bytes", *(f"{each}_ms" for each in (*TIMES, *COPIES)))
    known_pages = all("first_pages" in each["columns"] for each in found)
    columns = joined(found, names + ("first_pages", "packets", "age") * known_pages)
    hashed = all("sent_pages" in each["columns"] for each in found)
    if hashed:
        columns["first_pages"] = joined(found, ["sent_pages"])["sent_pages"]
    sends_in_pause = CAPTURES[settings["capture"]].sends_in_pause
    known = KnownOfCosts(
        flushes_in_pause=sends_in_pause,
        by_contents=hashed or settings["encoding"] in {each.value for each in BY_CONTENTS},
        packets=packets_of(found) if known_pages else PagePackets(),
        threads_from=2 * PAGES_FOR_A_THREAD,
    )
    page_ms = statistics.median(map(first_write_ms, found))
    costs = fit_costs(columns, known)
    return Calibration(
        costs=costs,
        primary_memory_bytes=median_of(found, "primary_memory_bytes"),
        secondary_memory_bytes=median_of(found, "secondary_memory_bytes"),
        most_pages=max(columns["pages"], default=0.0),
        page_ms=page_ms,
        lost_beside=0.0 if sends_in_pause else lost_beside(found, page_ms),
        spread=_spread(costs, sends_in_pause, columns),
        preparation=preparation_of(found, costs),
    )


def joined(found: Sequence[Calibrated], names: Iterable[str]) -> dict[str, list[Any]]:
    """Join columns of several calibrations."""
    return {name: [each for one in found for each in one["columns"][name]] for name in names}


def packets_of(found: Sequence[Calibrated]) -> PagePackets:
    """Give the packets into which the pages of a pair are divided; none if it sends a stream."""
    if Transport.parse(found[0]["settings"]["transport"]).pages is PageTransport.STREAM:
        return PagePackets()
    columns = joined(found, ("work", "pages", "apart_packets"))
    work, apart = (np.array(columns[name], dtype=float) for name in ("work", "apart_packets"))
    curve = measured_curve(work, columns["pages"], math.inf)
    most = float(apart.max(initial=0.0))
    spread = measured_spread([curve.at(each) for each in work], columns["pages"])
    return PagePackets(PACKET_PAGES, _steps_apart(work, apart), most, spread)


def _steps_apart(work: Numbers, apart: Numbers) -> float:
    """Give the steps s of work for which the sum of min(most, work / s) is that of `apart`.

    Source: bisection over logarithms; the sum falls as s grows.
    """
    packets, most = apart.sum(), apart.max(initial=0.0)
    if not packets:
        return math.inf
    low, high = 1e-3, 1e6 * max(1.0, float(work.max()))
    for _ in range(60):
        middle = math.sqrt(low * high)
        more = np.minimum(most, work / middle).sum() > packets
        low, high = (middle, high) if more else (low, middle)
    return high


def preparation_of(found: Sequence[Calibrated], costs: CheckpointCosts) -> Preparation:
    """Give what checkpoints take that are due as soon as they can be.

    Without such ones, as in older results, and where two epochs may be open, that is nothing.
    """
    capture = CAPTURES[found[0]["settings"]["capture"]]
    close, behind = (
        [each[name] for each in found if each.get(name) and each[name]["run_ms"]]
        for name in ("close", "behind")
    )
    if capture.open_epochs > 1 or not close:
        return AT_ONCE
    columns = {
        name: [each for one in close for each in one[name]] for name in ("pages", "pause_ms")
    }
    return Preparation(
        alone=_least_time(close, costs),
        beside=_least_time(behind or close, costs),
        spread=_spread(costs, capture.sends_in_pause, columns),
    )


def _least_time(tables: Sequence[Mapping[str, Sequence[float]]], costs: CheckpointCosts) -> float:
    """Give the median time from when all is loaded until a checkpoint is due, milliseconds."""
    found = [
        run - beside - costs.request.at(pages)
        for each in tables
        for run, beside, pages in zip(each["run_ms"], each["beside_ms"], each["pages"], strict=True)
    ]
    return max(0.0, statistics.median(found))


def _spread(
    costs: CheckpointCosts, sends_in_pause: bool, columns: Mapping[str, Sequence[float]]
) -> Spread:
    """Give the pauses of a calibration beside those of the costs."""
    line = [pause_alone(costs, pages, sends_in_pause) for pages in columns["pages"]]
    return measured_spread(line, columns["pause_ms"])


def first_write_ms(calibrated: Calibrated) -> float:
    """Give the time that a guest's first write to a page after a checkpoint takes longer, ms.

    The guest's processor had Σ b = s Σ W + c Σ D, with W steps of s milliseconds each, as in the
    unprotected guest, and D pages at each checkpoint.
    """
    columns = calibrated["columns"]
    step = calibrated["unprotected"]["processor_ms_per_step"]
    more = calibrated["protected"]["processor_ms_per_step"] - step
    return max(0.0, float(more * sum(columns["work"]) / max(1.0, sum(columns["pages"]))))


def lost_beside(found: Sequence[Calibrated], page_ms: float) -> float:
    """Give the share of work that a guest loses while checkpoints are sent and loaded beside it.

    It is all work that is missing from what the guest would do with the pauses alone (`done_ms`),
    divided by all time in which a checkpoint was on its way. A calibration whose guest did not
    work while it was alone says nothing of that.
    """
    missing = time = 0.0
    for one in found:
        columns, alone = one["columns"], one["unprotected"]
        program = program_named(one["settings"]["guest"])
        pace = pace_of(program, alone["busy"], alone.get("busy_behind"))
        rows = zip(columns["run_ms"], columns["last_pause_ms"], columns["pages"], strict=True)
        expected = sum(done_ms(run, pause, pace, page_ms * pages) for run, pause, pages in rows)
        if alone["work_per_ms"] > 0:
            missing += expected - sum(columns["work"]) / alone["work_per_ms"]
            time += sum(columns["beside_ms"])
    return min(1.0, max(0.0, missing / time)) if time > 0 else 0.0


def pace_of(program: Program, busy: float, busy_behind: float | None = None) -> GuestPace:
    """Give the pace of a guest that does not rest in a share of the time, see `GuestPace`.

    A trace goes on with the time, and clients wait for their answers, so these lose no tick's work.
    """
    kept = math.inf if program.takes_trace or program is Program.KV else 1.0
    return GuestPace(TICK_NS / 1e6, busy, kept, busy_behind)


def median_of(found: Sequence[Calibrated], name: str) -> float | None:
    """Give the median of a value over the calibrations that have it."""
    values = [each[name] for each in found if each[name] is not None]
    return statistics.median(values) if values else None
