"""Plots show what records say: all of it in each frame, and no frame if nothing is new."""

from __future__ import annotations

import numpy as np
import pytest

from colobench.lab.session.record import Records
from colobench.ui.base.figure import ROLLOVER, bokehjs
from colobench.ui.base.pump import frames
from colobench.ui.views.live_plot import FIRST_WINDOW, WINDOW, LivePlot
from colobench.ui.views.plots import FlushPlot, PagesPlot
from colobench.ui.views.record_table import RecordTable
from feeds import bars_of, tables_of
from records import make_record, make_records

PLOTS = [FlushPlot, LivePlot, PagesPlot]


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """What is tested here refreshes when the test says so."""
    monkeypatch.setattr(frames, "add", lambda view: None)


@pytest.fixture
def records():
    return Records()


def grow(records, count):
    for number in range(len(records) + 1, len(records) + count + 1):
        records.append(make_record(number, pages=range(number % 7)))


def send(plot):
    """Let a plot send what it has, however short a time ago it sent something."""
    plot.refresh()
    feed = getattr(plot, "figure", plot).feed
    feed._sent = float("-inf")
    feed.tend()
    return feed


@pytest.mark.parametrize("frame", [1, 30, WINDOW, 3 * WINDOW])
def test_bars_show_each_of_the_newest_checkpoints_once(records, frame):
    plot = LivePlot(records)
    for _ in range(5):
        grow(records, frame)
        send(plot)
        newest = range(max(0, len(records) - WINDOW) + 1, len(records) + 1)
        assert bars_of(plot)["number"].tolist() == list(newest)
        assert bars_of(plot)["pages"].tolist() == [number % 7 for number in newest]


def test_a_figure_shows_each_of_the_newest_records_once(records):
    plot = FlushPlot(records)
    grow(records, 3 * ROLLOVER)
    send(plot)
    numbers = range(2 * ROLLOVER + 1, 3 * ROLLOVER + 1)
    assert tables_of(plot.figure)["records"]["pages"].tolist() == [n % 7 for n in numbers]


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_is_sent_when_nothing_is_new(records, plot):
    plot = plot(records)
    grow(records, 3)
    number = send(plot).frame["number"]
    assert send(plot).frame["number"] == number
    grow(records, 1)
    assert send(plot).frame["number"] == number + 1


@pytest.mark.parametrize("plot", PLOTS)
def test_other_records_take_the_place_of_the_first(plot):
    plot = plot(make_records(10))
    number = send(plot).frame["number"]
    plot.watch(make_records(10, pages=[1, 2, 3]))
    assert send(plot).frame["number"] == number + 1
    shown = bars_of(plot) if isinstance(plot, LivePlot) else tables_of(plot.figure)["records"]
    assert shown["pages"].tolist() == [3] * 10
    plot.watch(Records())
    send(plot)
    shown = bars_of(plot) if isinstance(plot, LivePlot) else tables_of(plot.figure)["records"]
    assert shown["pages"].tolist() == []


def test_the_plot_follows_the_newest_checkpoint(records):
    plot = LivePlot(records)
    grow(records, 3)
    frame = send(plot).frame
    assert (frame["first"], frame["last"]) == (1, FIRST_WINDOW)
    grow(records, 5 * WINDOW)
    frame = send(plot).frame
    assert (frame["first"], frame["last"]) == (4 * WINDOW + 4, 5 * WINDOW + 3)


def test_the_stacked_phases_are_the_pause():
    plot = LivePlot(make_records(1))
    send(plot)
    bars = bars_of(plot)
    assert sum(bars[phase][0] for phase in plot.feed.frame["phases"]) == bars["pause"][0] == 8.0


def test_a_phase_of_a_little_less_than_nothing_is_drawn_as_nothing():
    plot = LivePlot(make_records(1, resume_ms=-0.001))
    send(plot)
    assert bars_of(plot)["resume"].tolist() == [0.0]


def swept():
    records = Records()
    for pages in (10, 20, 30):
        buffered = {"primary_buffer_bytes": 4104 * pages, "secondary_buffer_bytes": 4104 * pages}
        records.append(
            make_record(1, pages=range(pages), layout="buffered", pause_ms=1 + pages, **buffered)
        )
        records.append(make_record(1, pages=range(pages), pause_ms=1 + pages / 2))
    return records


def column(plot, name, table="records"):
    send(plot)
    return tables_of(plot.figure)[table][name].tolist()


def test_each_layout_has_its_points_and_no_others():
    expected = [11, np.nan, 21, np.nan, 31, np.nan]
    assert column(PagesPlot(swept()), "pause buffered") == pytest.approx(expected, nan_ok=True)


def test_each_layout_has_its_line():
    plot = PagesPlot(swept())
    assert column(plot, "pages", "lines") == [0, 30]
    assert column(plot, "pause buffered", "lines") == pytest.approx([1, 31])
    assert column(plot, "pause separated", "lines") == pytest.approx([1, 16])
    assert column(plot, "primary buffered", "lines") == pytest.approx([0, 0.12312], abs=1e-7)
    assert column(plot, "secondary separated", "lines") == pytest.approx([0.000726] * 2)


def test_a_layout_without_two_sizes_has_no_line():
    plot = PagesPlot(make_records(3, pages=[1]))
    assert np.isnan(column(plot, "pause separated", "lines")).all()


def test_flush_and_pause_have_their_points_and_lines():
    plot = FlushPlot(
        Records(
            make_record(n, pages=range(n), flush_ms=n / 10, pause_ms=1 + n) for n in (10, 20, 30)
        )
    )
    assert column(plot, "pages") == [10, 20, 30]
    assert column(plot, "flush") == [1, 2, 3]
    assert column(plot, "pages", "lines") == [0, 30]
    assert column(plot, "flush", "lines") == pytest.approx([0, 3])
    assert column(plot, "pause", "lines") == pytest.approx([1, 31])


@pytest.mark.parametrize("plot", [FlushPlot, PagesPlot])
def test_every_column_that_is_sent_is_one_that_is_drawn(plot):
    plot = plot(swept())
    send(plot)
    document = str(plot.figure._figure["doc"])
    for table, columns in tables_of(plot.figure).items():
        assert f"'name': '{table}'" in document
        assert all(f"'{name}'" in document for name in columns)
    assert all(f"'name': '{name}'" in document for name in plot.figure.feed.frame["ranges"])


@pytest.mark.parametrize("plot", [FlushPlot, PagesPlot])
def test_a_figures_state_has_no_bokehjs_and_no_address(plot):
    state = str(plot(Records()).figure.get_state())
    assert len(state) < 100_000
    assert "cdn." not in state
    assert len(bokehjs()) > 200_000


def test_all_figures_share_one_copy_of_bokehjs():
    libraries = {FlushPlot(Records()).figure.feed.library for _ in range(3)}
    assert len(libraries) == 1


def test_a_closed_plot_is_refreshed_no_more(monkeypatch):
    monkeypatch.undo()
    plot = LivePlot(Records())
    assert plot in frames._views
    plot.close()
    assert plot not in frames._views


@pytest.mark.parametrize("kind", [*PLOTS, RecordTable])
def test_what_is_shown_goes_on_when_old_records_are_dropped(kind):
    records = Records(keep=1)
    view, shown = kind(records), []
    for number in range(1, 4):
        records.append(make_record(number, pages=range(number)))
        view.refresh()
        shown.append(view.value if kind is RecordTable else bytes(send(view).frame["data"]))
    assert len(set(shown)) == 3
