"""The panel that runs trackers side by side: the same pages for all, live, and stopped at once."""

from __future__ import annotations

import numpy as np
import pytest

from colobench.lab.studies.trackers import Epoch
from colobench.memory.shadow import Shadow
from colobench.memory.tracker import TrackerUnavailable
from colobench.ui.base.panel import Panel
from colobench.ui.base.pump import frames
from colobench.ui.panels import tracker_panel
from colobench.ui.panels.tracker_panel import EPOCHS, TrackerPanel
from feeds import collect, data_of, sets_of

NAMES = ["marked", "shadow"]


@pytest.fixture
def sent(monkeypatch):
    """Collect what is drawn, by the name of the table; refreshing is the test's matter."""
    monkeypatch.setattr(frames, "add", lambda view: None)
    monkeypatch.setattr(tracker_panel, "EPOCH_SECONDS", 0)
    return collect(monkeypatch)


@pytest.fixture
def panel(sent):
    panel = TrackerPanel(ram="2M", trackers=NAMES)
    yield panel
    panel.close()
    assert Panel._current is None


def run(panel):
    panel.run_button.click()
    panel.wait()
    assert panel.background.error is None
    panel.refresh()


def test_a_run_shows_the_same_pages_for_all(panel):
    run(panel)
    assert [figures.exact for figures in panel.table] == [EPOCHS] * 2
    assert panel.epoch.value == EPOCHS
    for number in (EPOCHS, 3):
        panel.epoch.value = number
        one, other = (sets_of(panel.maps[name])[0] for name in NAMES)
        assert one == other
        assert data_of(panel.maps[NAMES[0]]) == data_of(panel.maps[NAMES[1]])
        assert one["pages"] == next(
            each.pages for each in panel.runs[0] if isinstance(each, Epoch) and each.epoch == number
        )
    assert panel.words.value.count(f"in {EPOCHS} of {EPOCHS} epochs") == 2


def test_every_run_adds_to_the_plot_until_it_is_cleared(panel, sent):
    for writes, runs in ((10, 1), (1000, 2)):
        panel.writes.value = writes
        run(panel)
        assert len(sent["marked"]["pages"]) == runs * EPOCHS
        assert len(sent["medians"]["shadow collect_ms"]) == runs
    assert sent["medians"]["marked pages"] == [
        np.median(sent["marked"]["pages"][:EPOCHS]),
        np.median(sent["marked"]["pages"][EPOCHS:]),
    ]
    panel.clear_button.click()
    panel.wait()
    panel.refresh()
    assert sent["marked"]["pages"] == sent["medians"]["marked pages"] == []
    assert not any(sets_of(each) for each in panel.maps.values())


def test_nothing_is_drawn_when_nothing_is_new(panel, sent):
    run(panel)
    assert set(sent) == {*NAMES, "medians"}
    sent.clear()
    panel.refresh()
    assert sent == {}


def test_it_stops_between_two_epochs(panel, monkeypatch):
    monkeypatch.setattr(tracker_panel, "EPOCH_SECONDS", 60)
    panel.run_button.click()
    assert panel.run_button.disabled
    assert not panel.stop_button.disabled
    panel.stop_button.click()
    panel.wait()
    assert not panel.run_button.disabled
    assert {each.epoch for each in panel.runs[0]} <= {1}


def test_one_that_cannot_run_here_says_why_and_the_others_run(panel, monkeypatch):
    def refuse(shadow, ram):
        raise TrackerUnavailable("no room for <another> copy")

    monkeypatch.setattr(Shadow, "__init__", refuse)
    run(panel)
    assert panel.table.available == ("marked",)
    assert "not here: no room for &lt;another&gt; copy" in panel.words.value
    assert sets_of(panel.maps["marked"])
    assert not sets_of(panel.maps["shadow"])
