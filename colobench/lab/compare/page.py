"""The page of a comparison: the answer in words, tables, plots, and settings to repeat it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from colobench.lab.compare.beside import rate_notes
from colobench.lab.compare.cells import Cell
from colobench.lab.compare.findings import Findings, Group, MetricRow, Predictions
from colobench.lab.compare.judged import Judge
from colobench.lab.compare.metrics import METRICS, Metric
from colobench.lab.compare.models import calibration_rows
from colobench.lab.compare.plots import colour_of, comparison_plots
from colobench.lab.compare.sentences import headline, model_notes, notes, verdicts
from colobench.lab.report.page import page_environment, write_page
from colobench.lab.report.palette import BAD_COLOUR
from colobench.settings.file import KEY

_TABLES = "compare/templates/tables.html"


class Figure(NamedTuple):
    """A figure in a table.

    Attributes
    ----------
    text, spread
        Median, and its interval or nothing.
    predicted
        Prediction of a model and its error, or nothing.
    state
        Of the prediction: "exceeds" its bound, is "not judged", or nothing.
    best
        Whether it is the winner, or ties with the best.
    """

    text: str
    spread: str
    predicted: str
    state: str
    best: bool


def write_comparison_page(
    path: Path | str, comparison: Findings, predictions: Predictions | None
) -> Path:
    """Write the page of a comparison, which need not be complete.

    Parameters
    ----------
    path
        File to write; an old one is replaced.
    comparison
        Results that are shown.
    predictions
        Values of metrics that a model predicts, shown beside those measured; None takes those of
        the comparison's own models.
    """
    judge = Judge(comparison, predictions)
    doubtful = any(map(comparison.marks, comparison.cells))
    complete = comparison.measurements and not comparison.missing and not doubtful
    values = {
        "state": "good" if complete else "open",
        "verdict": headline(comparison),
        "sentences": verdicts(comparison),
        "notes": [*notes(comparison), *model_notes(judge), *rate_notes(comparison)],
        "groups": _groups(comparison, judge),
        "calibrations": calibration_rows(comparison),
        "settings": [
            (str(cell), json.dumps(cell.settings.as_json(), indent=1)) for cell in comparison.cells
        ],
        "written": [{KEY: cell.settings.as_json()} for cell in comparison.cells],
        "comparison": comparison.settings.of_measurement(),
        "machine": comparison.machine | {"memcpy_beside_cells": _checks(comparison)},
    }
    plots = comparison_plots(comparison, judge.predicted)
    return write_page(path, "compare/templates/compare.html", plots, values)


def tables_html(comparison: Findings, more: Sequence[str] = ()) -> str:
    """Write the verdict and the tables as HTML for a notebook; `more` are further notes."""
    judge = Judge(comparison)
    template = page_environment().get_template("compare/templates/notebook.html")
    return template.render(
        sentences=verdicts(comparison),
        notes=[*notes(comparison), *model_notes(judge), *more],
        groups=_groups(comparison, judge),
        bad=BAD_COLOUR,
    )


def _checks(comparison: Findings) -> str:
    rates = [rate for each in comparison.measurements for rate in each.memcpy_gb_per_s]
    return f"{min(rates)} to {max(rates)} GB/s" if rates else "not checked"


def _groups(comparison: Findings, judge: Judge) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "strategies": [
                (cell.strategy, colour_of(number), comparison.marks(cell))
                for number, cell in enumerate(group.cells)
            ],
            "rows": [
                (row.metric.heading, row.verdict(), _figures(group, row, judge))
                for row in _rows(group, judge.predicted)
            ],
            "unprotected": _unprotected(group),
        }
        for group in comparison.groups()
    ]


def _rows(group: Group, predictions: Predictions) -> list[MetricRow]:
    """Give the metrics that were measured, or predicted."""
    predicted = {name for cell in group.cells for name in predictions.get(cell.key, {})}
    rows = (*map(group.row, METRICS), group.link_row())
    return [row for row in rows if row.estimates or row.metric.name in predicted]


def _figures(group: Group, row: MetricRow, judge: Judge) -> list[Figure]:
    return [_figure(row, cell, judge) for cell in group.cells]


def _figure(row: MetricRow, cell: Cell, judge: Judge) -> Figure:
    metric, found = row.metric, row.estimates.get(cell.strategy)
    spread = ""
    if found is not None and found.low is not None and found.high is not None:
        low, high = (metric.show(each).split()[0] for each in (found.low, found.high))
        spread = f"{low} … {high}"
    best = len(row.estimates) > 1 and cell.strategy in row.best
    text = metric.show(None if found is None else found.median)
    judged = judge.value(cell, metric, found)
    if judged is None:
        return Figure(text, spread, "", "", best)
    state = "exceeds" if judged.exceeds else "not judged" if judged.reason else ""
    return Figure(text, spread, f"model {judged.show(metric)}", state, best)


def _unprotected(group: Group) -> str:
    """Describe the same guest without a secondary, which degradation compares with."""
    parts = []
    for name, words, unit in (
        ("work_per_s", "work", "steps/s"),
        ("answers_per_s", "answers", "/s"),
        ("latency_p50_ms", "output latency p50", "ms"),
        ("latency_p99_ms", "p99", "ms"),
    ):
        values = [each.unprotected.get(name) for each in group.measurements]
        known = sorted(value for value in values if value is not None)
        if known:
            middle = known[len(known) // 2]
            parts.append(f"{words} {Metric(name, words, unit, '').show(middle)}")
    return ", ".join(parts)
