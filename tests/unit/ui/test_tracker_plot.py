"""The plot of the trackers has logarithmic axes: what these have no place for is not lost."""

from __future__ import annotations

import pytest

from colobench.lab.studies.trackers import Epoch
from colobench.ui.base.figure import LiveFigure
from colobench.ui.base.pump import frames
from colobench.ui.panels.tracker_panel import TrackerPanel


def test_what_a_logarithmic_axis_has_no_place_for_is_drawn_at_its_edge_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn, ranges = {}, {}

    def show(figure, version, make):
        drawn.update(make().tables)
        ranges.update(make().ranges)

    monkeypatch.setattr(LiveFigure, "show", show)
    monkeypatch.setattr(frames, "add", lambda view: None)
    pages = bytes(64)
    panel = TrackerPanel(ram="2M", trackers=["marked", "shadow"])
    try:
        # An empty logarithmic axis knows no ends by itself.
        panel.refresh()
        assert all(0 < low < high for low, high in ranges.values())
        assert set(ranges) == {"pages", "write_ns", "collect_ms"}
        panel.runs.append(
            [
                Epoch("marked", 1, 20, 0.0, 0.002, True, pages),
                Epoch("shadow", 1, 20, 30.0, 0.5, True, pages),
                Epoch("marked", 2, 0, 120.0, 0.0, False, pages),
            ]
        )
        panel.refresh()
        assert list(drawn["marked"]["write_ns"]) == [1, 120]
        assert list(drawn["marked"]["pages"]) == [20, 1]
        assert all((column > 0).all() for table in drawn.values() for column in table.values())
        for name, (low, high) in ranges.items():
            assert low < min(drawn["marked"][name]) <= max(drawn["shadow"][name]) < high
        words = panel.below.value
        assert "In 1 of 3 epochs (marked) the steps were too short to tell, drawn at 1 ns." in words
        assert "In 1 of 3 epochs (marked) no page was named, drawn at 1." in words
        assert "In 1 of 3 epochs (marked) a collection took less than 0.1 µs" in words
        panel.runs.append([Epoch("marked", 1, 20, 0.0, 0.002, True, pages)])
        assert "too short to tell" in repr(panel.table)
        panel.runs[:] = [[Epoch("marked", 1, 20, 110.0, 0.002, True, pages)]]
        panel.refresh()
        assert panel.below.value == ""
    finally:
        panel.close()
