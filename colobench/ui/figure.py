"""A bokeh figure in a notebook that grows while records arrive."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import numpy.typing as npt
import traitlets
from bokeh.embed import json_item
from bokeh.models import LayoutDOM
from bokeh.resources import Resources

#: Rows that a figure keeps; older ones leave it, the records have them still.
ROLLOVER = 2000
#: Up to so many rows a message carries all of them, so that no view, however late, lacks one.
SMALL = 100

Columns = Mapping[str, npt.NDArray[Any]]


def bokehjs() -> dict[str, str]:
    """Say where a browser gets BokehJS from: bokeh's own server, or with COLOBENCH_OFFLINE=1 here.

    Returns
    -------
    dict
        ``url``, or ``text`` with all of it (1.4 MB).
    """
    if os.environ.get("COLOBENCH_OFFLINE") == "1":
        return {"text": str(Resources(mode="inline", components=["bokeh"]).js_raw[0])}
    return {"url": str(Resources(mode="cdn", components=["bokeh"]).js_files[0])}


class LiveFigure(anywidget.AnyWidget):
    """Shows a bokeh layout whose data sources are fed from any thread.

    Parameters
    ----------
    layout
        The layout. Its data sources have names, and all columns of their rows.

    Notes
    -----
    ``jupyter_bokeh`` is not used for this: its browser side sends each streamed row back, whereupon
    the kernel appends it once more; rows that arrive before the figure is drawn are lost; and a
    figure whose cell runs before BokehJS has come from its server stays empty. Here the kernel
    keeps no second copy of what a plot shows.
    """

    _esm = Path(__file__).with_name("figure.js")
    _figure = traitlets.Dict().tag(sync=True)
    _bokehjs = traitlets.Dict().tag(sync=True)

    def __init__(self, layout: LayoutDOM) -> None:
        super().__init__(_figure=json_item(layout), _bokehjs=bokehjs())
        # How many rows of each data source were sent, to whichever browser.
        self._sent: dict[str, int] = {}
        self._lock = threading.Lock()
        self.on_msg(lambda widget, message, buffers: self.forget())

    def forget(self) -> None:
        """Send everything anew the next time."""
        with self._lock:
            self._sent.clear()

    def grow(self, source: str, count: int, rows: Callable[[int], Columns]) -> bool:
        """Bring a data source up to date; tells whether it was not.

        Parameters
        ----------
        source
            Its name.
        count
            How many rows there are by now.
        rows
            Gives the rows from a number on, as columns of numbers.
        """
        with self._lock:
            sent = self._sent.get(source)
            if sent == count:
                return False
            missing = ROLLOVER if sent is None or sent > count else count - sent
            whole = missing >= ROLLOVER or count <= SMALL
            first = max(0, count - ROLLOVER) if whole else count - missing
            self._send_rows(source, rows(first), None if whole else first, count)
            self._sent[source] = count
            return True

    def replace(self, source: str, rows: Columns) -> None:
        """Show these rows of a data source and no others."""
        self._send_rows(source, rows, None, 0)

    def set_range(self, name: str, start: float, end: float) -> None:
        """Let the range of that name, and so the axes that it belongs to, show this."""
        self.send({"range": name, "start": start, "end": end})

    def _send_rows(self, source: str, rows: Columns, first: int | None, end: int) -> None:
        header = {
            "table": source,
            "columns": list(rows),
            "first": first,
            "end": end,
            "rollover": ROLLOVER,
        }
        self.send(header, [np.array(list(rows.values()), dtype="<f8").tobytes()])
