"""Runs of the cockpit as files and curves: nothing is lost, and each file repeats its run."""

from __future__ import annotations

import ast
import csv
import io
import json
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings

from cockpit_runs import make_run
from colobench.errors import LocalError
from colobench.lab.cockpit.curves import PLOTS, POINTS, CurveStyle, curves_of, phase_means
from colobench.lab.cockpit.export import changed_settings, repeat_cell, runs_as_csv, runs_as_json
from colobench.lab.cockpit.overlay import Overlay, name_of_settings
from colobench.lab.cockpit.page import figure_rows, write_runs_page
from colobench.lab.session.record import COLUMNS
from colobench.settings.file import read_settings
from colobench.settings.settings import Settings
from setting_values import settings_values
from share import amount


@pytest.fixture
def runs():
    return [
        make_run("first", 0, delay=20),
        make_run("a, second", 1, 3, layout="buffered", guest="hotcold"),
        make_run("third", 2, 0, transport="memfd"),
    ]


def test_json_has_every_checkpoint_and_settings_that_are_read_again(runs, tmp_path):
    path = tmp_path / "runs.json"
    path.write_text(runs_as_json(runs))
    found = json.loads(path.read_text())["runs"]
    assert [each["name"] for each in found] == ["first", "a, second", "third"]
    assert [len(each["records"]) for each in found] == [10, 3, 0]
    assert set(found[0]["records"][0]) == set(COLUMNS)
    for number, run in enumerate(runs, 1):
        again = Settings.from_json(read_settings(f"{path}#{number}"))
        assert again == run.settings


def test_csv_has_a_line_for_each_checkpoint_with_the_name_of_its_run(runs):
    rows = list(csv.reader(io.StringIO(runs_as_csv(runs))))
    assert rows[0] == ["run", *COLUMNS]
    assert [row[0] for row in rows[1:]] == ["first"] * 10 + ["a, second"] * 3
    assert all(len(row) == len(rows[0]) for row in rows)


def test_a_page_of_all_runs_carries_their_settings_too(runs, tmp_path):
    path = write_runs_page(tmp_path / "runs.html", runs)
    assert "a, second" in path.read_text()
    again = Settings.from_json(read_settings(f"{path}#2"))
    assert again == runs[1].settings


@settings(max_examples=amount(15, 100))
@given(settings_values())
def test_the_settings_that_a_cell_names_make_all_of_them(drawn):
    changes = changed_settings(drawn)
    assert Settings().override_by(changes).as_json() == drawn.as_json()
    assert ast.literal_eval(repr(changes)) == changes


def test_a_cell_is_python_that_names_what_was_changed_and_as_many_checkpoints(runs):
    cell = repeat_cell(runs[1])
    ast.parse(cell)
    assert "layout='buffered'" in cell
    assert "transport" not in cell
    assert "session.run(3)" in cell
    serving = repeat_cell(make_run("kv", guest="kv", ram="16M"))
    ast.parse(serving)
    assert "asking_clients(session.address()" in serving


def test_every_plot_has_curves_whose_columns_are_equally_long(runs):
    for run in (*runs, make_run("long", checkpoints=POINTS * 3)):
        for name, curves in curves_of(run, list(PLOTS)).items():
            for curve in curves:
                assert len(curve.x) == len(curve.y) <= POINTS, name
                assert np.isfinite(curve.y).all(), name


def test_checkpoints_are_drawn_as_many_as_there_are_and_predictions_apart(runs):
    runs[0].predicted = {"pause_p50_ms": 7.0, "bytes_per_s": 2e6}
    found = curves_of(runs[0], ["pause", "pages", "bytes"])
    measured, predicted = found["pause"]
    assert (len(measured.x), measured.style) == (10, CurveStyle.DOTS)
    assert predicted.style is CurveStyle.PREDICTED
    assert set(predicted.y) == {7.0}
    assert list(found["pages"][0].y) == list(range(1, 11))
    sent, line = found["bytes"]
    assert sent.y[-1] == pytest.approx(sum(4104 * n for n in range(1, 11)) / 1e6)
    assert line.y[-1] == pytest.approx(2 * line.x[-1])


def test_the_means_of_phases_add_up_to_the_mean_pause(runs):
    means = phase_means(runs[0])
    assert sum(means.values()) == pytest.approx(float(runs[0].records().column("pause_ms").mean()))
    assert phase_means(runs[2]) == {}


def test_the_table_has_predictions_in_brackets(runs):
    runs[0].predicted = {"pause_p50_ms": 7.0}
    [_, first, _, third] = figure_rows(runs)
    assert first[:3] == ("first", "10", "8.00 ms (7.00 ms)")
    assert third[1:3] == ("0", "–")


def test_a_run_is_named_by_what_is_unusual_and_no_name_comes_twice():
    settings = Settings().override(layout="buffered", delay=20)
    name = name_of_settings(settings, frozenset())
    assert name == "delay 20, layout buffered"
    assert name_of_settings(settings, frozenset({name})) == f"{name} (2)"
    assert name_of_settings(Settings(), frozenset()) == "usual"


def test_no_two_runs_have_one_name():
    overlay = Overlay(lambda wanted: nullcontext(False))
    run = overlay.start(Settings(), name="a")
    overlay.wait(run)
    with pytest.raises(LocalError, match="name: expected one that no other run has, found 'a'"):
        overlay.start(Settings(), name=" a ")
    assert overlay.runs == [run]
