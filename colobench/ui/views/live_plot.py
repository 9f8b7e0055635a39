"""A live plot of checkpoints: the pause, phase by phase, and the pages that were sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from colobench.lab.report.palette import PHASE_COLOURS, PHASE_HATCHES, PRIMARY_COLOUR
from colobench.lab.report.run_summary import PAUSE_PHASES
from colobench.lab.session.record import Records
from colobench.ui.base.feed import LiveView, read_module
from colobench.ui.base.pump import frames

#: Checkpoints side by side: at first, and when the plot follows the newest.
FIRST_WINDOW, WINDOW = 20, 100
#: Columns that are drawn of each checkpoint.
COLUMNS = ("number", "pages", "pause", *PAUSE_PHASES)


class LivePlot(LiveView):
    """Shows of each checkpoint the pause, phase by phase, and the pages that were sent.

    Parameters
    ----------
    records
        Records to follow; any thread may append to them.

    Examples
    --------
    >>> with cb.Session() as session:
    ...     display(ui.LivePlot(session.records))
    ...     session.run(100)
    """

    _esm = read_module("svg.js", "live_plot.js")

    def __init__(self, records: Records) -> None:
        super().__init__()
        self.watch(records)
        frames.add(self)

    def __repr__(self) -> str:
        return f"<LivePlot of {len(self.records)} checkpoints>"

    def watch(self, records: Records) -> None:
        """Follow other records from now on."""
        # Identity and length tell what is new; an address alone may be used again.
        self.records, self._followed = records, object()

    def refresh(self) -> None:
        """Show the records that came since the last time."""
        records, followed = self.records, self._followed
        total, newest = records.total, records[-WINDOW:]
        self.update((followed, total), lambda: _frame(newest))

    def close(self) -> None:
        """Close the plot."""
        frames.remove(self)
        super().close()


def _frame(records: Records) -> tuple[dict[str, Any], bytes]:
    """Encode the columns as float32, one after another, and the width of the view."""
    last = records[-1].number if records else 0
    frame = {
        "columns": list(COLUMNS),
        "rows": len(records),
        "first": max(0, last - WINDOW) + 1,
        "last": max(last, FIRST_WINDOW),
        "phases": {phase: PHASE_COLOURS[phase] for phase in PAUSE_PHASES},
        "hatches": PHASE_HATCHES,
        "pages_colour": PRIMARY_COLOUR,
    }
    columns = columns_of(records)
    return frame, b"".join(columns[name].astype("<f4").tobytes() for name in COLUMNS)


def columns_of(records: Records) -> dict[str, np.ndarray[Any, Any]]:
    """Give number, pages, pause and phases of some records."""
    columns = {"number": records.column("number"), "pages": records.column("pages")}
    for phase in PAUSE_PHASES:
        # The last phase is a remainder, and may be slightly negative.
        columns[phase] = np.maximum(records.column(f"{phase}_ms"), 0)
    return columns | {"pause": records.column("pause_ms")}
