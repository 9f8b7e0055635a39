"""A withdrawn benchmark: means of few noisy runs drop, and intervals name no winner for it."""

from __future__ import annotations

import pytest

from colobench.lab.compare.statistics import chance_of_a_false_winner
from colobench.lab.compare.withdrawn import AFTER, BEFORE, RUNS, withdrawn_benchmark


def test_noise_alone_shows_the_drop_and_intervals_seldom_call_it_one() -> None:
    quiet, noisy = withdrawn_benchmark(spreads=(0.25, 1.5), trials=150)
    assert quiet.dropped == 0
    assert noisy.dropped > 10
    for found in (quiet, noisy):
        # The chance is known for so few runs, however noisy they are.
        expected = chance_of_a_false_winner(RUNS)
        assert found.named / found.trials == pytest.approx(expected, abs=0.04)
    assert noisy.named < noisy.dropped


def test_more_runs_show_it_more_seldom() -> None:
    [few] = withdrawn_benchmark(spreads=(1.5,), trials=60)
    [many] = withdrawn_benchmark(12, spreads=(1.5,), trials=60)
    assert many.dropped < few.dropped


def test_the_table_says_what_was_compared() -> None:
    shown = repr(withdrawn_benchmark(spreads=(1.0,), trials=5))
    assert f"{AFTER} for {BEFORE}" in shown
    assert "a factor of 2.7" in shown
    assert "their intervals are too short" in shown
    assert "too short" not in repr(withdrawn_benchmark(6, spreads=(1.0,), trials=5))
