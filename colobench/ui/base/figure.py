"""A bokeh figure in a notebook whose data change while records arrive."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import bokeh
import numpy as np
import numpy.typing as npt
import traitlets
from bokeh.embed import json_item
from bokeh.models import LayoutDOM
from bokeh.resources import Resources

from colobench.ui.base.feed import Library, LiveView, cells, feeds, pace, read_module

#: Rows of a table that a figure shows; older ones are in the records only.
ROLLOVER = 2000

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class FigureData:
    """Data of a figure.

    Attributes
    ----------
    tables
        Columns of numbers, by the name of the data source.
    ranges
        Begin and end of axes, by the name of the range.
    """

    tables: Mapping[str, Columns]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class LiveFigure(LiveView):
    """Shows a bokeh layout whose data sources are filled from any thread.

    Parameters
    ----------
    layout
        The layout. Its data sources have names, and all columns of their rows.

    Notes
    -----
    BokehJS comes from the installed bokeh, by way of the kernel, once for each page.

    ``jupyter_bokeh`` is not used for this: its browser side sends each streamed row back, whereupon
    the kernel appends it once more; rows that arrive before the figure is drawn are lost; and a
    figure whose cell runs before BokehJS is there stays empty.
    """

    _esm = read_module("figure.js")
    _figure = traitlets.Dict().tag(sync=True)

    def __init__(self, layout: LayoutDOM) -> None:
        super().__init__(_figure=json_item(layout))
        libraries.give(self)

    def show(self, version: object, make: Callable[[], FigureData]) -> None:
        """Show data, unless they are shown already.

        Parameters
        ----------
        version
            Value that differs from the last one if there is something new.
        make
            Function that gives the data.
        """
        self.update(version, lambda: _pack(make()))


def _pack(window: FigureData) -> tuple[dict[str, Any], bytes]:
    """Write tables as one array of float32: table by table, column by column."""
    tables, columns = [], []
    for name, table in window.tables.items():
        newest = [np.asarray(values)[-ROLLOVER:].astype("<f4") for values in table.values()]
        rows = len(newest[0]) if newest else 0
        tables.append({"name": name, "columns": list(table), "rows": rows})
        columns += newest
    ranges = {name: [float(end) for end in ends] for name, ends in window.ranges.items()}
    data = b"".join(column.tobytes() for column in columns)
    return {"tables": tables, "ranges": ranges}, data


@cache
def bokehjs() -> bytes:
    """Give BokehJS of the installed bokeh, compressed by gzip."""
    text = str(Resources(mode="inline", components=["bokeh"]).js_raw[0])
    return gzip.compress(text.encode(), mtime=0)


class Libraries:
    """BokehJS for the pages that have figures.

    A page that opens on a running kernel may have missed the library that other pages have. So
    the first figure that it makes brings BokehJS along.
    """

    def __init__(self) -> None:
        self._page: str | None = None
        self._library: Library | None = None
        self._lock = threading.Lock()

    def give(self, figure: LiveFigure) -> None:
        """Give BokehJS to a figure; if it is a new page's first, to all figures anew."""
        with self._lock:
            if self._library is None or self._page != cells.page():
                self._renew()
            figure.feed.library = self._library

    def _renew(self) -> None:
        old, script = self._library, bokehjs()
        pace.take(len(script), time.monotonic())
        self._page = cells.page()
        self._library = Library(name="Bokeh", version=bokeh.__version__, data=script)
        for feed in feeds.all():
            if feed.library is not None:
                feed.library = self._library
        if old is not None:
            old.close()


libraries = Libraries()
