"""The look of a Bokeh plot, on pages and in notebooks."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import FixedTicker
from bokeh.plotting import figure

#: Least value on a logarithmic axis, milliseconds.
LEAST_MS = 1e-3
TOOLS = "pan,box_zoom,reset,save"


def make_plot(
    x_label: str, y_label: str, height: int = 270, tools: str = TOOLS, **options: Any
) -> Any:
    """Make an empty plot without a background of its own.

    Parameters
    ----------
    x_label, y_label
        Labels of the axes.
    height
        Height in pixels; the width is the page's.
    tools, options
        Arguments of `bokeh.plotting.figure`.
    """
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        tools=tools,
        x_axis_label=x_label,
        y_axis_label=y_label,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **options,
    )
    plot.toolbar.autohide = True
    plot.toolbar.logo = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = "12px"
    plot.axis.minor_tick_line_color = None
    plot.xgrid.grid_line_color = None
    return plot


def logarithmic(quantity: str, values: Any) -> str:
    """Write the label of a logarithmic axis of milliseconds, which has no place for 0.

    Parameters
    ----------
    quantity
        Name of what is drawn.
    values
        Array of what is drawn; values below `LEAST_MS` are to be drawn there.
    """
    less = bool((values < LEAST_MS).any())
    return f"{quantity} (ms, logarithmic{f'; {LEAST_MS:g}: no more than that' if less else ''})"


def decade_ticker() -> FixedTicker:
    """Make the ticks 1, 2 and 5 of each decade, of which even a short axis has some."""
    decades = 10.0 ** np.arange(-3, 6)
    return FixedTicker(ticks=np.outer(decades, [1, 2, 5]).ravel().tolist())


def logarithmic_range(values: Any) -> tuple[float, float]:
    """Give ends of a logarithmic axis, milliseconds; without values it needs some, too.

    Parameters
    ----------
    values
        Array of what is drawn; NaN does not count.
    """
    drawn = values[np.isfinite(values)]
    if not len(drawn):
        return 0.1, 100.0
    low, high = max(float(drawn.min()), LEAST_MS), max(float(drawn.max()), LEAST_MS)
    return low / 1.3, high * 1.3


def legend_above(plot: Any) -> Any:
    """Put the legend of a plot that has glyphs with labels above it, and return the legend."""
    legend = plot.legend[0]
    legend.update(
        orientation="horizontal",
        background_fill_alpha=0,
        border_line_color=None,
        label_text_font_size="12px",
        padding=0,
        margin=0,
        spacing=14,
        glyph_width=14,
        glyph_height=14,
        label_standoff=4,
    )
    plot.add_layout(legend, "above")
    return legend
