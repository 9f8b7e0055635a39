"""A feed has all that a view shows, beats while it is used, rests then, and hears pages."""

from __future__ import annotations

import pytest

from colobench.ui.base import feed as feed_module
from colobench.ui.base import figure
from colobench.ui.base.feed import (
    HIDDEN_SECONDS,
    PAGE_SECONDS,
    REPEAT_SECONDS,
    REST_SECONDS,
    Feed,
    Feeds,
    LiveView,
    Pace,
)
from colobench.ui.base.panel import Panel
from colobench.ui.base.pump import FRAME_SECONDS, frames
from colobench.ui.views.downloads import Downloads
from feeds import data_of


@pytest.fixture
def clock(monkeypatch):
    """Let time pass when the test says so."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

        def pass_by(self, seconds):
            """Let time pass as the pump sees it."""
            for _ in range(round(seconds / FRAME_SECONDS)):
                self.now += FRAME_SECONDS
                for feed in feed_module.feeds.all():
                    feed.tend()

    clock = Clock()
    monkeypatch.setattr(frames, "add", lambda view: None)
    monkeypatch.setattr(feed_module, "time", clock)
    monkeypatch.setattr(feed_module, "feeds", Feeds())
    monkeypatch.setattr(feed_module, "pace", Pace())
    monkeypatch.setattr(feed_module.cells, "running", False)
    return clock


@pytest.fixture
def sent(monkeypatch):
    """Give what each feed sends: its state's names and values."""
    messages = []

    def send(feed, message, buffers=None):
        paths = [path for path in message.get("buffer_paths", ()) if path != ["frame", "data"]]
        assert not paths
        messages.append(
            message.get("state", {}) | {"bytes": [bytes(each) for each in buffers or ()]}
        )

    monkeypatch.setattr(Feed, "_send", send)
    return messages


@pytest.fixture
def feed(clock, sent):
    feed = Feed()
    yield feed
    feed.close()


def numbers(sent):
    return [state["frame"]["number"] for state in sent if "frame" in state]


def ping(feed, page="one", number=1, **more):
    feed._handle_custom_msg({"page": page, "ping": number, **more}, [])


def test_what_is_put_is_sent_at_once(feed, sent):
    feed.put({"a": 1}, b"data")
    assert feed.frame == {"a": 1, "number": 1, "deflated": False, "data": b"data"}
    assert numbers(sent) == [1]


def test_frames_that_come_too_fast_are_left_out_and_the_last_is_not(feed, sent, clock):
    for value in range(10):
        feed.put({"value": value})
    assert numbers(sent) == [1]
    clock.pass_by(FRAME_SECONDS)
    assert numbers(sent) == [1, 2]
    assert feed.frame["value"] == 9


def test_every_frame_is_sent_whole_even_if_a_part_is_as_before(feed, sent, clock):
    feed.put({"a": 1}, b"same")
    clock.pass_by(1)
    sent.clear()
    feed.put({"a": 2}, b"same")
    assert sent[0]["frame"]["a"] == 2
    assert sent[0]["bytes"] == [b"same"]


def test_long_data_is_compressed(clock, sent):
    view = LiveView()
    view.feed.put({}, b"x" * 100_000)
    assert len(view.feed.frame["data"]) < 1000
    assert data_of(view) == b"x" * 100_000
    view.close()


def test_what_is_too_much_for_a_second_is_sent_later(feed, clock, monkeypatch):
    monkeypatch.setattr(feed_module, "pace", Pace(1000))
    clock.pass_by(1)
    feed.put({"value": 1}, bytes(2000))
    clock.pass_by(0.5)
    feed.put({"value": 2}, bytes(2000))
    assert feed.frame["value"] == 1
    clock.pass_by(2)
    assert feed.frame["value"] == 2


def test_a_feed_in_use_beats_each_second_and_then_says_that_it_rests(feed, clock):
    feed.put({})
    begin = feed.contact["beat"]
    clock.pass_by(10)
    assert feed.contact["beat"] - begin == pytest.approx(10, abs=1)
    clock.pass_by(REST_SECONDS)
    assert feed.contact["rests"]
    last = feed.contact["beat"]
    clock.pass_by(10 * REST_SECONDS)
    assert feed.contact["beat"] == last


def test_a_feed_at_rest_sends_nothing_so_that_an_idle_kernel_can_be_ended(feed, sent, clock):
    clock.pass_by(2 * REST_SECONDS)
    sent.clear()
    clock.pass_by(10 * REST_SECONDS)
    assert sent == []


def test_a_feed_at_rest_answers_a_page_at_once_and_wakes_up_when_it_is_touched(feed, clock):
    clock.pass_by(2 * REST_SECONDS)
    ping(feed, number=7)
    assert feed.contact["heard"] == {"one": 7}
    assert feed.contact["rests"]
    ping(feed, number=8, touched=True)
    assert feed.contact["heard"] == {"one": 8}
    assert not feed.contact["rests"]


def test_pings_alone_keep_no_feed_awake(feed, clock):
    for number in range(2 * int(REST_SECONDS)):
        ping(feed, number=number)
        clock.pass_by(1)
    assert feed.contact["rests"]


def test_a_feed_beats_while_something_is_being_done_or_a_cell_runs(feed, clock, monkeypatch):
    clock.pass_by(2 * REST_SECONDS)
    feed.busy = lambda: True
    clock.pass_by(2)
    assert not feed.contact["rests"]
    feed.busy = lambda: False
    clock.pass_by(2)
    assert feed.contact["rests"]
    monkeypatch.setattr(feed_module.cells, "running", True)
    clock.pass_by(2)
    assert not feed.contact["rests"]
    assert feed.contact["busy"]


def test_each_page_is_told_what_was_heard_of_it_and_forgotten_when_it_is_gone(feed, clock):
    ping(feed, "one", 3)
    ping(feed, "two", 5)
    assert feed.contact["heard"] == {"one": 3, "two": 5}
    clock.pass_by(PAGE_SECONDS + 1)
    ping(feed, "two", 6)
    assert feed.contact["heard"] == {"two": 6}


def test_a_page_that_has_missed_something_gets_all_feeds_whole(feed, sent, clock):
    other = Feed()
    repeated = []
    other.repeat = lambda: repeated.append(True)
    for each in (feed, other):
        each.put({"of": id(each)})
    clock.pass_by(1)
    sent.clear()
    ping(feed, missed=True)
    clock.pass_by(1)
    assert sorted(state["frame"]["of"] for state in sent if "frame" in state) == sorted(
        [id(feed), id(other)]
    )
    assert repeated == [True]
    other.close()


def test_a_feed_in_use_repeats_itself_for_pages_that_cannot_ask(feed, sent, clock):
    feed.put({})
    sent.clear()
    clock.pass_by(3 * REPEAT_SECONDS + 1)
    assert numbers(sent) == [1, 1, 1]


def test_a_file_is_sent_once_and_again_only_to_pages_that_have_missed_it(sent, clock):
    downloads = Downloads()
    downloads.put("runs.json", b"data", "text/json")
    clock.pass_by(3 * REPEAT_SECONDS)
    assert numbers(sent) == [1]
    ping(downloads.feed, missed=True)
    clock.pass_by(1)
    assert numbers(sent) == [1, 1]
    downloads.close()


def test_one_broken_feed_stops_no_other(feed, clock, monkeypatch):
    broken = Feed()
    monkeypatch.setattr(broken, "tend", lambda: 1 / 0)
    before = feed.contact["beat"]
    clock.now += 2
    feed_module.feeds.refresh()
    assert feed.contact["beat"] == before + 1


def test_a_feed_whose_frame_cannot_be_sent_beats_on_and_sends_the_next_one(feed, sent, clock):
    def refuse(names):
        raise TypeError("not JSON")

    def refresh_for(seconds):
        for _ in range(round(seconds / FRAME_SECONDS)):
            clock.now += FRAME_SECONDS
            feed_module.feeds.refresh()

    feed.repeat = lambda: refuse(())
    before = feed.contact["beat"]
    refresh_for(3 * REPEAT_SECONDS)
    assert feed.contact["beat"] - before >= 2 * REPEAT_SECONDS
    feed.put({"value": 2})
    assert feed.frame["value"] == 2


def test_another_pages_first_figure_brings_bokehjs_along_and_all_others_refer_to_it(
    clock, sent, monkeypatch
):
    from colobench.lab.session.record import Records
    from colobench.ui.views.plots import FlushPlot

    monkeypatch.setattr(figure, "feeds", feed_module.feeds)
    monkeypatch.setattr(figure, "libraries", figure.Libraries())
    page = ["one"]
    monkeypatch.setattr(figure.cells, "page", lambda: page[0])
    plots = [FlushPlot(Records()), FlushPlot(Records())]
    assert len({plot.figure.feed.library for plot in plots}) == 1
    old = plots[0].figure.feed.library
    page[0] = "two"
    plots.append(FlushPlot(Records()))
    assert {plot.figure.feed.library for plot in plots} == {plots[2].figure.feed.library}
    assert plots[2].figure.feed.library is not old
    for plot in plots:
        plot.close()


class Buttons(Panel):
    """A panel with something to press, to choose and to read."""

    _current = None

    def update(self):
        pass

    def end(self):
        pass


def test_a_panel_repeats_what_it_shows_and_not_what_one_chooses(clock, monkeypatch):
    import ipywidgets

    panel = Buttons()
    press, read = ipywidgets.Button(), ipywidgets.HTML("words")
    choice, number = ipywidgets.Dropdown(options=["a"]), ipywidgets.BoundedIntText(7)
    bar = ipywidgets.IntProgress(max=7)
    panel.children = (ipywidgets.HBox([press, choice]), read, number, bar)
    states = {}
    for each in (press, read, choice, number, bar, press.layout, bar.layout):
        monkeypatch.setattr(
            each, "send_state", lambda names, each=each: states.update({each: names})
        )
    panel.contact.feed.miss()
    clock.pass_by(1)
    assert states[read] == ["value"]
    assert states[number] == ["disabled"]
    # Also what was hidden or named anew while the page was cut off.
    assert states[press] == ["disabled", "description", "tooltip"]
    assert states[press.layout] == states[bar.layout] == ["display", "visibility"]
    assert states[bar] == ["value", "max"]
    assert "index" not in states[choice]
    assert "value" not in states[choice]
    panel.close()


def test_a_panel_has_a_line_for_words_whatever_its_children_are(clock):
    import ipywidgets

    panel = Buttons()
    for _ in range(2):
        panel.children = (*panel.children, ipywidgets.HTML())
        assert panel.children[0] is panel.contact
        assert panel.children.count(panel.contact) == 1
    panel.close()
    assert panel.contact.feed not in feed_module.feeds.all()


def test_a_page_that_cannot_be_heard_as_a_cell_runs_does_not_count_as_gone(clock, monkeypatch):
    cells, feeds = feed_module.cells, feed_module.feeds
    monkeypatch.setattr(cells, "ended", cells.ended)
    assert feeds.unseen_seconds() == 0
    feeds.hear({"page": "one", "ping": 1})
    clock.now += HIDDEN_SECONDS + 50
    assert feeds.unseen_seconds() == 50
    cells._set(True)
    assert feeds.unseen_seconds() == 0
    cells._set(False)
    assert feeds.unseen_seconds() == 0
    clock.now += HIDDEN_SECONDS + 7
    assert feeds.unseen_seconds() == 7
    feeds.hear({"page": "one", "ping": 2, "leaves": True})
    clock.now += 3
    assert feeds.unseen_seconds() == 3


def test_a_hidden_page_that_pings_once_a_minute_is_not_forgotten(clock):
    feeds = feed_module.feeds
    feeds.hear({"page": "hidden", "ping": 1})
    clock.now += 70
    feeds.hear({"page": "other", "ping": 1})
    feeds.hear({"page": "other", "ping": 2, "leaves": True})
    clock.now += 40
    assert feeds.unseen_seconds() == 0
