"""Live plots of a cockpit's runs over each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from colobench.lab.cockpit.curves import PLOTS, Curve, curves_of, phase_means
from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.compare.plots import colour_of
from colobench.lab.report.palette import PHASE_COLOURS, PHASE_HATCHES
from colobench.lab.report.run_summary import PAUSE_PHASES
from colobench.ui.base.feed import LiveView, read_module

#: What is drawn of a run that is over, by the chosen plots, as it does not change.
_Drawn = tuple[dict[str, list[Curve]], dict[str, float]]


class OverlayPlots(LiveView):
    """Shows runs over each other, each in its colour and shape; dashed lines are predicted."""

    _esm = read_module("svg.js", "overlay_plots.js")

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[tuple[int, tuple[str, ...]], _Drawn] = {}

    def show(self, runs: Sequence[CockpitRun], plots: Sequence[str]) -> None:
        """Show some runs in some plots, unless they are shown already."""
        chosen = tuple(plots)
        version = (
            chosen,
            tuple((id(r), r.name, len(r.session.records), len(r.usage), r.stage) for r in runs),
            tuple((len(r.underway.answers), len(r.predicted)) for r in runs),
        )
        self.update(version, lambda: self._frame(runs, chosen))

    def _frame(
        self, runs: Sequence[CockpitRun], chosen: tuple[str, ...]
    ) -> tuple[dict[str, Any], bytes]:
        drawn = [self._draw(run, chosen) for run in runs]
        plots, data = [], []
        for name in chosen:
            curves = []
            for run, (of_run, _) in zip(runs, drawn, strict=True):
                for curve in of_run[name]:
                    curves.append(
                        {
                            "run": run.number,
                            "style": curve.style.value,
                            "label": curve.label,
                            "rows": len(curve.x),
                        }
                    )
                    data += [curve.x, curve.y]
            plots.append(_plot(name) | {"curves": curves})
        frame = {
            "runs": [_run(each) for each in runs],
            "plots": plots,
            "phases": {phase: PHASE_COLOURS[phase] for phase in PAUSE_PHASES},
            "hatches": PHASE_HATCHES,
            "means": {
                str(run.number): means for run, (_, means) in zip(runs, drawn, strict=True) if means
            },
        }
        return frame, b"".join(np.asarray(each).astype("<f4").tobytes() for each in data)

    def _draw(self, run: CockpitRun, chosen: tuple[str, ...]) -> _Drawn:
        key = id(run), chosen
        if key in self._kept:
            return self._kept[key]
        drawn = curves_of(run, chosen), phase_means(run)
        if run.is_over:
            self._kept = {k: kept for k, kept in self._kept.items() if k[1] == chosen}
            self._kept[key] = drawn
        return drawn

    def forget(self, run: CockpitRun) -> None:
        """Forget what is kept of a run that is deleted: its address may be used again."""
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != id(run)}


def _run(run: CockpitRun) -> dict[str, Any]:
    rows = len(run.records())
    return {"number": run.number, "name": run.name, "colour": colour_of(run.number), "rows": rows}


def _plot(name: str) -> dict[str, Any]:
    plot = PLOTS[name]
    return {
        "name": name,
        "title": plot.title,
        "text": plot.text,
        "x_label": plot.x_label,
        "y_label": plot.y_label,
        "x_log": plot.x_is_log,
        "y_log": plot.y_is_log,
    }
