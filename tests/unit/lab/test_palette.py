"""Colours stay apart for every kind of colour vision, and texts are legible on light and dark."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from coloraide import Color

import colobench
from colobench.lab.report import palette
from colobench.lab.report.palette import (
    BAD_COLOUR,
    BUSY_COLOUR,
    GOOD_COLOUR,
    IDLE_COLOUR,
    PAGE_COLOURS,
    PHASE_COLOURS,
    PHASE_HATCHES,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    SERIES_COLOURS,
    SERIES_DASHES,
    SERIES_MARKERS,
    TAKEOVER_COLOUR,
)

#: Kinds of colour vision: a usual one, and those that lack one kind of cone.
USUAL, WITHOUT_GREEN, WITHOUT_RED, WITHOUT_BLUE = KINDS = (None, "deutan", "protan", "tritan")
#: Phases that every pause has, of each strategy.
EIGHT = [name for name in PHASE_COLOURS if name not in PHASE_HATCHES and name != "request"]
PACKAGE = Path(colobench.__file__).parent


def seen(colour: str, kind: str | None) -> Color:
    """Give a colour as it is seen (Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009)."""
    return Color(colour) if kind is None else Color(colour).filter(kind, method="machado")


def least(colours: Sequence[str], kind: str | None) -> float:
    """Give the least CIEDE2000 difference of two of some colours."""
    return min(
        float(one.delta_e(other, method="2000"))
        for one, other in itertools.combinations([seen(each, kind) for each in colours], 2)
    )


def test_the_difference_is_that_of_the_published_examples() -> None:
    """Sharma, Wu and Dalal, Color Research & Application 30, 2005: pairs 1 and 17."""
    for one, other, expected in (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ):
        found = Color("lab-d65", one).delta_e(Color("lab-d65", other), method="2000")
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(USUAL, 20), (WITHOUT_GREEN, 20), (WITHOUT_RED, 20), (WITHOUT_BLUE, 15)],
)
def test_the_phases_of_every_pause_stay_apart(kind: str | None, expected: float) -> None:
    assert len(EIGHT) == 8
    assert least([PHASE_COLOURS[name] for name in EIGHT], kind) >= expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_phases_of_some_pauses_stay_nearly_as_far_apart_and_are_hatched(
    kind: str | None,
) -> None:
    drawn = [*EIGHT, *(name for name in PHASE_HATCHES if name != "verify")]
    assert least([PHASE_COLOURS[name] for name in drawn], kind) >= 15
    # The guest runs during a request, so that only tables show it beside the others.
    assert least([PHASE_COLOURS[name] for name in (*drawn, "request")], kind) >= 13
    assert {*EIGHT, *PHASE_HATCHES, "request"} == set(PHASE_COLOURS)
    assert len(set(PHASE_HATCHES.values())) == len(PHASE_HATCHES)


@pytest.mark.parametrize("kind", KINDS)
def test_states_stay_far_apart(kind: str | None) -> None:
    assert least([PRIMARY_COLOUR, SECONDARY_COLOUR, TAKEOVER_COLOUR], kind) >= 42


@pytest.mark.parametrize("kind", KINDS)
def test_marks_beside_sentences_stay_apart(kind: str | None) -> None:
    assert least([GOOD_COLOUR, BAD_COLOUR, BUSY_COLOUR, IDLE_COLOUR], kind) >= 19


@pytest.mark.parametrize(("count", "expected"), [(4, 28), (6, 15.5), (8, 15)])
@pytest.mark.parametrize("kind", KINDS)
def test_series_stay_apart(kind: str | None, count: int, expected: float) -> None:
    assert len(SERIES_COLOURS) == 8
    assert least(SERIES_COLOURS[:count], kind) >= expected


def test_no_two_series_of_thirty_two_have_colour_and_shape_in_common() -> None:
    from colobench.lab.compare.plots import colour_of, dash_of, marker_of

    numbers = range(len(SERIES_COLOURS) * len(SERIES_MARKERS))
    assert len(SERIES_MARKERS) == len(SERIES_DASHES)
    for shape in (marker_of, dash_of):
        assert len({(colour_of(number), shape(number)) for number in numbers}) == len(numbers)
        # Neighbours differ in both.
        assert all(shape(number) != shape(number + 1) for number in numbers)


@pytest.mark.parametrize("theme", PAGE_COLOURS)
def test_texts_of_pages_are_legible(theme: str) -> None:
    colours = PAGE_COLOURS[theme]
    for name in set(colours) - {"page", "card", "line"}:
        for ground in ("page", "card"):
            assert Color(colours[name]).contrast(colours[ground]) >= 4.5, (name, ground)


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"])
def test_lines_and_marks_show_on_light_and_dark(ground: str) -> None:
    marks = [*SERIES_COLOURS, GOOD_COLOUR, BAD_COLOUR, BUSY_COLOUR, IDLE_COLOUR]
    assert min(Color(each).contrast(ground) for each in marks) >= 2.5


def test_texts_of_views_have_the_colours_of_the_page_around() -> None:
    """No single colour is legible on white and on black, so a view takes the theme's."""
    assert palette.MUTED_COLOUR.startswith("var(--jp-ui-font-color")
    written = re.compile(r"(?<![-\w])color:\s*([^;\"'`]+)")
    found = {}
    # The sides' names in a sequence diagram are drawn in their colours, like its arrows.
    views = set(PACKAGE.glob("ui/**/*.py")) - {PACKAGE / "ui" / "views" / "diagram.py"}
    for path in [*views, *PACKAGE.glob("ui/js/*.js")]:
        for value in written.findall(path.read_text()):
            if value.startswith(("var(--jp-", "inherit", "{MUTED_COLOUR}", "${INK}")):
                continue
            found[value.strip()] = path.name
    assert found == {}


def test_lines_of_views_have_a_colour_where_no_notebook_gives_one() -> None:
    """`MUTED_COLOUR` falls back to what is inherited, which for a stroke is none."""
    attribute = re.compile(r'(?:stroke|fill)="\{MUTED_COLOUR\}"')
    found = [path for path in PACKAGE.glob("**/*.py") if attribute.search(path.read_text())]
    assert found == []


def test_texts_of_templates_have_the_colours_of_the_page() -> None:
    written = re.compile(r"(?<![-\w])color:\s*([^;}]+)")
    templates = list(PACKAGE.glob("lab/**/*.html"))
    assert templates
    for path in templates:
        for value in written.findall(path.read_text()):
            # In a notebook, `muted` is `MUTED_COLOUR`.
            right = value.startswith(("var(--", "{{ muted")) or value == "inherit"
            assert right, (path.name, value)
