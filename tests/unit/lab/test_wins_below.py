"""The link below which an encoding wins: there both ways of sending take equally long."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from colobench.lab.bench.subjects.encodings import wins_below

RATES = st.floats(1e6, 1e11)


def seconds(encoding: float, ratio: float, link: float) -> float:
    """Give the time of a byte that is encoded and then sent."""
    return 1 / encoding + ratio / link


@given(RATES, RATES, st.floats(0, 0.99))
def test_an_encoding_wins_exactly_below_its_rate(
    encoded: float, plain: float, ratio: float
) -> None:
    # Of two rates that are closer, the difference of their times is lost by rounding.
    assume(abs(encoded - plain) > 1e-6 * plain)
    rate = wins_below(encoded, plain, ratio)
    if math.isinf(rate):
        assert encoded > plain
        return
    below, above = rate * 0.999, rate * 1.001
    assert seconds(encoded, ratio, below) < seconds(plain, 1, below)
    assert seconds(encoded, ratio, above) > seconds(plain, 1, above)


@pytest.mark.parametrize("ratio", [1.0, 1.2])
def test_an_encoding_that_sends_no_less_never_wins(ratio: float) -> None:
    assert wins_below(2e9, 1e9, ratio) == 0
