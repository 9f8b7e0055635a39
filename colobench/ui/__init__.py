"""Views and panels for notebooks."""

from colobench.ui.panels.cause_panel import CausePanel
from colobench.ui.panels.cockpit import Cockpit
from colobench.ui.panels.dashboard import Dashboard
from colobench.ui.panels.failover_panel import FailoverPanel
from colobench.ui.panels.flush_guess import FlushGuess
from colobench.ui.panels.museum_panel import MuseumPanel
from colobench.ui.panels.next_checkpoint import NextCheckpoint
from colobench.ui.panels.prediction_panel import PredictionPanel
from colobench.ui.panels.stepper import Stepper
from colobench.ui.panels.strategy_comparison import StrategyComparison
from colobench.ui.panels.tracker_panel import TrackerPanel
from colobench.ui.views.cut_slider import CutSlider
from colobench.ui.views.diagram import SequenceDiagram
from colobench.ui.views.disk_map import DiskMap
from colobench.ui.views.latency_plot import LatencyPlot
from colobench.ui.views.live_plot import LivePlot
from colobench.ui.views.page_map import PageMap
from colobench.ui.views.page_sets import PageSets
from colobench.ui.views.plots import FlushPlot, PagesPlot
from colobench.ui.views.real_vm_plot import RealVMPlot
from colobench.ui.views.reproduction_plot import ReproductionPlot
from colobench.ui.views.state_diagram import StateDiagram

__all__ = [
    "CausePanel",
    "Cockpit",
    "CutSlider",
    "Dashboard",
    "DiskMap",
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
    "PredictionPanel",
    "RealVMPlot",
    "ReproductionPlot",
    "SequenceDiagram",
    "StateDiagram",
    "Stepper",
    "StrategyComparison",
    "TrackerPanel",
]
