"""Predictions judged: the error of each, whether it exceeds its bound, and why it is not judged."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple

from colobench.lab.compare.cells import Cell
from colobench.lab.compare.findings import DRIFT_LIMIT, Findings, Predictions
from colobench.lab.compare.fitted import fit_calibration
from colobench.lab.compare.metrics import Metric
from colobench.lab.compare.models import (
    Calibrations,
    axes_of,
    calibrations_of,
    predictions,
)
from colobench.lab.compare.statistics import Estimate
from colobench.strategy.model.costs import CheckpointCosts
from colobench.strategy.model.predict import has_model

#: Checkpoints of a measurement below which its figures say nothing of a mean interval.
FEW_CHECKPOINTS = 3


class Bound(NamedTuple):
    """Largest error that a model may have.

    Attributes
    ----------
    share
        Part of the measured value.
    least
        Error in the metric's own unit that is accepted however small the value is.
    """

    share: float
    least: float = 0.0

    def of(self, measured: float) -> float:
        """Give the largest error for a measured value."""
        return max(self.share * abs(measured), self.least)


#: Bounds by the names of metrics; the errors of other metrics are printed only.
BOUNDS = {
    "bytes_per_s": Bound(0.02),
    "pause_p50_ms": Bound(0.15, 0.2),
    # A measurement of 1,000 ticks may miss a few of them at its ends, and by other work.
    "degradation": Bound(0.25, 0.005),
    "latency_p50_ms": Bound(0.25),
    "latency_p99_ms": Bound(0.25),
}


class JudgedValue(NamedTuple):
    """A prediction beside its measurement.

    Attributes
    ----------
    predicted
        Value in the metric's own unit.
    error
        Predicted by measured, less 1; None if nothing was measured, or 0.
    exceeds
        Whether the error exceeds its bound.
    reason
        Half a sentence on why it is not judged, or nothing.
    """

    predicted: float
    error: float | None
    exceeds: bool
    reason: str

    def show(self, metric: Metric) -> str:
        """Write the prediction, its error, and a mark: ! exceeds its bound, ? is not judged."""
        error = "" if self.error is None else f" ({100 * self.error:+.{self._places}f} %)"
        mark = " !" if self.exceeds else " ?" if self.reason else ""
        return f"{metric.show(self.predicted)}{error}{mark}"

    @property
    def _places(self) -> int:
        return 1 if self.error is not None and abs(self.error) < 0.1 else 0


class Judge:
    """Judge of the models of a comparison.

    Parameters
    ----------
    comparison
        Comparison, which need not be complete.
    predicted
        Predicted values; None takes those of the models.
    """

    def __init__(self, comparison: Findings, predicted: Predictions | None = None) -> None:
        self._comparison = comparison
        self._calibrations = calibrations_of(comparison)
        self.predicted = predictions(comparison) if predicted is None else predicted
        self._doubts = {
            cell.key: doubt(comparison, cell, self._calibrations)
            for cell in comparison.cells
            if cell.key in self.predicted
        }

    def value(self, cell: Cell, metric: Metric, measured: Estimate | None) -> JudgedValue | None:
        """Judge the prediction of a metric of a cell; None if there is none."""
        found = self.predicted.get(cell.key, {}).get(metric.name)
        if found is None:
            return None
        return judge_value(found, measured, BOUNDS.get(metric.name), self._doubts[cell.key])

    def without_model(self) -> list[Cell]:
        """Give the cells of a comparison with models whose strategy has none."""
        if not self._comparison.settings.models:
            return []
        cells = self._comparison.cells
        return [cell for cell in cells if not has_model(axes_of(cell.settings))]

    def doubts(self) -> Mapping[str, list[Cell]]:
        """Give the reasons for which cells are not judged, with their cells."""
        found: dict[str, list[Cell]] = {}
        for cell in self._comparison.cells:
            if reason := self._doubts.get(cell.key):
                found.setdefault(reason, []).append(cell)
        return found


def judge_value(
    predicted: float, measured: Estimate | None, bound: Bound | None, doubt: str
) -> JudgedValue:
    """Judge a prediction of a metric.

    It is not judged if there is a doubt, or if it lies within the interval of the rounds although
    its error exceeds the bound: then the rounds differ by more than the bound.

    Parameters
    ----------
    predicted, measured
        Value, and the estimate over rounds; None if nothing was measured.
    bound
        Largest error; None judges nothing.
    doubt
        Half a sentence on why nothing is judged, or nothing.
    """
    if measured is None:
        return JudgedValue(predicted, None, False, doubt)
    middle = measured.median
    error = predicted / middle - 1 if middle else None
    if bound is None or doubt:
        return JudgedValue(predicted, error, False, doubt if bound else "")
    if abs(predicted - middle) <= bound.of(middle):
        return JudgedValue(predicted, error, False, "")
    low, high = measured.low, measured.high
    if low is not None and high is not None and low <= predicted <= high:
        return JudgedValue(predicted, error, False, "the rounds differ by more than the bound")
    return JudgedValue(predicted, error, True, "")


def doubt(comparison: Findings, cell: Cell, calibrations: Calibrations) -> str:
    """Say why the models of a cell are not judged; nothing if they are.

    The machine's own checks are the copy beside each measurement, and the calibrations: these are
    runs with fixed settings, one in each round, so they differ as much as the machine does.
    """
    if cell.settings.guest.disks:
        return "they leave out the disks of its guest"
    if comparison.drifted(cell):
        return "the rate of memcpy beside it drifted"
    if not comparison.held(cell):
        return "the link did not hold its rate"
    if drift_of_calibrations(calibrations, cell) > DRIFT_LIMIT:
        return "its calibrations drifted from round to round"
    if drift_of_work(comparison, cell) > DRIFT_LIMIT:
        return "its unprotected guest worked at another rate from round to round"
    own = [each for each in comparison.measurements if each.key == cell.key]
    if any(len(each.checkpoints["pause_ms"]) < FEW_CHECKPOINTS for each in own):
        return "a round had too few checkpoints"
    return ""


def drift_of_calibrations(calibrations: Calibrations, cell: Cell) -> float:
    """Give the largest share by which the pause of a calibration differs from their median.

    Each is fitted by itself, and asked for the pause of the median number of pages.
    """
    found = calibrations.of_pair(cell.settings)
    if len(found) < 2:
        return 0.0
    pages = statistics.median(each for one in found for each in one["columns"]["pages"])
    pauses = [_pause(fit_calibration([one]).costs, pages) for one in found]
    middle = statistics.median(pauses)
    return max(abs(each / middle - 1) for each in pauses) if middle else 0.0


def _pause(costs: CheckpointCosts, pages: float) -> float:
    return costs.pause.at(pages) + costs.copy.at(pages) + costs.flush.at(pages)


def drift_of_work(comparison: Findings, cell: Cell) -> float:
    """Give the largest share by which the rate of the unprotected guest differs from its median."""
    own = [each.unprotected for each in comparison.measurements if each.key == cell.key]
    name = "answers_per_s" if cell.serves else "work_per_s"
    rates = [rate for each in own if (rate := each.get(name))]
    middle = statistics.median(rates) if rates else 1.0
    return max((abs(rate / middle - 1) for rate in rates), default=0.0)
