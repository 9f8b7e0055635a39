"""Statistics of a comparison: intervals, winners, and the age of the newest commit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.lab.compare.commit_age import commit_age
from colobench.lab.compare.statistics import (
    Estimate,
    best_of,
    chance_of_a_false_winner,
    estimate,
    overlap,
)

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9)
#: Sides of intervals are whole numbers, so that equal ones are common.
estimates = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.lists(st.integers(0, 30), min_size=3, max_size=3).map(
        lambda found: Estimate(*(float(each) for each in _middle_first(sorted(found))), 5)
    ),
    max_size=6,
)


def _middle_first(found):
    low, middle, high = found
    return middle, low, high


@given(values)
def test_interval_covers_the_median_and_lies_among_the_values(found):
    made = estimate(found)
    assert min(found) <= made.low <= made.median <= made.high <= max(found)
    assert made.median == np.median(found)
    assert made == estimate(found)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=9), st.sampled_from([0.5, 2, 4]))
def test_interval_scales_with_its_values(found, factor):
    made, scaled = estimate(found), estimate([factor * each for each in found])
    assert scaled.low == pytest.approx(factor * made.low)
    assert scaled.high == pytest.approx(factor * made.high)


def test_interval_covers_the_true_median_nearly_as_often_as_it_says():
    chance = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        made = estimate(chance.normal(10, 2, 15))
        covered += made.low <= 10 <= made.high
    # With 15 values the percentile interval of a median is a little short of 95 %.
    assert 0.88 <= covered / 200 <= 1


def test_one_round_has_no_interval_and_names_no_winner():
    made = {"a": estimate([1.0]), "b": estimate([100.0])}
    assert made["a"].low is None
    assert best_of(made) == ("a", "b")
    assert estimate([]) is None
    assert best_of({}) == ()


@given(estimates, st.booleans())
def test_winner_is_named_only_where_intervals_do_not_overlap(found, more_is_better):
    best = best_of(found, more_is_better)
    assert set(best) <= set(found)
    if len(best) == 1:
        others = [each for name, each in found.items() if name != best[0]]
        assert not any(overlap(found[best[0]], each) for each in others)
    for name in set(found) - set(best):
        assert not overlap(found[name], found[best[0]])
        if more_is_better:
            assert found[name].high < found[best[0]].low
        else:
            assert found[name].low > found[best[0]].high


@given(estimates)
def test_best_of_more_is_the_best_of_less_mirrored(found):
    mirrored = {
        name: Estimate(-each.median, -each.high, -each.low, each.rounds)
        for name, each in found.items()
    }
    assert set(best_of(found)[1:]) | set(best_of(found)[:1]) == set(best_of(mirrored, True))


@pytest.mark.parametrize("rounds", [2, 3, 4])
def test_chance_of_a_false_winner_is_what_equal_strategies_show(rounds):
    chance = np.random.default_rng(rounds)
    found = chance.random((4000, 2, rounds))
    apart = (found[:, 0].max(1) < found[:, 1].min(1)) | (found[:, 1].max(1) < found[:, 0].min(1))
    assert chance_of_a_false_winner(rounds) == pytest.approx(apart.mean(), abs=0.03)
    intervals = [[estimate(each) for each in pair] for pair in found[:200]]
    told = [not overlap(*pair) for pair in intervals]
    assert told == apart[:200].tolist()


@given(
    st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.01, 0.99)), min_size=1, max_size=12),
    st.floats(0, 3),
    st.floats(1, 20),
)
def test_age_is_that_of_looking_at_many_moments(gaps, begin, length):
    """Each checkpoint stops the guest, and commits within the time until the next one."""
    every = np.array([gap for gap, _ in gaps])
    stopped = np.cumsum(every) - every[0]
    committed = stopped + every * np.array([share for _, share in gaps]) * 0.9
    committed = np.maximum.accumulate(committed)
    end = begin + length
    found = commit_age(stopped, committed, begin, end, 90)
    moments = begin + (np.arange(40_000) + 0.5) / 40_000 * length
    newest = np.searchsorted(committed, moments, side="right") - 1
    some = newest >= 0
    if found is None:
        assert some.mean() < 1e-3
        return
    if some.mean() < 0.01:
        # So few moments do not tell the mean.
        return
    ages = moments[some] - stopped[newest[some]]
    assert found[0] == pytest.approx(ages.mean(), rel=0.01, abs=0.01)
    assert found[1] == pytest.approx(np.percentile(ages, 90), rel=0.02, abs=0.02)


def test_age_of_regular_checkpoints_is_a_sawtooth():
    stopped = np.arange(0, 100, 1.0)
    mean, most = commit_age(stopped, stopped + 0.25, 10.25, 20.25, 99)
    assert mean == pytest.approx(0.75)
    assert most == pytest.approx(0.25 + 0.99)
