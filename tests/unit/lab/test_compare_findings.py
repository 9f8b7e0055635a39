"""A comparison says what its measurements say: in words, in tables, in files and on its page."""

from __future__ import annotations

import argparse
import dataclasses
import html
import json
import re

import pytest

from colobench.cli.compare import _interrupted, _write
from colobench.errors import LocalError
from colobench.lab.compare.cells import make_cells
from colobench.lab.compare.comparison import Comparison
from colobench.lab.compare.measurement import Measurement, MeasurementFile
from colobench.lab.compare.run import measure_missing, plan_comparison
from colobench.lab.compare.sentences import headline
from colobench.lab.compare.settings import ComparisonSettings
from colobench.settings.checkpoint import Strategy
from colobench.settings.own_trigger import make_trigger
from colobench.settings.settings import Settings
from measurements import NAMES, make_calibration, make_comparison, make_measurement


def clearly(cell, number):
    """Make `NAMES[1]` twice as slow as `NAMES[0]`, at half the degradation."""
    slow = cell.strategy == NAMES[1]
    pause = (2.0 if slow else 1.0) + number / 100
    work = (0.05 if slow else 0.1) + number / 1000
    return {"pause_p50_ms": pause, "latency_p50_ms": 10 * pause, "degradation": work}


def test_winner_is_named_with_its_cost_and_so_is_a_cheaper_one():
    words = repr(make_comparison(clearly))
    assert "hotcold: colo_v12 has the shortest median pause: 1.03 ms (1.01 to 1.05)." in words
    assert "It costs 10.3 % of the guest's work" in words
    assert "multifd costs less work: 5.30 % (5.10 to 5.50)." in words


def test_waiting_is_output_latency_where_the_guest_serves():
    words = repr(make_comparison(clearly, guests=("kv,ram=16M",)))
    assert "colo_v12 has the shortest median output latency: 10.3 ms" in words


def test_tie_is_said_to_be_one():
    words = repr(make_comparison(lambda cell, number: {}))
    assert "colo_v12 and multifd tie in the shortest median pause" in words
    assert "tie: colo_v12, multifd" in words


def test_one_round_names_no_winner():
    words = repr(make_comparison(clearly, rounds=1))
    assert "after one round, colo_v12 has the shortest median pause" in words
    assert "after one round: multifd" in words
    assert "costs less work" not in words
    assert "One round has no intervals" in words


def test_one_round_beside_two_is_no_tie():
    words = repr(
        make_comparison(
            lambda cell, number: (
                None if (cell.strategy, number) == (NAMES[1], 2) else clearly(cell, number)
            ),
            rounds=2,
        )
    )
    assert "after one round, colo_v12 has the shortest median pause" in words
    assert "tie" not in words


def test_one_round_of_equal_values_prefers_none():
    equal = make_comparison(lambda cell, number: {"disk_wait_ms_per_s": 0.0}, rounds=1)
    assert "after one round, colo_v12 and multifd have the shortest median pause" in repr(equal)
    [group] = equal.groups()
    assert {row.verdict() for row in group.rows()} == {"after one round: equal"}


def test_a_strategy_without_a_rival_wins_nothing():
    comparison = make_comparison(
        lambda cell, number: clearly(cell, number) if cell.strategy == NAMES[0] else None
    )
    words = repr(comparison)
    assert "only colo_v12 has a median pause: 1.03 ms" in words
    assert "It costs 10.3 % of the guest's work" in words
    assert "shortest" not in words
    assert "as little work" not in words


def test_the_best_of_some_is_not_called_the_best_of_all():
    settings = ComparisonSettings().override(rounds=1)
    cells = make_cells((*NAMES, "remus"), ("hotcold",), (), settings.pair)
    comparison = Comparison(tuple(cells), settings)
    for cell in cells[:2]:
        comparison.add(make_measurement(cell, 1, settings, **clearly(cell, 1)))
    of_some = "of the 2 of 3 strategies that have one"
    assert of_some in headline(comparison)
    comparison.add(make_measurement(cells[2], 1, settings))
    assert of_some not in headline(comparison)


def test_memory_within_noise_is_not_named():
    for less, words in (
        (-1e5, "and memory of 10.0 MiB on the secondary."),
        (1e6, "and memory of 0.954 MiB on the primary and 10.0 MiB on the secondary."),
    ):
        figures = {"primary_memory_bytes": less, "secondary_memory_bytes": 10 << 20}
        comparison = make_comparison(lambda cell, number, figures=figures: figures, rounds=1)
        assert words in repr(comparison)


def test_few_rounds_tell_their_chance_of_a_false_winner():
    assert "in 33 % of comparisons" in repr(make_comparison(clearly, rounds=2))
    assert "by chance" not in repr(make_comparison(clearly, rounds=5))


def test_degradation_within_noise_is_no_cost():
    words = repr(make_comparison(lambda cell, number: {"degradation": -0.2 + number / 10}))
    assert "none of the guest's work that can be told from noise" in words


def test_cell_whose_machine_drifted_is_marked():
    def drifting(cell, number):
        drifted = cell.strategy == NAMES[1] and number == 3
        return {"memcpy": (10.0, 7.0 if drifted else 10.0)}

    comparison = make_comparison(drifting)
    assert [comparison.drifted(cell) for cell in comparison.cells] == [False, True]
    assert "more than 20 % from the median" in repr(comparison)
    assert "multifd *" in repr(comparison)


def test_link_that_was_not_held_is_shown_and_marked(tmp_path):
    def slower(cell, number):
        return {"held": 0.96 if cell.strategy == NAMES[1] and number == 3 else 0.98}

    comparison = make_comparison(slower)
    assert [comparison.held(cell) for cell in comparison.cells] == [True, False]
    page = comparison.write_page(tmp_path / "page.html").read_text()
    for text in (repr(comparison), comparison._repr_html_(), page):
        assert "link rate held" in text
        assert "0.980 Gbit/s" in text
        assert "multifd †" in text
        assert "colo_v12 †" not in text
        assert "did not hold its rate within 3 %" in text
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    _, path = comparison.write_parquet(tmp_path / "checkpoints.parquet")
    rows = parquet.read_table(path).to_pylist()
    assert [row["strategy"] for row in rows if not row["link_held"]] == [NAMES[1]]


def test_comparison_without_a_link_shows_no_rate():
    assert "link rate held" not in repr(make_comparison(clearly))


def test_partial_comparison_says_how_much_there_is(tmp_path):
    comparison = make_comparison(lambda cell, number: clearly(cell, number) if number < 3 else None)
    assert comparison.missing == 6
    assert "4 of 10 measurements were made." in repr(comparison)
    nothing = make_comparison(lambda cell, number: None)
    assert "nothing was measured yet" in repr(nothing)
    assert "nothing was measured yet" in nothing.write_page(tmp_path / "page.html").read_text()


def test_page_has_the_settings_that_repeat_each_cell(tmp_path):
    comparison = make_comparison(clearly)
    text = comparison.write_page(tmp_path / "page.html").read_text()
    shown = re.findall(r'<pre class="settings">(.*?)</pre>', text, re.S)
    assert [Settings.from_json(json.loads(html.unescape(each))) for each in shown] == [
        cell.settings for cell in comparison.cells
    ]


def test_names_of_strategies_are_text_on_a_page(tmp_path):
    comparison = make_comparison(clearly)
    odd = dataclasses.replace(comparison.cells[0], strategy="<script>alert(1)</script>")
    comparison.cells = (odd, comparison.cells[1])
    comparison.measurements = [
        dataclasses.replace(each, strategy=odd.strategy) if each.strategy == NAMES[0] else each
        for each in comparison.measurements
    ]
    assert "<script>alert" not in comparison.write_page(tmp_path / "page.html").read_text()
    assert "<script>alert" not in comparison._repr_html_()


def test_predictions_stand_beside_what_was_measured(tmp_path):
    comparison = make_comparison(clearly)
    predicted = {comparison.cells[0].key: {"pause_p50_ms": 2.06, "degradation": 0.1}}
    text = comparison.write_page(tmp_path / "page.html", predicted).read_text()
    assert "model 2.06 ms (+100 %) !" in text
    assert "model" not in comparison._repr_html_()


def test_notebook_shows_tables_and_words():
    shown = make_comparison(clearly)._repr_html_()
    assert "has the shortest median pause" in shown
    assert "<table" in shown


def test_measurement_survives_json():
    [first, *_] = make_comparison(clearly).measurements
    assert Measurement.from_json(first.to_json()) == first
    with pytest.raises(LocalError, match="expected a measurement"):
        Measurement.from_json(b'{"strategy": "x"}')
    with pytest.raises(LocalError, match="expected"):
        Measurement.from_json("[" * 100_000)


@pytest.fixture
def kept(tmp_path):
    """Keep a comparison in a file; gives both."""
    comparison, path = make_comparison(clearly, rounds=2), tmp_path / "results.jsonl"
    file = MeasurementFile(path)
    for each in comparison.measurements:
        file.append(each)
    return comparison, path


def test_file_gives_back_its_measurements_and_ignores_a_torn_line(kept):
    comparison, path = kept
    with path.open("ab") as file:
        file.write(b'{"strategy": "del')
    again = plan_comparison(comparison.cells, comparison.settings, path)
    assert again.measurements == comparison.measurements
    assert again.missing == 0
    more = comparison.settings.override(rounds=3)
    assert plan_comparison(comparison.cells, more, path).missing == 2


def test_other_settings_are_refused_with_both_values(kept):
    comparison, path = kept
    longer = comparison.settings.override(seconds=7)
    usual = re.escape(f"seconds {comparison.settings.seconds}")
    with pytest.raises(LocalError, match=rf"with seconds 7\.0, found some with {usual}"):
        plan_comparison(comparison.cells, longer, path)
    other = make_comparison(lambda cell, number: None, ram="16M")
    with pytest.raises(LocalError, match="ram 16M, found some with ram 64M"):
        plan_comparison(other.cells, comparison.settings, path)
    with pytest.raises(LocalError, match="found one of multifd on hotcold"):
        plan_comparison(comparison.cells[:1], comparison.settings, path)


def test_a_measurement_that_is_there_twice_is_refused(kept):
    comparison, path = kept
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(LocalError, match=r"once, found round 1 of colo_v12 on hotcold twice"):
        plan_comparison(comparison.cells, comparison.settings, path)


def test_two_comparisons_do_not_add_to_one_file_at_once(kept):
    comparison, path = kept
    one, other = (plan_comparison(comparison.cells, comparison.settings, path) for _ in range(2))
    words = "no other run that adds measurements, found one"
    with one.alone(), pytest.raises(LocalError, match=words):
        measure_missing(other)


def test_what_another_run_added_meanwhile_is_not_measured_again(tmp_path):
    whole, path = make_comparison(clearly, rounds=2), tmp_path / "results.jsonl"
    late = plan_comparison(whole.cells, whole.settings, path)
    with late.alone():
        pass
    assert not path.exists()
    for each in whole.measurements:
        MeasurementFile(path).append(each)
    measure_missing(late)
    assert late.measurements == whole.measurements


class Own:
    """A trigger of a user's."""

    def ask(self, seen):
        return 5


def test_results_of_an_own_trigger_do_not_depend_on_the_place_of_its_source(tmp_path):
    settings, path = ComparisonSettings().override(rounds=1), tmp_path / "results.jsonl"

    def cell_of(**changes):
        own = make_trigger(Own())
        trigger = dataclasses.replace(own, **changes)
        [cell] = make_cells([Strategy(trigger=trigger)], ["hotcold"], [], settings.pair)
        return cell

    cell = cell_of(file="/tmp/ipykernel_1/2.py", line=3)
    MeasurementFile(path).append(make_measurement(cell, 1, settings))
    again = cell_of(file="/tmp/ipykernel_4/5.py", line=6)
    assert plan_comparison([again], settings, path).missing == 0
    other = cell_of(code="class Own:\n" + 100 * "    # Another line.\n")
    with pytest.raises(LocalError, match=r"source [0-9a-f]{8}…, found") as refused:
        plan_comparison([other], settings, path)
    assert "Another line" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"settings": []},
        {"settings": None},
        {"unprotected": None},
        {"unprotected": {"work_per_s": "x"}},
        {"memcpy_gb_per_s": [0, 0]},
        {"checkpoints": {}},
        {"checkpoints": {"pause_ms": [1], "stopped_s": []}},
        {"link_use": {}},
        {"link_use": {"held": 1, "held_rate": "x"}},
        {"calibration": {"settings": None}},
        {"round": "1"},
        {"figures": {"degradation": float("nan")}},
        {"memcpy_gb_per_s": [1, 10**400]},
        {"checkpoints": {"pause_ms": ["a"], "stopped_s": [1]}},
        {"checkpoints": {"pause_ms": [1.0], "stopped_s": [1], "cause": [{}]}},
    ],
    ids=lambda wrong: f"{wrong!s:.60}",
)
def test_a_line_with_values_of_other_types_is_refused(wrong):
    [first, *_] = make_comparison(clearly).measurements
    with pytest.raises(LocalError, match="expected a measurement"):
        Measurement.from_json(json.dumps(dataclasses.asdict(first) | wrong))


@pytest.mark.parametrize("name", ["columns", "unprotected", "secondary_memory_bytes", "settings"])
@pytest.mark.parametrize("wrong", ["x", [1], {}, True, float("nan"), 10**400], ids=str)
def test_a_calibration_with_values_of_other_types_is_refused(name, wrong):
    comparison = make_comparison(clearly)
    [first, *_] = comparison.measurements
    calibrated = make_calibration(comparison.cells[0])
    made = dataclasses.replace(first, calibration=calibrated)
    assert Measurement.from_json(made.to_json()) == made
    changes = [calibrated | {name: wrong}]
    if name in ("columns", "unprotected"):
        changes += [
            calibrated | {name: calibrated[name] | {one: wrong}} for one in ("busy", "work")
        ]
    for change in changes:
        with pytest.raises(LocalError, match="expected a measurement"):
            Measurement.from_json(dataclasses.replace(first, calibration=change).to_json())


def test_a_damaged_line_is_named(kept):
    comparison, path = kept
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:1], lines[1][:-9] + "}", *lines[2:]]) + "\n")
    with pytest.raises(LocalError, match=r"line 2: expected a measurement, found b'{\"strategy"):
        plan_comparison(comparison.cells, comparison.settings, path)


def test_a_directory_is_no_file_of_results(tmp_path):
    comparison = make_comparison(clearly)
    with pytest.raises(LocalError, match="expected a file of measurements, found no regular file"):
        plan_comparison(comparison.cells, comparison.settings, tmp_path)


def test_other_files_are_refused(tmp_path):
    comparison, path = make_comparison(clearly), tmp_path / "letter.txt"
    path.write_text("Dear Madam")
    with pytest.raises(LocalError, match="expected measurements, found b'Dear Madam'"):
        plan_comparison(comparison.cells, comparison.settings, path)


def test_parquet_has_a_row_for_each_checkpoint_and_for_each_measurement(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    comparison = make_comparison(clearly)
    checkpoints, cells = comparison.write_parquet(tmp_path / "found.parquet")
    assert cells.name == "found-cells.parquet"
    rows = parquet.read_table(checkpoints).to_pylist()
    assert len(rows) == 5 * len(comparison.measurements)
    assert rows[0]["strategy"] == NAMES[0]
    assert rows[1]["pause_ms"] == pytest.approx(1.1)
    [first, *others] = parquet.read_table(cells).to_pylist()
    assert len(others) == len(comparison.measurements) - 1
    assert Settings.from_json(json.loads(first["settings"])) == comparison.cells[0].settings


def test_parquet_without_its_library_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("colobench.lab.compare.parquet.find_spec", lambda name: None)
    with pytest.raises(LocalError, match=r"pip install 'colobench\[parquet\]'"):
        make_comparison(clearly).write_parquet(tmp_path / "found.parquet")


def test_an_interrupt_before_the_first_measurement_names_no_file(tmp_path):
    nothing = make_comparison(lambda cell, number: None)
    sentence = _interrupted(nothing, argparse.Namespace(results=tmp_path / "results.jsonl"))
    assert sentence.endswith("0 of 10 measurements were made, so there is nothing to show")


def test_a_page_that_cannot_be_written_does_not_cost_the_tables(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    comparison = make_comparison(clearly, rounds=1)
    options = argparse.Namespace(html=tmp_path / "no" / "page.html", parquet=tmp_path / "x.parquet")
    with pytest.raises(LocalError, match="cannot be written"):
        _write(comparison, options)
    assert len(parquet.read_table(tmp_path / "x-cells.parquet")) == 2
