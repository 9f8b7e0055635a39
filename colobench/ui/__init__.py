"""What a notebook shows, and what one can press in it."""

from colobench.ui.dashboard import Dashboard
from colobench.ui.diagram import SequenceDiagram
from colobench.ui.next_checkpoint import NextCheckpoint
from colobench.ui.page_map import PageMap
from colobench.ui.plots import LivePlot, PagesPlot

__all__ = ["Dashboard", "LivePlot", "NextCheckpoint", "PageMap", "PagesPlot", "SequenceDiagram"]
