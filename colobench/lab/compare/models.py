"""Predictions beside measurements: inputs of the models from calibrations, and their errors.

`predictions` gives those of all cells of a comparison; `predict_settings` those of any settings.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from colobench.guest.programs import Program, program_named
from colobench.guest.settings import PAGE_SIZE, TICK_NS, GuestSettings
from colobench.guest.tcp_output import RTO_MS
from colobench.kernels.multifd_packets import PACKET_PAGES
from colobench.lab.compare.calibrate import calibration_settings, work_ratio
from colobench.lab.compare.findings import Findings, Predictions
from colobench.node.workers import PAGES_FOR_A_THREAD
from colobench.settings.settings import Settings
from colobench.strategy.model.checkpoint import CAPTURES, DIVERGENT, pause_alone
from colobench.strategy.model.costs import (
    COPIES,
    TIMES,
    ByteCosts,
    CheckpointCosts,
    DividedCost,
    KnownOfCosts,
    LinearCost,
    fit_costs,
)
from colobench.strategy.model.curve import DirtyCurve, Numbers, measured_curve
from colobench.strategy.model.inputs import Axes, Calibration, LinkProperties, Workload
from colobench.strategy.model.predict import Prediction, predict
from colobench.strategy.model.slack import AT_ONCE, GuestPace, Preparation, done_ms
from colobench.strategy.model.spread import PauseSpread, measured_spread

#: Encodings of which a page has more bytes the more was written to it.
_BY_WORK = frozenset({"xbzrle", "zstd", "lz4"})
#: A calibration as `calibrate` returns it, and as a line of results has it.
Calibrated = Mapping[str, Any]
#: Transports whose pages are in packets.
_PACKETS = re.compile("multifd|memfd")


class Calibrations:
    """The calibrations of a comparison, by what they are for.

    Parameters
    ----------
    found
        Calibrations of all rounds and cells.
    """

    def __init__(self, found: Iterable[Calibrated]) -> None:
        self._all = list(found)
        self._by_pair: dict[str, list[Calibrated]] = defaultdict(list)
        self._by_guest: dict[str, list[Calibrated]] = defaultdict(list)
        for each in self._all:
            self._by_pair[_written(each["settings"])].append(each)
            self._by_guest[_guest_of(each["settings"])].append(each)
        self._fitted: dict[str, Calibration] = {}

    def of_pair(self, settings: Settings) -> list[Calibrated]:
        """Give the calibrations for cells with these settings, one for each round."""
        return self._by_pair.get(_written(calibration_settings(settings).as_json()), [])

    def fitted(self, settings: Settings) -> Calibration | None:
        """Give the costs for cells with these settings; None without a calibration."""
        key = _written(calibration_settings(settings).as_json())
        found = self._by_pair.get(key)
        if found and key not in self._fitted:
            self._fitted[key] = fit_calibration(found)
        return self._fitted.get(key)

    def workload(self, settings: Settings) -> Workload:
        """Give the workload of a guest that was calibrated."""
        guest = _guest_of(calibration_settings(settings).as_json())
        return workload_of(settings, self._by_guest[guest], self.of_pair(settings))

    def predict(
        self,
        settings: Settings,
        unprotected: Mapping[str, float] | None = None,
        link: LinkProperties | None = None,
    ) -> Prediction | None:
        """Predict the figures of a pair with these settings.

        Parameters
        ----------
        settings
            Settings of the pair, whole.
        unprotected
            Figures of the unprotected guest, as of `unprotected_figures`; those that it lacks are
            the calibration's. A guest that lacks a core does less than its timer asks for.
        link
            Link between the nodes; None takes that of the settings.

        Returns
        -------
        Prediction
            None if there is no calibration for it, or no model of its strategy.
        """
        calibration = self.fitted(settings)
        if calibration is None:
            return None
        changes: dict[str, Any] = dict(unprotected or {})
        workload = self.workload(settings)
        if workload.clients:
            # Its work is a count of ticks, which stands for the time alone.
            changes.pop("work_per_ms", None)
        elif "work_per_ms" in changes and workload.work_per_ms > 0:
            # What a guest sends by itself, it sends after so much work.
            more = changes["work_per_ms"] / workload.work_per_ms
            changes["frames_per_ms"] = workload.frames_per_ms * more
        workload = dataclasses.replace(workload, **changes)
        way = settings.link.link if link is None else link
        return predict(axes_of(settings), workload, way, calibration)


def predict_settings(settings: Settings, found: Iterable[Calibrated]) -> dict[str, float] | None:
    """Predict the figures of a pair with these settings, over its link.

    Parameters
    ----------
    settings
        Settings of the pair, whole.
    found
        Calibrations, of which those for the pair and for its guest count.

    Returns
    -------
    dict
        Values by the names of metrics; None if there is no calibration, or no model.
    """
    prediction = Calibrations(found).predict(settings)
    return None if prediction is None else dict(prediction.figures)


def calibrations_of(comparison: Findings) -> Calibrations:
    """Give the calibrations that the measurements of a comparison carry."""
    found = (each.calibration for each in comparison.measurements)
    return Calibrations(each for each in found if each is not None)


def predictions(comparison: Findings) -> Predictions:
    """Predict the figures of each cell that has a model and a calibration so far.

    Returns
    -------
    dict
        By strategy, guest and link: values by the names of metrics.
    """
    calibrations = calibrations_of(comparison)
    found = {
        cell.key: calibrations.predict(cell.settings, unprotected_figures(comparison, cell.guest))
        for cell in comparison.cells
    }
    return {key: each.figures for key, each in found.items() if each is not None}


def unprotected_figures(comparison: Findings, guest: str) -> dict[str, float]:
    """Give the medians of a guest's figures before it was protected, over all measurements.

    Returns
    -------
    dict
        Those of ``work_per_ms``, ``latency_ms`` and ``latency_p99_ms``, as in a `Workload`, that
        were measured.
    """
    measured = [each.unprotected for each in comparison.measurements if each.guest == guest]
    found = {}
    for name, key, factor in (
        ("work_per_ms", "work_per_s", 1e-3),
        ("latency_ms", "latency_p50_ms", 1.0),
        ("latency_p99_ms", "latency_p99_ms", 1.0),
    ):
        known = [value for each in measured if (value := each.get(key))]
        if known:
            found[name] = statistics.median(known) * factor
    return found


def axes_of(settings: Settings) -> Axes:
    """Give the axes of a strategy that models look at."""
    checkpoint = settings.checkpoint
    return Axes(
        trigger=checkpoint.trigger,
        capture=checkpoint.capture.value,
        encoding=checkpoint.encoding.value,
        layout=checkpoint.layout.value,
        output=checkpoint.output.value,
        pass_period_ms=checkpoint.pass_period,
    )


def fit_calibration(found: Sequence[Calibrated]) -> Calibration:
    """Fit the costs of a checkpoint to the calibrations of one pair."""
    names = ("pages", "work", "bytes", *(f"{each}_ms" for each in (*TIMES, *COPIES)))
    columns = {name: [each for one in found for each in one["columns"][name]] for name in names}
    settings = found[0]["settings"]
    sends_in_pause = CAPTURES[settings["capture"]].sends_in_pause
    known = KnownOfCosts(
        flushes_in_pause=sends_in_pause,
        bytes_by_work=settings["encoding"] in _BY_WORK,
        packet_pages=PACKET_PAGES if _PACKETS.search(settings["transport"]) else 0,
        threads_from=2 * PAGES_FOR_A_THREAD,
    )
    page_ms = statistics.median(map(first_write_ms, found))
    costs = fit_costs(columns, known)
    return Calibration(
        costs=costs,
        primary_memory_bytes=_median(found, "primary_memory_bytes"),
        secondary_memory_bytes=_median(found, "secondary_memory_bytes"),
        most_pages=max(columns["pages"], default=0.0),
        page_ms=page_ms,
        lost_beside=0.0 if sends_in_pause else lost_beside(found, page_ms),
        spread=_spread(costs, sends_in_pause, columns),
        preparation=preparation_of(found, costs),
    )


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
) -> PauseSpread:
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


def workload_of(
    settings: Settings, of_guest: Sequence[Calibrated], of_pair: Sequence[Calibrated]
) -> Workload:
    """Make the workload of a guest from calibrations.

    Parameters
    ----------
    settings
        Settings of the pair that is predicted.
    of_guest
        Calibrations with the same guest, under whatever strategy: its dirty pages, work and output
        depend on the guest alone.
    of_pair
        Those of the strategy, too: miscompares and compared output depend on both.
    """
    guest = settings.guest
    columns = {
        name: np.array([each for one in of_guest for each in one["columns"][name]], dtype=float)
        for name in ("work", "pages", "run_ms", "last_pause_ms", "pause_ms", "frames")
    }
    alone = statistics.median(each["unprotected"]["busy"] for each in of_guest)
    busy = min(1.0, alone * work_ratio(guest, of_guest[0]["settings"]))
    # A guest that cannot work more than all the time has no more work at a higher rate.
    ratio = busy / alone if alone > 0 else 1.0
    rate = statistics.median(each["unprotected"]["work_per_ms"] for each in of_guest)
    behind = [known for each in of_guest if (known := each["unprotected"].get("busy_behind"))]
    clients = _median(of_guest, "latency_ms") is not None
    if clients:
        # Requests come with the time, whether or not the guest stands still.
        columns["work"] = (columns["run_ms"] + columns["last_pause_ms"]) * rate
        frames_per_ms = answers_per_ms(columns)
    else:
        frames_per_ms = per_step(columns["frames"], columns["work"]) * rate * ratio
    compares = settings.checkpoint.output.value == "compare"
    return Workload(
        curve=curve_of(guest, of_guest, columns),
        work_per_ms=rate * ratio,
        frames_per_ms=frames_per_ms,
        clients=clients,
        latency_ms=_median(of_guest, "latency_ms"),
        latency_p99_ms=_median(of_guest, "latency_p99_ms"),
        matched_ms=_median(of_pair, "protected_latency_ms") if compares else None,
        matched_p99_ms=_median(of_pair, "protected_latency_p99_ms") if compares else None,
        miscompares_per_ms=_miscompares(of_pair),
        pace=pace_of(guest.program, busy, statistics.median(behind) if behind else None),
    )


def curve_of(
    guest: GuestSettings, found: Sequence[Calibrated], columns: Mapping[str, Numbers]
) -> DirtyCurve:
    """Give the curve of a guest's dirty pages: that of its trace, or that of its calibrations."""
    traced = next((curve for each in found if (curve := each.get("trace_curve"))), None)
    if traced is None:
        return measured_curve(columns["work"], columns["pages"], _pages(guest))
    work, pages = zip(*traced, strict=True)
    return DirtyCurve(work, pages, min(_pages(guest), pages[-1]))


def answers_per_ms(columns: Mapping[str, Numbers]) -> float:
    """Give the frames that answer clients in a millisecond, whether or not the guest stands still.

    The frames of a checkpoint are those since the last stop. Only stretches count in which no
    answer was held for so long that the guest's TCP sent it again.
    """
    time = columns["run_ms"] + columns["last_pause_ms"]
    soon = time < RTO_MS if (time < RTO_MS).any() else time > 0
    return per_step(columns["frames"][soon], time[soon])


def per_step(frames: Numbers, work: Numbers) -> float:
    """Give the frames of a step of work, or of a millisecond; a guest sends after so much work."""
    return float(frames.sum() / work.sum()) if work.sum() > 0 else 0.0


def _miscompares(found: Sequence[Calibrated]) -> float:
    """Give the checkpoints that colo-compare wanted in a millisecond in which the guest ran."""
    causes = [each for one in found for each in one["columns"]["cause"]]
    time = sum(sum(one["columns"]["run_ms"]) for one in found)
    return sum(each != "requested" for each in causes) / time if time else 0.0


def _pages(guest: GuestSettings) -> float:
    """Give the pages that a guest can write."""
    sizes = guest.block_sizes()
    if guest.working_set:
        sizes["pc.ram"] = min(sizes["pc.ram"], guest.working_set * PAGE_SIZE)
    return sum(sizes.values()) / PAGE_SIZE


def _median(found: Sequence[Calibrated], name: str) -> float | None:
    values = [each[name] for each in found if each[name] is not None]
    return statistics.median(values) if values else None


def _written(settings: Mapping[str, Any]) -> str:
    """Write settings as a key; without the digest of a trace, which a session alone finds out."""
    return repr(sorted(each for each in settings.items() if each[0] != "trace_sha256"))


_GUEST_NAMES = frozenset(GuestSettings().as_json())


def _guest_of(settings: Mapping[str, Any]) -> str:
    # Pages of an encoding that sends only some of them make no curve for others.
    names = _GUEST_NAMES | ({"encoding"} if settings["encoding"] == DIVERGENT else set())
    return _written({name: each for name, each in settings.items() if name in names})


#: Milliseconds for which a table of calibrations has the dirty pages.
_SHOWN_MS = 1, 10, 100


def calibration_rows(comparison: Findings) -> list[tuple[str, ...]]:
    """Give a table of the calibrations: a heading, and a row for each cell that has one."""
    calibrations, rows = calibrations_of(comparison), []
    for cell in comparison.cells:
        found = calibrations.fitted(cell.settings)
        if found is None:
            continue
        costs, load = found.costs, calibrations.workload(cell.settings)
        curve = (load.curve.at(each * load.work_per_ms) for each in _SHOWN_MS)
        rows.append(
            (
                str(cell),
                *(_shown(each) for each in (costs.pause, costs.commit, costs.loaded)),
                *(_shown_divided(each) for each in (costs.copy, costs.flush)),
                _shown_bytes(costs.sent),
                f"{load.work_per_ms:.3g}",
                f"{100 * load.pace.busy:.2g} %",
                f"{100 * found.lost_beside:.2g} %",
                f"{1000 * found.page_ms:.2f} µs",
                " ".join(f"{each:,.0f}" for each in curve),
            )
        )
    if not rows:
        return []
    pages = f"pages of {', '.join(map(str, _SHOWN_MS))} ms"
    heading = (
        *("calibration", "pause", "until commit", "until loaded", "copy", "flush", "bytes"),
        *("work/ms", "busy", "lost beside", "first write", pages),
    )
    return [heading, *rows]


def _shown_bytes(sent: ByteCosts) -> str:
    parts = [f"{sent.base:,.0f}"]
    if sent.per_page >= 0.5:
        parts.append(f"{sent.per_page:,.0f} a page")
    if sent.per_packet:
        parts.append(f"{sent.per_packet:,.0f} for {sent.packet_pages} pages")
    if sent.per_work:
        parts.append(f"{sent.per_work:.1f} a step")
    return " + ".join(parts)


def _shown_divided(cost: DividedCost) -> str:
    if cost.alone == cost.together:
        return _shown(cost.alone)
    return f"{_shown(cost.alone)}; from {cost.threads_from:,.0f} on {_shown(cost.together)}"


def _shown(cost: LinearCost) -> str:
    if not cost.base and not cost.per_page:
        return "–"
    return f"{cost.base:.2f} ms + {1000 * cost.per_page:.2f} µs a page"
