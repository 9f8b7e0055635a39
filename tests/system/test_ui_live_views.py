"""Live views in JupyterLab, Notebook 7 and Voilà: reloaded, second, cut off and deaf pages.

Nothing is stood in for: server, kernel, ipywidgets, anywidget and BokehJS are the installed ones.
COLOBENCH_LONG=1 tries everything everywhere, and not only what is in doubt the most (see share.py).
Pages that are slow are opened by test_ui_every_view.py.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import playwright.sync_api as playwright
import pytest

import colobench as cb
import share
from browser import needs_chromium
from colobench.lab.compare.metrics import PAUSE
from jupyter import PATIENCE_MS, Browser, Site, chromium, serve, write_notebook
from slow_modules import SLOW_MODULES

PRESS_MS = PATIENCE_MS / 9

pytestmark = [*needs_chromium, pytest.mark.timeout(1200)]

IMPORTS = """
import colobench as cb
from colobench import ui
import numpy as np
"""
#: A kernel that refuses what pages send to widgets, and can send to pages.
DEAF = """
get_ipython().kernel.shell_handlers["comm_msg"] = lambda *_: None
"""
VIEWS = """
import tempfile
directory = tempfile.TemporaryDirectory()
disks = [f"{directory.name}/disk,size=1M"]
session = cb.Session(ram="8M", guest="uniform", delay=None, report_pages=True, disks=disks)
session.start()
panel = ui.NextCheckpoint(session)
display(panel, ui.PageMap(session), ui.FlushPlot(session.records), ui.DiskMap(session))
sets = ui.PageSets(session.settings.guest.ram_bytes, "Sets")
display(sets)
"""
CHECKPOINTS = """
for _ in range(3):
    panel.button.click()
    panel.wait()
sets.show({"one": np.arange(34, dtype=np.uint64)})
"""
#: More rounds than a test waits for; it presses Stop.
COMPARISON = f"""
class EachTime:
    def ask(self, seen):
        return "time" if seen.ran_ms >= 20 else 20 - seen.ran_ms

strategies = ["colo_v12,delay=20", "remus,delay=20", "memfd,delay=20", EachTime()]
times = {{"seconds": {share.amount(1, 4) / 2}, "unprotected_seconds": 0.2, "models": False}}
ui.StrategyComparison(strategies, ram="8M", rounds=100, **times)
"""
#: A comparison that ends by itself, with the same pairs whether somebody sees it or not.
SEEN_OR_NOT = [f"{each},delay=20" for each in ("colo_v12", "remus", "memfd", "cow")]
ITS_SETTINGS = {"ram": "64M", "rounds": 3, "seconds": 4, "models": False}
WATCHED = f"ui.StrategyComparison({SEEN_OR_NOT}, **{ITS_SETTINGS})"
#: Seconds for which a comparison is watched.
LIVE_SECONDS = share.amount(5, 60)
NOTEBOOKS = {
    "quick": (IMPORTS, VIEWS, CHECKPOINTS),
    "slow": (IMPORTS, SLOW_MODULES, VIEWS, CHECKPOINTS),
    "deaf": (IMPORTS, DEAF, VIEWS, CHECKPOINTS),
    "comparison": (IMPORTS, COMPARISON),
    "watched": (IMPORTS, WATCHED),
    "figure": (IMPORTS, "ui.FlushPlot(cb.Records())"),
    "busy": (IMPORTS, VIEWS, CHECKPOINTS, "import time\nwhile True: time.sleep(0.1)"),
}
#: Number of checkpoints that a view shows.
BARS = """(bars => bars?.rows === bars?.last && bars?.rows)(
    document.querySelector("[data-rows][data-last]")?.dataset)"""
PAGE_MAP = """document.querySelector("canvas[aria-label*='sent by checkpoint']")
    ?.ariaLabel.match(/sent by checkpoint (\\d+)/)?.[1]"""
DISK_MAP = """document.querySelector("canvas[aria-label*='would undo']")
    ?.ariaLabel.match(/(\\d+) checkpoints/)?.[1]"""
FIGURE = "document.querySelector('[data-rows][data-figure]')?.dataset.rows"
#: Checkpoints that are drawn of each of four strategies; no numbers before a figure is drawn.
DRAWN = """(typeof Bokeh === "undefined" ? [] : [0, 1, 2, 3].map(i => Bokeh.index.roots
    .map(view => view.model.document.get_model_by_name(`checkpoints ${i}`))
    .find(found => found)?.data.seconds.length ?? 0))"""
LEAST_ROWS = 10
SETS = "canvas[aria-label*='one: ']"
#: Whether the page has that theme, and the labels of all axes the colour of its texts.
WRITTEN_IN = """theme => {
    if (document.body.dataset.jpThemeName !== theme) return false;
    const text = document.body.appendChild(document.createElement("span"));
    text.style.color = "var(--jp-ui-font-color1)";
    const colour = getComputedStyle(text).color;
    text.remove();
    const models = Bokeh.index.roots.flatMap(view => [...view.model.references()]);
    const labels = models.filter(model => "major_label_text_color" in model.properties);
    return labels.length && labels.every(axis => axis.major_label_text_color === colour
        && axis.axis_label_text_color === colour);
}"""
CHANGE_THEME = "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"
#: So much slower than the machine's is a throttled page's processor.
THROTTLE = 12
NEXT = re.compile("Next checkpoint$")


def sites(*always: str, also: tuple[str, ...] = ()) -> Any:
    """Say on which sites a test is done always, and on which also if there is much time."""
    long = pytest.mark.skipif(not share.LONG, reason="takes long; COLOBENCH_LONG=1 does it")
    kinds = [*always, *(pytest.param(kind, marks=long) for kind in also)]
    return pytest.mark.parametrize("site", kinds, indirect=True)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Serve the notebooks."""
    home = tmp_path_factory.mktemp(request.param)
    (home / "notebooks").mkdir()
    for name, cells in NOTEBOOKS.items():
        write_notebook(home / "notebooks" / f"{name}.ipynb", *cells)
    with serve(request.param, home, home / "notebooks") as site:
        yield site


@pytest.fixture(scope="module")
def started(site: Site) -> Iterator[Browser]:
    """Start a browser for the site."""
    with chromium(site) as browser:
        yield browser


@pytest.fixture
def browser(started: Browser, site: Site) -> Iterator[Browser]:
    """Give the browser; afterwards nobody's page or kernel is left."""
    yield started
    started.close_pages()
    site.end_kernels()
    started.check()


def run(browser: Browser, notebook: str, throttle: int = 1) -> Any:
    """Open a notebook and run it."""
    page = browser.open(f"{notebook}.ipynb", throttle)
    browser.run_all(page)
    return page


def wait_until_filled(page: Any, checkpoints: int) -> None:
    """Wait until every view shows at least so many checkpoints, all that there are."""
    for shown in (BARS, PAGE_MAP, DISK_MAP, FIGURE):
        wait_until_shown(page, shown, checkpoints)
    page.locator(SETS).first.wait_for(state="attached")


def wait_until_shown(page: Any, shown: str, least: int, timeout: float | None = None) -> None:
    page.wait_for_function(
        f"least => Number({shown}) >= least", arg=least, polling=100, timeout=timeout
    )


def press(page: Any) -> int:
    """Press the button until there is another checkpoint; gives the number of them.

    JupyterLab may lose the first press: a page that was reloaded sends to a subshell that has ended
    until the view mends that. A press that is only late makes one checkpoint more.
    """
    before = int(page.evaluate(BARS))
    for _ in range(10):
        page.get_by_role("button", name=NEXT).first.click()
        with suppress(playwright.TimeoutError):
            wait_until_shown(page, BARS, before + 1, PRESS_MS)
            return int(page.evaluate(BARS))
    pytest.fail("no press of the button makes a checkpoint")


def words(page: Any, text: str) -> Any:
    """Give the lines that say so."""
    return page.locator(".colobench-words:not([hidden])", has_text=text)


@contextmanager
def cut(site: Site) -> Iterator[None]:
    """Drop all connections, and let no new one through meanwhile."""
    site.line.cut()
    yield
    site.line.mend()


# Each of Voilà's pages has a kernel of its own: there is no second one, and none to come back to.
@sites("voila", also=("lab", "notebook"))
def test_a_page_with_a_twelfth_of_a_processor_shows_all_and_goes_on(
    browser: Browser, site: Site
) -> None:
    page = run(browser, "quick", THROTTLE)
    wait_until_filled(page, 3)
    wait_until_filled(page, press(page))


@sites("lab", also=("notebook",))
def test_reloaded_and_second_pages_show_all_and_both_go_on(browser: Browser, site: Site) -> None:
    first = run(browser, "slow")
    wait_until_filled(first, 3)
    browser.save(first)
    first.reload()
    wait_until_filled(first, 3)
    second = browser.open("slow.ipynb")
    wait_until_filled(second, 3)
    for pressed in (second, first):
        checkpoints = press(pressed)
        for page in (first, second):
            wait_until_filled(page, checkpoints)


@sites("notebook", also=("lab",))
def test_a_page_that_is_opened_on_a_running_kernel_can_run_it_anew(
    browser: Browser, site: Site
) -> None:
    first = run(browser, "quick")
    wait_until_filled(first, 3)
    first.close()
    second = run(browser, "quick")
    wait_until_filled(second, 3)
    wait_until_filled(second, press(second))


@sites("lab", also=("notebook", "voila"))
def test_after_a_dropped_websocket_bars_and_buttons_go_on(browser: Browser, site: Site) -> None:
    page = run(browser, "quick")
    wait_until_filled(page, 3)
    # JupyterLab has words of its own, which are in the way of buttons.
    dialog = page.locator(".jp-Dialog").first
    page.add_locator_handler(dialog, lambda it: it.locator("button").last.click())
    with cut(site):
        words(page, "Out of touch").first.wait_for()
    words(page, "Out of touch").first.wait_for(state="detached")
    wait_until_filled(page, press(page))


# Voilà's pages get even the models that there are by asking.
@sites("lab", also=("notebook",))
def test_a_kernel_that_hears_no_page_fills_views_and_the_page_says_that_buttons_do_nothing(
    browser: Browser, site: Site
) -> None:
    page = run(browser, "deaf")
    wait_until_filled(page, 3)
    words(page, "the kernel does not hear this page").first.wait_for()


@sites(also=("lab", "notebook"))
def test_a_kernel_that_is_busy_with_a_cell_is_said_to_be(browser: Browser, site: Site) -> None:
    page = run(browser, "busy")
    wait_until_filled(page, 3)
    words(page, "busy with a cell").first.wait_for()
    page.evaluate("window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    words(page, "busy with a cell").first.wait_for(state="detached")


@sites("lab")
def test_a_figure_is_written_in_the_pages_colour_on_light_and_on_dark(
    browser: Browser, site: Site
) -> None:
    page = run(browser, "figure")
    page.locator("[data-figure]").first.wait_for(state="attached")
    # The last is what other tests find.
    for theme in ("JupyterLab Light", "JupyterLab Dark", "JupyterLab Light"):
        page.evaluate(CHANGE_THEME, theme)
        page.wait_for_function(WRITTEN_IN, arg=theme)


@sites("lab")
def test_four_strategies_grow_side_by_side_while_their_pairs_run_and_survive_a_reload(
    browser: Browser, site: Site
) -> None:
    page = run(browser, "comparison")
    page.locator(".colobench-panel button", has_text="Start").click()
    page.wait_for_function(f"{DRAWN}.some(rows => rows > 0)")
    end = time.monotonic() + LIVE_SECONDS
    while time.monotonic() < end:
        before = page.evaluate(DRAWN)
        page.wait_for_function(f"before => {DRAWN}.some((rows, i) => rows > before[i])", arg=before)
    page.wait_for_function(f"least => {DRAWN}.every(rows => rows >= least)", arg=LEAST_ROWS)
    page.locator("th", has_text="degradation").first.wait_for()
    browser.save(page)
    before = page.evaluate(DRAWN)
    page.reload()
    page.wait_for_function(
        f"before => {DRAWN}.filter((rows, i) => rows >= before[i]).length === 4", arg=before
    )
    page.locator(".colobench-panel button", has_text="Stop").click()
    page.get_by_text("Stopped after").first.wait_for()


@pytest.mark.skipif(not share.LONG, reason="takes minutes on a quiet machine")
@sites("lab")
def test_to_be_watched_costs_a_comparison_at_most_a_twentieth_of_the_pause(
    browser: Browser, site: Site
) -> None:
    before = pauses_unseen()
    page = run(browser, "watched")
    page.locator(".colobench-panel button", has_text="Start").click()
    minutes = 1000 * 600
    page.get_by_text(re.compile("All .* measurements are made")).wait_for(timeout=minutes)
    row = page.locator("tr", has=page.locator("th", has_text="pause, p50")).first
    seen = [float(text.split()[0]) for text in row.locator("td").all_inner_texts()[1:]]
    # Once before and once after, because a machine may grow slower.
    unseen = [(one + two) / 2 for one, two in zip(before, pauses_unseen(), strict=True)]
    costs = [100 * (watched / alone - 1) for watched, alone in zip(seen, unseen, strict=True)]
    for name, alone, watched, cost in zip(SEEN_OR_NOT, unseen, seen, costs, strict=True):
        print(f"{name}: median pause unseen {alone:.3f} ms, seen {watched:.3f} ms, {cost:+.1f} %")
    assert statistics.median(costs) <= 5.0


def pauses_unseen() -> list[float]:
    """Give the median pause of each strategy in a comparison that is not drawn."""
    [group] = cb.compare(SEEN_OR_NOT, guest="hotcold", **ITS_SETTINGS).groups()
    found = group.row(PAUSE).estimates
    return [found[name].median for name in SEEN_OR_NOT]
