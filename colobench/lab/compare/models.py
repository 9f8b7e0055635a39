"""Predictions beside measurements: inputs of the models from calibrations, and their errors.

`predictions` gives those of all cells of a comparison; `predict_settings` those of any settings.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from colobench.guest.settings import PAGE_SIZE, GuestSettings
from colobench.guest.tcp_output import RTO_MS
from colobench.lab.compare.calibrate import (
    UNPROTECTED_SECONDS,
    calibration_settings,
    work_ratio,
)
from colobench.lab.compare.cells import Cell
from colobench.lab.compare.findings import Findings, Predictions
from colobench.lab.compare.fitted import Calibrated, fit_calibration, joined, median_of, pace_of
from colobench.lab.compare.measure import SETTLING_SECONDS
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.compare.values import are_numbers
from colobench.settings.settings import Settings
from colobench.strategy.model.checkpoint import DIVERGENT
from colobench.strategy.model.costs import (
    ByteCosts,
    DividedCost,
    LinearCost,
)
from colobench.strategy.model.curve import DirtyCurve, Numbers, measured_curve
from colobench.strategy.model.inputs import (
    NO_CONTENTS,
    Axes,
    Calibration,
    Contents,
    LinkProperties,
    Workload,
)
from colobench.strategy.model.predict import Prediction, predict


class MeasuredTime(NamedTuple):
    """Time of a guest that is measured; milliseconds.

    Attributes
    ----------
    alone
        Time that the guest is measured before it is protected.
    begin, lasts
        Time from when the pair enters COLO to the beginning of what is measured, and its length.
    """

    alone: float
    begin: float
    lasts: float


def usual_time(settings: ComparisonSettings) -> MeasuredTime:
    """Give the time that is to be measured with these settings."""
    begin = 1000 * SETTLING_SECONDS
    return MeasuredTime(1000 * settings.unprotected_seconds, begin, 1000 * settings.seconds)


#: With the usual settings.
USUAL_TIME = usual_time(ComparisonSettings())


def measured_time(comparison: Findings, cell: Cell) -> MeasuredTime:
    """Give the time that was measured of a cell, or is to be measured.

    It ends with a checkpoint, and a guest that replays a trace is measured for whole passes of it.
    """
    usual, found = usual_time(comparison.settings), []
    for each in comparison.measurements:
        columns = each.checkpoints
        times = columns.get("time", [])
        if each.key == cell.key and times and are_numbers(list(times)):
            begin = times[0] - columns["stopped_s"][0]
            found.append((1000 * begin, 1000 * max(columns["stopped_s"])))
    if not found:
        return usual
    begin, lasts = (max(0.0, statistics.median(each)) for each in zip(*found, strict=True))
    return usual._replace(begin=begin, lasts=lasts)


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

    def workload(self, settings: Settings, measured: MeasuredTime = USUAL_TIME) -> Workload:
        """Give the workload of a guest that was calibrated, in the time that is measured."""
        guest = _guest_of(calibration_settings(settings).as_json())
        of_guest, of_pair = self._by_guest[guest], self.of_pair(settings)
        found = workload_of(settings, of_guest, of_pair)
        contents = contents_of(found.work_per_ms, of_pair, measured)
        return dataclasses.replace(found, contents=contents)

    def predict(
        self,
        settings: Settings,
        unprotected: Mapping[str, float] | None = None,
        link: LinkProperties | None = None,
        measured: MeasuredTime = USUAL_TIME,
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
        measured
            Time that is predicted: at first each page is sent for the first time.

        Returns
        -------
        Prediction
            None if there is no calibration for it, or no model of its strategy.
        """
        calibration = self.fitted(settings)
        if calibration is None:
            return None
        changes: dict[str, Any] = dict(unprotected or {})
        workload = self.workload(settings, measured)
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
    found = {}
    for cell in comparison.cells:
        unprotected = unprotected_figures(comparison, cell.guest)
        measured = measured_time(comparison, cell)
        found[cell.key] = calibrations.predict(cell.settings, unprotected, measured=measured)
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
    clients = median_of(of_guest, "latency_ms") is not None
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
        latency_ms=median_of(of_guest, "latency_ms"),
        latency_p99_ms=median_of(of_guest, "latency_p99_ms"),
        matched_ms=median_of(of_pair, "protected_latency_ms") if compares else None,
        matched_p99_ms=median_of(of_pair, "protected_latency_p99_ms") if compares else None,
        miscompares_per_ms=_miscompares(of_pair),
        pace=pace_of(guest.program, busy, statistics.median(behind) if behind else None),
    )


def contents_of(
    work_per_ms: float, found: Sequence[Calibrated], measured: MeasuredTime
) -> Contents:
    """Give what an encoding by contents finds while a cell is measured.

    Pages that are sent for the first time are those of the curve of all pages since the pair
    entered COLO, from the beginning of that time to its end. The guest's work before it entered
    COLO is that of the calibration at the cell's rate, and what the cell's guest does longer alone.

    Parameters
    ----------
    work_per_ms
        Work in a millisecond of the cell's guest.
    found
        Calibrations of its pair.
    measured
        Time that is measured.
    """
    rates = [each["unprotected"]["work_per_ms"] for each in found]
    if found and all(each["columns"].get("sent_pages") for each in found) and min(rates) > 0:
        # The guests are some ticks apart when they stop, so these are pages of so much time.
        sent = [statistics.fmean(each["columns"]["sent_pages"]) for each in found]
        return Contents(differing=statistics.fmean(sent) * work_per_ms / statistics.fmean(rates))
    known = [bool(each["columns"].get("known_pages")) for each in found]
    if not found or not all(known) or min(rates) <= 0:
        return NO_CONTENTS
    begin, end = (work_per_ms * at for at in (measured.begin, measured.begin + measured.lasts))
    curves = [_known_pages(each["columns"]) for each in found]
    first = statistics.fmean(each.at(end) - each.at(begin) for each in curves)
    columns = joined(found, ("age", "colo_work"))
    before = statistics.median(np.subtract(columns["age"], columns["colo_work"]))
    before = before / statistics.median(rates) + measured.alone - 1000 * UNPROTECTED_SECONDS
    age = before * work_per_ms + (begin + end) / 2
    per_step = max(0.0, first) / (end - begin) if end > begin else 0.0
    return Contents(first_per_step=per_step, age=age)


def _known_pages(columns: Mapping[str, Sequence[float]]) -> DirtyCurve:
    """Give the curve of all pages that were sent since the pair entered COLO."""
    work, known = columns["colo_work"], columns["known_pages"]
    # The checkpoint before the first has no other columns.
    points = {work[0] - columns["work"][0]: known[0] - columns["first_pages"][0]}
    points |= dict(zip(work, known, strict=True))
    some = {at: pages for at, pages in points.items() if at > 0 and pages > 0}
    return DirtyCurve(tuple(some), tuple(some.values()), math.inf)


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


def _written(settings: Mapping[str, Any]) -> str:
    """Write settings as a key: without the seed, and a trace's digest, which a session finds."""
    others = {"seed", "trace_sha256"}
    return repr(sorted(each for each in settings.items() if each[0] not in others))


_GUEST_NAMES = frozenset(GuestSettings().as_json())


def _guest_of(settings: Mapping[str, Any]) -> str:
    # Pages that either of two guests has written make no curve for one.
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
    if sent.per_first:
        parts.append(f"{sent.per_first:,.0f} a page sent whole")
    if sent.per_packet:
        parts.append(f"{sent.per_packet:,.0f} for {sent.packets.most_pages} pages")
    if sent.per_work:
        parts.append(f"{sent.per_work:.1f} a step")
    if sent.per_age:
        parts.append(f"{1000 * sent.per_age:.3g} a page and 1,000 steps of all")
    return " + ".join(parts)


def _shown_divided(cost: DividedCost) -> str:
    if cost.alone == cost.together:
        return _shown(cost.alone)
    return f"{_shown(cost.alone)}; from {cost.threads_from:,.0f} on {_shown(cost.together)}"


def _shown(cost: LinearCost) -> str:
    if not cost.base and not cost.per_page:
        return "–"
    return f"{cost.base:.2f} ms + {1000 * cost.per_page:.2f} µs a page"
