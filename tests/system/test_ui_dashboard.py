"""The panels' buttons do what they say, when it makes sense, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from colobench.lab.session.node_pair import ColoExit
from colobench.lab.session.session import Session
from colobench.lab.session.takeover import TakeoverRecord
from colobench.ui.base.panel import LINE_LENGTH, Background, one_line
from colobench.ui.base.sentences import tell_takeover
from colobench.ui.panels import dashboard as dashboard_module
from colobench.ui.panels.dashboard import MOMENTS, Dashboard
from colobench.ui.panels.next_checkpoint import NextCheckpoint

pytestmark = pytest.mark.usefixtures("nothing_left")

SETTINGS = {"ram": "8M", "delay": 20, "guest": "uniform"}


@pytest.fixture
def dashboard():
    dashboard = Dashboard(**SETTINGS)
    yield dashboard
    dashboard.close()


def press(dashboard, name):
    """Press a button that can be pressed, and wait until what it does is done."""
    pressed = buttons(dashboard)[name]
    assert not pressed.disabled
    pressed.click()
    dashboard.wait()


def buttons(dashboard):
    return {
        "start": dashboard.start_button,
        "checkpoint": dashboard.checkpoint_button,
        "kill primary": dashboard.kill_buttons["primary"],
        "kill secondary": dashboard.kill_buttons["secondary"],
        "reset": dashboard.reset_button,
    }


def enabled(dashboard):
    return {name for name, button in buttons(dashboard).items() if not button.disabled}


def pids(dashboard):
    return [node.pid for node in dashboard.session.nodes.values()]


def test_at_first_one_can_only_start(dashboard):
    assert enabled(dashboard) == {"start"}


def test_a_pair_can_be_asked_killed_and_reset(dashboard):
    press(dashboard, "start")
    assert enabled(dashboard) == {"checkpoint", "kill primary", "kill secondary", "reset"}
    assert "in COLO" in dashboard.status.value


def test_the_checkpoint_button_takes_one(dashboard):
    dashboard.controls.delay.value = 1000
    press(dashboard, "start")
    press(dashboard, "checkpoint")
    assert "requested" in {record.cause for record in dashboard.session.records}


@pytest.mark.parametrize("layout", ["separated", "buffered"])
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_killed_primary_is_survived_and_that_is_told(layout, moment):
    dashboard = Dashboard(**SETTINGS, layout=layout, verify=True)
    press(dashboard, "start")
    press(dashboard, "checkpoint")
    dashboard.moment.value = moment
    press(dashboard, "kill primary")
    told = dashboard.status.value
    assert f"SIGKILL hit the primary, pid {pids(dashboard)[0]}, {moment}." in told
    assert "The secondary took over from checkpoint" in told
    assert "its state is that of the checkpoint" in told
    assert "work goes on" in told
    assert "Its RAM is that of a guest never migrated." in told
    assert enabled(dashboard) == {"reset"}
    dashboard.close()


def test_a_killed_secondary_is_survived_and_that_is_told(dashboard):
    press(dashboard, "start")
    press(dashboard, "kill secondary")
    assert "The primary, after" in dashboard.status.value
    assert "checkpoints, went on alone" in dashboard.status.value
    assert "Its RAM is that of a guest never migrated." in dashboard.status.value


def test_who_is_killed_from_a_terminal_is_missed_and_survived(dashboard):
    press(dashboard, "start")
    press(dashboard, "checkpoint")
    victim = dashboard.session.nodes["primary"]
    os.kill(victim.pid, signal.SIGKILL)
    victim.process.wait()
    dashboard.refresh()
    dashboard.wait()
    assert "The primary died, status -9." in dashboard.status.value
    assert "The secondary took over from checkpoint" in dashboard.status.value


def test_reset_ends_both_processes_and_one_can_begin_anew(dashboard):
    press(dashboard, "start")
    first = pids(dashboard)
    press(dashboard, "reset")
    assert not any(map(psutil.pid_exists, first))
    assert enabled(dashboard) == {"start"}
    assert len(dashboard.session.records) == 0
    press(dashboard, "start")
    assert len(pids(dashboard)) == 2


def test_what_is_chosen_is_what_starts(dashboard):
    controls = dashboard.controls
    for name, value in {"guest": "hotcold", "layout": "buffered", "writes_per_tick": 1}.items():
        controls._controls[name].value = value
    press(dashboard, "start")
    settings = dashboard.session.settings.as_json()
    assert (settings["guest"], settings["layout"]) == ("hotcold", "buffered")
    assert settings["writes_per_tick"] == 1
    assert settings["ram"] == "8M"
    assert all(control.disabled for control in controls.children if control is not controls.delay)


def test_the_delay_of_a_running_pair_can_be_changed(dashboard):
    press(dashboard, "start")
    dashboard.controls.delay.value = 500
    dashboard.wait()
    found = dashboard.session.nodes["primary"].execute("query-migrate-parameters")
    assert found["x-checkpoint-delay"] == 500


def test_a_failure_is_one_line_and_one_can_go_on(dashboard, monkeypatch):
    def fail(session):
        raise ColoExit("expected both nodes to enter COLO,\nfound none")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "start", fail)
        press(dashboard, "start")
    line = "It failed: expected both nodes to enter COLO, found none"
    assert line in dashboard.status.value
    press(dashboard, "start")
    assert "in COLO" in dashboard.status.value


def test_consoles_and_processes_are_shown(dashboard):
    press(dashboard, "start")
    dashboard.refresh()
    assert "serial console, primary" in dashboard.console.value
    assert all(f"process {pid}" in dashboard.processes.value for pid in pids(dashboard))


def test_a_pair_that_nobody_touches_ends(dashboard, monkeypatch):
    press(dashboard, "start")
    first = pids(dashboard)
    monkeypatch.setattr(dashboard_module, "IDLE_SECONDS", 0.0)
    dashboard.refresh()
    dashboard.wait()
    assert not any(map(psutil.pid_exists, first))
    assert "nobody pressed a button" in dashboard.status.value
    assert enabled(dashboard) == {"start"}


def test_closing_ends_all_processes(dashboard):
    press(dashboard, "start")
    first = pids(dashboard)
    dashboard.close()
    assert not any(map(psutil.pid_exists, first))


def test_closing_ends_what_is_just_starting(dashboard):
    dashboard.start()
    dashboard.close()
    assert not any(node.alive() for node in dashboard.session.nodes.values())


def test_a_new_panel_takes_the_place_of_the_one_before(dashboard):
    press(dashboard, "start")
    first = pids(dashboard)
    Dashboard(**SETTINGS).close()
    assert not any(map(psutil.pid_exists, first))


def test_the_end_of_the_interpreter_ends_all_processes():
    code = """
from colobench.ui import Dashboard
dashboard = Dashboard(ram="8M", delay=20)
dashboard.start()
dashboard.wait()
print(*(node.pid for node in dashboard.session.nodes.values()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        # On a slow machine there would be bars of progress.
        env=os.environ | {"TQDM_DISABLE": "1"},
    )
    found = [int(pid) for pid in done.stdout.split()]
    assert len(found) == 2
    assert not any(map(psutil.pid_exists, found))
    assert done.returncode == 0
    assert done.stderr == ""


def test_each_press_of_next_checkpoint_is_one_more_row():
    session = Session(ram="8M", delay=None)
    session.start()
    panel = NextCheckpoint(session)
    for count in (1, 2, 3):
        panel.button.click()
        panel.wait()
        panel.table.refresh()
        assert len(session.records) == count
        # A row for each, and one of headings.
        assert panel.table.value.count("<tr>") == count + 1
    panel.close()
    assert not any(node.alive() for node in session.nodes.values())


def test_next_checkpoint_says_why_there_is_none():
    session = Session(ram="8M", delay=None)
    session.start()
    panel = NextCheckpoint(session)
    session.close()
    panel.button.click()
    panel.wait()
    assert panel.status.value
    assert not panel.button.disabled
    panel.close()


def test_one_thing_is_done_at_a_time():
    background = Background(lambda: None)
    go_on = threading.Event()
    assert background.do("waiting", go_on.wait)
    assert background.doing == "waiting"
    assert not background.do("more", lambda: None)
    go_on.set()
    background.wait()
    assert background.doing is None
    assert background.do("more", lambda: None)
    background.wait()


def test_an_error_is_one_line_of_bounded_length():
    assert one_line(ColoExit("a\nb   c")) == "a b c"
    assert one_line(KeyError("x")) == "KeyError: 'x'"
    assert len(one_line(ColoExit("word " * 1000))) <= LINE_LENGTH


def takeover(**changes):
    told = {
        "role": "secondary",
        "takeover_ms": 12.34,
        "checkpoint": 37,
        "equal": True,
        "work_at_takeover": 1000,
        "work_after": 1010,
        "killed_at": 0.0,
        "told_at": 0.0,
        "running_at": 0.0,
        "observed_at": 0.0,
    }
    return TakeoverRecord(**told | changes)


def test_a_takeover_in_words():
    assert tell_takeover(takeover()) == (
        "The secondary took over from checkpoint 37 in 12.3 ms, its state is that of the "
        "checkpoint; work goes on: 1,000 → 1,010."
    )


def test_before_the_first_checkpoint_there_is_what_migration_brought():
    told = tell_takeover(takeover(checkpoint=0, equal=None, takeover_ms=None))
    assert told.startswith("The secondary took over from the state that migration brought; work")


def test_a_takeover_that_went_wrong_is_told_as_one():
    told = tell_takeover(takeover(equal=False, work_after=1000))
    assert "is NOT that of the checkpoint" in told
    assert "its work does NOT go on" in told
