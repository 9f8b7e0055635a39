"""The look of a Bokeh plot, on pages and in notebooks."""

from __future__ import annotations

from typing import Any

from bokeh.plotting import figure

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
