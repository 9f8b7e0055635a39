"""The panel that compares strategies, and its plots, without a pair."""

from __future__ import annotations

import numpy as np
import pytest

from colobench.errors import RemoteError
from colobench.lab.compare.growth import Growth
from colobench.strategy.presets import PRESETS
from colobench.ui.base.pump import frames
from colobench.ui.panels import strategy_comparison
from colobench.ui.panels.strategy_comparison import NONE, StrategyComparison
from colobench.ui.views.comparison_plots import POINTS, ComparisonPlots
from feeds import tables_of
from measurements import make_measurement


class Mine:
    """A user's own trigger."""

    def ask(self, seen):
        """Never ask for a checkpoint."""
        return 5


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(frames, "add", lambda view: None)
    made = []

    def make(*arguments, **settings):
        made.append(StrategyComparison(*arguments, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert StrategyComparison._current is None


@pytest.fixture
def measured(monkeypatch):
    """Make all measurements up, without pairs."""

    def measure_missing(comparison, *, show, **others):
        for number in range(1, comparison.settings.rounds + 1):
            for cell in comparison.cells:
                comparison.add(make_measurement(cell, number, comparison.settings))

    monkeypatch.setattr(strategy_comparison, "measure_missing", measure_missing)


def start(panel):
    panel.start_button.click()
    panel.wait()
    panel.refresh()


def make_growth(count):
    return Growth(
        np.arange(count) / 10,
        np.full(count, 2.0),
        np.arange(count) * 1e6,
        np.full(count, 0.05),
        np.array([1.0, 3.0]),
    )


def test_presets_and_own_strategies_can_be_chosen(make):
    panel = make(["remus", Mine()])
    for each in panel.strategies:
        assert set(each.options) == {NONE, *PRESETS, "Mine()"}
    assert [each.value for each in panel.strategies] == ["remus", "Mine()", NONE, NONE]
    panel = make(["remus", "memfd", Mine(), "colo", "colo_v12,delay=7"])
    assert [each.value for each in panel.strategies] == ["remus", "memfd", "Mine()", "colo"]
    assert "colo_v12,delay=7" in panel.strategies[0].options


def test_what_is_found_is_said_in_words_and_in_a_table(make, measured):
    panel = make(["colo_v12", Mine()], rounds=2)
    start(panel)
    assert "All 4 measurements are made." in panel.status.value
    assert "colo_v12 and Mine() tie in the shortest median pause" in panel.words.value
    assert "Mine()" in panel.legend.value
    assert panel.comparison.missing == 0
    assert not panel.start_button.disabled
    assert panel.stop_button.disabled


@pytest.mark.parametrize(
    ("chosen", "link", "words"),
    [
        (["memfd"], "10GbE", "memfd"),
        (["remus", "remus"], "local", "expected each cell once, found remus on hotcold twice"),
        ([], "local", "expected at least one strategy and one guest, found none"),
    ],
)
def test_choices_that_do_not_go_together_are_refused_with_one_sentence(make, chosen, link, words):
    panel = make(chosen, link=link)
    start(panel)
    assert "It failed: " in panel.status.value
    assert words in panel.status.value
    assert panel.comparison is None


def test_a_pair_that_breaks_is_told_in_one_sentence_and_what_was_measured_stays(
    make, monkeypatch, measured
):
    panel = make(["colo_v12"], rounds=1)
    real = strategy_comparison.measure_missing

    def breaks(comparison, *, show, **others):
        real(comparison, show=show, **others)
        raise RemoteError("colo_v12 on hotcold, round 2: the cable\nis cut")

    monkeypatch.setattr(strategy_comparison, "measure_missing", breaks)
    start(panel)
    assert "It failed: colo_v12 on hotcold, round 2: the cable is cut" in panel.status.value
    assert "pause, p50" in panel.words.value


def test_latencies_are_shown_of_guests_that_have_clients(make, measured):
    panel = make(["colo_v12"], guest="kv", rounds=1)
    below = panel.plots.children[1]
    assert below.layout.display == "none"
    start(panel)
    assert below.layout.display is None


def test_plots_have_each_strategy_and_only_lines_that_are_predicted():
    plots = ComparisonPlots()
    predicted = {"pause_p50_ms": 1.5, "degradation": 0.1, "bytes_per_s": 2e6}
    plots.show(1, [make_growth(11), make_growth(10 * POINTS)], [predicted, {}])
    tables = tables_of(plots.figure)
    rows = [len(tables[f"checkpoints {number}"]["seconds"]) for number in range(4)]
    assert rows == [11, POINTS, 0, 0]
    first, second = tables["lines 0"], tables["lines 1"]
    assert first["pause"].tolist() == [1.5, 1.5]
    assert first["degradation"].tolist() == [10, 10]
    # 2 MB a second, for as long as the longest.
    assert first["megabytes"].tolist() == pytest.approx([0, 2 * (POINTS - 0.1)])
    assert np.isnan(first["latency_at"]).all()
    assert np.isnan(second["pause"]).all()
    shares = tables_of(plots.latencies)["shares"]
    assert (shares["latency 1"][0], shares["latency 1"][-1]) == (1, 3)
    assert np.isnan(shares["latency 2"]).all()
    plots.close()
