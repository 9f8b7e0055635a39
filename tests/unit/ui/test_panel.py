"""A panel says what failed, and leaves nothing behind when it is closed."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace

import pytest
from ipywidgets import IntProgress, Text
from ipywidgets.widgets.widget import _instances
from ipywidgets.widgets.widget_selection import _Selection

from cockpit_runs import make_run
from colobench.errors import LocalError
from colobench.lab.cockpit.run import CockpitRun, RunStage
from colobench.ui.base.feed import Library
from colobench.ui.base.pump import Pump, frames
from colobench.ui.panels import cockpit as cockpit_module
from colobench.ui.panels import failover_panel, museum_panel
from colobench.ui.panels.cockpit import Cockpit
from colobench.ui.panels.dashboard import Dashboard
from colobench.ui.panels.failover_panel import FailoverPanel
from colobench.ui.panels.museum_panel import MuseumPanel
from colobench.ui.panels.stepper import Stepper


@pytest.fixture
def still(monkeypatch):
    """Let the test say when something is refreshed."""
    monkeypatch.setattr(Pump, "add", lambda pump, view: None)


def refresh(view):
    """Refresh a view as its pump does."""
    frames._refresh(view)


def test_a_panel_that_cannot_be_refreshed_says_so_and_is_refreshed_again(still, monkeypatch):
    cockpit = Cockpit(ram="8M")
    with monkeypatch.context() as broken:
        broken.setattr(cockpit, "_draw", lambda: 1 / 0)
        refresh(cockpit)
    assert "It failed: ZeroDivisionError" in cockpit.status.value
    refresh(cockpit)
    assert "It failed" not in cockpit.status.value
    cockpit.overlay.active = lambda: ["one"]
    stopped = []
    cockpit.overlay.stop = lambda: stopped.append(True)
    with monkeypatch.context() as unseen:
        unseen.setattr(cockpit_module, "is_unseen", lambda: True)
        unseen.setattr(cockpit, "_draw", lambda: None)
        unseen.setattr(cockpit, "update", lambda: None)
        refresh(cockpit)
    assert stopped
    del cockpit.overlay.active, cockpit.overlay.stop
    cockpit.close()


@pytest.mark.parametrize("kind", [Cockpit, Dashboard, FailoverPanel, MuseumPanel, Stepper])
def test_a_closed_panel_leaves_no_widget_behind(still, kind):
    # The first one makes the libraries that all share.
    kind().close()
    before = set(_instances)
    panel = kind()
    assert set(_instances) > before
    panel.close()
    assert {type(_instances[each]) for each in set(_instances) - before} <= {Library}


def test_panels_of_one_kind_share_no_widget_that_the_first_one_closes(still):
    for kind in (Cockpit, Dashboard):
        kind(ram="8M").close()
        panel = kind(ram="8M")
        shown = [panel]
        while shown:
            each = shown.pop()
            assert each.comm is not None
            assert each.layout.comm is not None
            shown += getattr(each, "children", ())
        panel.close()


def test_a_closed_dashboard_keeps_no_session(still):
    dashboard = Dashboard(ram="8M")
    session = weakref.ref(dashboard.session)
    dashboard.close()
    del dashboard
    gc.collect()
    assert session() is None


@pytest.fixture
def cockpit(still):
    cockpit = Cockpit(ram="8M")
    yield cockpit
    cockpit.overlay.runs.clear()
    cockpit.close()


def press(cockpit, button):
    """Press a button, and wait until what it does is done."""
    assert not button.disabled
    button.click()
    cockpit.background.wait()
    cockpit.update()


def add_run(cockpit, name, number=0):
    """Add a run that is over."""
    run = make_run(name, number)
    cockpit.overlay.runs.append(run)
    cockpit.update()
    return run


def test_a_deleted_run_is_freed(cockpit):
    kept = add_run(cockpit, "My Run A")
    deleted = weakref.ref(add_run(cockpit, "My Run B", 1))
    cockpit._draw()
    before = len(_instances)
    press(cockpit, cockpit.rows._rows[id(deleted())].delete)
    assert "My Run B is deleted" in cockpit.status.value
    assert len(_instances) <= before - 10
    gc.collect()
    assert deleted() is None
    assert cockpit.rows._rows[id(kept)].box.comm is not None


def test_what_is_done_is_said_with_the_names_as_they_are(cockpit):
    run = add_run(cockpit, "My Run A")
    said = []
    cockpit.overlay.delete = lambda run: said.append(cockpit.status.value)
    cockpit.rows._rows[id(run)].delete.click()
    cockpit.background.wait()
    del cockpit.overlay.delete
    assert "Deleting My Run A …" in said[0]


def test_results_and_errors_are_said_beside_a_run_that_has_failed(cockpit):
    run = add_run(cockpit, "r1")
    run.stage, run.error = RunStage.FAILED, "boom"
    press(cockpit, cockpit.export_buttons[0])
    assert "r1 failed: boom. colobench-runs.json is ready" in cockpit.status.value
    cockpit.rows._rows[id(run)].name.value = " "
    assert "r1 failed: boom. name: expected one" in cockpit.status.value


def test_a_refused_name_is_said_after_something_that_failed(cockpit):
    run = add_run(cockpit, "r1")
    cockpit.background.do("failing", lambda: 1 / 0)
    cockpit.background.wait()
    assert "ZeroDivisionError" in cockpit.status.value
    cockpit.rows._rows[id(run)].name.value = " "
    assert "name: expected one" in cockpit.status.value


def test_reset_restores_all_choices(cockpit):
    choices = {
        cockpit.time: "10 minutes",
        cockpit.together: True,
        cockpit.predict: True,
        cockpit.name: "mine",
        cockpit.plot_choices["pages"]: True,
    }
    before = [each.value for each in choices]
    for control, value in choices.items():
        control.value = value
    press(cockpit, cockpit.reset_button)
    assert [each.value for each in choices] == before


def test_consoles_are_asked_apart_from_the_frames(cockpit, monkeypatch):
    def ask(run):
        raise AssertionError("asked in the pump of all views")

    monkeypatch.setattr(CockpitRun, "consoles", ask)
    add_run(cockpit, "r1").stage = RunStage.PROTECTED
    cockpit.refresh()
    with pytest.raises(AssertionError, match="asked in the pump"):
        cockpit._looks.refresh()


def test_a_stepper_that_does_something_offers_only_what_it_would_do(still):
    stepper = Stepper()
    go_on = threading.Event()
    pressed = (stepper.new_button, stepper.corrupt_button, *stepper.kill_buttons.values())
    stepper.stepping = SimpleNamespace(
        over=False,
        close=lambda: None,
        journal=SimpleNamespace(present=None, is_live=True),
        checkpoint=SimpleNamespace(multifd_channels=0),
    )
    stepper.update()
    assert not any(each.disabled for each in pressed)
    stepper.background.do("running", go_on.wait)
    assert all(each.disabled for each in pressed)
    # A press of this one ends the running.
    assert not stepper.run_button.disabled
    go_on.set()
    stepper.close()


@pytest.mark.parametrize(
    ("kind", "module", "work"),
    [(MuseumPanel, museum_panel, "hunt_bug"), (FailoverPanel, failover_panel, "serving_pair")],
)
def test_a_run_that_waits_does_not_show_the_last_words_of_the_one_before(
    still, monkeypatch, kind, module, work
):
    def work_and_fail(*_, say=None, **__):
        (say or panel._say)("the last words")
        raise LocalError("no pair here")

    monkeypatch.setattr(module, work, work_and_fail)
    panel = kind()
    start = panel.run if kind is MuseumPanel else panel.kill
    start()
    panel.wait()
    with module.turn.taken(lambda: True):
        start()
        assert "Waiting for another panel" in panel.status.value
        panel.halt()
        panel.wait()
    panel.close()


@pytest.mark.parametrize("kind", [Cockpit, Dashboard, FailoverPanel, MuseumPanel, Stepper])
def test_every_control_and_bar_has_a_label_and_the_status_is_read_anew(still, kind):
    panel = kind()
    shown = [panel]
    while shown:
        each = shown.pop()
        shown += getattr(each, "children", ())
        if isinstance(each, Text | IntProgress | _Selection):
            assert each.description or each.tooltip, each
    assert 'role="status"' in panel.status.value
    panel.close()
