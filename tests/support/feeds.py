"""Reads what feeds hold, as a page does: see feed.js and figure.js."""

from __future__ import annotations

import zlib

import numpy as np

from colobench.ui.base.figure import LiveFigure


def data_of(view):
    """Give the data of a view's last frame."""
    frame = view.feed.frame
    return zlib.decompress(frame["data"]) if frame["deflated"] else frame["data"]


def frame_of(view):
    """Give a view's last frame, also one that waits for its turn to be sent."""
    view.feed._sent = float("-inf")
    view.feed.tend()
    return view.feed.frame


def tables_of(figure):
    """Give a figure's tables: name → column → array."""
    values, tables, offset = np.frombuffer(data_of(figure), "<f4"), {}, 0
    for table in figure.feed.frame["tables"]:
        columns = {}
        for name in table["columns"]:
            columns[name] = values[offset : offset + table["rows"]]
            offset += table["rows"]
        tables[table["name"]] = columns
    assert offset == len(values)
    return tables


def bars_of(plot):
    """Give a live plot's columns."""
    frame = plot.feed.frame
    rows = np.frombuffer(data_of(plot), "<f4").reshape(len(frame["columns"]), frame["rows"])
    return dict(zip(frame["columns"], rows, strict=True))


def collect(monkeypatch):
    """Give what figures draw from now on: table → column → list; what was there before is gone."""
    tables = {}
    original = LiveFigure.show

    def show(figure, version, make):
        def keep():
            window = make()
            tables.clear()
            for name, table in window.tables.items():
                tables[name] = {column: values.tolist() for column, values in table.items()}
            return window

        original(figure, version, keep)

    monkeypatch.setattr(LiveFigure, "show", show)
    return tables


def sets_of(page_sets):
    """Give the sets that are shown, as the last frame describes them; title and bitmaps too."""
    feed = page_sets.feed
    feed._sent = float("-inf")
    feed.tend()
    return feed.frame["sets"]
