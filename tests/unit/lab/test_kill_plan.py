"""A torture run's plan covers everything evenly from the first kill on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.session.own_images import own_images
from colobench.lab.torture.kill_plan import (
    LAYERS,
    OUTPUTS,
    POINTS,
    SECONDS,
    SIDES,
    TRANSPORTS,
    combinations,
    plan,
    points_of_capture,
)
from colobench.lab.torture.run import torture
from colobench.lab.torture.settings import USUAL_PAIR, TortureSettings
from colobench.node.breakpoints import PRIMARY_POINTS, SECONDARY_POINTS, check_point
from colobench.protocol.colo import Role
from colobench.settings.strategy import preset
from colobench.strategy.presets import PRESETS

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


def test_pairs_at_the_same_time_cannot_have_one_image(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(4096))
    with_disk = TortureSettings(pair=USUAL_PAIR.override(disks=f"{tmp_path}/x"))
    with pytest.raises(LocalError, match=r"jobs: expected 1 with an image .* found 2"):
        next(torture([], with_disk, jobs=2))


def test_a_guest_that_serves_nobody_has_to_write_sectors() -> None:
    with pytest.raises(LocalError, match=r"guest: expected kv, .* found uniform"):
        TortureSettings(pair=USUAL_PAIR.override(guest="uniform"))
    TortureSettings(pair=USUAL_PAIR.override(guest="sectors", disks="x,size=4K"))


def test_pairs_have_images_of_their_own_where_there_are_none(tmp_path: Path) -> None:
    pair = USUAL_PAIR.override(disks=f"{tmp_path}/x,size=4K")
    with own_images(pair) as one, own_images(pair) as other:
        disks = [each.guest.disk_settings()[0] for each in (one, other)]
        assert len({disk.image for disk in disks} | {f"{tmp_path}/x"}) == 3
        assert {disk.size for disk in disks} == {4096}
    assert not list(tmp_path.iterdir())
    (tmp_path / "x").touch()
    with own_images(pair) as one:
        assert one == pair


@pytest.mark.parametrize("strategy", PRESETS)
def test_points_of_a_strategys_plan_are_those_that_its_checkpoints_pass(strategy):
    made = preset(strategy)
    points = points_of_capture(made.capture, made.encoding, made.layout)
    for side, names in points.items():
        for name in filter(None, names):
            check_point(Role(side), made.layout, made.capture, made.encoding, name)


@settings(max_examples=10)
@given(seeds)
def test_second_kills_and_layers_are_even_and_change_no_other_plan(seed):
    kills = plan(seed, 40, seconds=SECONDS, layers=LAYERS)
    for values, found in (
        (SECONDS, Counter(each.second for each in kills)),
        (LAYERS, Counter(each.layers for each in kills)),
    ):
        assert set(found) == set(values)
        assert max(found.values()) - min(found.values()) <= 2
    assert {(each.second, each.layers) for each in plan(seed, 40)} == {(None, None)}
    with pytest.raises(LocalError, match="second: expected one of at-once, after-takeover, None"):
        plan(seed, 1, seconds=("never",))
