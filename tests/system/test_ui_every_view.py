"""Every view in JupyterLab, Notebook 7 and Voilà: modules that are slow, pages that are slow.

One page has them all, and the servers show it one after the other: a page whose processor is
throttled keeps a real one busy, and a kernel's pairs need two. Nothing is stood in for: servers,
kernels, ipywidgets, anywidget and BokehJS are the installed ones. COLOBENCH_BROWSER_REPEATS says
how often this is done; once by default.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from browser import needs_chromium
from jupyter import PATIENCE_MS, Browser, Site, chromium, serve, write_notebook
from share import some
from slow_modules import SLOW_MODULES

REPEATS = int(os.environ.get("COLOBENCH_BROWSER_REPEATS", "1"))
THROTTLE = 12
KINDS = ("lab", "notebook", "voila")
#: Limit of the time from a closed page to the end of its pairs, on a slow machine.
CLOSED_SECONDS = 300.0

pytestmark = [*needs_chromium, pytest.mark.timeout(1200)]

VIEWS = """
import tempfile
import colobench as cb
from colobench import ui
from colobench.lab.cockpit import run
from colobench.ui.base import panel as panels

# What is measured here does not matter.
run.SETTLING_SECONDS = run.UNPROTECTED_SECONDS = 0.1
panels.UNSEEN_SECONDS = 1.0
directory = tempfile.TemporaryDirectory()
disks = [f"{directory.name}/disk,size=1M"]
session = cb.Session(
    ram="8M", guest="uniform", delay=None, report_pages=True, keep_stream=True, disks=disks
)
session.start()
checkpoints = ui.NextCheckpoint(session)
cockpit = ui.Cockpit(ram="8M", guest="uniform", delay=20)
stepper = ui.Stepper()
comparison = ui.StrategyComparison(
    ["colo_v12,delay=20"], ram="8M", rounds=1, seconds=0.3, unprotected_seconds=0.1, models=False
)
prediction = ui.PredictionPanel("04.1")
display(checkpoints, ui.PageMap(session), ui.DiskMap(session))
display(ui.FlushPlot(session.records), ui.PagesPlot(session.records))
display(cockpit, stepper, comparison, prediction)
display(ui.StateDiagram(cb.protocol_table("primary, v12, stop-and-send")))
"""
WORK = """
for _ in range(3):
    checkpoints.button.click()
    checkpoints.wait()
cockpit.overlay.start(cockpit.form.settings(), seconds=1.0)
cockpit.wait()
cockpit.export_json()
cockpit.wait()
stepper.next_button.click()
stepper.wait()
comparison.start_button.click()
comparison.wait()
prediction.answer.drawn.values = [1.0, 2.0, 3.0, 4.0, 5.0]
session.relay.forget()
session.checkpoint()
display(ui.SequenceDiagram(session.relay.chunks))
"""
#: Checkpoints that the session has taken when all cells are done.
CHECKPOINTS = 4
NOTEBOOKS = {"quick": (VIEWS, WORK), "slow": (SLOW_MODULES, VIEWS, WORK)}
#: Numbers that a page shows, and the least that they are, by what shows them.
SHOWN = {
    "bars": ("document.querySelector('[data-rows][data-last]')?.dataset.last", CHECKPOINTS),
    "page map": (
        """document.querySelector("canvas[aria-label*='sent by checkpoint']")
            ?.ariaLabel.match(/sent by checkpoint (\\d+)/)?.[1]""",
        CHECKPOINTS,
    ),
    "disk map": (
        """document.querySelector("canvas[aria-label*='would undo']")
            ?.ariaLabel.match(/(\\d+) checkpoints/)?.[1]""",
        CHECKPOINTS,
    ),
    "figures of checkpoints": (
        f"""[...document.querySelectorAll("[data-figure]")]
            .filter(({{dataset}}) => Number(dataset.rows) >= {CHECKPOINTS}).length""",
        2,
    ),
    "figures of a comparison": (
        """[...document.querySelectorAll(".colobench-panel [data-figure]")]
            .filter(({dataset}) => Number(dataset.rows) > 0).length""",
        1,
    ),
    "settings": ("document.querySelector('[data-fields]')?.dataset.fields", 40),
    "runs over each other": (
        "Object.values(JSON.parse(document.querySelector('[data-runs]')?.dataset.runs ?? '{}'))[0]",
        1,
    ),
    "file": ("document.querySelectorAll('[data-file=\"colobench-runs.json\"]').length", 1),
    "page sets": (
        """document.querySelectorAll("canvas[aria-label*='RAM cache']")
            .length""",
        1,
    ),
    "drawn curve": (
        """[...document.querySelectorAll("svg [role=slider]")]
            .filter((each) => Number(each.getAttribute("aria-valuenow")) >= 1).length""",
        5,
    ),
    "state diagram": (
        """document.querySelectorAll("svg[aria-label*='State diagram']")
            .length""",
        1,
    ),
}
#: Whether no panel stands in a box of Notebook 7 that scrolls, and is some lines high.
WHOLE = """[...document.querySelectorAll(".jp-Cell-outputArea:has(.colobench-panel)")]
    .every((each) => getComputedStyle(each).maxHeight === "none")"""
FIRST_POINT = "document.querySelector('svg [role=slider]').getAttribute('aria-valuenow')"
WORDS = ("Step 1 of 1: live", "All 1 measurements are made", "nothing runs now")


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Serve the notebooks."""
    home = tmp_path_factory.mktemp(request.param)
    (home / "notebooks").mkdir()
    for name, cells in NOTEBOOKS.items():
        write_notebook(home / "notebooks" / f"{name}.ipynb", *cells)
    with serve(request.param, home, home / "notebooks") as site:
        yield site


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    """Start Chromium; afterwards nobody's kernel is left."""
    with chromium(site) as browser:
        yield browser
        browser.close_pages()
        site.end_kernels()


def wait_until_filled(page: Any) -> None:
    """Wait until every view shows all that there is."""
    for shown, least in SHOWN.values():
        page.wait_for_function(f"least => Number({shown}) >= least", arg=least, polling=100)
    for words in WORDS:
        page.get_by_text(words).first.wait_for()
    assert page.evaluate(WHOLE)


def go_on(page: Any) -> None:
    """Press a button of panels that have one, and wait for what comes of it."""
    page.get_by_role("button", name="Next checkpoint").first.click()
    bars, _ = SHOWN["bars"]
    page.wait_for_function(f"Number({bars}) > {CHECKPOINTS}", polling=100)
    page.locator("button:text-matches('Next$')").first.click()
    page.get_by_text("Step 2 of 2: live").first.wait_for()
    page.locator("svg [role=slider]").first.press("ArrowUp")
    page.wait_for_function(f"Number({FIRST_POINT}) > 1", polling=100)


SLOW = [(kind, "slow", 1) for kind in KINDS]
THROTTLED = [(kind, "quick", THROTTLE) for kind in KINDS]
CASES = SLOW + THROTTLED


# A throttled page takes minutes, so a short run has none; test_ui_live_views has one. Slow modules
# are tried in each front: what Notebook 7 alone does with keys was found only there.
@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize(
    ("site", "notebook", "throttle"),
    CASES if "COLOBENCH_BROWSER_REPEATS" in os.environ else SLOW + some(THROTTLED, 0),
    indirect=["site"],
)
def test_slow_modules_and_slow_pages_show_every_view_and_go_on(
    browser: Browser, site: Site, notebook: str, throttle: int, repeat: int
) -> None:
    page = browser.open(f"{notebook}.ipynb", throttle)
    # Another worker of a small machine may be busy meanwhile.
    page.set_default_timeout(4 * PATIENCE_MS)
    browser.run_all(page)
    wait_until_filled(page)
    go_on(page)
    if site.kind == "voila" and notebook == "slow":
        close_the_page_of_a_run(page, site)


def close_the_page_of_a_run(page: Any, site: Site) -> None:
    """Close Voilà's page while the cockpit and the stepper have pairs: both end, another stays."""
    page.get_by_label("run for").select_option("10 minutes")
    page.locator("button:text-matches('Start$')").first.click()
    page.get_by_text(": protected").first.wait_for()
    alive = site.nodes()
    assert len(alive) == 6
    # A tab that is closed says so as a page that is left does.
    page.goto("about:blank")
    deadline = time.monotonic() + CLOSED_SECONDS
    while len(alive) > 2:
        assert time.monotonic() < deadline, alive
        _, alive = psutil.wait_procs(alive, timeout=0.5)
