"""Measurements made up for tests of what reads measurements."""

from __future__ import annotations

from colobench.lab.compare.calibrate import calibration_settings
from colobench.lab.compare.cells import make_cells
from colobench.lab.compare.comparison import Comparison
from colobench.lab.compare.measurement import Measurement
from colobench.lab.compare.metrics import METRICS
from colobench.lab.compare.settings import ComparisonSettings

NAMES = ("colo_v12", "multifd")


def make_measurement(
    cell,
    number,
    settings,
    *,
    memcpy=(10.0, 10.0),
    checkpoints=5,
    held=None,
    calibration=None,
    unprotected=None,
    **figures,
):
    """Make a measurement of a cell; figures that are not named are 1 and a little more.

    `held` is the share of a link of 1 Gbit/s that was held; None is no link. `unprotected` has
    figures of the unprotected guest that differ.
    """
    found = {metric.name: 1.0 + number / 1000 for metric in METRICS}
    if not cell.serves:
        found |= {"latency_p50_ms": None, "latency_p99_ms": None}
    columns = {
        "number": list(range(1, checkpoints + 1)),
        "pause_ms": [1.0 + each / 10 for each in range(checkpoints)],
        "stopped_s": [each / 10 for each in range(checkpoints)],
        "committed_s": [each / 10 + 0.01 for each in range(checkpoints)],
    }
    alone = {"work_per_s": 4000.0, "answers_per_s": 200.0, "memory_bytes": 10**8}
    alone |= dict.fromkeys(("latency_p50_ms", "latency_p99_ms"), 0.5 if cell.serves else None)
    return Measurement(
        *cell.key,
        round=number,
        settings=cell.settings.as_json(),
        comparison=settings.of_measurement(),
        figures=found | figures,
        unprotected=alone | (unprotected or {}),
        memcpy_gb_per_s=memcpy,
        checkpoints=columns,
        link_use=held and {"rate": 10**9, "held_rate": held * 1e9, "held": held >= 0.97},
        calibration=calibration,
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


def make_calibration(cell, *, pause_per_page=1e-3, pages_per_step=0.5, busy=1.0, **others):
    """Make a calibration of a cell whose costs are lines over its pages, without noise.

    `busy` is the share of the time in which its guest does not rest; `others` are further columns.
    """
    settings = calibration_settings(cell.settings)
    runs = [1.0, 3.0, 10.0, 30.0, 100.0]
    work = [settings.guest.writes_per_tick * each for each in runs]
    pages = [pages_per_step * each for each in work]
    pause = [0.5 + pause_per_page * each for each in pages]
    columns = {
        "cause": ["requested"] * len(runs),
        "pages": pages,
        "bytes": [1000 + 4104 * each for each in pages],
        "frames": [each / 10 for each in runs],
        "run_ms": runs,
        "work": work,
        **{f"{name}_ms": pause for name in ("pause", "commit", "loaded", "send", "release")},
        "request_ms": [0.2] * len(runs),
        "last_pause_ms": [pause[-1], *pause[:-1]],
        **{f"{name}_ms": [0.0] * len(runs) for name in ("beside", "copy", "flush")},
    }
    columns |= others
    rate = float(settings.guest.writes_per_tick)
    pace = {"work_per_ms": rate, "busy": busy, "processor_ms_per_step": busy / rate}
    latency = 1.0 if cell.serves else None
    names = ("latency_ms", "latency_p99_ms", "protected_latency_ms", "protected_latency_p99_ms")
    return {
        "settings": settings.as_json(),
        "columns": columns,
        "unprotected": pace,
        "protected": pace,
        **dict.fromkeys(names, latency),
        "primary_memory_bytes": 1e6,
        "secondary_memory_bytes": 1e8,
    }
