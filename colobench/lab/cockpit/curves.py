"""Plots of runs over each other: the curves of each run, for live views and for pages alike."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.compare.growth import Growth, grow
from colobench.lab.compare.metrics import BYTES, DEGRADATION, LATENCY, PAUSE
from colobench.lab.report.run_summary import PAUSE_PHASES

Column = npt.NDArray[np.float64]

#: Most points of a curve that are drawn; of more, every second, third, … is.
POINTS = 500
#: Points of a distribution.
PERCENTS = np.arange(0.0, 100.5, 0.5)
#: Least value on a logarithmic axis, milliseconds.
LEAST_MS = 1e-3
#: Protected seconds before which a degradation says too little.
EARLY_SECONDS = 0.3


class CurveStyle(enum.Enum):
    """Ways in which a curve is drawn."""

    DOTS = "dots"
    LINE = "line"
    PREDICTED = "predicted"


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve of a run: as many values of x as of y.

    Attributes
    ----------
    x, y
        Coordinates.
    style
        Way in which it is drawn.
    label
        Name of the curve among those of its run; empty if there is one.
    """

    x: Column
    y: Column
    style: CurveStyle = CurveStyle.LINE
    label: str = ""


@dataclass(frozen=True, slots=True)
class OverlayPlot:
    """A plot.

    Attributes
    ----------
    title, text
        Heading, and a sentence on what is drawn.
    x_label, y_label
        Labels of the axes.
    curves
        Function that gives a run's curves.
    x_is_log, y_is_log
        Whether an axis is logarithmic.
    """

    title: str
    text: str
    x_label: str
    y_label: str
    curves: Callable[[CockpitRun, Growth], list[Curve]]
    x_is_log: bool = False
    y_is_log: bool = False


def growth_of(run: CockpitRun) -> Growth:
    """Give how the figures of a run have grown so far."""
    return grow([run.underway])


def phase_means(run: CockpitRun) -> dict[str, float]:
    """Give the mean of each phase of a run's pauses, milliseconds; empty without checkpoints."""
    records = run.records()
    if not records:
        return {}
    # The last phase is a remainder, and may be slightly negative.
    means = {phase: float(records.column(f"{phase}_ms").mean()) for phase in PAUSE_PHASES}
    return {phase: max(0.0, mean) for phase, mean in means.items()}


def _thin(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    style: CurveStyle = CurveStyle.LINE,
    label: str = "",
) -> Curve:
    """Make a curve of at most `POINTS` of some points, evenly chosen."""
    step = -(-len(x) // POINTS) or 1
    return Curve(x[::step].astype(np.float64), y[::step].astype(np.float64), style, label)


def _level(
    run: CockpitRun, name: str, factor: float, growth: Growth, least: float = -np.inf
) -> list[Curve]:
    """Draw a predicted figure, at least `least`, as a line through all measured time."""
    if name not in run.predicted:
        return []
    end = float(growth.seconds.max(initial=0.0)) or 1.0
    value = max(least, run.predicted[name] * factor)
    return [Curve(np.array([0.0, end]), np.array([value, value]), CurveStyle.PREDICTED)]


def _upright(run: CockpitRun, name: str) -> list[Curve]:
    """Draw a predicted median as an upright line."""
    if name not in run.predicted:
        return []
    value = max(LEAST_MS, run.predicted[name])
    return [Curve(np.array([value, value]), np.array([0.0, 100.0]), CurveStyle.PREDICTED)]


def _distribution(values: Column) -> list[Curve]:
    if not len(values):
        return []
    return [Curve(np.percentile(np.maximum(values, LEAST_MS), PERCENTS), PERCENTS)]


def _pauses(run: CockpitRun, growth: Growth) -> list[Curve]:
    measured = _thin(growth.seconds, np.maximum(growth.pause_ms, LEAST_MS), CurveStyle.DOTS)
    return [measured, *_level(run, PAUSE.name, PAUSE.factor, growth, LEAST_MS)]


def _of_records(run: CockpitRun, name: str, factor: float = 1.0, label: str = "") -> list[Curve]:
    """Draw what the records have of each checkpoint; nothing of those that have none."""
    began = run.began
    if began is None:
        return []
    found = [
        (dict(each.primary_marks)["stop"] / 1e9 - began, getattr(each, name) * factor)
        for each in run.records()
        if getattr(each, name) is not None
    ]
    if not found:
        return []
    at, values = map(np.array, zip(*found, strict=True))
    return [_thin(at, values, CurveStyle.DOTS, label)]


def _disk_writes(run: CockpitRun, growth: Growth) -> list[Curve]:
    names = (("p50", "disk_write_p50_ms"), ("p99", "disk_write_p99_ms"))
    return [curve for label, name in names for curve in _of_records(run, name, label=label)]


def _traffic(run: CockpitRun, growth: Growth) -> list[Curve]:
    found = [_thin(growth.seconds, growth.bytes * BYTES.factor)]
    if BYTES.name in run.predicted:
        end = float(growth.seconds.max(initial=0.0)) or 1.0
        slope = run.predicted[BYTES.name] * BYTES.factor
        ends = np.array([0.0, end])
        found.append(Curve(ends, ends * slope, CurveStyle.PREDICTED))
    return found


def _lost(run: CockpitRun, growth: Growth) -> list[Curve]:
    late = growth.seconds >= EARLY_SECONDS
    shares = growth.degradation[late] * DEGRADATION.factor
    finite = np.isfinite(shares)
    curve = _thin(growth.seconds[late][finite], shares[finite])
    return [curve, *_level(run, DEGRADATION.name, DEGRADATION.factor, growth)]


def _memory(run: CockpitRun, growth: Growth) -> list[Curve]:
    usage = list(run.usage)
    found = []
    for role in dict.fromkeys(each.role for each in usage):
        own = [each for each in usage if each.role == role]
        seconds = np.array([each.seconds for each in own])
        sizes = np.array([each.resident_bytes / 2**20 for each in own])
        found.append(_thin(seconds, sizes, CurveStyle.LINE, role))
    return found


_TIME, _UP_TO = "protected time (s)", "share up to it (%)"
#: The plots, by name. That of phases has no curves but bars, see `phase_means`.
PLOTS = {
    "pause": OverlayPlot(
        "Pause over time",
        "The pause of each checkpoint. Dashed: the median that the model predicts.",
        *(_TIME, "pause (ms, logarithmic)", _pauses),
        y_is_log=True,
    ),
    "distribution": OverlayPlot(
        "Distribution of the pause",
        "Checkpoints whose pause was at most so long. Dashed: the predicted median.",
        *("pause (ms, logarithmic)", _UP_TO),
        lambda run, growth: [*_distribution(growth.pause_ms), *_upright(run, PAUSE.name)],
        x_is_log=True,
    ),
    "phases": OverlayPlot(
        "Pause by phase",
        "The mean of each phase of the pauses.",
        *("mean pause (ms)", ""),
        lambda run, growth: [],
    ),
    "pages": OverlayPlot(
        "Pages of each checkpoint",
        "Pages of 4 KiB that were sent.",
        *(_TIME, "pages", lambda run, growth: _of_records(run, "pages")),
    ),
    "bytes": OverlayPlot(
        "Bytes from primary to secondary",
        "All that was sent so far. Dashed: predicted.",
        *(_TIME, "sent so far (MB)", _traffic),
    ),
    "degradation": OverlayPlot(
        "Degradation",
        "Work, or answers, that the guest lost so far, against the same guest unprotected. "
        "Dashed: predicted.",
        *(_TIME, "degradation so far (%)", _lost),
    ),
    "latency": OverlayPlot(
        "Latency of a client",
        "Answers of a guest that serves (kv) that came after at most so long. Dashed: the "
        "predicted median.",
        *("latency (ms, logarithmic)", _UP_TO),
        lambda run, growth: [*_distribution(growth.latencies_ms), *_upright(run, LATENCY.name)],
        x_is_log=True,
    ),
    "memory": OverlayPlot(
        "Memory of each process",
        "Resident memory, guest RAM and RAM cache among it.",
        *(_TIME, "resident (MiB)", _memory),
    ),
    "disk": OverlayPlot(
        "Writes to the guest's disk",
        "The time until a write was done on both sides, median and p99 of those since the "
        "checkpoint before.",
        *(_TIME, "write (ms)", _disk_writes),
    ),
    "undo": OverlayPlot(
        "Disk to be undone",
        "Bytes of the secondary's hidden layer at each commit: what a takeover would undo.",
        *(_TIME, "hidden layer (MiB)"),
        lambda run, growth: _of_records(run, "disk_hidden_bytes", 2**-20),
    ),
}
#: The plots that are drawn if nobody chooses others.
USUAL_PLOTS = ("pause", "distribution", "phases", "bytes", "degradation", "memory")


def curves_of(run: CockpitRun, names: Sequence[str]) -> dict[str, list[Curve]]:
    """Give a run's curves in each of some plots."""
    growth = growth_of(run)
    return {name: PLOTS[name].curves(run, growth) for name in names}
