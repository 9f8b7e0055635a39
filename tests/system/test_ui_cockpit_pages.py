"""The cockpit in JupyterLab and Voilà: four runs of different strategies over each other, live.

COLOBENCH_LONG=1 tries both, throttled and with a module that waits 3 s, too; and overlays runs for
two minutes and prints what the page costs: on a quiet machine, with ``pytest -n 0 -s``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import pytest

import share
from browser import needs_chromium
from colobench.lab.session.session import Session
from jupyter import Browser, Site, chromium, serve, write_notebook
from slow_modules import SLOW_MODULES

pytestmark = [*needs_chromium, pytest.mark.timeout(1200)]

THROTTLE = 12
#: Seconds of a run: first of the quick ones, then of those whose cost is measured.
SECONDS, COST_SECONDS = 1.0, 30.0
COCKPIT = """
from colobench import ui
from colobench.ui.panels import cockpit as module
module.TIMES["10 s"] = {seconds}
cockpit = ui.Cockpit(ram="8M", guest="uniform", delay=20)
cockpit.time.value = "10 s"
cockpit
"""
NOTEBOOKS = {
    "quick": (COCKPIT.format(seconds=SECONDS),),
    "slow": (SLOW_MODULES, COCKPIT.format(seconds=SECONDS)),
    "long": (COCKPIT.format(seconds=COST_SECONDS),),
}
#: Different layouts, transports and outputs.
STRATEGIES = ("colo_v12", "colo_v11", "memfd", "colo_v12")
#: Output of the last one: the preset colo takes a checkpoint in 10 s if nothing differs.
LAST_OUTPUT = "compare"
ROWS = """(([box]) => Object.values(JSON.parse(box?.dataset.runs ?? "{}")))(
    document.querySelectorAll("[data-runs]"))"""
LEAST_ROWS = 3
CHANGED_OUTPUT = "document.querySelector('[data-setting=output].changed')"


def kinds() -> Any:
    """Say where it is tried: in Voilà always."""
    long = pytest.mark.skipif(not share.LONG, reason="takes long; COLOBENCH_LONG=1 does it")
    return pytest.mark.parametrize(
        "site", ["voila", pytest.param("lab", marks=long)], indirect=True
    )


@pytest.fixture(scope="module")
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
    """Start a browser for the site; afterwards nobody's kernel is left."""
    with chromium(site) as browser:
        yield browser
        browser.close_pages()
        site.end_kernels()


def overlay_four(browser: Browser, notebook: str, throttle: int = 1) -> Any:
    """Start four runs, one strategy after another, and wait until all are over."""
    page = browser.open(f"{notebook}.ipynb", throttle)
    browser.run_all(page)
    page.locator("[data-fields]").first.wait_for(state="attached")
    for number, strategy in enumerate(STRATEGIES, 1):
        page.get_by_label("strategy").select_option(strategy)
        if number == len(STRATEGIES):
            page.locator("[data-setting=output] select").select_option(LAST_OUTPUT)
            page.wait_for_function(CHANGED_OUTPUT)
        start = page.locator(".colobench-panel button:not([disabled])", has_text="Start")
        start.first.click()
        # Whether it runs or waits for its turn, it has a line.
        page.get_by_role("button", name="Stop this").nth(number - 1).wait_for()
    page.get_by_text("4 runs,").and_(page.get_by_text("nothing runs now")).first.wait_for()
    page.wait_for_function(f"least => {ROWS}.every(rows => rows >= least)", arg=LEAST_ROWS)
    assert len(page.evaluate(ROWS)) == len(STRATEGIES)
    return page


@kinds()
def test_four_strategies_are_overlaid_with_all_of_their_rows(browser: Browser) -> None:
    page = overlay_four(browser, "quick")
    told = page.locator(".colobench-panel", has_text="runs, ").first.inner_text()
    rows = page.evaluate(ROWS)
    assert f"{sum(rows):,} checkpoints; nothing runs now" in told
    # What does not go together cannot be chosen, and the reason is there.
    option = page.locator("[data-setting=layout] option[value=buffered]")
    assert option.is_enabled()
    page.locator("[data-setting=transport] select").select_option("memfd+unix")
    page.wait_for_function(
        "document.querySelector('[data-setting=layout] option[value=buffered]').disabled"
    )
    assert "whose pages fit into the buffer" in str(option.get_attribute("title"))


@pytest.mark.skipif(not share.LONG, reason="takes long; COLOBENCH_LONG=1 does it")
@kinds()
@pytest.mark.parametrize(("notebook", "throttle"), [("slow", 1), ("quick", THROTTLE)])
def test_slow_modules_and_slow_pages_show_all_rows(
    browser: Browser, notebook: str, throttle: int
) -> None:
    overlay_four(browser, notebook, throttle)


@pytest.mark.skipif(not share.LONG, reason="takes minutes on a quiet machine")
@pytest.mark.parametrize("site", ["lab"], indirect=True)
def test_to_be_watched_for_two_minutes_costs_at_most_a_twentieth_of_the_pause(
    browser: Browser, site: Site
) -> None:
    alone = []
    settings = {"ram": "8M", "guest": "uniform", "delay": 20, "verify": False}
    for strategy in STRATEGIES[:3]:
        with Session(strategy=strategy, **settings | {"delay": 20}) as session:
            alone.append(session.run(int(COST_SECONDS * 40)).percentile("pause_ms", 50))
    page = overlay_four(browser, "long")
    cells = page.locator("tr", has=page.locator("td", has_text="pause, p50")).locator("td")
    watched = [float(text.split()[0]) for text in cells.all_inner_texts()[1:4]]
    costs = [100 * (seen / own - 1) for seen, own in zip(watched, alone, strict=True)]
    for strategy, own, seen, cost in zip(STRATEGIES, alone, watched, costs, strict=False):
        print(f"{strategy}: median pause alone {own:.3f} ms, watched {seen:.3f} ms, {cost:+.1f} %")
    assert statistics.median(costs) <= 5.0
