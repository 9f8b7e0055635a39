"""The stepper: its buttons on live pairs, and what a page shows of it."""

from __future__ import annotations

import re

import pytest

from browser import needs_chromium
from colobench.ui.panels import stepper as module
from colobench.ui.panels.stepper import Stepper
from feeds import sets_of
from jupyter import chromium, serve, write_notebook
from slow_modules import SLOW_MODULES

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def stepper():
    stepper = Stepper()
    yield stepper
    stepper.close()
    assert Stepper._current is None


def press(stepper, button, times=1):
    for _ in range(times):
        assert not button.disabled
        button.click()
        stepper.wait()


def text(widget):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", widget.value))


def lit(stepper):
    return re.findall(r'aria-current="step".*?▶ (\w+)', stepper.machines.value)


def test_next_back_and_next_again_show_what_was_seen(stepper):
    assert "Next starts a pair" in stepper.status.value
    assert stepper.back_button.disabled
    press(stepper, stepper.next_button)
    assert "CHECKPOINT_READY (4 bytes). It has left its sender" in text(stepper.bytes)
    assert lit(stepper) == ["MIGRATING", "RUNNING"]
    press(stepper, stepper.next_button)
    assert lit(stepper) == ["RUNNING", "RUNNING"]
    press(stepper, stepper.next_button)
    assert lit(stepper) == ["REQUESTED", "RUNNING"]
    assert "00 00 00 01" in text(stepper.bytes)
    press(stepper, stepper.back_button, 2)
    assert lit(stepper) == ["MIGRATING", "RUNNING"]
    assert "Step 1 of 3: recorded. The processes stand at step 3" in text(stepper.status)
    press(stepper, stepper.next_button, 2)
    assert "Step 3 of 3: live" in text(stepper.status)


def test_run_ends_with_the_checkpoint_and_shows_its_pages_on_the_way(stepper):
    press(stepper, stepper.run_button)
    press(stepper, stepper.run_button)
    assert stepper.stepping.rounds == 2
    assert stepper.background.error is None
    while not stepper.stepping.journal.present.maps.received.any():
        stepper.back()
    primary, cache, secondary = map(sets_of, stepper.maps)
    assert cache[0]["pages"] == primary[0]["pages"] > 0
    assert secondary[0]["pages"] > 0
    assert "stands still" in stepper.guests.value


def test_double_clicks_and_keys_that_repeat_do_one_thing_at_a_time(stepper):
    press(stepper, stepper.next_button)
    for _ in range(5):
        stepper.next_button.click()
        stepper.kill_buttons["primary"].click()
    stepper.wait()
    assert stepper.background.error is None
    assert stepper.stepping.journal.total <= 6


def test_what_does_not_go_together_is_one_sentence_and_the_next_choice_starts(stepper):
    stepper._choices["layout"].value = "buffered"
    stepper._choices["transport"].value = "memfd"
    press(stepper, stepper.next_button)
    assert "layout buffered: expected transport stream" in text(stepper.status)
    stepper._choices["transport"].value = "stream"
    press(stepper, stepper.next_button)
    press(stepper, stepper.run_button)
    assert "RECEIVING_SIZE" in stepper.machines.value
    assert "RECEIVING_RAM" not in stepper.machines.value


def test_the_survivor_of_a_kill_serves_and_next_starts_another_pair(stepper):
    press(stepper, stepper.next_button, 4)
    press(stepper, stepper.kill_buttons["primary"])
    assert "SIGKILL has ended the primary" in text(stepper.status)
    assert "Primary: dead" in text(stepper.machines)
    assert "Secondary: serves alone" in text(stepper.machines)
    assert stepper.kill_buttons["secondary"].disabled
    assert stepper.corrupt_button.disabled
    old = stepper.stepping.session.all_pids()
    press(stepper, stepper.next_button)
    assert "Step 1 of 1: live" in text(stepper.status)
    assert not set(old) & set(stepper.stepping.session.all_pids())


def test_a_damaged_message_is_answered_in_words(stepper):
    press(stepper, stepper.next_button, 3)
    press(stepper, stepper.corrupt_button)
    shown = text(stepper.status)
    assert "Byte 3 of CHECKPOINT_REQUEST was inverted (01 → fe)" in shown
    assert "COLO_EXIT of the secondary" in shown
    assert "found 254" in shown


def test_a_pair_that_nobody_steps_is_ended_and_its_journal_stays(stepper, monkeypatch):
    press(stepper, stepper.next_button, 2)
    monkeypatch.setattr(module, "IDLE_SECONDS", -1.0)
    stepper.refresh()
    stepper.wait()
    assert not any(node.alive() for node in stepper.stepping.session.nodes.values())
    assert "This pair is over" in text(stepper.status)
    stepper.back()
    assert "Step 1 of 2: recorded. Next goes forward" in text(stepper.status)


def test_a_stepper_made_anew_ends_the_one_before_in_mid_run():
    first = Stepper()
    press(first, first.next_button)
    first.run_button.click()
    second = Stepper()
    assert not any(node.alive() for node in first.stepping.session.nodes.values())
    second.close()


CELLS = (SLOW_MODULES, "stepper = ui.Stepper()\nstepper")


@needs_chromium[0]
@needs_chromium[1]
@pytest.mark.timeout(600)
def test_in_a_slow_page_steps_back_kills_and_damage_are_shown_as_text(tmp_path):
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks/stepper.ipynb", *CELLS)
    with (
        serve("lab", tmp_path, tmp_path / "notebooks") as site,
        chromium(site) as browser,
    ):
        page = browser.open("stepper.ipynb")
        browser.run_all(page)

        def wait_for(words):
            page.get_by_text(words).first.wait_for()

        def push(name):
            page.get_by_role("button", name=re.compile(f"{name}$")).click()

        wait_for("Next starts a pair")
        for number in (1, 2, 3):
            push("Next")
            wait_for(f"Step {number} of {number}: live")
        wait_for("P→S CHECKPOINT_REQUEST (4 bytes)")
        # By keyboard: the focus stays on the button.
        page.keyboard.press("Enter")
        wait_for("Step 4 of 4: live")
        wait_for("Secondary: REQUESTED, held at 'request'")
        # A canvas has a text twin, also in a page that was slow.
        page.locator("canvas[aria-label*='received, not flushed']").first.wait_for()
        push("Back")
        wait_for("Step 3 of 4: recorded")
        push("Next")
        wait_for("Step 4 of 4: live")
        push("Next")
        wait_for("Step 5 of 5: live")
        push("Next")
        wait_for("S→P CHECKPOINT_REPLY (4 bytes)")
        push("Corrupt here")
        wait_for("Byte 3 of CHECKPOINT_REPLY was inverted")
        wait_for("COLO_EXIT of the primary")
        push("Kill primary")
        wait_for("SIGKILL has ended the primary")
        wait_for("Its RAM and devices are those of it")
        site.end_kernels()
