"""Notebooks in a browser without the Internet: they run, and their buttons do what they say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from browser import needs_chromium
from jupyter import IDLE, PATIENCE_MS, Browser, Site, chromium, serve
from places import CLONE

NOTEBOOKS = CLONE / "notebooks"

pytestmark = [*needs_chromium, pytest.mark.timeout(600)]

CHOICES = "[...document.querySelectorAll('.widget-radio-box label')]"
ROWS = """least => [...document.querySelectorAll("[data-rows]")]
    .some(({dataset}) => Number(dataset.rows) >= least)"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve a copy of the notebooks."""
    home = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(NOTEBOOKS, home / "notebooks", ignore=shutil.ignore_patterns(".*"))
    with serve("lab", home, home / "notebooks") as site:
        yield site


@pytest.fixture(scope="module")
def browser(lab: Site) -> Iterator[Browser]:
    """Start a browser for the server."""
    with chromium(lab) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, lab: Site) -> Iterator[Any]:
    """Open a page that can reach nothing but the server; the kernel ends with the test."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    browser.close_pages()
    lab.end_kernels()
    browser.check()


def run_all(page: Any, lab: Site, notebook: str, name: str) -> Any:
    """Run a notebook from top to bottom; gives the button of that name."""
    page.goto(lab.address(f"{notebook}.ipynb"))
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
    page: Any, lab: Site
) -> None:
    button = run_all(page, lab, "01_one_checkpoint", "Next checkpoint")
    rows = page.locator("table:has(th:text-is('until committed')) tbody tr")
    before = rows.count()
    for click in range(1, 4):
        button.click()
        rows.nth(before + click - 1).wait_for()
        assert rows.nth(before + click - 1).locator("td").last.inner_text() == "yes"
    page.wait_for_function(ROWS, arg=before + 3)
    # On a narrow page a choice takes two lines, and does not lie over the next one.
    page.set_viewport_size({"width": 400, "height": 1000})
    page.wait_for_function(f"{CHOICES}.some((each) => each.clientHeight > 30)")
    page.wait_for_function(f"{CHOICES}.every((each) => each.scrollHeight <= each.clientHeight)")
    assert_no_errors(page)


def test_in_notebook_02_a_run_goes_through_the_epochs_and_fills_the_table(
    page: Any, lab: Site
) -> None:
    button = run_all(page, lab, "02_dirty_pages", "Run 20 epochs")
    page.get_by_role("button", name="Clear the plot").click()
    rows = page.locator("table:has(th:text-is('a collection')) tbody tr")
    rows.first.wait_for(state="detached")
    button.click()
    rows.filter(has_text="in 20 of 20 epochs").first.wait_for()
    assert rows.first.locator("td").first.inner_text() == "marked"
    page.get_by_text("dirty: ").first.wait_for()
    page.wait_for_function(ROWS, arg=20)
    assert_no_errors(page)


def test_in_notebook_03_one_guesses_and_sees_what_is_flushed(page: Any, lab: Site) -> None:
    send = run_all(page, lab, "03_ram_cache_and_flush", "Send a checkpoint")
    page.get_by_text("Without, RAM is of no checkpoint at all").wait_for()
    # Running all cells has not played the reader's round.
    assert page.get_by_text("Choose a guest, and send a checkpoint").count() == 1
    send.click()
    page.get_by_text("How many will the flush copy?").wait_for()
    assert send.is_disabled()
    guess = page.get_by_label("my guess")
    guess.fill("12")
    guess.blur()
    page.get_by_role("button", name="Commit and flush").click()
    page.get_by_text("Your guess was 12. The flush copied").wait_for()
    page.get_by_text("page by page. RAM is equal on both sides.").wait_for()
    # What a view shows comes with a frame of its own.
    page.get_by_text("written there only: ").wait_for()
    assert_no_errors(page)


def test_in_notebook_04_a_curve_is_drawn_committed_and_joined_by_the_measured_one(
    page: Any, lab: Site
) -> None:
    page.goto(lab.address("04_separated_streams.ipynb"))
    page.wait_for_function(IDLE)
    for _ in range(4):
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
    points = page.locator("svg [role=slider]")
    points.first.wait_for()
    commit = page.get_by_role("button", name="Commit and run")
    # Nothing is drawn yet.
    commit.click()
    page.get_by_text("Commit to an answer first: the experiment runs").wait_for()
    box = page.locator("svg:has([role=slider])").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 0.8 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.98 * box["width"], box["y"] + 0.3 * box["height"], steps=3)
    page.mouse.up()
    drawn = [float(each.get_attribute("aria-valuenow") or 0) for each in points.all()]
    assert len(drawn) == 5
    assert drawn == sorted(drawn)
    # The focus stays at the point, so that one key can be pressed after another.
    points.last.focus()
    moved = drawn[-1:]
    for _ in range(3):
        page.keyboard.press("ArrowDown")
        moved.append(float(points.last.get_attribute("aria-valuenow") or 0))
    assert moved == sorted(set(moved), reverse=True)
    commit.click()
    page.get_by_text("It grows by 4,10").wait_for()
    assert page.locator("svg:has([role=slider]) rect").count() == 5
    assert_no_errors(page)


def test_in_notebook_05_latencies_are_drawn_and_a_turned_dial_makes_miscompares(
    page: Any, lab: Site
) -> None:
    run = run_all(page, lab, "05_output_commit", "Run for 2 s")
    page.wait_for_function(ROWS, arg=100)
    page.get_by_text("checkpoints by cause: miscompare").first.wait_for()
    page.get_by_label("some ask TIME").uncheck()
    run.click()
    page.wait_for_function("button => button.disabled", arg=run.element_handle())
    page.wait_for_function("button => !button.disabled", arg=run.element_handle())
    assert page.locator("table:has(th:text-is('first byte that differs')) tbody tr").count() == 6
    assert_no_errors(page)


def test_in_notebook_06_a_click_kills_the_secondary_and_the_clients_history_is_judged(
    page: Any, lab: Site
) -> None:
    run_all(page, lab, "06_failover", "Break it")
    page.get_by_text("the proof:").first.wait_for()
    page.get_by_label("victim").select_option("secondary")
    # Its name begins with an icon.
    page.get_by_role("button", name=re.compile("Kill$")).click()
    page.get_by_text("SIGKILL to the secondary, the primary held at").first.wait_for()
    page.get_by_text("is linearizable.").wait_for()
    page.wait_for_function(ROWS, arg=100)
    assert_no_errors(page)
