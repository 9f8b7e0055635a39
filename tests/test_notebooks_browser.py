"""Notebooks in a browser without the Internet: they run, and their buttons do what they say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
#: A machine with one slow core needs a while for JupyterLab and its kernel.
PATIENCE_MS = 180_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

IDLE = """() => {
    const session = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    return session?.isReady && session.session?.kernel?.status === 'idle';
}"""
PLOTTED = """() => Bokeh.documents.flatMap(document => [...document._all_models.values()])
    .filter(model => model.type === 'ColumnDataSource')
    .map(source => Math.max(0, ...[...Object.values(source.data)].map(column => column.length)))"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """Serve a copy of the notebooks; gives the URL, and ends everything that grew from it."""
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    private = {
        f"JUPYTER_{name}_DIR": str(tmp_path / name.lower())
        for name in ("CONFIG", "DATA", "RUNTIME")
    }
    settings = tmp_path / "config/lab/user-settings/@jupyterlab/notebook-extension"
    settings.mkdir(parents=True)
    # Otherwise what is not in view is not in the page.
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=token", "--LabApp.expose_app_in_browser=True"]
    command += [f"--ServerApp.root_dir={tmp_path / 'notebooks'}"]
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            command,
            env={**os.environ, **private, "COLOBENCH_OFFLINE": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_server(server, url, tmp_path / "lab.log")
        yield url
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        server.wait(60)
        _, left = psutil.wait_procs(family, timeout=60)
        for process in left:
            process.kill()
    assert left == []


def wait_for_server(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/api", timeout=10):
                return
        except OSError:
            # A pause that costs nothing: it lasts as long as a process needs to say so.
            psutil.wait_procs([psutil.Process(server.pid)], timeout=0.2)
    pytest.fail(f"JupyterLab ended: {log.read_text()}")


@pytest.fixture
def page(lab: str) -> Iterator[Any]:
    """Open a page that can reach nothing but this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        page.route(
            lambda address: not address.startswith((lab, "data:", "blob:")),
            lambda route: route.abort(),
        )
        yield page
        browser.close()


def run_all(page: Any, lab: str, notebook: str, name: str) -> Any:
    """Run a notebook from top to bottom; gives the button of that name."""
    page.goto(f"{lab}/lab/tree/{notebook}.ipynb?reset&token=token")
    page.wait_for_function(IDLE)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    button = page.get_by_role("button", name=name)
    button.wait_for(state="attached")
    button.scroll_into_view_if_needed()
    page.wait_for_function(IDLE)
    return button


def assert_no_errors(page: Any) -> None:
    """Look for what a cell, or a thread that printed into one, had to complain about."""
    errors = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']")
    assert errors.count() == 0


def test_a_click_in_notebook_01_takes_a_checkpoint_that_table_and_plot_show(
    page: Any, lab: str
) -> None:
    button = run_all(page, lab, "01_one_checkpoint", "Next checkpoint")
    rows = page.locator("table:has(th:text-is('until committed')) tbody tr")
    before = rows.count()
    for click in range(1, 4):
        button.click()
        rows.nth(before + click - 1).wait_for()
        assert rows.nth(before + click - 1).locator("td").last.inner_text() == "yes"
    page.wait_for_function(f"({PLOTTED})().some(rows => rows >= {before + 3})")
    assert_no_errors(page)


def test_in_notebook_02_a_run_goes_through_the_epochs_and_fills_the_table(
    page: Any, lab: str
) -> None:
    button = run_all(page, lab, "02_dirty_pages", "Run 20 epochs")
    page.get_by_role("button", name="Clear the plot").click()
    rows = page.locator("table:has(th:text-is('a collection')) tbody tr")
    rows.first.wait_for(state="detached")
    button.click()
    rows.filter(has_text="in 20 of 20 epochs").first.wait_for()
    assert rows.first.locator("td").first.inner_text() == "marked"
    page.get_by_text("dirty: ").first.wait_for()
    page.wait_for_function(f"({PLOTTED})().some(rows => rows >= 20)")
    assert_no_errors(page)


def test_in_notebook_03_one_guesses_and_sees_what_is_flushed(page: Any, lab: str) -> None:
    send = run_all(page, lab, "03_ram_cache_and_flush", "Send a checkpoint")
    page.get_by_text("Without, RAM is of no checkpoint at all").wait_for()
    send.click()
    page.get_by_text("How many will the flush copy?").wait_for()
    assert send.is_disabled()
    guess = page.get_by_label("my guess")
    guess.fill("12")
    guess.blur()
    page.get_by_role("button", name="Commit and flush").click()
    page.get_by_text("page by page; your guess was 12. RAM is equal on both sides.").wait_for()
    assert page.get_by_text("written there only: ").count() == 1
    assert_no_errors(page)


def test_in_notebook_05_latencies_are_drawn_and_a_turned_dial_makes_miscompares(
    page: Any, lab: str
) -> None:
    run = run_all(page, lab, "05_output_commit", "Run for 2 s")
    page.wait_for_function(f"({PLOTTED})().some(rows => rows >= 100)")
    page.get_by_text("checkpoints by cause: miscompare").first.wait_for()
    page.get_by_label("some ask TIME").uncheck()
    run.click()
    page.wait_for_function("button => button.disabled", arg=run.element_handle())
    page.wait_for_function("button => !button.disabled", arg=run.element_handle())
    assert page.locator("table:has(th:text-is('first byte that differs')) tbody tr").count() == 6
    assert_no_errors(page)


def test_in_notebook_06_a_click_kills_the_secondary_and_the_clients_history_is_judged(
    page: Any, lab: str
) -> None:
    run_all(page, lab, "06_failover", "Break it")
    page.get_by_text("What the clients can prove").first.wait_for()
    page.get_by_label("victim").select_option("secondary")
    kill = page.get_by_role("button", name="Kill", exact=True)
    kill.click()
    page.get_by_text("SIGKILL to the secondary, the primary held at").first.wait_for()
    page.get_by_text("is linearizable.").wait_for()
    page.wait_for_function(f"({PLOTTED})().some(rows => rows >= 100)")
    assert_no_errors(page)
