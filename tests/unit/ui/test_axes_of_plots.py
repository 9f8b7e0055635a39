"""Axes of the browser's plots end for all values, also for none, one, or nothing but negative."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cockpit_runs import make_run
from colobench.lab.cockpit.curves import LEAST_MS, curves_of
from javascript import evaluate

OVERLAY = ("svg.js", "overlay_plots.js")


def axis_of(values, is_log):
    """Give the range and the ticks of an axis that shows some values."""
    curves = json.dumps([{"y": values}])
    log = str(is_log).lower()
    ranges = f"rangeOf({curves}, 'y', {log})"
    return evaluate(f"[{ranges}, ticksOf({ranges}, {log}, 6)]", *OVERLAY)


@pytest.mark.parametrize("values", [[-3], [-3, -3], [-3, -1], [0], [5], [], [1e-300], [-2, 2]])
def test_an_axis_has_its_values_and_0_between_its_ends_and_ticks(values):
    (low, high), ticks = axis_of(values, False)
    assert low < high
    assert all(low <= value <= high for value in [*values, 0])
    assert all(low <= tick <= high for tick in ticks)


def test_a_logarithmic_axis_leaves_out_values_that_have_no_place_on_it():
    (low, high), ticks = axis_of([0, 2, 5, -1], True)
    assert 0 < low <= 2 < 5 <= high
    assert ticks
    assert axis_of([0], True) == axis_of([], True)


@pytest.mark.parametrize("end", ["0", "-1", "NaN", "Infinity"])
def test_there_are_no_ticks_up_to_a_number_that_is_not_above_0(end):
    assert evaluate(f"ticks({end}, 4)", "svg.js") == []


def test_predictions_have_a_place_on_a_logarithmic_axis():
    run = make_run("one")
    run.predicted = {"pause_p50_ms": 0.0}
    for name, axis in (("pause", "y"), ("distribution", "x")):
        predicted = curves_of(run, [name])[name][-1]
        assert np.array_equal(getattr(predicted, axis), [LEAST_MS, LEAST_MS])
