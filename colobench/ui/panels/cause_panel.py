"""Panel with settings of the guest's nondeterminism, and the causes of checkpoints, live."""

from __future__ import annotations

import threading

import ipywidgets

from colobench.guest.settings import NondeterminismSettings
from colobench.lab.report.palette import BAD_COLOUR, BUSY_COLOUR, GOOD_COLOUR, IDLE_COLOUR
from colobench.lab.session.record import Records
from colobench.lab.studies.checkpoint_causes import CauseTable, provoke_miscompares
from colobench.ui.base.controls import slider
from colobench.ui.base.markup import status_line, table
from colobench.ui.base.panel import Panel, button, turn
from colobench.ui.base.pump import frames
from colobench.ui.base.sentences import begin_sentence

CLOCKS_US = (0, 1000, 10_000, 100_000, 1_000_000)
JITTERS_US = (0, 100, 1000, 5000)
SHUFFLES = (0, 10, 100, 1000)
SECONDS = 2.0


class CausePanel(Panel):
    """Runs a pair that compares output, with the chosen dials; shows its checkpoints' causes.

    Attributes
    ----------
    records
        Records of the last run.
    """

    _current = None

    def __init__(self) -> None:
        super().__init__()
        self._stop = threading.Event()
        self.records = Records()
        self._shown = -1
        self.dials = {
            "clock_us": slider("clock step (µs)", CLOCKS_US, 1_000_000),
            "jitter_us": slider("jitter (µs)", JITTERS_US, 0),
            "shuffle": slider("shuffle (‰)", SHUFFLES, 0),
        }
        self.ask_time = ipywidgets.Checkbox(
            value=True,
            description="some ask TIME",
            indent=False,
            layout=ipywidgets.Layout(width="150px"),
        )
        self.run_button = button("Run for 2 s", self.run, "primary", "play")
        self.stop_button = button("Stop", self._stop.set, "", "stop")
        self.reset_button = self.make_reset([*self.dials.values(), self.ask_time])
        self.status, self.words = ipywidgets.HTML(), ipywidgets.HTML()
        wrapped = ipywidgets.Layout(flex_flow="row wrap")
        self.children = (
            ipywidgets.HBox([*self.dials.values(), self.ask_time], layout=wrapped),
            ipywidgets.HBox([self.run_button, self.stop_button, self.reset_button], layout=wrapped),
            self.status,
            self.words,
        )
        self.update()
        frames.add(self)

    def __repr__(self) -> str:
        return f"<CausePanel after {len(self.records)} checkpoints>"

    @property
    def table(self) -> CauseTable:
        """Causes of the last run's checkpoints."""
        return CauseTable(self.records[:])

    def run(self) -> None:
        """Run a pair with the chosen dials."""
        self._stop.clear()
        self.background.do("running a pair that compares output", self._run)

    def halt(self) -> None:
        """Stop the run."""
        self._stop.set()

    def forget(self) -> None:
        """Forget the last run."""
        self.records = Records()

    def _go_on(self) -> bool:
        return not self._stop.is_set()

    def _run(self) -> None:
        dials = NondeterminismSettings(**{name: dial.value for name, dial in self.dials.items()})
        with turn.taken(self._go_on) as taken:
            if taken:
                self.records = Records()
                provoke_miscompares(
                    dials,
                    SECONDS,
                    ask_time=self.ask_time.value,
                    into=self.records,
                    go_on=self._go_on,
                )

    # Display.

    def refresh(self) -> None:
        """Show new data; called by the pump."""
        records = self.records
        if records.total != self._shown:
            self._shown = records.total
            self.words.value = _html(self.table)
            self.update()

    def update(self) -> None:
        """Show whether something is being done or has failed."""
        ready = self.background.doing is None
        for control in (*self.dials.values(), self.ask_time, self.run_button):
            control.disabled = not ready
        self.stop_button.disabled = ready
        self.status.value = status_line(*self._words())

    def _words(self) -> tuple[str, str]:
        doing, error = self.background.doing, self.background.error
        if doing:
            return BUSY_COLOUR, f"{begin_sentence(doing)} … so far by cause: {self.table.counted()}"
        if error:
            return BAD_COLOUR, f"It failed: {error}"
        if not self.records:
            return IDLE_COLOUR, "Turn the dials, and run a pair."
        return GOOD_COLOUR, f"{len(self.records)} checkpoints by cause: {self.table.counted()}."

    def end(self) -> None:
        """Stop the run and the display."""
        self._stop.set()
        frames.remove(self)


def _html(causes: CauseTable) -> str:
    """Write the last miscompares as a table."""
    if not causes.miscompares:
        return ""
    heads = ("checkpoint", "at", "connection", "first byte that differs")
    return table(causes.rows(), heads, right=range(len(heads)))
