"""Measurements made up for tests of what reads measurements."""

from __future__ import annotations

from colobench.lab.compare.cells import make_cells
from colobench.lab.compare.comparison import Comparison
from colobench.lab.compare.measurement import Measurement
from colobench.lab.compare.metrics import METRICS
from colobench.lab.compare.settings import ComparisonSettings

NAMES = ("colo_v12", "multifd")


def make_measurement(cell, number, settings, *, memcpy=(10.0, 10.0), checkpoints=5, **figures):
    """Make a measurement of a cell; figures that are not named are 1 and a little more."""
    found = {metric.name: 1.0 + number / 1000 for metric in METRICS}
    if not cell.serves:
        found |= {"latency_p50_ms": None, "latency_p99_ms": None}
    columns = {
        "number": list(range(1, checkpoints + 1)),
        "pause_ms": [1.0 + each / 10 for each in range(checkpoints)],
        "stopped_s": [each / 10 for each in range(checkpoints)],
        "committed_s": [each / 10 + 0.01 for each in range(checkpoints)],
    }
    unprotected = {"work_per_s": 4000.0, "memory_bytes": 10**8}
    unprotected |= dict.fromkeys(("latency_p50_ms", "latency_p99_ms"), 0.5 if cell.serves else None)
    return Measurement(
        *cell.key,
        round=number,
        settings=cell.settings.as_json(),
        comparison=settings.of_measurement(),
        figures=found | figures,
        unprotected=unprotected,
        memcpy_gb_per_s=memcpy,
        checkpoints=columns,
    )


def make_comparison(figures, *, rounds=5, guests=("hotcold",), **options):
    """Make a comparison of `NAMES`.

    Parameters
    ----------
    figures
        Function of a cell and a round that gives the figures, and other options of
        `make_measurement`; None leaves the measurement out.
    """
    settings = ComparisonSettings().override(rounds=rounds, **options)
    cells = make_cells(NAMES, guests, (), settings.pair)
    comparison = Comparison(tuple(cells), settings)
    # A description takes seconds, because it measures.
    comparison.machine = {"processor": "Abacus 9000"}
    for number in range(1, rounds + 1):
        for cell in cells:
            found = figures(cell, number)
            if found is not None:
                comparison.add(make_measurement(cell, number, settings, **found))
    return comparison
