"""The panel that compares strategies, with real pairs: drawn while they run, and stopped."""

from __future__ import annotations

import numpy as np
import pytest

from colobench.ui.base.pump import frames
from colobench.ui.panels.strategy_comparison import StrategyComparison
from feeds import tables_of

pytestmark = pytest.mark.usefixtures("nothing_left")

QUICK = {"ram": "8M", "seconds": 0.3, "unprotected_seconds": 0.2, "rounds": 1, "models": False}


class EachTime:
    """A user's own trigger: a checkpoint as often as it says, in milliseconds."""

    def __init__(self, every):
        self.every = every

    def ask(self, seen):
        """Ask for a checkpoint when the time has come."""
        return "time" if seen.ran_ms >= self.every else self.every - seen.ran_ms


class Broken:
    """A user's own trigger with an error."""

    def ask(self, seen):
        """Divide by nothing."""
        return seen.ran_ms / 0


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(frames, "add", lambda view: None)
    made = []

    def make(*strategies, **settings):
        made.append(StrategyComparison(strategies, **QUICK | settings))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert StrategyComparison._current is None


def draw(panel):
    """Draw what there is; gives the number of each strategy's checkpoints."""
    panel._draw()
    panel.plots.figure.feed._sent = float("-inf")
    panel.plots.figure.feed.tend()
    tables = tables_of(panel.plots.figure)
    return [len(tables[f"checkpoints {number}"]["seconds"]) for number in range(4)]


def test_a_users_own_trigger_is_compared_with_a_preset_and_both_are_drawn(make):
    panel = make("colo_v12,delay=20", EachTime(10))
    panel.start_button.click()
    panel.wait()
    assert panel.background.error is None
    preset, own = panel.comparison.measurements
    assert (preset.strategy, own.strategy) == ("colo_v12,delay=20", "EachTime(every=10)")
    assert set(own.checkpoints["cause"]) == {"time"}
    # What is drawn are the checkpoints of the measured time, and no others.
    assert draw(panel) == [len(preset.checkpoints["number"]), len(own.checkpoints["number"]), 0, 0]
    assert "All 2 measurements are made." in panel.status.value


def test_a_stop_ends_the_pair_at_once_and_a_start_begins_anew(make, monkeypatch):
    panel = make("colo_v12,delay=20", "memfd,delay=20")
    enter = panel._show

    def stop_the_second(underway):
        enter(underway)
        if underway.cell.strategy.startswith("memfd"):
            panel.stop_button.click()

    monkeypatch.setattr(panel, "_show", stop_the_second)
    panel.start()
    panel.wait()
    panel.refresh()
    assert panel.background.error is None
    assert "Stopped after 1 of 2 measurements." in panel.status.value
    [rows, *others] = draw(panel)
    assert rows > 0
    assert others == [0, 0, 0]


def test_lines_are_predicted_and_a_stop_ends_a_calibration(make, monkeypatch):
    panel = make("colo_v12,delay=20", "memfd,delay=20", models=True)
    calibrate = panel._calibrate

    def stop_the_second(session):
        calibrate(session)
        if panel.comparison.measurements:
            panel.stop_button.click()

    monkeypatch.setattr(panel, "_calibrate", stop_the_second)
    panel.start()
    panel.wait()
    panel.refresh()
    assert panel.background.error is None
    assert "Stopped after 1 of 2 measurements." in panel.status.value
    draw(panel)
    lines = tables_of(panel.plots.figure)
    assert lines["lines 0"]["pause"][0] > 0
    assert lines["lines 0"]["megabytes"][1] > 0
    assert np.isnan(lines["lines 1"]["pause"]).all()


def test_an_error_in_a_users_own_trigger_is_told_in_one_sentence(make):
    panel = make(Broken())
    panel.start()
    panel.wait()
    panel.refresh()
    assert "It failed: Broken() on hotcold, round 1" in panel.status.value
    assert "ZeroDivisionError" in panel.status.value
    assert not panel.start_button.disabled
