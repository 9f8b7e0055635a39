"""Models beside measurements: calibrations that cells share, errors, and what is not judged."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.lab.compare import run
from colobench.lab.compare.beside import Rates, commits_more_between, rate_notes, ratio_rows
from colobench.lab.compare.calibrate import (
    LONGEST_MS,
    SHORTEST_MS,
    between_checkpoints,
    calibration_settings,
    own_seed,
    runs_ms,
    trace_curve,
)
from colobench.lab.compare.cells import make_cells
from colobench.lab.compare.comparison import Comparison
from colobench.lab.compare.fitted import first_write_ms, lost_beside, pace_of
from colobench.lab.compare.judged import BOUNDS, Judge, judge_value
from colobench.lab.compare.load import Asked
from colobench.lab.compare.measure import answers_per_s, whole_passes
from colobench.lab.compare.measurement import Measurement
from colobench.lab.compare.metrics import BYTES, DEGRADATION, METRICS, PAUSE
from colobench.lab.compare.models import (
    Calibrations,
    axes_of,
    calibrations_of,
    predict_settings,
)
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.compare.statistics import Estimate
from colobench.settings.link import Link
from colobench.settings.settings import Settings
from colobench.settings.strategy import preset
from colobench.strategy.model.predict import has_model
from colobench.strategy.model.slack import AT_ONCE
from colobench.strategy.presets import PRESETS
from measurements import NAMES, make_calibration, make_comparison, make_measurement
from records import make_record
from traces import trace_file

#: 4 writes a millisecond, half of them to new pages, for the 100 ms between two checkpoints.
PAUSE_MS = 0.5 + 0.199


def as_predicted(cell, number, **others):
    """Make a measurement as the made-up calibration has it."""
    figures = {"pause_p50_ms": PAUSE_MS, "degradation": PAUSE_MS / 100}
    figures |= {"bytes_per_s": 10 * (1000 + 4104 * 198.6), "checkpoints_per_s": 10.0}
    return {"calibration": make_calibration(cell), **figures, **others}


def cells_of(*strategies, guest="hotcold", links=()):
    return make_cells(strategies, (guest,), links, Settings())


@pytest.mark.parametrize("guest", ["hotcold", "hotcold,writes_per_tick=1", "uniform", "kv,ram=16M"])
def test_calibration_has_another_seed_and_rate_than_the_cell(guest):
    [cell] = cells_of("colo_v12", guest=guest)
    found = calibration_settings(cell.settings)
    seeds = [own_seed(cell, number) for number in range(1, 9)]
    assert len({cell.settings.guest.seed, *seeds}) == 9
    writes = found.guest.writes_per_tick, cell.settings.guest.writes_per_tick
    assert writes[0] != writes[1] or guest.startswith("kv")
    assert found.checkpoint.delay is None


def test_cells_that_differ_by_trigger_and_link_share_a_calibration():
    cells = cells_of(
        "colo_v12", "degradation", "colo_v12,delay=20", "price_of_waiting", links=("local", "1GbE")
    )
    assert len({json.dumps(calibration_settings(each.settings).as_json()) for each in cells}) == 1
    others = cells_of("colo_v12", "remus", "memfd", "multifd", "multifd_zstd", "xbzrle", "colo")
    keys = {json.dumps(calibration_settings(each.settings).as_json()) for each in others}
    assert len(keys) == len(others)


def test_answers_between_checkpoints_are_those_that_met_none():
    records = [
        make_record(number, primary_marks=(("begin", begin * 10**6), ("resume", end * 10**6)))
        for number, begin, end in ((1, 100, 110), (2, 200, 220))
    ]
    times = [(90, 5), (95, 8), (105, 1), (120, 5), (198, 3), (199, 40), (230, 1)]
    answers = [Asked(sent / 1000, latency) for sent, latency in times]
    found = between_checkpoints(answers, records)
    assert [round(1000 * each.time) for each in found] == [120]
    assert between_checkpoints(answers, []) == []


def test_runs_of_a_calibration_cover_two_decades_in_ten_steps_each():
    found = list(runs_ms())
    assert min(found) >= SHORTEST_MS * (1 - 1e-9)
    assert max(found) == LONGEST_MS
    assert len(set(found)) == 24


def test_prediction_that_fits_is_within_its_bounds():
    comparison = make_comparison(as_predicted, rounds=2)
    judge = Judge(comparison)
    for cell in comparison.cells:
        for metric in (PAUSE, BYTES, DEGRADATION):
            measured = comparison.groups()[0].estimate(cell.strategy, metric)
            judged = judge.value(cell, metric, measured)
            assert abs(judged.error) < 0.02, (metric, judged)
            assert not judged.exceeds
            assert not judged.reason
    words = repr(comparison)
    assert "models of hotcold" in words
    assert "%) !" not in words


def test_guest_that_rests_loses_nothing_in_pauses_shorter_than_its_tick():
    comparison = make_comparison(
        lambda cell, number: {"calibration": make_calibration(cell, busy=0.2)}, rounds=2
    )
    figures = comparison.predictions()[comparison.cells[0].key]
    assert figures["pause_p50_ms"] < 1
    assert figures["degradation"] == pytest.approx(0, abs=1e-9)


def test_work_that_is_lost_beside_a_checkpoint_and_by_first_writes_is_found_again():
    [cell] = cells_of("remus")
    runs, pause, lost, page_ms = (50.0, 100.0, 200.0), 0.5, 0.25, 1e-3
    rate = calibration_settings(cell.settings).guest.writes_per_tick
    calibration = make_calibration(
        cell,
        busy=0.1,
        run_ms=runs,
        last_pause_ms=[pause] * 3,
        beside_ms=[20.0] * 3,
        pages=[100.0] * 3,
        work=[rate * (run + pause - lost * 20.0) for run in runs],
    )
    assert lost_beside([calibration], page_ms) == pytest.approx(lost)
    idle = calibration | {"unprotected": calibration["unprotected"] | {"work_per_ms": 0.0}}
    assert lost_beside([idle], page_ms) == 0
    assert lost_beside([idle, calibration], page_ms) == pytest.approx(lost)
    work = sum(calibration["columns"]["work"])
    more = page_ms * 300 / work
    calibration["protected"] = {
        **calibration["protected"],
        "processor_ms_per_step": calibration["unprotected"]["processor_ms_per_step"] + more,
    }
    assert first_write_ms(calibration) == pytest.approx(page_ms)


@pytest.mark.parametrize(("guest", "kept"), [("hotcold", 1), ("idle", 1), ("kv", math.inf)])
def test_ticks_are_dropped_but_requests_and_traces_wait(guest, kept):
    assert pace_of(Program[guest.upper()], 0.5).kept == kept
    assert pace_of(Program.REPLAY, 0.5).kept == math.inf


def test_clients_of_a_store_lose_no_answers_while_it_can_catch_up():
    for busy, least, most in ((0.1, 0.0, 1e-9), (1.0, 0.006, 0.008)):
        comparison = make_comparison(
            lambda cell, number, busy=busy: {"calibration": make_calibration(cell, busy=busy)},
            rounds=1,
            guests=("kv,ram=16M",),
        )
        found = comparison.predictions()[comparison.cells[0].key]["degradation"]
        assert least <= found <= most


def test_rate_of_answers_that_come_in_bursts_does_not_depend_on_where_they_end():
    # A request each 5 ms, answered at the next of the moments that are 100 ms apart.
    for count in range(200, 220):
        sent = [each * 0.005 for each in range(count)]
        answers = [Asked(at, 1000 * (math.ceil(at / 0.1 + 1e-9) * 0.1 - at)) for at in sent]
        assert answers_per_s(answers) == pytest.approx(200, rel=0.01)
    assert answers_per_s(answers[:1]) is None
    # One that answers half of the requests falls behind.
    slow = [Asked(at, 1000 * at) for at in sent]
    assert answers_per_s(slow) == pytest.approx(100)


def test_error_beyond_its_bound_is_marked_in_the_table_and_red_on_the_page(tmp_path):
    comparison = make_comparison(
        lambda cell, number: as_predicted(cell, number, pause_p50_ms=2.0), rounds=2
    )
    assert "(-65 %) !" in repr(comparison)
    page = comparison.write_page(tmp_path / "page.html").read_text()
    assert '<small class="exceeds" title="the error exceeds its bound">model' in page
    assert '<small class="exceeds"' in comparison._repr_html_()


def drifted_copy(cell, number):
    return {"memcpy": (10.0, 5.0)}


def drifted_calibration(cell, number):
    return {"calibration": make_calibration(cell, pause_per_page=1e-3 * 10**number)}


def drifted_work(cell, number):
    return {"unprotected": {"work_per_s": 1000.0 * number}}


def few_checkpoints(cell, number):
    return {"checkpoints": 2 if number == 1 else 9}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drifted_copy, "the rate of memcpy beside it drifted"),
        (drifted_calibration, "its calibrations drifted from round to round"),
        (drifted_work, "its unprotected guest worked at another rate from round to round"),
        (few_checkpoints, "a round had too few checkpoints"),
    ],
)
def test_nothing_is_judged_where_the_machine_drifted_or_too_little_was_measured(change, reason):
    def figures(cell, number):
        changed = change(cell, number) if cell.strategy == NAMES[0] else {}
        return as_predicted(cell, number, pause_p50_ms=2.0) | changed

    comparison = make_comparison(figures, rounds=2)
    judge = Judge(comparison)
    measured = Estimate(2.0, 2.0, 2.0, 2)
    judged, clear = (judge.value(cell, PAUSE, measured) for cell in comparison.cells)
    assert judged.reason == reason
    assert not judged.exceeds
    assert clear.exceeds
    assert f"not judged, because {reason}: colo_v12 on hotcold" in repr(comparison)


@pytest.mark.parametrize(
    ("predicted", "measured", "exceeds", "judged"),
    [
        (1.1, Estimate(1.0, 0.9, 1.1, 5), False, True),
        (2.3, Estimate(2.0, 1.9, 2.1, 5), False, True),
        (2.4, Estimate(2.0, 1.9, 2.1, 5), True, True),
        (1.15, Estimate(1.0, None, None, 1), False, True),
        (1.3, Estimate(1.0, None, None, 1), True, True),
        (1.3, Estimate(1.0, 0.5, 1.4, 2), False, False),
    ],
)
def test_bound_of_the_pause_is_15_percent_or_a_fifth_of_a_millisecond(
    predicted, measured, exceeds, judged
):
    found = judge_value(predicted, measured, BOUNDS[PAUSE.name], "")
    assert found.exceeds is exceeds
    assert (found.reason == "") is judged


def test_bounds_are_of_metrics_that_exist():
    assert BOUNDS.keys() <= {metric.name for metric in METRICS}


def test_strategy_without_a_model_is_said_to_have_none(monkeypatch):
    monkeypatch.setattr("colobench.strategy.model.predict.CAPTURES", {})
    words = repr(make_comparison(as_predicted, rounds=2))
    assert "There is no model of colo_v12 on hotcold; multifd on hotcold." in words


def test_results_alone_give_the_predictions_again():
    comparison = make_comparison(as_predicted, rounds=2)
    before = comparison.predictions()
    assert len(before) == 2
    lines = [each.to_json() for each in comparison.measurements]
    comparison.measurements = [Measurement.from_json(line) for line in lines]
    assert comparison.predictions() == before


def test_comparison_without_calibrations_has_no_predictions():
    comparison = make_comparison(lambda cell, number: {})
    assert comparison.predictions() == {}
    assert "model" not in repr(comparison)
    assert len(comparison.plots()) == 3


def test_other_settings_are_predicted_from_the_same_calibration():
    [cell] = cells_of("colo_v12")
    calibration = make_calibration(cell)
    usual = predict_settings(cell.settings, [calibration])
    rare = predict_settings(cell.settings.override(delay=200), [calibration])
    slow = predict_settings(cell.settings.override(link="rate=10M"), [calibration])
    assert rare["checkpoints_per_s"] == pytest.approx(usual["checkpoints_per_s"] / 2)
    assert slow["pause_p50_ms"] > usual["pause_p50_ms"]
    assert predict_settings(cell.settings.override(transport="memfd"), [calibration]) is None


def test_answers_are_predicted_where_clients_ask():
    comparison = make_comparison(as_predicted, rounds=1, guests=("kv,ram=16M",))
    found = comparison.predictions()[comparison.cells[0].key]
    assert 50 < found["latency_p50_ms"] < 55
    assert calibrations_of(comparison).predict(comparison.cells[0].settings).period_ms == (
        pytest.approx(100)
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_each_preset_has_a_model(name):
    assert has_model(axes_of(Settings().override(**preset(name).changes())))


def test_replay_is_predicted_although_its_session_alone_knows_the_digest_of_the_trace():
    [cell] = cells_of("colo_v12", guest="replay,trace=datasets/traces/sqlite.npz")
    calibration = make_calibration(cell)
    calibration["settings"]["trace_sha256"] = "0" * 64
    assert predict_settings(cell.settings, [calibration]) is not None


def test_a_round_has_one_calibration_for_all_cells_that_share_it(monkeypatch):
    calibrated = []

    def calibrate(cell, number, *_):
        calibrated.append(number)
        found = make_calibration(cell)
        found["settings"]["trace_sha256"] = "0" * 64
        return found

    monkeypatch.setattr(run, "calibrate", calibrate)
    monkeypatch.setattr(
        run,
        "measure_cell",
        lambda cell, number, settings, show: make_measurement(cell, number, settings),
    )
    cells = cells_of(
        "colo_v12", "colo_v12,delay=20", guest="replay,trace=datasets/traces/sqlite.npz"
    )
    comparison = Comparison(tuple(cells), ComparisonSettings().override(rounds=2))
    run.measure_missing(comparison)
    assert calibrated == [1, 2]
    assert comparison.predictions().keys() == {cell.key for cell in cells}


def test_guest_s_own_frames_follow_its_work_and_not_the_time():
    [cell] = cells_of("kemari")
    # One frame for 256 steps, from a guest that a checkpoint slows down to half of its rate.
    calibration = make_calibration(cell)
    work = [each / 2 for each in calibration["columns"]["work"]]
    calibration["columns"] |= {"work": work, "frames": [each / 256 for each in work]}
    calibrations = Calibrations([calibration])
    for steps in (2.0, 4.0):
        found = calibrations.predict(cell.settings, {"work_per_ms": steps})
        assert found.run_ms == pytest.approx(256 / steps, rel=0.02)


def test_answers_that_were_held_for_so_long_that_they_were_sent_again_are_not_counted_twice():
    [cell] = cells_of("kemari", guest="kv,ram=16M")
    calibration = make_calibration(cell)
    columns = calibration["columns"]
    columns["run_ms"] = [10.0, 20.0, 50.0, 100.0, 300.0]
    columns["frames"] = [2, 4, 10, 20, 120]
    columns["last_pause_ms"] = [0.0] * 5
    load = Calibrations([calibration]).workload(cell.settings)
    assert load.frames_per_ms == pytest.approx(0.2)


# -- Beside the first strategy -------------------------------------------------------------------


def test_table_has_each_figure_divided_by_that_of_the_first_strategy():
    comparison = make_comparison(
        lambda cell, number: {"commit_lag_p50_ms": 4.0 if cell.strategy == NAMES[0] else 6.0},
        rounds=2,
    )
    [group] = comparison.groups()
    rows = dict(ratio_rows(group)[1:])
    assert rows["commit lag, p50"] == "1.50"
    assert f"divided by {NAMES[0]}" in repr(comparison)
    group.strategies = group.strategies[:1]
    assert ratio_rows(group) == []


def test_less_than_nothing_is_no_multiple():
    comparison = make_comparison(
        lambda cell, number: {"degradation": 0.1 if cell.strategy == NAMES[0] else -0.05}, rounds=2
    )
    [group] = comparison.groups()
    assert dict(ratio_rows(group)[1:])["degradation"] == "–"


def test_fewer_bytes_win_below_the_rate_at_which_both_take_equally_long():
    plain, small = cells_of("colo_v12,delay=0", "xbzrle,delay=0", links=("1GbE",))
    quick = make_calibration(plain, pages_per_step=500)
    pages = quick["columns"]["pages"]
    slow = make_calibration(
        small, pages_per_step=500, pause_per_page=3e-3, bytes=[1000 + 2052 * each for each in pages]
    )
    both = Calibrations([quick, slow])
    low, found = commits_more_between(both, small, plain)
    assert low == 0
    for rate, wins in ((0.9 * found, True), (1.1 * found, False)):
        link = Link(round(rate))
        committed = [
            both.predict(each.settings, link=link).figures["checkpoints_per_s"]
            for each in (small, plain)
        ]
        assert (committed[0] > committed[1]) is wins
    above = commits_more_between(both, plain, small)
    assert above == (pytest.approx(found, rel=0.02), math.inf)
    assert commits_more_between(both, plain, plain) == Rates(0, 0)
    assert commits_more_between(Calibrations([quick]), small, plain) is None


def test_a_rate_from_models_that_are_not_judged_says_so():
    for change, reason in ((lambda *_: {}, ""), (drifted_copy, "the rate of memcpy")):
        comparison = make_comparison(
            lambda cell, number, change=change: as_predicted(cell, number) | change(cell, number),
            rounds=2,
            link="1GbE",
        )
        notes = rate_notes(comparison)
        assert len(notes) == len(NAMES) - 1
        assert all((f"Not judged: {reason}" in each) is bool(reason) for each in notes)


def test_links_that_differ_by_rate_have_one_sentence_which_names_a_measurement_that_contradicts():
    """The second strategy is said to commit more below a rate, and does so over one link of two."""
    settings = ComparisonSettings().override(rounds=2)
    cells = make_cells(("colo_v12", "xbzrle"), ("hotcold",), ("1GbE", "10GbE"), settings.pair)
    comparison = Comparison(tuple(cells), settings)
    for cell in cells:
        for number in (1, 2):
            more = 5.0 if cell.strategy == "xbzrle" and cell.link == "1GbE" else 1.0
            calibration = make_calibration(cell, pause_per_page=1e-3 * (cell.strategy == "xbzrle"))
            comparison.add(
                make_measurement(
                    cell, number, settings, checkpoints_per_s=more, calibration=calibration
                )
            )
    [note] = rate_notes(comparison)
    assert ("over 1GbE: 5.00 times" in note) is not ("over 10GbE: 1.00 times" in note)
    assert note in repr(comparison)
    assert note in comparison._repr_html_()


# -- A trace has a curve of its own --------------------------------------------------------------


def test_a_replayed_trace_has_the_curve_of_all_its_windows(tmp_path):
    # Each tenth interval has 50 pages, the others one of two: few windows are not like all.
    writes = [list(range(50)) if at % 10 == 0 else [50 + at % 2] for at in range(100)]
    path = trace_file(tmp_path / "trace.npz", writes)
    guest = GuestSettings(program=Program.REPLAY, trace=str(path))
    curve = trace_curve(guest)
    assert curve[-1] == (590, 52)
    cell, *_ = make_cells(("colo_v12",), (f"replay,trace={path}",), (), Settings())
    calibration = make_calibration(cell) | {"trace_curve": curve}
    found = Calibrations([calibration]).workload(cell.settings).curve
    assert [found.at(work) for work, _ in curve] == pytest.approx([pages for _, pages in curve])
    # The trace begins again, and has no other pages.
    assert found.at(5900) == pytest.approx(52)
    assert trace_curve(dataclasses.replace(guest, working_set=16)) is None
    assert trace_curve(GuestSettings()) is None


def test_a_trace_is_measured_from_end_to_end_unless_it_is_long(tmp_path):
    def guest(milliseconds):
        path = trace_file(tmp_path / f"{milliseconds}.npz", [[1], [2]], milliseconds // 2)
        return GuestSettings(program=Program.REPLAY, trace=str(path))

    assert [whole_passes(seconds, guest(1500)) for seconds in (0.1, 1.5, 1.6)] == [1.5, 1.5, 3.0]
    assert whole_passes(2.0, guest(12_000)) == 2.0
    assert whole_passes(2.0, GuestSettings()) == 2.0


# -- Checkpoints that are due as soon as they can be ---------------------------------------------


def with_close(cell, runs, behind=None, **others):
    """Make a calibration with checkpoints as close together as they can be."""
    calibration = make_calibration(cell)
    tables = {}
    for name, each in (("close", runs), ("behind", behind)):
        columns = {"pages": [100] * len(each or ()), "beside_ms": [0.1] * len(each or ())}
        columns["pause_ms"] = [2 * (0.5 + 0.1)] * len(each or ())
        tables[name] = each and {"run_ms": each, **columns}
    return calibration | tables | others


def test_least_time_between_checkpoints_is_what_the_calibration_took():
    [cell] = cells_of("colo_v12")
    found = Calibrations([with_close(cell, [1.0, 1.1, 5.0], [3.0, 2.9, 3.1])])
    preparation = found.fitted(cell.settings).preparation
    # Without the 0.2 ms of the request, and the 0.1 ms in which the last one was loaded.
    assert (preparation.alone, preparation.beside) == pytest.approx((0.8, 2.7))
    assert preparation.spread.ratio(1.0, 0.5) == pytest.approx(2)


@pytest.mark.parametrize("missing", [{}, {"close": None}, {"close": {"run_ms": []}}])
def test_older_results_have_no_least_time(missing):
    [cell] = cells_of("colo_v12")
    found = Calibrations([make_calibration(cell) | missing])
    assert found.fitted(cell.settings).preparation == AT_ONCE


def test_guest_that_loses_ticks_needs_no_checkpoints_behind_a_pause_and_open_epochs_no_least_time():
    [colo] = cells_of("colo_v12")
    found = Calibrations([with_close(colo, [1.0, 1.1, 5.0])]).fitted(colo.settings)
    assert found.preparation.takes_ms(math.inf) == found.preparation.alone
    [cow2] = cells_of("cow2")
    assert Calibrations([with_close(cow2, [1.0])]).fitted(cow2.settings).preparation == AT_ONCE
