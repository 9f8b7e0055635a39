"""Views for readers who do not see them or use no pointer; on narrow pages; without warnings.

The views' modules run in Chromium as they are, on a page without Jupyter.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from browser import needs_chromium, open_page
from cockpit_runs import make_run
from colobench.lab.cockpit.curves import PLOTS
from colobench.lab.cockpit.form import SettingsForm
from colobench.lab.compare.growth import Growth
from colobench.lab.course.prediction import CurveAnswer
from colobench.lab.session.record import Records
from colobench.settings.settings import Settings
from colobench.ui.base.pump import frames
from colobench.ui.views.comparison_plots import ComparisonPlots
from colobench.ui.views.curve_input import CurveInput
from colobench.ui.views.live_plot import LivePlot
from colobench.ui.views.overlay_plots import OverlayPlots
from colobench.ui.views.page_map import PageMap
from colobench.ui.views.page_sets import PageSets
from colobench.ui.views.plots import FlushPlot
from colobench.ui.views.settings_form import SettingsFormView
from records import make_record
from view_page import page_of

pytestmark = needs_chromium
#: Widths of pages, pixels.
WIDTHS = (1000, 900, 500)
#: Views that are no pictures: all of their parts have labels.
CONTROLS = {"form", "curve"}
#: Elements that reach beyond the page's right side.
CUT = """() => [...document.querySelectorAll("section, section *")]
    .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
    .filter((each) => !each.closest("details")).map((each) => each.tagName)"""


@pytest.fixture(scope="module")
def views() -> Iterator[dict[str, Any]]:
    """Make views of a few checkpoints, one of which took no time at all."""
    records = Records(
        make_record(
            number, pages=[3, number], words=64, verify_ms=0.2, hash_ms=0.1, copy_ms=0.1, ram_ms=1.0
        )
        for number in range(1, 8)
    )
    none, some = np.empty(0), np.array([0.0, 0.5, 1.0])
    growths = [
        Growth(some, np.array([0.0, 1.0, 2.0]), 1e6 * some, some / 10, np.array([0.0, 3.0])),
        Growth(some, some + 1, 2e6 * some, some / 20, some + 1),
    ]
    kept, frames.add = frames.add, lambda view: None  # type: ignore[method-assign]
    try:
        session = SimpleNamespace(
            settings=Settings().override(ram="64K", guest="uniform"), records=records
        )
        made: dict[str, Any] = {
            "bars": LivePlot(records),
            "map": PageMap(session),  # type: ignore[arg-type]
            "sets": PageSets(64 << 12, "sets"),
            "flush": FlushPlot(records),
            "comparison": ComparisonPlots(),
            "nothing": ComparisonPlots(),
        }
        runs = [make_run(name, number) for number, name in enumerate(("one", "two"))]
        made["overlay"] = OverlayPlots()
        made["overlay"].show(runs, list(PLOTS))
        made["no runs"] = OverlayPlots()
        made["no runs"].show([], list(PLOTS))
        made["no bars"] = LivePlot(Records())
        made["no figure"] = FlushPlot(Records())
        made["form"] = SettingsFormView(SettingsForm(Settings()), lambda name, text: None)
        made["form"].show()
        made["curve"] = CurveInput(CurveAnswer((0.0, 10.0, 20.0), "pages", "bytes", 100.0))
        made["sets"].show({"one": np.array([5], dtype=np.uint64)})
        for name in ("bars", "map", "flush", "no bars", "no figure"):
            made[name].refresh()
        made["comparison"].show(1, growths, [{}, {}])
        made["nothing"].show(1, [Growth(none, none, none, none, none)], [{}])
        yield made
        for view in made.values():
            view.close()
    finally:
        frames.add = kept  # type: ignore[method-assign]


def shown(views: dict[str, Any]) -> dict[str, Any]:
    """Give the views that have a module: a box of ipywidgets shows a figure."""
    found = {}
    for name, view in views.items():
        found[name] = getattr(view, "figure", view)
        if name in ("comparison", "nothing"):
            found[f"{name} latencies"] = view.latencies
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_views_are_complete_in_words_by_keys_and_on_narrow_pages(
    views: dict[str, Any], theme: str
) -> None:
    said = []
    with open_page() as page:
        page.on("console", lambda message: said.append((message.type, message.text)))
        page.set_content(page_of(shown(views), theme))
        page.wait_for_function("document.body.dataset.ready")
        page.wait_for_function("document.querySelectorAll('[data-figure]').length === 6")
        for name in shown(views).keys() - CONTROLS:
            pictures = page.locator(f"section[data-view='{name}'] [role=img][aria-label]")
            assert pictures.count() >= 1, name
            for label in pictures.evaluate_all("all => all.map((each) => each.ariaLabel)"):
                assert len(label) > 20, name
        labels = page.locator("section[data-view='flush'] [role=img]").get_attribute("aria-label")
        assert "ms, up to 1.2 × p95 against pages flushed" in labels
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            # Figures follow in a moment, and what follows them.
            page.wait_for_timeout(300)
            page.wait_for_function(f"({CUT})().length === 0")
        _read_empty_plots(page)
        _use_keys(page)
        _read_numbers(page)
    assert [each for each in said if each[0] in ("error", "warning")] == []


def _read_empty_plots(page: Any) -> None:
    """A plot without anything to show says so, and no other one does."""
    words = {"no runs": len(PLOTS), "no bars": 1, "bars": 0}
    for name, count in words.items():
        assert page.locator(f"section[data-view='{name}'] [data-empty]").count() == count, name
    nothing = "section[data-view='{}'] >> text=Nothing is measured yet."
    assert page.locator(nothing.format("no figure")).is_visible()
    assert not page.locator(nothing.format("flush")).is_visible()


def _use_keys(page: Any) -> None:
    for name, words in (("bars", "Checkpoint 6"), ("map", "page 1"), ("sets", "page 1: others")):
        section = page.locator(f"section[data-view='{name}']")
        section.locator("[role=img]").first.focus()
        for key in ("ArrowRight",) if name != "bars" else ("ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
        status = section.locator("[role=status]:not(.colobench-words)")
        assert status.count() == 1
        assert words in status.text_content(), name


def _read_numbers(page: Any) -> None:
    """Unfold the table below a figure, by a key."""
    section = page.locator("section[data-view='comparison']")
    section.locator("summary").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector(\"section[data-view='comparison'] details td\")")
    written = section.locator("details").text_content()
    assert "checkpoints 0" in written
    assert "pause" in written
