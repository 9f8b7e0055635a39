"""A line for each run of a cockpit: name, colour, state; to hide it, stop it and delete it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets

from colobench.errors import LocalError
from colobench.lab.cockpit.overlay import Overlay
from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.compare.plots import colour_of
from colobench.ui.base.panel import button, close_all

_SWATCH = (
    '<span style="display: inline-block; width: 12px; height: 12px; margin: 0 6px; '
    'outline: 1px solid; background: {}"></span>'
)
_WRAPPED = {"flex_flow": "row wrap", "align_items": "center"}


class RunRows(ipywidgets.VBox):  # type: ignore[misc]
    """Shows the runs of an overlay.

    Parameters
    ----------
    overlay
        The runs.
    changed
        Function that is called after a choice, with an error or nothing.
    delete
        Function that deletes a run.
    """

    def __init__(
        self,
        overlay: Overlay,
        changed: Callable[[str], None],
        delete: Callable[[CockpitRun], None],
    ) -> None:
        super().__init__()
        self._overlay, self._changed, self._delete = overlay, changed, delete
        self._rows: dict[int, _Row] = {}

    def show(self, ready: bool) -> None:
        """Show the present runs; `ready` says whether one can be deleted."""
        runs = list(self._overlay.runs)
        kept = {id(run): self._rows.get(id(run)) or self._make(run) for run in runs}
        if list(kept) != list(self._rows):
            gone = [row for run, row in self._rows.items() if run not in kept]
            self._rows = kept
            self.children = tuple(row.box for row in kept.values())
            for row in gone:
                # Open widgets are kept by ipywidgets, and a row keeps its run.
                close_all(row.box)
        for row in kept.values():
            row.show(ready)

    def _make(self, run: CockpitRun) -> _Row:
        return _Row(run, self._rename, self._changed, self._delete)

    def _rename(self, run: CockpitRun, name: str) -> None:
        try:
            self._overlay.rename(run, name)
        except LocalError as error:
            self._changed(str(error))
        else:
            self._changed("")


class _Row:
    """The line of one run."""

    def __init__(
        self,
        run: CockpitRun,
        rename: Callable[[CockpitRun, str], None],
        changed: Callable[[str], None],
        delete: Callable[[CockpitRun], None],
    ) -> None:
        self.run = run
        self.swatch = ipywidgets.HTML(_SWATCH.format(colour_of(run.number)))
        wide = ipywidgets.Layout(width="340px", max_width="98%")
        self.name = ipywidgets.Text(
            value=run.name, layout=wide, tooltip="name of the run", continuous_update=False
        )
        self.name.observe(lambda change: self._renamed(change, rename), "value")
        self.shown = ipywidgets.Checkbox(
            value=run.shown,
            description="show",
            indent=False,
            layout=ipywidgets.Layout(width="auto"),
        )
        self.shown.observe(lambda change: self._show_or_hide(change, changed), "value")
        self.stop = button("Stop this", run.stop, "", "stop")
        self.delete = button("Delete", lambda: delete(run), "", "trash")
        self.state = ipywidgets.HTML()
        children = [self.swatch, self.name, self.shown, self.stop, self.delete, self.state]
        self.box: Any = ipywidgets.HBox(children, layout=_WRAPPED)

    def _renamed(self, change: Any, rename: Callable[[CockpitRun, str], None]) -> None:
        if change["new"] != self.run.name:
            rename(self.run, change["new"])
            self.name.value = self.run.name

    def _show_or_hide(self, change: Any, changed: Callable[[str], None]) -> None:
        self.run.shown = change["new"]
        changed("")

    def show(self, ready: bool) -> None:
        """Show the run's present state."""
        run = self.run
        words = f"{run.stage.value}, {len(run.records()):,} checkpoints"
        if run.error:
            words += f": {run.error}"
        value = f'<span style="overflow-wrap: anywhere">{escape(words)}</span>'
        if self.state.value != value:
            self.state.value = value
        self.stop.disabled = run.is_over or run.stopped
        self.delete.disabled = not ready
