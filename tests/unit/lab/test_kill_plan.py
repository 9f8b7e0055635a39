"""A torture run's plan covers everything evenly from the first kill on, and its results survive."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.torture.kill_plan import (
    MODES,
    POINTS,
    SIDES,
    TRANSPORTS,
    KillResult,
    Results,
    combinations,
    plan,
    summarize,
)
from colobench.lab.torture.run import Settings
from colobench.lab.torture.text import as_json, render
from colobench.node.breakpoints import PRIMARY_POINTS, SECONDARY_POINTS

PLACES = len(PRIMARY_POINTS) + len(SECONDARY_POINTS) + 1
ALL = len(TRANSPORTS) * len(MODES) * len(SIDES) * PLACES
seeds = st.integers(0, 2**32)


def result(kill, **changes):
    settings = {"takeover_ms": 5.0, "every_ms": 9.0, "operations": 100, "linearizable": True}
    return KillResult(kill, **{**settings, **changes})


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
    for name, values in (("transport", TRANSPORTS), ("mode", MODES), ("victim", SIDES)):
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
        ("multifd+tcp", mode, "primary", "random", "random") for mode in MODES
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"transports": ["carrier pigeon"]},
        {"modes": ["neither"]},
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


@given(seeds, st.floats(allow_nan=False, allow_infinity=False) | st.none(), st.text(max_size=20))
def test_a_result_is_read_as_it_was_written(seed, takeover, words):
    written = result(
        plan(seed, 1)[0],
        takeover_ms=takeover,
        linearizable=None,
        violations=(words, "x"),
        figures={"checkpoints": 7, "why": words},
    )
    line = written.to_json()
    assert "\n" not in line
    assert KillResult.from_json(line) == written


def test_results_are_appended_and_a_torn_last_line_is_forgotten(tmp_path):
    path, kills = tmp_path / "results.jsonl", plan(1, 4)
    results = Results(path)
    assert results.load() == []
    for each in kills[:3]:
        results.append(result(each))
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        assert [each.kill for each in results.load()] == kills[:2]
    results.append(result(kills[3]))
    assert [each.kill for each in results.load()] == [*kills[:2], kills[3]]
    assert results.remaining(kills, {}) == [kills[2]]


def test_results_of_another_plan_are_not_continued(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.append(result(plan(1, 1)[0]))
    assert results.remaining(plan(1, 2), {}) == plan(1, 2)[1:]
    with pytest.raises(LocalError, match="expected results of Kill"):
        results.remaining(plan(2, 2), {})


def test_results_with_other_settings_are_not_continued(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.append(result(plan(1, 1)[0], settings={"bug": "early-release"}))
    assert results.remaining(plan(1, 1), {"bug": "early-release"}) == []
    with pytest.raises(LocalError, match="expected results with bug early-flush, found some with"):
        results.remaining(plan(1, 2), {"bug": "early-flush"})


@pytest.mark.parametrize("data", [b"notes of mine", b'{"kill": {"name', b"\x7fELF\n\xff\xfe"])
def test_a_file_with_anything_else_in_it_is_refused_and_left_as_it_is(tmp_path, data):
    path = tmp_path / "results.jsonl"
    path.write_bytes(data)
    for act in (Results(path).load, lambda: Results(path).append(result(plan(1, 1)[0]))):
        with pytest.raises(LocalError, match="expected"):
            act()
    assert path.read_bytes() == data


@pytest.mark.parametrize("line", ["{}", "[]", "7", "nonsense", json.dumps({"kill": {}})])
def test_a_whole_line_that_is_no_result_is_refused(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(LocalError, match="result: expected one of a kill"):
        Results(path).load()


def test_results_are_summed_up():
    kills = plan(5, 10)
    results = [result(each, takeover_ms=float(each.number)) for each in kills[:6]]
    results += [
        result(kills[6], linearizable=False),
        result(kills[7], linearizable=False, violations=("lost write: …", "1 lost connection")),
        result(kills[8], linearizable=None, undecided=("key k: found neither",)),
        result(kills[9], takeover_ms=None, every_ms=None),
    ]
    summary = summarize(results)
    assert (summary.kills, summary.operations) == (10, 1000)
    assert summary.takeover_ms[50] == 4
    assert summary.takeover_ms[100] == 5
    assert summary.every_ms[99] == 9
    assert summary.violations == (
        (kills[6], "not linearizable"),
        (kills[7], "lost write: …"),
        (kills[7], "1 lost connection"),
    )
    assert (summary.undecided, summary.without_answer, summary.clean) == (1, 1, False)
    assert summary.tried == ((kills[8], "key k: found neither"),)
    assert "undecided, kill 8: key k: found neither" in render(summary, Settings()).splitlines()
    assert as_json(summary, Settings())["tried"] == [[8, "key k: found neither"]]
    assert sum(summary.per_value["mode"].values()) == 10
    assert summary.per_combination == Counter(each.combination for each in kills)
    assert summarize(results[:6]).clean


def test_nothing_has_no_percentiles():
    summary = summarize([])
    assert summary.takeover_ms == {}
    assert summary.clean
