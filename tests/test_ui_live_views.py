"""Live views in JupyterLab, Notebook 7 and Voilà: slow, reloaded, second, cut off and deaf pages.

Nothing is stood in for: server, kernel, ipywidgets, anywidget and BokehJS are the installed ones.
COLOBENCH_BROWSER_REPEATS says how often pages are opened that are slow; once by default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import playwright.sync_api as playwright
import pytest
from browser import needs_chromium
from jupyter import PATIENCE_MS, Browser, Site, chromium, serve, write_notebook

KINDS = ("lab", "notebook", "voila")
REPEATS = int(os.environ.get("COLOBENCH_BROWSER_REPEATS", "1"))
THROTTLE = 12
PRESS_MS = PATIENCE_MS / 9

pytestmark = [*needs_chromium, pytest.mark.timeout(1200)]

IMPORTS = """
import colobench as cb
from colobench import ui
import numpy as np
"""
#: What anywidget gives up on: a module that needs longer than 2 s.
SLOW = """
from colobench.ui.feed import LiveView

def subclasses(view):
    for each in view.__subclasses__():
        yield each
        yield from subclasses(each)

for each in subclasses(LiveView):
    each._esm = "await new Promise((done) => setTimeout(done, 3000));" + each._esm
"""
#: A kernel that refuses what pages send to widgets, and can send to pages.
DEAF = """
get_ipython().kernel.shell_handlers["comm_msg"] = lambda *_: None
"""
VIEWS = """
session = cb.Session(ram="8M", guest="uniform", delay=None, report_pages=True)
session.start()
panel = ui.NextCheckpoint(session)
display(panel, ui.PageMap(session), ui.FlushPlot(session.records))
sets = ui.PageSets(session.guest.ram_bytes, "Sets")
display(sets)
"""
CHECKPOINTS = """
for _ in range(3):
    panel.button.click()
    panel.wait()
sets.show({"one": np.arange(34, dtype=np.uint64)})
"""
NOTEBOOKS = {
    "quick": (IMPORTS, VIEWS, CHECKPOINTS),
    "slow": (IMPORTS, SLOW, VIEWS, CHECKPOINTS),
    "deaf": (IMPORTS, DEAF, VIEWS, CHECKPOINTS),
    "busy": (IMPORTS, VIEWS, CHECKPOINTS, "import time\nwhile True: time.sleep(0.1)"),
}
#: How each of the views looks that has all of so many checkpoints: bars, page map, figure, sets.
FILLED = (
    "[data-rows='{0}'][data-last='{0}']",
    "canvas[aria-label*='sent by checkpoint {0}']",
    "[data-rows='{0}'][data-figure]",
    "canvas[aria-label*='one: ']",
)
NEXT = re.compile("Next checkpoint$")


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Serve the notebooks."""
    home = tmp_path_factory.mktemp(request.param)
    (home / "notebooks").mkdir()
    for name, cells in NOTEBOOKS.items():
        write_notebook(home / "notebooks" / f"{name}.ipynb", *cells)
    with serve(request.param, home, home / "notebooks") as site:
        yield site


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    """Open a browser; afterwards nobody's kernel is left."""
    with chromium(site) as browser:
        yield browser
        browser.close_pages()
        site.end_kernels()


def run(browser: Browser, notebook: str, throttle: int = 1) -> Any:
    """Open a notebook and run it."""
    page = browser.open(f"{notebook}.ipynb", throttle)
    browser.run_all(page)
    return page


def wait_until_filled(page: Any, checkpoints: int) -> None:
    """Wait until every view shows all checkpoints."""
    for selector in FILLED:
        page.locator(selector.format(checkpoints)).first.wait_for(state="attached")


def press(page: Any, checkpoints: int) -> None:
    """Press the button until there are so many checkpoints: JupyterLab may lose the first press.

    A page that was reloaded sends to a subshell that has ended until the view mends that.
    """
    for _ in range(10):
        page.get_by_role("button", name=NEXT).first.click()
        with suppress(playwright.TimeoutError):
            bars = page.locator(FILLED[0].format(checkpoints)).first
            bars.wait_for(state="attached", timeout=PRESS_MS)
            return


def words(page: Any, text: str) -> Any:
    """Give the lines that say so."""
    return page.locator(".colobench-words:not([hidden])", has_text=text)


@contextmanager
def cut(site: Site) -> Iterator[None]:
    """Drop all connections, and let no new one through meanwhile."""
    site.line.cut()
    yield
    site.line.mend()


def skip_voila(site: Site) -> None:
    if site.kind == "voila":
        pytest.skip("each of Voilà's pages has a kernel of its own")


@pytest.mark.parametrize("time", range(REPEATS))
def test_a_view_whose_module_is_slow_shows_all_and_goes_on(
    browser: Browser, site: Site, time: int
) -> None:
    page = run(browser, "slow")
    wait_until_filled(page, 3)
    press(page, 4)
    wait_until_filled(page, 4)


@pytest.mark.parametrize("time", range(REPEATS))
def test_a_page_with_a_twelfth_of_a_processor_shows_all_and_goes_on(
    browser: Browser, site: Site, time: int
) -> None:
    if site.kind == "notebook" and "COLOBENCH_BROWSER_REPEATS" not in os.environ:
        pytest.skip("takes long; COLOBENCH_BROWSER_REPEATS=1 does it here, too")
    page = run(browser, "quick", THROTTLE)
    wait_until_filled(page, 3)
    press(page, 4)
    wait_until_filled(page, 4)


def test_reloaded_and_second_pages_show_all_and_both_go_on(browser: Browser, site: Site) -> None:
    skip_voila(site)
    first = run(browser, "slow")
    wait_until_filled(first, 3)
    browser.save(first)
    first.reload()
    wait_until_filled(first, 3)
    second = browser.open("slow.ipynb")
    wait_until_filled(second, 3)
    press(second, 4)
    for page in (first, second):
        wait_until_filled(page, 4)
    press(first, 5)
    for page in (first, second):
        wait_until_filled(page, 5)


def test_a_page_that_is_opened_on_a_running_kernel_can_run_it_anew(
    browser: Browser, site: Site
) -> None:
    skip_voila(site)
    first = run(browser, "quick")
    wait_until_filled(first, 3)
    first.close()
    second = run(browser, "quick")
    wait_until_filled(second, 3)
    press(second, 4)
    wait_until_filled(second, 4)


def test_after_a_dropped_websocket_bars_and_buttons_go_on(browser: Browser, site: Site) -> None:
    page = run(browser, "quick")
    wait_until_filled(page, 3)
    # JupyterLab has words of its own, which are in the way of buttons.
    page.add_locator_handler(page.locator(".jp-Dialog"), lambda _: page.keyboard.press("Escape"))
    with cut(site):
        words(page, "Out of touch").first.wait_for()
    words(page, "Out of touch").first.wait_for(state="detached")
    press(page, 4)
    wait_until_filled(page, 4)


def test_a_kernel_that_hears_no_page_fills_views_and_the_page_says_that_buttons_do_nothing(
    browser: Browser, site: Site
) -> None:
    # Voilà's pages get even the models that there are by asking.
    skip_voila(site)
    page = run(browser, "deaf")
    wait_until_filled(page, 3)
    words(page, "the kernel does not hear this page").first.wait_for()


def test_a_kernel_that_is_busy_with_a_cell_is_said_to_be(browser: Browser, site: Site) -> None:
    skip_voila(site)
    page = run(browser, "busy")
    wait_until_filled(page, 3)
    words(page, "busy with a cell").first.wait_for()
    page.evaluate("window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    words(page, "busy with a cell").first.wait_for(state="detached")
