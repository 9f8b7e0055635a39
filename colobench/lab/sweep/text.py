"""A sweep in words: its cells, what was refused and what failed, and medians over repetitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from colobench.lab.compare.metrics import BYTES, DEGRADATION, HELD_RATE, LATENCY, METRICS, PAUSE
from colobench.lab.compare.statistics import estimate
from colobench.lab.sweep.cells import SweepCell
from colobench.lab.sweep.results import SweepResult
from colobench.lab.sweep.specification import SweepPlan
from colobench.text_table import align

_RATE = next(metric for metric in METRICS if metric.name == "checkpoints_per_s")
_COLUMNS = (PAUSE, DEGRADATION, LATENCY, BYTES, _RATE)


def refusals(plan: SweepPlan) -> list[str]:
    """Name each place in the grid that was refused, with the reason."""
    return [f"refused: {place}: {reason}" for place, reason in plan.refused]


def listing(plan: SweepPlan) -> str:
    """List the cells without their repetitions, and what was refused."""
    points = list(_points(plan.cells))
    lines = [f"{len(plan.cells)} cells, {len(points)} without repetitions:"]
    return "\n".join([*lines, *(f"  {point}" for point in points), *refusals(plan)])


def render(plan: SweepPlan, results: Mapping[str, SweepResult]) -> str:
    """Write a table of medians over repetitions, and what failed."""
    heading = ("", "measured", *(metric.heading for metric in _COLUMNS), HELD_RATE.heading)
    rows = [heading, *(row for row in _rows(plan, results))]
    used = [
        column
        for column in range(len(heading))
        if column < 2 or any(row[column] != "–" for row in rows[1:])
    ]
    table = align([[row[column] for column in used] for row in rows], right=range(1, len(used)))
    failed = [
        f"failed: {each.name}: {each.error}"
        for each in results.values()
        if each.measurement is None
    ]
    return "\n".join([*table, *failed])


def _points(cells: Sequence[SweepCell]) -> dict[str, list[SweepCell]]:
    points: dict[str, list[SweepCell]] = {}
    for cell in cells:
        points.setdefault(cell.point, []).append(cell)
    return points


def _rows(plan: SweepPlan, results: Mapping[str, SweepResult]) -> Iterator[tuple[str, ...]]:
    for point, cells in _points(plan.cells).items():
        found = [results[cell.identity] for cell in cells if cell.identity in results]
        measured = [each.measurement for each in found if each.measurement is not None]
        shown = []
        for metric in _COLUMNS:
            values = [each.figures.get(metric.name) for each in measured]
            middle = estimate([value for value in values if value is not None])
            shown.append(metric.show(None if middle is None else middle.median))
        held = estimate([each.held_rate for each in measured if each.held_rate is not None])
        mark = "" if all(each.held for each in measured) else " †"
        shown.append(HELD_RATE.show(None if held is None else held.median) + mark)
        yield point, f"{len(measured)} of {len(cells)}", *shown
