"""Sweeps take what they were told to, in order, and lines go through points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.session.record import Records
from colobench.lab.studies.sweep import fit_layouts, fit_line, sweep
from records import make_record

GRID = [{"layout": layout} for layout in ("buffered", "separated")]
SMALL = {"ram": "4M", "delay": 1, "verify": False}


@pytest.mark.usefixtures("nothing_left")
def test_each_point_of_the_grid_leaves_as_many_records_as_asked_for():
    records = sweep(GRID, checkpoints=3, **SMALL)
    assert [record.layout for record in records] == ["buffered"] * 3 + ["separated"] * 3


@pytest.mark.usefixtures("nothing_left")
def test_who_watches_sees_the_records_that_are_returned():
    watched = Records()
    assert sweep(GRID[:1], checkpoints=2, into=watched, **SMALL) is watched
    assert len(watched) == 2


@pytest.mark.usefixtures("nothing_left")
def test_a_point_overrides_what_is_the_same_at_all():
    records = sweep([{"layout": "buffered"}], checkpoints=1, **SMALL, layout="separated")
    assert records[0].layout == "buffered"


numbers = st.floats(-1e6, 1e6)


@given(numbers, numbers, st.lists(st.integers(0, 10_000), min_size=2, unique=True, max_size=20))
def test_points_on_a_line_give_that_line(intercept, slope, x):
    found = fit_line(x, intercept + slope * np.array(x))
    assert found == pytest.approx((intercept, slope), rel=1e-6, abs=1e-2)


@pytest.mark.parametrize("outlier", range(20))
def test_an_outlier_moves_no_line(outlier):
    x = np.arange(20)
    y = 3.0 + 2.0 * x
    y[outlier] += 1e6
    found = fit_line(x, y)
    assert found == pytest.approx((3, 2))


@pytest.mark.parametrize("x", [[], [1], [2, 2, 2]])
def test_no_line_goes_through_points_above_one_another(x):
    with pytest.raises(LocalError, match="two different values of x"):
        fit_line(x, [0.0] * len(x))


def test_each_layout_has_a_line_of_its_own():
    records = Records(
        make_record(1, pages=range(pages), layout=layout, pause_ms=1 + slope * pages)
        for pages in (10, 20, 30)
        for layout, slope in (("buffered", 3), ("separated", 2))
    )
    fitted = fit_layouts(records, "pause_ms")
    assert fitted["buffered"] == pytest.approx((1, 3))
    assert fitted["separated"] == pytest.approx((1, 2))


def test_a_layout_of_one_size_has_no_line():
    assert fit_layouts(Records([make_record(1), make_record(2)]), "pause_ms") == {}
