"""What a notebook shows, and what one can press in it."""

from colobench.ui.cause_panel import CausePanel
from colobench.ui.cut_slider import CutSlider
from colobench.ui.dashboard import Dashboard
from colobench.ui.diagram import SequenceDiagram
from colobench.ui.failover_panel import FailoverPanel
from colobench.ui.flush_guess import FlushGuess
from colobench.ui.latency_plot import LatencyPlot
from colobench.ui.live_plot import LivePlot
from colobench.ui.museum_panel import MuseumPanel
from colobench.ui.next_checkpoint import NextCheckpoint
from colobench.ui.page_map import PageMap
from colobench.ui.page_sets import PageSets
from colobench.ui.plots import FlushPlot, PagesPlot
from colobench.ui.tracker_panel import TrackerPanel

__all__ = [
    "CausePanel",
    "CutSlider",
    "Dashboard",
    "FailoverPanel",
    "FlushGuess",
    "FlushPlot",
    "LatencyPlot",
    "LivePlot",
    "MuseumPanel",
    "NextCheckpoint",
    "PageMap",
    "PageSets",
    "PagesPlot",
    "SequenceDiagram",
    "TrackerPanel",
]
