"""A page of all runs of a cockpit: plots over each other, a table, and the settings of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJSTickFormatter

from colobench.lab.cockpit.curves import PLOTS, Curve, CurveStyle, curves_of, growth_of, phase_means
from colobench.lab.cockpit.export import changed_settings, repeat_cell, runs_as_json
from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.compare.metrics import METRICS
from colobench.lab.compare.plots import colour_of
from colobench.lab.report.page import PlotCard, write_page
from colobench.lab.report.palette import PHASE_COLOURS
from colobench.lab.report.plot import legend_above, make_plot

#: Shapes of dots and dashes of lines, which tell runs apart without colours.
MARKERS = ("circle", "square", "triangle", "diamond")
DASHES = ("solid", "dotted", "dotdash", "dashdot")
_SHORT_NUMBER = CustomJSTickFormatter(code="return String(+tick.toPrecision(3))").code
#: Predicted figures beside the measured ones, in a table.
_PREDICTED = {each.name: each for each in METRICS}


def write_runs_page(path: str | Path, runs: Sequence[CockpitRun]) -> Path:
    """Write a page that opens offline, and out of which ``--settings FILE#2`` reads.

    Parameters
    ----------
    path
        The file to write; an old one is replaced.
    runs
        The runs, in order.

    Returns
    -------
    Path
        The file written.
    """
    failed = [each.name for each in runs if each.error]
    checkpoints = sum(len(each.records()) for each in runs)
    unequal = any(record.verified is False for each in runs for record in each.records())
    values = {
        "state": "bad" if failed or unequal else "open",
        "verdict": f"{len(runs)} runs, {checkpoints:,} checkpoints",
        "reasons": [f"{each.name} failed: {each.error}" for each in runs if each.error],
        "figures": figure_rows(runs),
        "cells": [(each.name, repeat_cell(each), changed_settings(each.settings)) for each in runs],
        "written": json.loads(runs_as_json(runs)),
    }
    return write_page(path, "cockpit/templates/cockpit.html", _cards(runs), values)


def figure_rows(runs: Sequence[CockpitRun]) -> list[tuple[str, ...]]:
    """Give a table of the measured figures, and of the predicted ones in brackets."""
    heading = ("run", "checkpoints", "pause, p50", "pause, p99", "sent", "degradation", "latency")
    rows: list[tuple[str, ...]] = [heading]
    for run in runs:
        growth = growth_of(run)
        pause = [float(np.percentile(growth.pause_ms, p)) for p in (50, 99) if len(growth.pause_ms)]
        seconds = float(growth.seconds.max(initial=0.0))
        measured = {
            "pause_p50_ms": pause[0] if pause else None,
            "pause_p99_ms": pause[1] if pause else None,
            "bytes_per_s": float(growth.bytes[-1]) / seconds if seconds else None,
            "degradation": float(growth.degradation[-1]) if len(growth.degradation) else None,
            "latency_p50_ms": float(np.median(growth.latencies_ms))
            if len(growth.latencies_ms)
            else None,
        }
        shown = [_shown(name, value, run) for name, value in measured.items()]
        rows.append((run.name, f"{len(run.records()):,}", *shown))
    return rows


def _shown(name: str, value: float | None, run: CockpitRun) -> str:
    metric = _PREDICTED[name]
    predicted = run.predicted.get(name)
    words = metric.show(value)
    return words if predicted is None else f"{words} ({metric.show(predicted)})"


def _cards(runs: Sequence[CockpitRun]) -> list[PlotCard]:
    curves = [curves_of(run, list(PLOTS)) for run in runs]
    cards = []
    for name, plot in PLOTS.items():
        if name == "phases":
            drawn = _draw_phases(runs)
        else:
            found = [each[name] for each in curves]
            some = any(len(curve.x) for of_run in found for curve in of_run)
            drawn = _draw(name, runs, found) if some else None
        cards.append(PlotCard(plot.title, plot.text, drawn, "Nothing was measured."))
    return cards


def _draw(name: str, runs: Sequence[CockpitRun], found: Sequence[Sequence[Curve]]) -> Any:
    plot = PLOTS[name]
    axes: dict[str, Any] = {"x_axis_type": "log"} if plot.x_is_log else {}
    axes |= {"y_axis_type": "log"} if plot.y_is_log else {}
    drawn = make_plot(plot.x_label, plot.y_label, **axes)
    for axis, is_log in ((drawn.xaxis, plot.x_is_log), (drawn.yaxis, plot.y_is_log)):
        if is_log:
            axis.formatter = CustomJSTickFormatter(code=_SHORT_NUMBER)
    for run, curves in zip(runs, found, strict=True):
        for number, curve in enumerate(curves):
            if len(curve.x):
                _draw_curve(drawn, run, curve, number)
    legend_above(drawn).ncols = 1
    return drawn


def _draw_curve(plot: Any, run: CockpitRun, curve: Curve, number: int) -> None:
    colour = colour_of(run.number)
    named: dict[str, Any] = {"legend_label": run.name}
    if curve.style is CurveStyle.DOTS:
        marker = MARKERS[run.number % len(MARKERS)]
        plot.scatter(curve.x, curve.y, size=4, alpha=0.6, color=colour, marker=marker, **named)
    elif curve.style is CurveStyle.PREDICTED:
        plot.line(curve.x, curve.y, line_width=1.5, color=colour, line_dash="dashed")
    else:
        if curve.label:
            named = {"legend_label": f"{run.name}: {curve.label}"}
        dash = DASHES[number % len(DASHES)] if curve.label else "solid"
        plot.line(curve.x, curve.y, line_width=2, color=colour, line_dash=dash, **named)


def _draw_phases(runs: Sequence[CockpitRun]) -> Any:
    means = {run.name: phase_means(run) for run in runs}
    names = [name for name, found in means.items() if found]
    if not names:
        return None
    phases = [phase for phase in means[names[0]] if any(means[name][phase] > 0 for name in names)]
    columns = {phase: [means[name][phase] for name in names] for phase in phases}
    plot = make_plot("mean pause (ms)", "", height=110 + 34 * len(names), y_range=names[::-1])
    plot.hbar_stack(
        phases,
        y="run",
        height=0.7,
        source=ColumnDataSource({"run": names, **columns}),
        color=[PHASE_COLOURS[phase] for phase in phases],
        legend_label=phases,
    )
    legend_above(plot).ncols = 4
    return plot
