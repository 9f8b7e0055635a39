"""Panel that takes a checkpoint at each press of a button."""

from __future__ import annotations

from html import escape

import ipywidgets

from colobench.lab.session.session import Session
from colobench.ui.base.panel import Panel, button
from colobench.ui.views.live_plot import LivePlot
from colobench.ui.views.record_table import RecordTable


class NextCheckpoint(Panel):
    """A button, and the records of checkpoints as a table and as a plot.

    Parameters
    ----------
    session
        Started session, best with ``delay=None``. It belongs to the panel from now on: closing the
        panel, or making another one, closes it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        super().__init__()
        self.button = button("Next checkpoint", self.next, "primary", "forward")
        self.status = ipywidgets.HTML()
        self.plot = LivePlot(session.records)
        self.table = RecordTable(session.records)
        line = ipywidgets.HBox([self.button, self.status])
        self.children = (line, self.table, self.plot)

    def __repr__(self) -> str:
        return f"<NextCheckpoint after {self.session.records.total} checkpoints>"

    def next(self) -> None:
        """Take a checkpoint."""
        self.background.do("taking a checkpoint", self.session.checkpoint)

    def update(self) -> None:
        """Show running work, or its error."""
        doing, error = self.background.doing, self.background.error
        self.button.disabled = doing is not None
        self.status.value = escape(f"{doing} …" if doing else error or "")

    def end(self) -> None:
        """End both processes and the display."""
        self.plot.close()
        self.table.close()
        self.session.close()
