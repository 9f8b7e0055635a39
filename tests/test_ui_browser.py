"""The browser's side of the widgets, in a page of its own: a stand-in plays the kernel."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from browser import needs_chromium, open_page
from records import make_record, make_records

from colobench.lab.record import Records
from colobench.lab.session import Session
from colobench.ui.figure import SMALL, LiveFigure
from colobench.ui.page_map import PageMap
from colobench.ui.page_sets import PageSets
from colobench.ui.plots import LivePlot
from colobench.ui.pump import frames

pytestmark = needs_chromium

#: A model as anywidget gives it to a module, and what it takes to drive it from here.
STAND_IN = """async ([source, state]) => {
    const url = URL.createObjectURL(new Blob([source], {type: "text/javascript"}));
    const {default: make} = await import(url);
    const view = text => new DataView(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
    const revive = (key, value) => value?.bytes === undefined ? value : view(value.bytes);
    const listeners = {};
    const read = text => JSON.parse(text, revive);
    const values = read(state);
    window.sent = [];
    window.model = {
        get: name => values[name],
        on: (event, listener) => (listeners[event] = listener),
        send: message => window.sent.push(message),
    };
    window.receive = (message, bytes) => listeners["msg:custom"](message, [view(bytes)]);
    window.change = (name, text) => {
        values[name] = read(text);
        listeners[`change:${name}`]?.();
    };
    window.widget = make();
    widget.initialize?.({model});
    window.open_view = async () => {
        const el = document.body.appendChild(document.createElement("div"));
        await widget.render({model, el});
    };
}"""
ROWS = """() => Bokeh.documents.map(document =>
    [...document.get_model_by_name("records").get_column("number")])"""


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setenv("COLOBENCH_OFFLINE", "1")
    # What is tested here refreshes when the test says so.
    monkeypatch.setattr(frames, "add", lambda view: None)
    with open_page() as page:
        yield page


def revivable(state):
    """Write a widget's state as JSON, bytes as ``{"bytes": base64}``."""

    def encode(value):
        return {"bytes": base64.b64encode(bytes(value)).decode()}

    return json.dumps(state, default=encode)


def load(page, widget, *names):
    state = revivable({name: getattr(widget, name) for name in names})
    page.evaluate(STAND_IN, [str(widget._esm), state])


@pytest.fixture
def plot(page, monkeypatch):
    """Make a plot whose messages go to the page."""
    plot = LivePlot(Records())

    def send(figure, message, buffers=(b"",)):
        text = base64.b64encode(buffers[0]).decode()
        page.evaluate("([message, bytes]) => receive(message, bytes)", [message, text])

    monkeypatch.setattr(LiveFigure, "send", send)
    load(page, plot.figure, "_figure", "_bokehjs")
    return plot


def grow(plot, count):
    for number in range(len(plot.records) + 1, len(plot.records) + count + 1):
        plot.records.append(make_record(number))
    plot.refresh()


def test_a_figure_draws_the_rows_that_come_without_the_internet(page, plot):
    page.evaluate("open_view()")
    for count in (1, 2, 2 * SMALL, 1, 1):
        grow(plot, count)
    assert page.evaluate(ROWS) == [list(range(1, len(plot.records) + 1))]
    assert page.locator("canvas").count() > 0


def test_a_figure_that_is_opened_late_has_all_rows_too(page, plot):
    grow(plot, 2 * SMALL)
    grow(plot, 1)
    page.evaluate("open_view()")
    grow(plot, 1)
    page.evaluate("open_view()")
    assert page.evaluate(ROWS) == [list(range(1, 2 * SMALL + 3))] * 2
    assert page.evaluate("Bokeh.documents[1].get_model_by_name('numbers').end") == 2 * SMALL + 2.5


def test_a_figure_asks_for_what_it_missed(page, plot):
    assert page.evaluate("sent") == [{"send": "everything"}]
    page.evaluate("open_view()")
    for number in range(1, 2 * SMALL):
        plot.records.append(make_record(number))
    # Sent to a browser that has gone since.
    plot.figure._sent["records"] = len(plot.records)
    grow(plot, 1)
    assert page.evaluate("sent.length") == 2
    plot.figure.forget()
    plot.refresh()
    assert page.evaluate(ROWS) == [list(range(1, 2 * SMALL + 1))]


def test_a_figure_begins_anew_with_other_records(page, plot):
    page.evaluate("open_view()")
    grow(plot, 10)
    plot.watch(make_records(3))
    plot.refresh()
    assert page.evaluate(ROWS) == [[1, 2, 3]]


def test_without_bokehjs_the_figure_says_what_to_do(page, plot):
    page.evaluate("model.get('_bokehjs').url = 'https://cdn.bokeh.org/none.js'")
    page.evaluate("open_view()")
    assert "offline, set COLOBENCH_OFFLINE=1" in page.locator("body").inner_text()


COLOURS = """() => {
    const canvas = document.querySelector("canvas");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const count = {};
    for (let i = 0; i < data.length; i += 4) {
        const colour = data.slice(i, i + 4).join();
        count[colour] = (count[colour] ?? 0) + 1;
    }
    return count;
}"""
BRIGHT = "74,134,216,255"


@pytest.fixture
def page_map(page):
    session = Session(ram="4M", report_pages=True)
    page_map = PageMap(session)
    load(page, page_map, "_blocks", "_frame")
    page.evaluate("open_view()")
    return page_map


def show(page, page_map, number, pages):
    page_map._records.append(make_record(number, pages=pages))
    page_map.refresh()
    page.evaluate("text => change('_frame', text)", revivable(page_map._frame))
    page.wait_for_function(f"document.querySelector('[data-checkpoint=\"{number}\"]')")
    return page.evaluate(COLOURS)


def test_the_map_shows_the_pages_of_the_last_checkpoint_bright(page, page_map):
    one = show(page, page_map, 1, [7])[BRIGHT]
    assert show(page, page_map, 2, range(100, 105))[BRIGHT] == 5 * one


def test_pages_that_are_not_sent_again_fade(page, page_map):
    cold = set(show(page, page_map, 1, []))
    seen = set()
    for number in range(2, 6):
        colours = set(show(page, page_map, number, [7] if number == 2 else [])) - cold
        assert len(colours) == 1
        assert not colours & seen
        seen |= colours


def test_the_map_fits_the_width_that_it_is_given(page, page_map):
    for width in (900, 400):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(f"document.querySelector('canvas').width < {width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # All of the squares are there: as many as there are pages, of an area of whole pixels.
        show(page, page_map, width, [0])
        size = np.sqrt(page.evaluate(COLOURS)[BRIGHT])
        assert size == pytest.approx(round(size), abs=0.5)


def test_the_map_says_which_page_is_pointed_at(page, page_map):
    show(page, page_map, 1, [0])
    page.locator("canvas").first.hover(position={"x": 2, "y": 2})
    assert page.locator("canvas").first.get_attribute("title") == "pc.ram, page 0"


def test_sets_of_pages_have_their_colours_and_the_first_set_wins(page):
    sets = PageSets(4 << 20, "Title", "others")
    words = np.zeros(17, dtype=np.uint64)
    one, two = words.copy(), words.copy()
    one[0], two[0] = 0b0111, 0b1110
    sets.show({"one": one, "two": two})
    load(page, sets, "_blocks", "_sets", "_title", "_rest", "_height")
    page.evaluate("open_view()")
    page.wait_for_function("document.querySelector('canvas').width > 0")
    count = page.evaluate(COLOURS)
    assert count["74,134,216,255"] == 3 * count["224,130,69,255"]
    text = page.locator("body").inner_text()
    assert all(part in text for part in ("Title", "one: 3", "two: 3", "others"))
    sets.show({"two": two}, "Another")
    page.evaluate("text => change('_sets', text)", revivable(sets._sets))
    page.evaluate("text => change('_title', text)", revivable(sets._title))
    assert "Another" in page.locator("body").inner_text()
    assert "224,130,69,255" not in page.evaluate(COLOURS)
