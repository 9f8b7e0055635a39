"""What all panels have in common: Reset, an end when no page shows them, one thing at a time."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import psutil
import pytest

from colobench.lab.compare.underway import MeasurementStage
from colobench.ui.base.panel import Background, Panel, feeds
from colobench.ui.panels.cause_panel import CausePanel
from colobench.ui.panels.cockpit import Cockpit
from colobench.ui.panels.dashboard import Dashboard
from colobench.ui.panels.failover_panel import FailoverPanel
from colobench.ui.panels.flush_guess import FlushGuess
from colobench.ui.panels.museum_panel import MuseumPanel
from colobench.ui.panels.prediction_panel import PredictionPanel
from colobench.ui.panels.stepper import Stepper
from colobench.ui.panels.strategy_comparison import StrategyComparison
from colobench.ui.panels.tracker_panel import TrackerPanel

pytestmark = pytest.mark.usefixtures("nothing_left")

QUICK = {"ram": "8M", "unprotected_seconds": 0.2, "models": False}


@pytest.fixture
def opened():
    panels = []

    def open_panel(kind, *arguments, **settings):
        panels.append(kind(*arguments, **settings))
        return panels[-1]

    yield open_panel
    for panel in panels:
        panel.close()


def values(panel):
    """Give the values of all controls that a reader sets."""
    found, rest = [], [panel]
    while rest:
        widget = rest.pop()
        rest += getattr(widget, "children", ())
        if hasattr(widget, "disabled") and hasattr(widget, "value"):
            found.append((widget.description, widget.value))
    return sorted(found, key=str)


CHANGES = {
    CausePanel: lambda panel: setattr(panel.dials["shuffle"], "value", 100),
    Cockpit: lambda panel: panel.choose("guest", "uniform"),
    FailoverPanel: lambda panel: setattr(panel.holder, "value", "secondary"),
    FlushGuess: lambda panel: setattr(panel.longer, "value", "neither"),
    MuseumPanel: lambda panel: setattr(panel.bug, "value", panel.bug.options[-1]),
    Stepper: lambda panel: setattr(panel.damage, "value", panel.damage.options[-1]),
    StrategyComparison: lambda panel: setattr(panel.guest, "value", "idle"),
    TrackerPanel: lambda panel: setattr(panel.writes, "value", 10),
}


@pytest.mark.parametrize("kind", CHANGES, ids=lambda kind: kind.__name__)
def test_reset_brings_back_the_first_choices(opened, kind):
    panel = opened(kind)
    shown, status = values(panel), panel.status.value
    CHANGES[kind](panel)
    for _ in range(2):
        panel.reset_button.click()
    panel.wait()
    assert values(panel) == shown
    assert kind is Cockpit or panel.status.value == status


@pytest.mark.parametrize(("number", "answer"), [("07.1", None), ("02.1", ""), ("04.1", [])])
def test_reset_takes_back_an_answer(opened, number, answer):
    panel = opened(PredictionPanel, number)
    if answer == []:
        panel.answer.drawn.values = [1.0, 2.0]
    else:
        panel.answer.value = "7" if answer == "" else panel.answer.options[0]
    panel.reset_button.click()
    panel.wait()
    assert (panel.answer.drawn.values if answer == [] else panel.answer.value) == answer
    assert panel.feedback is None


def test_reset_in_mid_run_ends_a_comparison_and_one_can_start_anew(opened):
    panel = opened(StrategyComparison, ["colo_v12,delay=20"], seconds=600.0, rounds=1, **QUICK)
    panel.start_button.click()
    wait_for_a_pair(panel)
    panel.reset_button.click()
    panel.wait()
    assert panel.background.error is None
    assert panel.comparison is None
    assert "Choose strategies" in panel.status.value
    assert not panel.start_button.disabled


def wait_for_a_pair(panel):
    while not panel._underway or panel._underway[-1].stage is MeasurementStage.STARTING:
        assert panel.background.doing is not None, panel.background.error
        psutil.wait_procs([psutil.Process()], timeout=0.05)


def test_a_comparison_that_no_page_shows_any_more_ends(opened, monkeypatch):
    panel = opened(StrategyComparison, ["colo_v12,delay=20"], seconds=600.0, rounds=1, **QUICK)
    panel.start_button.click()
    wait_for_a_pair(panel)
    monkeypatch.setattr(feeds, "unseen_seconds", lambda: 1e6)
    panel.wait()
    assert "no page showed this any more" in panel.status.value


def test_a_steppers_pair_ends_when_no_page_shows_it_and_reset_forgets_it(opened, monkeypatch):
    panel = opened(Stepper)
    panel.next_button.click()
    panel.wait()
    pids = panel.stepping.session.all_pids()
    assert panel.contact.feed.busy()
    with monkeypatch.context() as patch:
        patch.setattr(feeds, "unseen_seconds", lambda: 1e6)
        panel.refresh()
        panel.wait()
    assert not any(map(psutil.pid_exists, pids))
    assert "This pair is over" in panel.status.value
    assert not panel.contact.feed.busy()
    panel.reset_button.click()
    panel.wait()
    assert panel.stepping is None
    assert panel.machines.value == panel.bytes.value == ""
    assert "Next starts a pair" in panel.status.value


def test_a_pair_that_waits_for_a_guess_ends_when_no_page_shows_it(opened, monkeypatch):
    panel, ended = opened(FlushGuess), []
    panel.session = SimpleNamespace(close=lambda: ended.append(True))
    panel.pending = object()
    assert panel.contact.feed.busy()
    monkeypatch.setattr(feeds, "unseen_seconds", lambda: 1e6)
    panel.refresh()
    panel.wait()
    assert ended == [True]
    assert panel.session is panel.pending is None
    assert "Choose a guest" in panel.status.value
    assert not panel.take_button.disabled
    assert not panel.contact.feed.busy()


def test_a_dashboards_pair_ends_when_no_page_shows_it(opened, monkeypatch):
    panel = opened(Dashboard, ram="8M", delay=20, guest="uniform")
    panel.start_button.click()
    panel.wait()
    monkeypatch.setattr(feeds, "unseen_seconds", lambda: 1e6)
    panel.refresh()
    panel.wait()
    assert "no page showed this any more" in panel.status.value


def test_what_follows_is_done_after_the_present_work_and_is_waited_for():
    background, done, go_on = Background(lambda: None), [], threading.Event()
    background.do("first", lambda: go_on.wait() and done.append("first"))
    for word in ("second", "third"):
        background.then(word, lambda word=word: done.append(word))
    assert done == []
    go_on.set()
    background.wait()
    assert done == ["first", "third"]
    assert background.doing is None
    background.then("fourth", lambda: done.append("fourth"))
    background.wait()
    assert done[-1] == "fourth"


def test_every_panel_with_choices_has_a_reset():
    def kinds(kind):
        for each in kind.__subclasses__():
            yield each
            yield from kinds(each)

    found = {each for each in kinds(Panel) if each.__module__.startswith("colobench.")}
    # Its session is the reader's, who starts another one.
    without = {"NextCheckpoint"}
    assert {each.__name__ for each in found} == without | {"Dashboard", "PredictionPanel"} | {
        each.__name__ for each in CHANGES
    }
