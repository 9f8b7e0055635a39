"""Comparisons with real pairs: their figures, their page, and their life after an interrupt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import colobench as cb
from browser import needs_chromium, open_page
from colobench.lab.compare.metrics import METRICS
from colobench.lab.compare.run import begin_comparison
from colobench.settings.settings import Settings
from measurements import make_comparison
from pairs import compile_before

pytestmark = pytest.mark.usefixtures("nothing_left")

STRATEGIES = ("colo_v12,delay=10", "memfd,delay=10")
QUICK = {"ram": "8M", "seconds": 0.3, "unprotected_seconds": 0.2, "models": False}
#: The same as options.
OPTIONS = [
    "--ram",
    "8M",
    "--seconds",
    "0.3",
    "--unprotected-seconds",
    "0.2",
    "--rounds",
    "2",
    "--no-models",
]


@pytest.fixture(scope="module", autouse=True)
def compiled():
    for strategy in STRATEGIES:
        compile_before(cb.Session(strategy=strategy, guest="hotcold", ram="8M"))


def command(*arguments: str) -> list[str]:
    verb = [sys.executable, "-m", "colobench", "compare", "--strategies", *STRATEGIES]
    return [*verb, *OPTIONS, *arguments]


def lines(path: Path) -> list[bytes]:
    """Give the whole lines of a file that may not be there yet."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def start_until_first_result(results: Path) -> subprocess.Popen[str]:
    """Start a comparison, and wait until it has measured something."""
    started = subprocess.Popen(
        command("--results", str(results)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TQDM_DISABLE": "1"},
    )
    while not lines(results):
        assert started.poll() is None, started.communicate()
    return started


def finish(results: Path) -> str:
    """Let the same command go on to its end, with all measurements made once."""
    before = lines(results)
    finished = subprocess.run(
        command("--results", str(results)), capture_output=True, text=True, timeout=240
    )
    assert finished.returncode == 0, finished.stderr
    after = lines(results)
    assert after[: len(before)] == before
    rows = [json.loads(line) for line in after]
    assert sorted((row["strategy"], row["round"]) for row in rows) == sorted(
        (strategy, number) for strategy in STRATEGIES for number in (1, 2)
    )
    return finished.stdout


def test_interrupted_comparison_shows_what_it_has_and_goes_on(tmp_path):
    results = tmp_path / "results.jsonl"
    with start_until_first_result(results) as started:
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=120)
    assert started.returncode == 130
    [sentence] = err.splitlines()
    assert sentence.startswith("colobench compare: interrupted: ")
    assert f"are in {results}, from which the same command goes on" in sentence
    assert "of 4 measurements were made" in out
    assert "pause, p50" in out
    assert "pause, p50" in finish(results)


def test_killed_comparison_goes_on(tmp_path):
    results = tmp_path / "results.jsonl"
    with start_until_first_result(results) as started:
        started.kill()
        started.communicate(timeout=120)
    assert started.returncode == -signal.SIGKILL
    finish(results)
    # Its nodes have died with it; the next session removes what is left of its own.
    other = subprocess.run(
        command("--results", str(results), "--seconds", "9"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert other.returncode == 1
    assert "expected measurements with seconds 9.0, found some with seconds 0.3" in other.stderr
    assert "Traceback" not in other.stderr


def test_every_figure_of_a_guest_that_serves_is_measured(tmp_path):
    seen = []
    comparison = cb.compare(
        STRATEGIES[:1],
        guest="kv",
        rounds=1,
        progress=lambda done, total: seen.append((done, total)),
        disks=[f"{tmp_path}/disk,size=16M"],
        **QUICK | {"models": True, "unprotected_seconds": 0.5, "ram": "16M"},
    )
    assert seen == [(0, 1), (1, 1)]
    [found] = comparison.measurements
    assert found.figures.keys() == {metric.name for metric in METRICS}
    assert None not in found.figures.values()
    # A secondary's guest has not run, so with so little RAM its process may need less.
    memory = {"primary_memory_bytes", "secondary_memory_bytes"}
    positive = found.figures.keys() - memory - {"degradation", "disk_wait_ms_per_s"}
    assert all(found.figures[name] > 0 for name in positive)
    assert found.figures["commit_age_mean_ms"] < found.figures["commit_age_p99_ms"]
    assert found.unprotected["latency_p50_ms"] > 0
    assert Settings.from_json(found.settings) == comparison.cells[0].settings
    # All but takeover, the worst pause and the disk have a model.
    predicted = comparison.predictions()[comparison.cells[0].key]
    of_disks = {name for name in found.figures if name.startswith("disk_")}
    assert found.figures.keys() - predicted.keys() == {"pause_p99_ms", "takeover_ms"} | of_disks
    # Pauses vary, and a longer one leaves a shorter run behind it.
    assert predicted["checkpoints_per_s"] <= 100 * 1.01


def test_comparison_grows_where_others_see_it():
    into = begin_comparison(STRATEGIES, rounds=1, **QUICK)
    assert into.missing == 2
    assert cb.compare(STRATEGIES, into=into) is into
    assert into.missing == 0
    [stream, memfd] = into.measurements
    assert (stream.strategy, memfd.strategy) == STRATEGIES
    assert stream.figures["latency_p50_ms"] is None
    # Pages do not travel with memfd.
    assert memfd.figures["bytes_per_s"] < stream.figures["bytes_per_s"]
    assert len(into.plots()) == 3


def test_a_broken_pair_is_named_and_what_was_measured_is_kept(monkeypatch):
    into = begin_comparison(STRATEGIES, rounds=1, **QUICK)

    def run(self, *arguments, **options):
        raise cb.RemoteError("the cable is cut")

    cb.compare(STRATEGIES[:1], rounds=1, **QUICK)
    monkeypatch.setattr(cb.Session, "kill", run)
    with pytest.raises(cb.RemoteError, match="delay=10 on hotcold, round 1: the cable is cut"):
        cb.compare(STRATEGIES, into=into)
    assert into.measurements == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
class TestPage:
    pytestmark = needs_chromium

    def test_page_draws_all_plots_offline(self, tmp_path, scheme):
        comparison = make_comparison(
            lambda cell, number: {"pause_p50_ms": float(number), "latency_p50_ms": float(number)},
            guests=("hotcold", "kv,ram=16M"),
        )
        path = comparison.write_page(tmp_path / "page.html")
        asked = []
        with open_page() as page:
            page.emulate_media(color_scheme=scheme)
            page.route("**/*", lambda route: _only_files(route, asked))
            page.goto(path.as_uri())
            page.wait_for_function("Bokeh.documents.length > 0")
            page.wait_for_function("document.querySelectorAll('.bk-Figure').length === 6")
            assert page.locator("table.results").count() == 2
            assert page.locator("pre.settings").count() == 4
            page.set_viewport_size({"width": 390, "height": 800})
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 390
        assert asked == []


def _only_files(route, asked):
    """Let the page's own file be read, and note what else is asked for."""
    if route.request.url.startswith("file:"):
        route.continue_()
    else:
        asked.append(route.request.url)
        route.abort()
