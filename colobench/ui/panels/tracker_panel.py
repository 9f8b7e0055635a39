"""Panel of trackers side by side: pages that each finds, epoch by epoch, and its cost."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt
from bokeh.layouts import row
from bokeh.models import ColumnDataSource, LayoutDOM, Range1d

from colobench.fields.sizes import parse_size
from colobench.guest.programs import REPRODUCIBLE
from colobench.lab.report.palette import (
    GOOD_COLOUR,
    NEUTRAL_COLOUR,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    TAKEOVER_COLOUR,
)
from colobench.lab.report.plot import logarithmic_range
from colobench.lab.studies.tracker_table import HEADS, TrackerTable, tabulate_trackers
from colobench.lab.studies.trackers import Epoch, UnavailableTracker, measure_epochs
from colobench.memory.tracker_names import TRACKERS
from colobench.ui.base.controls import dropdown, slider
from colobench.ui.base.figure import Columns, FigureData, LiveFigure
from colobench.ui.base.markup import table
from colobench.ui.base.panel import Panel, button
from colobench.ui.base.pump import frames
from colobench.ui.views.page_sets import PageSets
from colobench.ui.views.plots import legend_above, make_plot

GUESTS = [program.label for program in REPRODUCIBLE if program.writes_ram]
#: Choices of the guest's steps in an epoch, and number of epochs for a press of the button.
WRITES = (10, 100, 1000, 10_000, 100_000)
EPOCHS = 20
EPOCH_SECONDS = 0.1
#: Quantities of an epoch that are drawn, and their factors: microseconds suit a collection.
FIELDS = {"pages": 1, "write_ns": 1, "collect_ms": 1000}
#: Least value that is drawn, as a logarithmic axis has no 0; smaller values are listed.
FLOORS = {"pages": 1.0, "write_ns": 1.0, "collect_ms": 0.1}
COLOURS = (PRIMARY_COLOUR, GOOD_COLOUR, SECONDARY_COLOUR, TAKEOVER_COLOUR)
#: Shapes beside the colours, which not everybody tells apart.
MARKERS = ("circle", "square", "triangle", "diamond")


class TrackerPanel(Panel):
    """Runs the same guest under all trackers; shows pages, exactness and cost while it does.

    Parameters
    ----------
    ram
        The guest's RAM; each tracker has a guest of its own.
    trackers
        Names of `colobench.memory.tracker.TRACKERS`; None for all.

    Attributes
    ----------
    runs
        Results of each run since the panel was made or cleared.
    """

    def __init__(self, ram: str = "16M", trackers: Sequence[str] | None = None) -> None:
        super().__init__()
        self._ram = ram
        self._names = list(TRACKERS) if trackers is None else list(trackers)
        self.runs: list[list[Epoch | UnavailableTracker]] = []
        self._stop = threading.Event()
        self._shown: tuple[int, ...] | None = None
        self.guest = dropdown("guest", GUESTS, "hotcold")
        self.writes = slider("steps in an epoch", WRITES, 1000)
        self.writes.layout.width = "260px"
        self.run_button = button(f"Run {EPOCHS} epochs", self.run, "primary", "play")
        self.stop_button = button("Stop", self._stop.set, "", "stop")
        self.clear_button = button("Clear the plot", self.clear, "", "eraser")
        self.reset_button = self.make_reset([self.guest, self.writes])
        self.status, self.words, self.below = (ipywidgets.HTML() for _ in range(3))
        self.epoch = ipywidgets.IntSlider(
            description="epoch", min=1, max=EPOCHS, layout=ipywidgets.Layout(width="400px")
        )
        self.epoch.observe(lambda _: self._show_epoch(), "value")
        self.maps = {name: self._map(name) for name in self._names}
        self.figure = LiveFigure(_draw(self._names))
        self.children = (
            self._wrapped(self.guest, self.writes),
            self._wrapped(self.run_button, self.stop_button, self.clear_button, self.reset_button),
            self.status,
            self.words,
            self.epoch,
            self._wrapped(*self.maps.values()),
            self.figure,
            self.below,
        )
        self.update()
        frames.add(self)

    def __repr__(self) -> str:
        return f"<TrackerPanel of {', '.join(self._names)}>"

    def _map(self, name: str) -> PageSets:
        layout = ipywidgets.Layout(width="24%", min_width="220px")
        return PageSets(parse_size(self._ram), name, "clean", height=110, layout=layout)

    def _wrapped(self, *widgets: Any) -> Any:
        return ipywidgets.HBox(widgets, layout=ipywidgets.Layout(flex_flow="row wrap"))

    @property
    def table(self) -> TrackerTable:
        """Results of the last run."""
        return tabulate_trackers(self.runs[-1] if self.runs else ())

    # The buttons.

    def run(self) -> None:
        """Run the chosen guest for some epochs, with the trackers that run here."""
        self._stop.clear()
        self.background.do("running", self._run)

    def clear(self) -> None:
        """Forget all results."""
        self.background.do("clearing", self._clear)

    def _run(self) -> None:
        found: list[Epoch | UnavailableTracker] = []
        self.runs.append(found)
        guest, writes = self.guest.value, self.writes.value
        epoch = 1
        for each in measure_epochs(self._ram, guest, EPOCHS, writes, self._names):
            if isinstance(each, Epoch) and each.epoch > epoch:
                epoch = each.epoch
                # A pause, so that one can watch.
                if self._stop.wait(EPOCH_SECONDS):
                    return
            found.append(each)

    def _clear(self) -> None:
        self.runs.clear()

    def halt(self) -> None:
        """Stop the run."""
        self._stop.set()

    def forget(self) -> None:
        """Forget all results."""
        self._clear()

    # Display.

    def refresh(self) -> None:
        """Show new data; called by the pump."""
        runs = [run[:] for run in self.runs[:]]
        counts = tuple(map(len, runs))
        if counts == self._shown:
            return
        self._shown = counts
        self.words.value = _html(self.table)
        self.below.value = escape(_below(runs))
        self.figure.show(counts, lambda: _figure_data(runs, self._names))
        last = _epochs(runs[-1] if runs else ())
        self.epoch.value = max((each.epoch for each in last), default=1)
        self._show_epoch()

    def _show_epoch(self) -> None:
        epochs = _epochs(self.runs[-1] if self.runs else ())
        measured = {each.tracker for each in epochs}
        for name, shown in self.maps.items():
            if name not in measured:
                shown.show({})
        for each in epochs:
            if each.epoch == self.epoch.value:
                dirty = np.frombuffer(each.bitmap, "<u8")
                self.maps[each.tracker].show({"dirty": dirty})

    def update(self) -> None:
        """Show running work, or its error."""
        ready = self.background.doing is None
        for control in (self.guest, self.writes, self.run_button, self.clear_button):
            control.disabled = not ready
        self.stop_button.disabled = ready
        doing, error = self.background.doing, self.background.error
        self.status.value = escape(f"{doing} …" if doing else error or "")

    def end(self) -> None:
        """Stop the run and the display."""
        self._stop.set()
        frames.remove(self)
        self.figure.close()


def _epochs(found: Sequence[Epoch | UnavailableTracker]) -> list[Epoch]:
    return [each for each in found if isinstance(each, Epoch)]


def _figure_data(
    runs: Sequence[Sequence[Epoch | UnavailableTracker]], names: Sequence[str]
) -> FigureData:
    tables: dict[str, Columns] = {
        name: _points([each for run in runs for each in _epochs(run) if each.tracker == name])
        for name in names
    }
    ranges = {
        field: logarithmic_range(np.concatenate([tables[name][field] for name in names]))
        for field in FIELDS
    }
    tables["medians"] = _medians([tabulate_trackers(run) for run in runs], names)
    return FigureData(tables, ranges)


def _points(epochs: Sequence[Epoch]) -> Columns:
    """Give the points of epochs."""
    return {
        field: _drawn(field, factor, [getattr(each, field) for each in epochs])
        for field, factor in FIELDS.items()
    }


def _drawn(field: str, factor: float, values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    """Give values as they are drawn; NaN for None."""
    found: npt.NDArray[np.float64] = factor * np.array(values, dtype=np.float64)
    return np.maximum(found, FLOORS[field])


def _below(runs: Sequence[Sequence[Epoch | UnavailableTracker]]) -> str:
    """Give the number of epochs drawn at the edge of a plot, in words; empty if there are none."""
    epochs = [each for run in runs for each in _epochs(run)]
    sentences = []
    for field, words in (
        ("pages", "no page was named, drawn at 1"),
        ("write_ns", f"the steps were too short to tell, drawn at {FLOORS['write_ns']:g} ns"),
        ("collect_ms", f"a collection took less than {FLOORS['collect_ms']:g} µs, drawn there"),
    ):
        low = [each for each in epochs if FIELDS[field] * getattr(each, field) < FLOORS[field]]
        if low:
            names = ", ".join(dict.fromkeys(each.tracker for each in low))
            sentences.append(f"In {len(low)} of {len(epochs)} epochs ({names}) {words}.")
    return " ".join(sentences)


def _medians(tables: Sequence[TrackerTable], names: Sequence[str]) -> Columns:
    """Give the medians of each run in the same units; NaN for a tracker that was not in it."""
    columns = {}
    for name in names:
        of_runs = [next((each for each in run if each.tracker == name), None) for run in tables]
        for field, factor in FIELDS.items():
            values = [getattr(each, field, None) for each in of_runs]
            columns[f"{name} {field}"] = _drawn(field, factor, values)
    return columns


def _html(trackers: TrackerTable) -> str:
    return table([each.cells() for each in trackers], HEADS, right=range(2, len(HEADS)))


def _draw(names: Sequence[str]) -> LayoutDOM:
    """Draw the cost of a step and of a collection against the pages of an epoch; still empty."""
    # One range for the pages of both plots: empty logarithmic axes know none by themselves.
    ranges = {field: Range1d(start=0.1, end=100, name=field) for field in FIELDS}
    axes: dict[str, Any] = {"x_axis_type": "log", "y_axis_type": "log", "height": 300}
    axes["x_range"] = ranges["pages"]
    step, collect = (
        make_plot("pages dirty in the epoch", label, y_range=ranges[field], **axes)
        for field, label in (
            ("write_ns", "a step of the guest (ns), large: median"),
            ("collect_ms", "a collection (µs), large: median"),
        )
    )
    columns = [f"{name} {field}" for name in names for field in FIELDS]
    medians = ColumnDataSource({column: [] for column in columns}, name="medians")
    for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
        epochs = ColumnDataSource({field: [] for field in FIELDS}, name=name)
        for each, field in ((step, "write_ns"), (collect, "collect_ms")):
            each.scatter("pages", field, source=epochs, color=colour, size=4, alpha=0.3)
            each.scatter(
                f"{name} pages",
                f"{name} {field}",
                source=medians,
                fill_color=colour,
                # Seen on light and on dark, as not each of the colours is.
                line_color=NEUTRAL_COLOUR,
                size=10,
                marker=marker,
                legend_label=name,
            )
    for each in (step, collect):
        legend_above(each)
    return row(step, collect, sizing_mode="stretch_width")
