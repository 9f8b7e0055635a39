"""The score of strategies: its parts, and ranks that only intervals give."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.compare.score import score
from measurements import NAMES, make_comparison
from share import amount

ONE, OTHER = NAMES


def compare(lost, waited, guest="hotcold"):
    """Make a comparison; of each strategy a degradation and a waiting, the same in all rounds."""
    waiting = "latency_p50_ms" if guest == "kv" else "commit_age_mean_ms"
    return make_comparison(
        lambda cell, number: {
            "degradation": lost[NAMES.index(cell.strategy)],
            waiting: waited[NAMES.index(cell.strategy)],
        },
        guests=(guest,),
    )


@pytest.mark.parametrize("guest", ["hotcold", "kv"])
def test_score_is_degradation_and_price_times_waiting(guest):
    found = score(compare((0.1, 0.02), (5.0, 50.0), guest), 0.01)
    assert [(each.strategy, each.rank) for each in found] == [(ONE, 1), (OTHER, 2)]
    assert [each.found.median for each in found] == pytest.approx([0.15, 0.52])
    assert found.beaten(ONE) == [OTHER]
    assert found.beaten(OTHER) == []


def test_the_price_decides():
    comparison = compare((0.1, 0.02), (5.0, 50.0))
    assert score(comparison, 0.01)[0].strategy == ONE
    assert score(comparison, 0.001)[0].strategy == OTHER


def test_strategies_that_cannot_be_told_apart_share_a_rank():
    comparison = make_comparison(
        lambda cell, number: {"degradation": number / 100 + (cell.strategy == OTHER) / 1000}
    )
    found = score(comparison, 0.01)
    assert [each.rank for each in found] == [1, 1]
    assert found.beaten(ONE) == []


@settings(max_examples=amount(30, 300))
@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(0, 1))
def test_rank_is_one_and_the_number_of_better_ones(lost, price):
    found = score(compare(lost, (1.0, 1.0)), price)
    better = {
        each.strategy: [one for one in found if each.strategy in found.beaten(one.strategy)]
        for each in found
    }
    assert all(each.rank == 1 + len(better[each.strategy]) for each in found)
    assert found[0].rank == 1


def test_a_table_has_rank_score_interval_and_parts():
    text = repr(score(compare((0.1, 0.02), (5.0, 50.0)), 0.01))
    assert "0.150 (0.150 to 0.150)" in text
    assert "50.0 ms" in text


def test_strategies_without_a_measurement_have_no_score():
    comparison = make_comparison(lambda cell, number: {} if cell.strategy == ONE else None)
    assert [each.strategy for each in score(comparison, 0.01)] == [ONE]
    with pytest.raises(LocalError, match=f"expected one strategy of {ONE}, found {OTHER}"):
        score(comparison, 0.01).of(OTHER)


def test_guests_are_not_mixed():
    comparison = make_comparison(lambda cell, number: {}, guests=("hotcold", "kv"))
    with pytest.raises(LocalError, match="expected one guest over one link, found hotcold, kv"):
        score(comparison, 0.01)


@pytest.mark.parametrize("price", [-1, float("nan"), float("inf"), "0.01", None])
def test_a_price_that_ranks_nothing_is_refused(price):
    with pytest.raises(LocalError, match="score: price: expected 0 to 1000, found"):
        score(compare((0.1, 0.02), (5.0, 50.0)), price)
