"""A torture run's plan covers everything evenly from the first kill on."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.torture.kill_plan import (
    OUTPUTS,
    POINTS,
    SIDES,
    TRANSPORTS,
    combinations,
    plan,
)
from colobench.node.breakpoints import PRIMARY_POINTS, SECONDARY_POINTS

PLACES = len(PRIMARY_POINTS) + len(SECONDARY_POINTS) + 1
ALL = len(TRANSPORTS) * len(OUTPUTS) * len(SIDES) * PLACES
seeds = st.integers(0, 2**32)


def test_there_is_a_kill_for_each_phase_side_transport_and_mode():
    found = {each.combination for each in plan(1, ALL)}
    assert len(found) == ALL
    assert {(holder, point) for *_, holder, point in found} == {
        *(("primary", each) for each in PRIMARY_POINTS),
        *(("secondary", each) for each in SECONDARY_POINTS),
        ("random", "random"),
    }


@settings(max_examples=10)
@given(seeds, st.integers(0, 2 * ALL))
def test_no_combination_comes_again_before_all_have_come(seed, kills):
    counts = Counter(each.combination for each in plan(seed, kills))
    assert sum(counts.values()) == kills
    assert max(counts.values(), default=0) <= -(-kills // ALL)
    assert min(counts.values(), default=0) >= (kills // ALL)
    assert len(counts) == min(kills, ALL)


@settings(max_examples=10)
@given(seeds)
def test_every_beginning_of_a_plan_is_even(seed):
    kills = plan(seed, ALL)
    for name, values in (("transport", TRANSPORTS), ("output", OUTPUTS), ("victim", SIDES)):
        counts = Counter(dict.fromkeys(values, 0))
        for each in kills:
            counts[getattr(each, name)] += 1
            assert max(counts.values()) - min(counts.values()) <= 3
    places = Counter((each.holder, each.point) for each in kills[: 2 * PLACES])
    assert len(places) == PLACES
    assert max(places.values()) <= 3


@settings(max_examples=10)
@given(seeds, st.integers(0, 60), st.integers(0, 60))
def test_a_longer_plan_begins_as_a_shorter_one(seed, kills, more):
    assert plan(seed, kills + more)[:kills] == plan(seed, kills)


def test_seeds_make_plans_and_kills_differ():
    one, other = plan(1, 50), plan(2, 50)
    assert [each.combination for each in one] != [each.combination for each in other]
    assert len({each.seed for each in (*one, *other)}) == 100


def test_a_kill_has_a_point_or_a_delay():
    for each in plan(3, ALL, delay_ms=20):
        assert (each.point is None) is (each.holder is None) is (each.delay_ms is not None)
        assert each.delay_ms is None or 0 <= each.delay_ms <= 20


def test_a_plan_is_of_what_it_was_told():
    found = plan(
        0, 9, transports=["multifd+tcp"], victims=["primary"], points={"secondary": [None]}
    )
    assert {each.combination for each in found} == {
        ("multifd+tcp", output, "primary", "random", "random") for output in OUTPUTS
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"transports": ["carrier pigeon"]},
        {"outputs": ["neither"]},
        {"victims": ["switch"]},
        {"points": {"arbiter": ["stop"]}},
        {"points": {"secondary": ["stop"]}},
        {"transports": []},
        {"points": {"primary": []}},
    ],
)
def test_what_cannot_be_killed_is_refused(wrong):
    with pytest.raises(LocalError, match="expected"):
        plan(0, 1, **wrong)


def test_combinations_are_those_of_the_plan():
    assert len(combinations()) == ALL
    assert sum(map(len, POINTS.values())) == PLACES
