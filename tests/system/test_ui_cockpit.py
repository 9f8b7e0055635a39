"""The cockpit with real pairs: runs are overlaid, killed, kept, exported, repeated."""

from __future__ import annotations

import contextlib
import io
import json
import time

import psutil
import pytest

from colobench.lab.cockpit.run import RunStage
from colobench.lab.session.session import Session
from colobench.settings.file import read_settings
from colobench.settings.settings import Settings
from colobench.ui.base.feed import feeds
from colobench.ui.panels import cockpit as cockpit_module
from colobench.ui.panels.cockpit import Cockpit
from feeds import data_of

pytestmark = pytest.mark.usefixtures("nothing_left")

SECONDS = 0.4


@pytest.fixture
def cockpit(monkeypatch):
    monkeypatch.setitem(cockpit_module.TIMES, "10 s", SECONDS)
    monkeypatch.setitem(cockpit_module.TIMES, "10 minutes", 600.0)
    cockpit = Cockpit(ram="8M", delay=20)
    cockpit.time.value = "10 s"
    yield cockpit
    cockpit.close()


def press(cockpit, button):
    assert not button.disabled, button.description
    button.click()
    cockpit.background.wait()
    cockpit.update()


def run_once(cockpit, **choices):
    """Choose settings, start a run with them, and wait for its end."""
    for name, text in choices.items():
        cockpit.choose(name, text)
    press(cockpit, cockpit.start_button)
    cockpit.wait()
    cockpit.update()
    return cockpit.overlay.runs[-1]


def wait_until_protected(run):
    end = time.monotonic() + 120
    while run.stage is not RunStage.PROTECTED:
        assert not run.is_over, run.error
        assert time.monotonic() < end
        psutil.wait_procs([psutil.Process()], timeout=0.05)


def drawn(cockpit):
    """Draw what there is; gives the number of checkpoints of each run that is shown."""
    cockpit._draw()
    feed = cockpit.plots.feed
    feed._sent = float("-inf")
    feed.tend()
    return {each["name"]: each["rows"] for each in feed.frame["runs"]}


def test_runs_of_different_layouts_transports_and_outputs_are_overlaid_and_kept_over_a_reset(
    cockpit,
):
    run_once(cockpit)
    run_once(cockpit, layout="buffered")
    run_once(cockpit, layout="separated", transport="memfd+unix", output="compare")
    names = [each.name for each in cockpit.overlay.runs]
    assert [each.error for each in cockpit.overlay.runs] == [""] * 3
    expected = {each.name: len(each.records()) for each in cockpit.overlay.runs}
    assert drawn(cockpit) == expected
    assert min(expected.values()) > 0
    press(cockpit, cockpit.reset_button)
    assert cockpit.form.changes == {}
    assert [each.name for each in cockpit.overlay.runs] == names
    hidden, deleted, renamed = cockpit.overlay.runs
    rows = cockpit.rows._rows
    rows[id(hidden)].shown.value = False
    rows[id(renamed)].name.value = "another name"
    press(cockpit, rows[id(deleted)].delete)
    assert list(drawn(cockpit)) == ["another name"]
    assert [each.name for each in cockpit.overlay.runs] == [hidden.name, "another name"]


def test_json_and_python_cell_repeat_a_run(cockpit, tmp_path):
    run = run_once(cockpit, transport="multifd+unix", guest="uniform", delay="10")
    press(cockpit, cockpit.export_buttons[0])
    path = tmp_path / "runs.json"
    path.write_bytes(sent(cockpit))
    assert len(json.loads(path.read_bytes())["runs"][0]["records"]) == len(run.records())
    again = Settings.from_json(read_settings(path))
    assert again == run.settings
    with Session(again) as session:
        assert len(session.run(3)) == 3
    press(cockpit, cockpit.export_buttons[2])
    words, cell = io.StringIO(), sent(cockpit).decode()
    found: dict[str, object] = {}
    with contextlib.redirect_stdout(words):
        exec(cell, found)
    assert f"<{len(run.records())} checkpoint records>" in words.getvalue()
    assert found["session"].settings == run.settings


def sent(cockpit):
    """Give the bytes of the file that is offered."""
    cockpit.downloads.feed._sent = float("-inf")
    cockpit.downloads.feed.tend()
    return data_of(cockpit.downloads)


def test_a_killed_primary_is_survived_and_the_arbiter_can_be_killed_too(cockpit):
    cockpit.time.value = "10 minutes"
    cockpit.choose("heartbeat_limit", "5000")
    press(cockpit, cockpit.start_button)
    [run] = cockpit.overlay.runs
    wait_until_protected(run)
    cockpit.update()
    assert "ram" in cockpit.moment.options
    press(cockpit, cockpit.kill_buttons["arbiter"])
    assert "The arbiter of" in cockpit.status.value
    press(cockpit, cockpit.stop_button)
    cockpit.wait()
    cockpit.choose("heartbeat_limit", "")
    press(cockpit, cockpit.start_button)
    run = cockpit.overlay.runs[-1]
    wait_until_protected(run)
    cockpit.update()
    cockpit.moment.value = "ram"
    press(cockpit, cockpit.kill_buttons["primary"])
    assert cockpit.background.error is None
    assert "The secondary took over from" in cockpit.status.value
    assert "Its RAM is that of a guest never migrated." in cockpit.status.value
    assert any("SIGKILL hit the primary" in line.text for line in run.log())
    cockpit._look()
    assert "SIGKILL hit the primary" in cockpit.events.value
    press(cockpit, cockpit.stop_button)
    cockpit.wait()
    assert not any(map(psutil.pid_exists, run.session.all_pids()))


def test_runs_take_turns_and_a_stop_ends_those_that_wait(cockpit):
    cockpit.time.value = "10 minutes"
    press(cockpit, cockpit.start_button)
    press(cockpit, cockpit.start_button)
    first, second = cockpit.overlay.runs
    wait_until_protected(first)
    assert second.stage is RunStage.WAITING
    assert second.session.all_pids() == []
    press(cockpit, cockpit.stop_button)
    cockpit.wait()
    assert [first.stage, second.stage] == [RunStage.ENDED] * 2
    assert second.session.all_pids() == []


def test_a_run_that_no_page_shows_any_more_ends(cockpit, monkeypatch):
    cockpit.time.value = "10 minutes"
    press(cockpit, cockpit.start_button)
    [run] = cockpit.overlay.runs
    wait_until_protected(run)
    monkeypatch.setattr(feeds, "unseen_seconds", lambda: 1e6)
    cockpit.refresh()
    cockpit.wait()
    cockpit.update()
    assert "no page showed this any more" in cockpit.status.value
    assert not any(map(psutil.pid_exists, run.session.all_pids()))


def test_closing_ends_what_is_just_starting_and_a_new_cockpit_takes_its_place(cockpit):
    press(cockpit, cockpit.start_button)
    [run] = cockpit.overlay.runs
    other = Cockpit(ram="8M")
    assert run.is_over
    assert not any(map(psutil.pid_exists, run.session.all_pids()))
    assert Cockpit._current is other
    other.close()


def test_settings_that_do_not_go_together_cannot_be_started_and_the_reason_is_said(cockpit):
    cockpit.choose("guest", "replay")
    assert cockpit.start_button.disabled
    assert "expected a file for the program replay" in cockpit.status.value
    fields = {f["name"]: f for g in shown_groups(cockpit) for f in g["fields"]}
    assert fields["trace"]["error"]


def shown_groups(cockpit):
    cockpit.form_view.feed._sent = float("-inf")
    cockpit.form_view.feed.tend()
    return cockpit.form_view.feed.frame["groups"]
