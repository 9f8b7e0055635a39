"""Plots show what records say, each row once, in as few messages as frames."""

from __future__ import annotations

import numpy as np
import pytest
from records import make_record, make_records

from colobench.lab.record import Records
from colobench.ui import figure
from colobench.ui.figure import ROLLOVER, SMALL, LiveFigure
from colobench.ui.plots import WINDOW, FlushPlot, LivePlot, PagesPlot
from colobench.ui.pump import frames


class Browser:
    """Does with a figure's messages what its browser side does: see figure.js."""

    def __init__(self, monkeypatch):
        self.tables, self.ends, self.ranges, self.messages = {}, {}, {}, []
        monkeypatch.setattr(LiveFigure, "send", lambda live, *message: self.receive(*message))

    def receive(self, header, buffers=()):
        self.messages.append(header)
        if "range" in header:
            self.ranges[header["range"]] = header["start"], header["end"]
            return
        name, first = header["table"], header["first"]
        rows = np.frombuffer(buffers[0]).reshape(len(header["columns"]), -1)
        columns = dict(zip(header["columns"], rows, strict=True))
        if first is not None:
            assert first == self.ends[name], "rows are missing"
            joined = {key: np.append(self.tables[name][key], columns[key]) for key in columns}
            columns = {key: values[-header["rollover"] :] for key, values in joined.items()}
        self.tables[name], self.ends[name] = columns, header["end"]

    def column(self, name, table="records"):
        return self.tables[table][name].tolist()


@pytest.fixture
def browser(monkeypatch):
    # What is tested here refreshes when the test says so.
    monkeypatch.setattr(frames, "add", lambda view: None)
    return Browser(monkeypatch)


@pytest.fixture
def records():
    return Records()


def grow(records, count):
    for number in range(len(records) + 1, len(records) + count + 1):
        records.append(make_record(number, pages=range(number % 7)))


@pytest.mark.parametrize("frame", [1, 30, SMALL, ROLLOVER, 3 * ROLLOVER])
def test_a_browser_has_each_of_the_newest_rows_once(browser, records, frame):
    plot = LivePlot(records)
    for _ in range(5):
        grow(records, frame)
        plot.refresh()
        newest = range(max(0, len(records) - ROLLOVER) + 1, len(records) + 1)
        assert browser.column("number") == list(newest)
        assert browser.column("pages") == [number % 7 for number in newest]


def test_nothing_is_sent_when_nothing_is_new(browser, records):
    plot = LivePlot(records)
    grow(records, 3)
    plot.refresh()
    sent = len(browser.messages)
    plot.refresh()
    assert len(browser.messages) == sent


def test_many_new_records_are_one_message(browser, records):
    plot = LivePlot(records)
    grow(records, 1000)
    plot.refresh()
    assert sum("table" in message for message in browser.messages) == 1


def test_a_few_rows_are_always_sent_whole_for_those_who_came_late(browser, records):
    plot = LivePlot(records)
    for _ in range(3):
        grow(records, 1)
        plot.refresh()
    assert [each["first"] for each in browser.messages if "table" in each] == [None] * 3


def test_a_browser_that_misses_rows_gets_them_all(browser, records):
    plot = LivePlot(records)
    grow(records, 3 * SMALL)
    plot.refresh()
    browser.tables.clear()
    plot.figure._handle_custom_msg({"send": "everything"}, [])
    plot.refresh()
    assert browser.column("number") == list(range(1, 3 * SMALL + 1))


def test_other_records_take_the_place_of_the_first(browser, records):
    plot = LivePlot(records)
    grow(records, 10)
    plot.refresh()
    plot.watch(make_records(10, pages=[1, 2, 3]))
    plot.refresh()
    assert browser.column("pages") == [3] * 10
    plot.watch(Records())
    plot.refresh()
    assert browser.column("pages") == []


def test_the_plot_follows_the_newest_checkpoint(browser, records):
    plot = LivePlot(records)
    grow(records, 3)
    plot.refresh()
    assert browser.ranges["numbers"][0] == 0.5
    grow(records, 5 * WINDOW)
    plot.refresh()
    assert browser.ranges["numbers"] == (4 * WINDOW + 3.5, 5 * WINDOW + 3.5)


def test_a_long_pause_is_forgotten_when_it_is_out_of_sight(browser):
    records = Records([make_record(1, pause_ms=1000.0)])
    plot = LivePlot(records)
    plot.refresh()
    assert browser.ranges["pauses"][1] > 1000
    grow(records, WINDOW)
    plot.refresh()
    assert browser.ranges["pauses"][1] == pytest.approx(8.4)


def test_the_stacked_phases_are_the_pause(browser):
    plot = LivePlot(make_records(1))
    plot.refresh()
    phases = plot.rows(plot.records)
    total = sum(phases[name][0] for name in phases if name not in ("number", "pages", "pause"))
    assert total == phases["pause"][0] == 8.0


def test_a_phase_of_a_little_less_than_nothing_is_drawn_as_nothing(browser):
    plot = LivePlot(make_records(1, resume_ms=-0.001))
    plot.refresh()
    assert browser.column("resume") == [0.0]


def swept():
    records = Records()
    for pages in (10, 20, 30):
        buffered = {"primary_buffer_bytes": 4104 * pages, "secondary_buffer_bytes": 4104 * pages}
        records.append(
            make_record(1, pages=range(pages), layout="buffered", pause_ms=1 + pages, **buffered)
        )
        records.append(make_record(1, pages=range(pages), pause_ms=1 + pages / 2))
    return records


def test_each_layout_has_its_points_and_no_others(browser):
    plot = PagesPlot(swept())
    plot.refresh()
    expected = [11, np.nan, 21, np.nan, 31, np.nan]
    assert browser.column("pause buffered") == pytest.approx(expected, nan_ok=True)


def test_each_layout_has_its_line(browser):
    plot = PagesPlot(swept())
    plot.refresh()
    assert browser.column("pages", "lines") == [0, 30]
    assert browser.column("pause buffered", "lines") == pytest.approx([1, 31])
    assert browser.column("pause separated", "lines") == pytest.approx([1, 16])
    assert browser.column("primary buffered", "lines") == pytest.approx([0, 0.12312])
    assert browser.column("secondary separated", "lines") == pytest.approx([0.000726] * 2)


def test_a_layout_without_two_sizes_has_no_line(browser):
    plot = PagesPlot(make_records(3, pages=[1]))
    plot.refresh()
    assert np.isnan(browser.column("pause separated", "lines")).all()


def test_flush_and_pause_have_their_points_and_lines(browser):
    records = Records(
        make_record(n, pages=range(n), flush_ms=n / 10, pause_ms=1 + n) for n in (10, 20, 30)
    )
    FlushPlot(records).refresh()
    assert browser.column("pages") == [10, 20, 30]
    assert browser.column("flush") == [1, 2, 3]
    assert browser.column("pages", "lines") == [0, 30]
    assert browser.column("flush", "lines") == pytest.approx([0, 3])
    assert browser.column("pause", "lines") == pytest.approx([1, 31])


@pytest.mark.parametrize("plot", [FlushPlot, LivePlot, PagesPlot])
def test_every_column_that_is_sent_is_one_that_is_drawn(browser, plot):
    shown = plot(swept())
    shown.refresh()
    for table, columns in browser.tables.items():
        document = shown.figure._figure["doc"]
        assert f"'name': '{table}'" in str(document)
        assert all(f"'{name}'" in str(document) for name in columns)


def test_offline_the_browser_gets_bokehjs_from_the_kernel(monkeypatch):
    monkeypatch.delenv("COLOBENCH_OFFLINE", raising=False)
    assert figure.bokehjs()["url"].startswith("https://cdn.bokeh.org/")
    monkeypatch.setenv("COLOBENCH_OFFLINE", "1")
    assert "Bokeh" in figure.bokehjs()["text"]


def test_a_closed_plot_is_refreshed_no_more():
    plot = LivePlot(Records())
    assert plot in frames._views
    plot.close()
    assert plot not in frames._views
