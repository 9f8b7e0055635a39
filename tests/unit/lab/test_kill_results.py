"""Results of kills survive their writer, and are summed up."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.torture.kill_plan import plan
from colobench.lab.torture.kill_results import KillResult, Results, summarize
from colobench.lab.torture.settings import TortureSettings
from colobench.lab.torture.text import as_json, render

seeds = st.integers(0, 2**32)


def result(kill, **changes):
    settings = {"takeover_ms": 5.0, "every_ms": 9.0, "operations": 100, "linearizable": True}
    return KillResult(kill, **{**settings, **changes})


@given(seeds, st.floats(allow_nan=False, allow_infinity=False) | st.none(), st.text(max_size=20))
def test_a_result_is_read_as_it_was_written(seed, takeover, words):
    written = result(
        plan(seed, 1)[0],
        takeover_ms=takeover,
        linearizable=None,
        violations=(words, "x"),
        details={"checkpoints": 7, "why": words},
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
    assert results.remaining(kills, lambda kill: {}) == [kills[2]]


def test_results_of_another_plan_are_not_continued(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.append(result(plan(1, 1)[0]))
    assert results.remaining(plan(1, 2), lambda kill: {}) == plan(1, 2)[1:]
    with pytest.raises(LocalError, match="expected results of Kill"):
        results.remaining(plan(2, 2), lambda kill: {})


def test_results_with_other_settings_are_not_continued(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.append(result(plan(1, 1)[0], settings={"bug": "early-release"}))
    assert results.remaining(plan(1, 1), lambda kill: {"bug": "early-release"}) == []
    with pytest.raises(LocalError, match="expected results with bug early-flush, found some with"):
        results.remaining(plan(1, 2), lambda kill: {"bug": "early-flush"})


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
    assert (
        "undecided, kill 8: key k: found neither" in render(summary, TortureSettings()).splitlines()
    )
    assert as_json(summary, TortureSettings())["tried"] == [[8, "key k: found neither"]]
    assert sum(summary.per_value["output"].values()) == 10
    assert summary.per_combination == Counter(each.combination for each in kills)
    assert summarize(results[:6]).clean


def test_nothing_has_no_percentiles_and_does_not_pass():
    summary = summarize([])
    assert summary.takeover_ms == {}
    assert not summary.clean


@pytest.mark.parametrize(
    "changes",
    [
        {"takeover_ms": "soon"},
        {"every_ms": True},
        {"operations": "many"},
        {"linearizable": "maybe"},
        {"violations": "torn"},
        {"undecided": [5]},
        {"details": [1]},
        {"details": {"requests_under_way": "x"}},
        {"details": {"lost_ms": "x"}},
        {"settings": [1]},
        {"kill": {"victim": ["primary"]}},
    ],
)
def test_a_result_with_a_value_of_another_type_is_named_by_file_and_line(tmp_path, changes):
    path, kill = tmp_path / "results.jsonl", plan(1, 1)[0]
    row = json.loads(result(kill).to_json())
    for name, value in changes.items():
        row[name] = row["kill"] | value if name == "kill" else value
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(LocalError, match=f"{path}: line 1: result: expected one of a kill"):
        Results(path).load()


def test_a_result_that_is_nested_too_deeply_is_named_by_file_and_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"kill": {"number": ' + "[" * 100_000 + "\n")
    with pytest.raises(LocalError, match=f"{path}: line 1: result: expected one of a kill"):
        Results(path).load()


def test_a_kill_that_is_in_the_file_twice_is_refused(tmp_path):
    path = tmp_path / "results.jsonl"
    line = result(plan(1, 1)[0]).to_json() + "\n"
    path.write_text(line + line)
    with pytest.raises(LocalError, match=f"{path}: line 2: .* found kill 0 twice"):
        Results(path).load()


def test_a_device_is_no_file_of_results_and_is_left_alone(tmp_path):
    # A link, so that a fault removes no device of the machine.
    path = tmp_path / "device"
    path.symlink_to("/dev/null")
    results = Results(path)
    acts = (
        lambda: results.alone().__enter__(),
        results.load,
        lambda: results.append(result(plan(1, 1)[0])),
    )
    for act in acts:
        with pytest.raises(LocalError, match="expected a file of results of kills"):
            act()
    assert path.is_symlink()


def test_an_empty_file_that_was_there_is_not_removed(tmp_path):
    path = tmp_path / "results.jsonl"
    path.touch()
    with Results(path).alone():
        pass
    assert path.exists()


def test_two_runs_do_not_add_to_one_file_of_results_at_once(tmp_path) -> None:
    path = tmp_path / "results.jsonl"
    with Results(path).alone(), pytest.raises(LocalError, match="no other run that adds results"):
        Results(path).alone().__enter__()
    assert not path.exists()
