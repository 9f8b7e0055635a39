"""Pages from Jinja2 templates: one HTML file each, which opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined

from colobench.lab.output_file import write_output_file
from colobench.lab.report.palette import PAGE_COLOURS
from colobench.settings.file import PAGE_ELEMENT


@dataclass(frozen=True, slots=True)
class PlotCard:
    """A plot with a title and a sentence, as the base template draws it.

    Attributes
    ----------
    title, text
        Heading, and what the plot shows.
    plot
        A Bokeh model; None if there is nothing to draw.
    missing
        The sentence that stands in place of a plot that is None.
    wide
        Whether the card takes the whole width of the page.
    """

    title: str
    text: str
    plot: Any
    missing: str = ""
    wide: bool = False


@cache
def page_environment() -> Environment:
    """Give the environment of all templates: names are paths from ``colobench/lab``."""
    return Environment(
        loader=PackageLoader("colobench.lab", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(
    path: str | Path, template: str, plots: Sequence[PlotCard], values: Mapping[str, Any]
) -> Path:
    """Write a page with BokehJS and all plots in it.

    Parameters
    ----------
    path
        The file to write; an old one is replaced.
    template
        A template that extends ``report/templates/base.html``, from ``colobench/lab``.
    plots
        The cards with plots, in order.
    values
        Variables of the template. Text is escaped. The page carries ``written`` as JSON, out of
        which `read_settings` reads.

    Returns
    -------
    Path
        The file written.
    """
    drawn = [card.plot for card in plots if card.plot is not None]
    script, elements = components(drawn) if drawn else ("", ())
    element = iter(elements)
    page = page_environment().get_template(template)
    text = page.render(
        values,
        colours=PAGE_COLOURS,
        page_element=PAGE_ELEMENT,
        bokeh=Resources(mode="inline", components=["bokeh"]).render(),
        script=script,
        plots=[(card, None if card.plot is None else next(element)) for card in plots],
    )
    return write_output_file(path, text)
