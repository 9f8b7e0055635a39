"""Percentiles are those of numpy, and no value has none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.lab.percentiles import percentiles

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(values)
def test_percentiles_lie_between_neighbouring_values(found):
    ordered = sorted(found)
    for percent in (0, 10, 50, 99, 100):
        (value,) = percentiles(iter(found), [percent], without=None)
        place = percent / 100 * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        assert value == pytest.approx(low + (high - low) * (place % 1), abs=1e-6)


def test_without_values_each_percentile_is_what_was_asked_for():
    assert percentiles([], (50, 99), without=None) == [None, None]
