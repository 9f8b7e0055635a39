"""Panels about output and failover: their buttons do what they say, and can be stopped."""

from __future__ import annotations

import pytest

from colobench.lab.studies.latency import STATES, Latencies, TimedAnswer
from colobench.node.breakpoints import SECONDARY_POINTS
from colobench.ui.base.panel import Panel, turn
from colobench.ui.base.pump import frames
from colobench.ui.panels import cause_panel
from colobench.ui.panels.cause_panel import CausePanel
from colobench.ui.panels.failover_panel import COLOURS, NOBODY, FailoverPanel
from colobench.ui.panels.museum_panel import MuseumPanel
from colobench.ui.views.latency_plot import PERCENTS, LatencyPlot
from feeds import collect
from records import make_record

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def sent(monkeypatch):
    """Collect what is drawn, by the name of the table; refreshing is the test's matter."""
    monkeypatch.setattr(frames, "add", lambda view: None)
    return collect(monkeypatch)


@pytest.fixture
def make(sent):
    made = []

    def make(kind, *arguments, **settings):
        made.append(kind(*arguments, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert all(type(each)._current is None for each in made)


def press(panel, button):
    assert not button.disabled
    button.click()
    panel.wait()
    panel.refresh()


def test_a_kill_is_seen_through_and_drawn(make, sent):
    panel = make(FailoverPanel, ram="8M")
    assert "before the first kill" in repr(panel)
    press(panel, panel.kill_button)
    assert panel.background.error is None
    story = panel.story
    assert story.verdict.linearizable
    assert "is linearizable" in panel.status.value
    assert "SIGKILL to the primary, held at &#x27;ram&#x27;" in panel.words.value
    assert set(sent) == {*COLOURS, "whole", "near"}
    silent = sent["nobody answers"]
    assert silent["left"] == [story.spans[1][0]]
    assert silent["right"] == [story.spans[2][0]]
    assert len(sent["protected"]["left"]) == 2
    # Nobody answers in the middle of the red.
    middle = (silent["left"][0] + 3 * silent["right"][0]) / 4
    assert all(abs(seconds - middle) > 0.01 for seconds in sent["near"]["seconds"])
    assert set(sent["whole"]["client"]) == set(range(8))


def test_points_are_those_of_who_is_held(make):
    panel = make(FailoverPanel)
    panel.holder.value = "secondary"
    assert panel.point.options == SECONDARY_POINTS
    panel.holder.value = NOBODY
    assert panel.point.disabled
    panel.holder.value = "primary"
    assert not panel.point.disabled
    assert "ram-sent" in panel.point.options


def test_stop_ends_a_kill_that_is_under_way(make):
    panel = make(FailoverPanel, ram="8M")
    panel.kill()
    assert panel.kill_button.disabled
    panel.stop_button.click()
    panel.wait()
    assert "Stopped." in panel.status.value
    assert not panel.kill_button.disabled


def test_one_waits_for_its_turn_and_may_give_up(make):
    panel = make(FailoverPanel)
    with turn.taken(lambda: True) as taken:
        assert taken
        panel.kill()
        panel.stop_button.click()
        panel.wait()
    assert panel.story is None
    assert panel.background.error is None


def test_panels_of_these_kinds_stand_beside_others(make):
    failover, museum = make(FailoverPanel), make(MuseumPanel)
    assert FailoverPanel._current is failover
    assert MuseumPanel._current is museum
    assert Panel._current is None
    second = make(MuseumPanel)
    assert MuseumPanel._current is second
    assert FailoverPanel._current is failover


def test_the_museum_tells_the_story_and_catches_the_bug(make):
    panel = make(MuseumPanel)
    for bug in panel.bug.options:
        panel.bug.value = bug
        assert "<b>" in panel.story.value
    panel.bug.value = "missed-dirty-bit"
    panel.run_button.click()
    panel.wait()
    assert panel.background.error is None
    assert panel.hunt.caught
    assert panel.progress.value == len(panel.hunt.results)
    assert "Caught by kill" in panel.status.value
    assert "missed-dirty-bit" in panel.found.value
    assert "caught" in repr(panel)


def test_the_dials_are_the_guests_and_the_table_is_live(make, monkeypatch):
    seen = []

    def provoke_miscompares(dials, seconds, *, ask_time, into, go_on):
        seen.append((dials.clock_us, dials.shuffle, ask_time, go_on()))
        for number in (1, 2):
            place = {"cause_connection": "a > b", "cause_offset": number}
            into.append(make_record(number, cause="miscompare", **place))

    monkeypatch.setattr(cause_panel, "provoke_miscompares", provoke_miscompares)
    panel = make(CausePanel)
    panel.dials["shuffle"].value = 100
    panel.ask_time.value = False
    press(panel, panel.run_button)
    assert seen == [(1_000_000, 100, False, True)]
    assert "2 checkpoints by cause: miscompare 2" in panel.status.value
    assert panel.words.value.count("a &gt; b") == 2
    assert panel.table.counts["miscompare"] == 2
    assert "2 checkpoints" in repr(panel)


def test_a_pair_with_dials_runs_and_can_be_stopped(make):
    panel = make(CausePanel)
    panel.run()
    panel.stop_button.click()
    panel.wait()
    assert panel.background.error is None
    assert not panel.run_button.disabled


def test_latencies_are_drawn_as_they_come(make, sent):
    latencies = Latencies()
    plot = LatencyPlot(latencies)
    plot.refresh()
    for state in STATES:
        latencies.answers += [TimedAnswer(state, 0.1 * i, 1.0 + i) for i in range(10)]
    latencies.checkpoints += [("buffer", 0.5), ("compare", 0.7)]
    plot.refresh()
    assert sent["compare"]["latency"] == [1.0 + i for i in range(10)]
    assert sent["checkpoints"]["seconds"] == [0.5]
    assert len(sent["percentiles"]["buffer"]) == len(PERCENTS)
    assert repr(plot) == "<LatencyPlot of 30 answers>"
    sent.clear()
    plot.refresh()
    assert sent == {}
    plot.close()
