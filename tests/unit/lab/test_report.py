"""The report of a run tells what its records tell, in one file that needs no network."""

import random
import re
import shutil
import statistics
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from colobench.lab.report import html
from colobench.lab.report.html import FIELDS, judge, write_report
from colobench.lab.report.run_plots import BARS, group
from colobench.lab.report.run_summary import (
    ACTIVITIES,
    PAUSE_PHASES,
    compute_statistics,
    format_summary,
    megabytes,
    milliseconds,
)
from colobench.lab.session.record import CheckpointRecord
from records import make_record

TAKEOVER = {
    "takeover_ms": 12.34,
    "takeover_checkpoint": 50,
    "digest_equal": True,
    "work_at_takeover": 1000,
    "work_after": 2000,
    "timeline": {"killed": 6.0, "told": 6.001, "took_over": 6.012, "observed": 6.03},
}


def make_records(count, verified=True, seed=1):
    """Make records of a run that never was, with an outlier now and then."""
    chance = random.Random(seed)
    records = []
    for number in range(1, count + 1):
        phases = {f"{phase}_ms": chance.expovariate(5) for phase in ACTIVITIES}
        phases["ram_ms"] *= 50 if chance.random() < 0.02 else 1
        phases["verify_ms"] *= verified is not None
        record = SimpleNamespace(
            number=number,
            time=0.1 * number,
            pages=chance.randrange(400),
            zero_pages=chance.randrange(9),
            encoded_pages=chance.randrange(50),
            bytes_saved=chance.randrange(1 << 17),
            flushed_pages=chance.randrange(500),
            bytes=chance.randrange(1 << 21),
            primary_buffer_bytes=17408,
            secondary_buffer_bytes=chance.randrange(1 << 22),
            pause_ms=sum(phases[f"{phase}_ms"] for phase in PAUSE_PHASES),
            verified=verified,
            disk_bytes=chance.randrange(1 << 20),
            disk_waits=chance.randrange(3),
            disk_write_p50_ms=0.25,
            disk_write_p99_ms=chance.choice((None, 2.5)),
            **phases,
        )
        records.append(record)
    return records


class Page(HTMLParser):
    """The addresses that a page loads, the rows of its tables, and its words."""

    def __init__(self, text):
        super().__init__()
        self.loads = []
        self.rows = {}
        self.words = ""
        self._tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset")]
        if tag == "tr":
            self._row = []
        elif tag in ("th", "td"):
            self._row.append("")

    def handle_data(self, data):
        if not {"script", "style"} & set(self._tags[-1:]):
            self.words += data
        if {"th", "td"} & set(self._tags):
            self._row[-1] += data

    def handle_endtag(self, tag):
        while self._tags and self._tags.pop() != tag:
            pass
        if tag == "tr":
            self.rows[self._row[0]] = self._row[1:]


def read(path):
    return Page(path.read_text("utf-8"))


def test_checkpoint_records_have_every_field_that_is_plotted():
    assert [name for name in FIELDS if not hasattr(CheckpointRecord, name)] == []


@pytest.mark.parametrize("count", [0, 1, 2, 53, 1200])
def test_nothing_is_loaded_from_elsewhere(tmp_path, count):
    path = write_report(tmp_path / "report.html", make_records(count), {"verified": True})
    assert [address for address in read(path).loads if address != "data:,"] == []
    styles = re.findall(r"<style>.*?</style>", path.read_text("utf-8"), re.DOTALL)
    assert not any("@import" in style or "url(" in style for style in styles)


@pytest.mark.parametrize("count", [1, 2, 53, 1200])
def test_the_statistics_in_the_table_are_those_of_the_records(tmp_path, count):
    records = make_records(count)
    summary = {"verified": True, "takeover_ms": 12.34, "pages": 7, "pause_ms_p50": 99}
    rows = read(write_report(tmp_path / "report.html", records, summary)).rows
    assert rows["checkpoints"][-1] == f"{count:,}"
    assert rows["pages"][-1] == f"{sum(record.pages for record in records):,}"
    assert rows["sent"][-1] == f"{sum(record.bytes for record in records) / 1e6:,.1f} MB"
    assert rows["takeover"][-1] == "12.3 ms"
    pauses = [record.pause_ms for record in records]
    assert rows["pause"] == [
        milliseconds(statistics.median(pauses)),
        milliseconds(np.percentile(pauses, 99)),
    ]
    for phase in PAUSE_PHASES:
        values = [getattr(record, f"{phase}_ms") for record in records]
        assert rows[phase][0] == milliseconds(statistics.median(values))


def test_a_run_without_checkpoints_says_so_instead_of_plotting(tmp_path):
    page = read(write_report(tmp_path / "report.html", [], {"verified": False}))
    assert page.words.count("No checkpoint was committed.") == 4
    assert "The primary was not killed in this run." in page.words
    assert page.rows["pause"] == ["–", "–"]


def test_names_and_values_are_text_never_markup(tmp_path):
    summary = {"machine": {"<b>cpu</b>": "<script>alert(1)</script>"}, "settings": {"a&b": 1}}
    rows = read(write_report(tmp_path / "report.html", make_records(3), summary)).rows
    assert rows["<b>cpu</b>"] == ["<script>alert(1)</script>"]
    assert rows["a&b"] == ["1"]


def test_an_old_report_is_replaced(tmp_path):
    path = tmp_path / "report.html"
    for count in (53, 2):
        assert write_report(str(path), make_records(count), {}) == path
    assert read(path).rows["checkpoints"][-1] == "2"


@pytest.mark.parametrize(
    ("verified", "summary", "state"),
    [
        (True, {"verified": True, **TAKEOVER}, "good"),
        (True, {"verified": False}, "bad"),
        (False, {"verified": True}, "bad"),
        (None, {"verified": None}, "open"),
        (True, {}, "open"),
    ],
)
def test_the_verdict_is_no_better_than_what_was_compared(verified, summary, state):
    assert judge(make_records(3, verified), summary)[0] == state


def test_the_verdict_names_the_checkpoints_that_differed():
    records = [*make_records(2), *make_records(1, verified=False)]
    _, verdict, reasons = judge(records, {"verified": False})
    assert verdict == "Not verified"
    assert reasons == ["RAM or devices differed after checkpoint 1."]


def test_the_verdict_names_what_did_not_hold():
    proofs = {"killed_by_sigkill": True, "work_goes_on": False}
    reasons = judge(make_records(2, verified=None), {"verified": False, "proofs": proofs})[2]
    assert reasons == ["The checkpoints were not compared one by one.", "Not so: work goes on."]


def test_digests_are_a_part_of_the_pause_only_where_they_were_taken(tmp_path):
    for verified in (True, None):
        path = write_report(tmp_path / "report.html", make_records(5, verified), {})
        assert ("verify" in read(path).rows) == (verified is not None)


def test_the_verdict_tells_of_the_takeover():
    told = " ".join(judge(make_records(50), {"verified": True, **TAKEOVER})[2])
    assert "each of 50 checkpoints" in told
    assert "took over from checkpoint 50 in 12.3 ms" in told
    assert "worked on, from 1,000 to 2,000" in told
    stuck = {**TAKEOVER, "work_after": 1000, "digest_equal": False}
    told = " ".join(judge(make_records(50), {"verified": False, **stuck})[2])
    assert "was not in that checkpoint's state" in told
    assert "did not work on" in told


@pytest.mark.parametrize("count", [1, BARS - 1, BARS, BARS + 1, 10 * BARS + 7])
def test_grouping_keeps_sums_and_the_longest_pause(count):
    records = make_records(count)
    columns = {
        name: np.array([getattr(record, name) for record in records], dtype=float)
        for name in FIELDS
    }
    grouped = group(columns)
    assert len(grouped["size"]) <= BARS
    assert grouped["size"].sum() == count
    assert grouped["longest"].max() == columns["pause_ms"].max()
    for name, values in columns.items():
        assert np.isclose((grouped[name] * grouped["size"]).sum(), values.sum())


def test_terminal_table_shows_every_statistic_of_the_summary():
    computed = compute_statistics(make_records(53))
    summary = {"verified": True, **computed, **TAKEOVER}
    lines = [re.split(r"  +", line.strip()) for line in format_summary(summary).splitlines()]
    assert ["verified", "yes"] in lines
    assert ["checkpoints", "53"] in lines
    assert ["pages", f"{computed['pages']:,}"] in lines
    assert ["sent", megabytes(computed["bytes"])] in lines
    for name in ("pause", *PAUSE_PHASES):
        value = computed["phases_ms"].get(name) or {
            "p50": computed["pause_ms_p50"],
            "p99": computed["pause_ms_p99"],
        }
        assert [name, milliseconds(value["p50"]), milliseconds(value["p99"])] in lines
    assert ["takeover", "12.3 ms"] in lines
    assert ["from checkpoint", "50"] in lines


def test_terminal_table_leaves_out_what_is_not_there():
    assert format_summary({}) == ""
    assert format_summary({"verified": None}) == "verified  not compared"
    assert "takeover" not in format_summary({"verified": False, "takeover_ms": None})
    assert format_summary({"verified": False, **compute_statistics([])}).splitlines()[
        4
    ].split() == [
        "p50",
        "p99",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0.00 ms"), (1.234, "1.23 ms"), (12.34, "12.3 ms"), (1234.5, "1,234 ms")],
)
def test_durations_are_written_with_three_digits(value, text):
    assert milliseconds(value) == text


AXIS_COLOURS = """() => [...Bokeh.documents[0]._all_models.values()]
    .filter((model) => "axis_label_text_color" in model.properties)
    .map((model) => model.axis_label_text_color)"""


#: Elements that reach beyond the page's right side.
CUT = """() => [...document.querySelectorAll("main *")]
    .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
    .map((each) => each.tagName)"""


def test_the_pauses_of_the_report_are_without_verification(monkeypatch, tmp_path):
    drawn = {}
    original = html.plot_pause

    def plot_pause(grouped, numbers):
        drawn["longest"] = grouped["longest"].max()
        drawn["plot"] = original(grouped, numbers)
        return drawn["plot"]

    monkeypatch.setattr(html, "plot_pause", plot_pause)
    records = [make_record(number, pause_ms=30.0, verify_ms=20.0, copy_ms=1.0) for number in (1, 2)]
    path = write_report(tmp_path / "report.html", records, {"verified": True})
    assert drawn["longest"] == pytest.approx(10)
    names = [item.label["value"] for item in drawn["plot"].legend[0].items]
    assert "verify" not in names
    assert "copy" in names
    assert "hash" not in names
    text = path.read_text()
    assert "Verification, 20.0 ms at the median, is no work of COLO&#39;s" in text
    # The table still has it.
    assert ">verify</th>" in text


@pytest.mark.browser
@pytest.mark.parametrize("count", [0, 1, 1200])
def test_the_report_opens_offline_without_an_error_in_light_and_dark(tmp_path, count):
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium on PATH")
    from playwright.sync_api import sync_playwright

    records = make_records(count)
    path = write_report(tmp_path / "report.html", records, {"verified": True, **TAKEOVER})
    complaints, addresses, colours = [], [], {}
    labels = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, offline=True)
            page.on("request", lambda request: addresses.append(request.url.split(":")[0]))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    complaints.append(message.text)
                    if message.type in ("error", "warning")
                    else None
                ),
            )
            page.goto(path.as_uri())
            page.wait_for_function("Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
            plots = page.evaluate("Bokeh.documents[0].roots().length")
            colours[scheme] = set(page.evaluate(AXIS_COLOURS))
            for width in (900, 500):
                page.set_viewport_size({"width": width, "height": 800})
                page.wait_for_function("Bokeh.documents[0].is_idle")
                assert page.evaluate(CUT) == [], width
            pictures = page.locator("[role=img]")
            labels = pictures.evaluate_all("all => all.map((each) => each.ariaLabel)")
        browser.close()
    assert complaints == []
    assert set(addresses) <= {"file", "data"}
    assert plots == len(labels) == (5 if count else 1)
    assert all(len(label) > 40 for label in labels)
    assert len(colours["light"]) == len(colours["dark"]) == 1
    assert colours["light"] != colours["dark"]
