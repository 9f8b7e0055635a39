"""Plots of pause, flush and memory against the pages of a checkpoint."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import ipywidgets
import numpy as np
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, LayoutDOM, NumeralTickFormatter, Range1d

from colobench.lab.report.palette import (
    NEUTRAL_COLOUR,
    PHASE_COLOURS,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
)
from colobench.lab.report.plot import legend_above as legend_without_colours
from colobench.lab.report.plot import make_plot as plot_without_colours
from colobench.lab.session.journal import ROLES
from colobench.lab.session.record import Records
from colobench.lab.studies.sweep import Line, fit_layouts, fit_line
from colobench.settings.checkpoint import Layout
from colobench.ui.base.abstract import AbstractWidget
from colobench.ui.base.figure import Columns, FigureData, LiveFigure
from colobench.ui.base.pump import frames

LAYOUTS = {Layout.BUFFERED.value: SECONDARY_COLOUR, Layout.SEPARATED.value: PRIMARY_COLOUR}
#: Durations that are drawn against the pages flushed, and their colours.
FLUSH = {"pause": NEUTRAL_COLOUR, "flush": PHASE_COLOURS["flush"]}
#: Quantities that are drawn against dirty pages: a field of records, and its divisor.
AGAINST_PAGES = {
    "pause": ("pause_ms", 1),
    "primary": ("primary_buffer_bytes", 1e6),
    "secondary": ("secondary_buffer_bytes", 1e6),
}


class LiveRecords(ipywidgets.VBox, metaclass=AbstractWidget):  # type: ignore[misc]
    """Base of figures that follow records; subclasses say what of them is shown.

    Parameters
    ----------
    records
        Records to follow; any thread may append to them.
    layout
        Bokeh layout that is filled with data.
    """

    def __init__(self, records: Records, layout: LayoutDOM) -> None:
        self.watch(records)
        self.figure = LiveFigure(layout)
        super().__init__([self.figure])
        frames.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.records)} checkpoints>"

    def watch(self, records: Records) -> None:
        """Follow other records from now on."""
        # Identity and length tell what is new; an address alone may be used again.
        self.records, self._followed = records, object()

    def refresh(self) -> None:
        """Show the records that came since the last time."""
        records, followed = self.records, self._followed
        self.figure.show((followed, records.total), lambda: self.figure_data(records[:]))

    @abstractmethod
    def figure_data(self, records: Records) -> FigureData:
        """Give the data of the figure for some records."""

    def close(self) -> None:
        """Close the figure."""
        frames.remove(self)
        self.figure.close()
        super().close()


class FlushPlot(LiveRecords):
    """Shows the time of the flush, and beside it the whole pause, against the pages flushed.

    Parameters
    ----------
    records
        Records to follow; any thread may append to them.

    Notes
    -----
    The lines are those of `colobench.lab.studies.sweep.fit_line`.
    """

    def __init__(self, records: Records) -> None:
        super().__init__(records, _draw_flush())

    def figure_data(self, records: Records) -> FigureData:
        """Give pages flushed, flush and pause of each record, and the lines."""
        pages = records.column("flushed_pages")
        times = {name: records.column(f"{name}_ms") for name in FLUSH}
        ends = np.array([0.0, pages.max(initial=0)])
        lines = {"pages": ends}
        for name in FLUSH:
            line = Line(np.nan, np.nan)
            if len(set(pages.tolist())) > 1:
                line = fit_line(pages, times[name])
            lines[name] = line.intercept + line.slope * ends
        ranges = {
            "sizes": (0, 1.05 * ends[1] or 1),
            "times": (0, 1.2 * records.percentile("pause_ms", 95) or 1),
        }
        return FigureData({"records": {"pages": pages, **times}, "lines": lines}, ranges)


class PagesPlot(LiveRecords):
    """Shows pause and memory beside RAM and RAM cache against the pages of a checkpoint.

    Parameters
    ----------
    records
        Records to follow; any thread may append to them.

    Notes
    -----
    The lines are those of `colobench.lab.studies.sweep.fit_layouts`.
    """

    def __init__(self, records: Records) -> None:
        super().__init__(records, _draw_against_pages())

    def figure_data(self, records: Records) -> FigureData:
        """Give the points of each layout, and the lines."""
        ends = np.array([0.0, records.column("pages").max(initial=0)])
        lines = {"pages": ends}
        for name, (field, divisor) in AGAINST_PAGES.items():
            fitted = fit_layouts(records, field)
            for layout in LAYOUTS:
                line = fitted.get(layout, Line(np.nan, np.nan))
                lines[f"{name} {layout}"] = (line.intercept + line.slope * ends) / divisor
        memory = max(records.percentile(AGAINST_PAGES[side][0], 100) for side in ROLES) / 1e6
        ranges = {
            "sizes": (0, 1.05 * ends[1] or 1),
            "pauses": (0, 1.2 * records.percentile("pause_ms", 95) or 1),
            "memories": (0, 1.05 * memory or 1),
        }
        return FigureData({"records": self._points(records), "lines": lines}, ranges)

    def _points(self, records: Records) -> Columns:
        """Give the points of each layout; NaN for records of the other layout."""
        layouts = records.column("layout")
        columns = {"pages": records.column("pages")}
        for layout in LAYOUTS:
            for name, (field, divisor) in AGAINST_PAGES.items():
                values = records.column(field) / divisor
                columns[f"{name} {layout}"] = np.where(layouts == layout, values, np.nan)
        return columns


def _draw_flush() -> LayoutDOM:
    """Draw flush and pause against the pages flushed; still empty."""
    names = ["pages", *FLUSH]
    points = ColumnDataSource({name: [] for name in names}, name="records")
    lines = ColumnDataSource({name: [] for name in names}, name="lines")
    plot = make_plot(
        "pages flushed",
        "ms, up to 1.2 × p95",
        height=280,
        x_range=Range1d(name="sizes"),
        y_range=Range1d(name="times"),
    )
    for name, colour in FLUSH.items():
        drawn = {"x": "pages", "y": name, "color": colour}
        plot.scatter(**drawn, source=points, size=5, alpha=0.7, legend_label=name)
        plot.line(**drawn, source=lines, line_width=2)
    legend_above(plot)
    return column(plot, sizing_mode="stretch_width")


def _draw_against_pages() -> LayoutDOM:
    """Draw pause and extra memory against the pages of a checkpoint; still empty."""
    names = ["pages", *(f"{what} {layout}" for layout in LAYOUTS for what in AGAINST_PAGES)]
    points = ColumnDataSource({name: [] for name in names}, name="records")
    lines = ColumnDataSource({name: [] for name in names}, name="lines")
    # A few long pauses must not make all the others small.
    pauses, memories = Range1d(name="pauses"), Range1d(name="memories")
    sizes = Range1d(name="sizes")
    pause = make_plot(
        "pages sent", "pause (ms), shown up to 1.2 × p95", x_range=sizes, y_range=pauses
    )
    memory = make_plot(
        "pages sent", "memory (MB) of ● primary, ○ secondary", x_range=sizes, y_range=memories
    )
    for layout, colour in LAYOUTS.items():
        of_layout = {"x": "pages", "color": colour}
        dot = of_layout | {"source": points, "size": 5, "alpha": 0.7}
        ring = of_layout | {"source": points, "size": 10, "fill_color": None}
        line = of_layout | {"source": lines, "line_width": 2}
        pause.scatter(y=f"pause {layout}", legend_label=layout, **dot)
        pause.line(y=f"pause {layout}", **line)
        memory.scatter(y=f"primary {layout}", legend_label=layout, **dot)
        memory.scatter(y=f"secondary {layout}", **ring)
        memory.line(y=f"primary {layout}", **line)
    for plot in (pause, memory):
        legend_above(plot)
    return row(pause, memory, sizing_mode="stretch_width")


def make_plot(x_label: str, y_label: str, height: int = 330, **options: Any) -> Any:
    """Make an empty plot that looks right on light and on dark."""
    plot = plot_without_colours(
        x_label, y_label, height=height, tools="pan,xwheel_zoom,reset,save", **options
    )
    plot.axis.axis_label_text_color = plot.axis.major_label_text_color = NEUTRAL_COLOUR
    plot.axis.formatter = NumeralTickFormatter(format="0,0[.]0")
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = NEUTRAL_COLOUR
    plot.ygrid.grid_line_color = NEUTRAL_COLOUR
    plot.ygrid.grid_line_alpha = 0.25
    return plot


def legend_above(plot: Any) -> None:
    """Put the legend of a plot that has glyphs with labels above it."""
    legend_without_colours(plot).label_text_color = NEUTRAL_COLOUR
