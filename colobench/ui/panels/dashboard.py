"""Dashboard: start a pair, watch it, kill a node, see the survivor go on."""

from __future__ import annotations

import enum
import time
from contextlib import suppress
from typing import Any

import ipywidgets

from colobench.errors import ColobenchError
from colobench.lab.report.palette import (
    BAD_COLOUR,
    BUSY_COLOUR,
    GOOD_COLOUR,
    IDLE_COLOUR,
    MUTED_COLOUR,
)
from colobench.lab.report.run_summary import megabytes
from colobench.lab.session.journal import ROLES
from colobench.lab.session.session import Session
from colobench.ui.base.controls import Controls
from colobench.ui.base.markup import consoles, status_line
from colobench.ui.base.panel import Panel, button, is_unseen, kill_buttons
from colobench.ui.base.pump import Pump
from colobench.ui.base.sentences import begin_sentence, tell_ram, tell_takeover
from colobench.ui.views.live_plot import LivePlot
from colobench.ui.views.page_map import PageMap

#: Seconds without a press after which a pair ends, as it takes processor time and memory.
IDLE_SECONDS = 300.0
CONSOLE_LINES = 5
#: Moments of a kill: the point of a checkpoint, for each layout.
MOMENTS: dict[str, dict[str, str | None]] = {
    "at once": {"separated": None, "buffered": None},
    "with half of a checkpoint sent": {"separated": "ram", "buffered": "buffer"},
    "with a checkpoint just committed": {"separated": "received", "buffered": "received"},
}
#: Seconds between two queries of consoles and processes.
watches = Pump(0.5)

_SMALL = f"padding: 0 10px; font-size: 12px; color: {MUTED_COLOUR}"


class PairStage(enum.Enum):
    """Stage of a pair's life; the value is the colour of the status line."""

    NOTHING = IDLE_COLOUR
    PAIR = BUSY_COLOUR
    BROKEN = BAD_COLOUR
    SURVIVOR = GOOD_COLOUR


class Dashboard(Panel):
    """One pair at a time, with buttons, a live plot, a map of the pages and the guest's console.

    Parameters
    ----------
    settings
        Arguments of `Session`; of those that have a control in the dashboard, its first choice.

    Examples
    --------
    >>> dashboard = ui.Dashboard(guest="hotcold", ram="64M")
    >>> dashboard
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.controls = Controls(**settings)
        self._settings = settings | {"report_pages": True}
        self._stage = PairStage.NOTHING
        self._story = "Nothing runs yet. Start begins two processes on this machine."
        self._touched = time.monotonic()
        # A page that is looked at, and not touched, goes on to say that it is there.
        self.contact.feed.busy = lambda: (
            self.background.doing is not None or self._stage is not PairStage.NOTHING
        )
        # Not started; the views need a session to look at until one is.
        self.session = self._new_session()
        self.start_button = button("Start", self.start, "success", "play")
        self.checkpoint_button = button("Checkpoint", self.checkpoint, "primary", "camera")
        self.kill_buttons = kill_buttons(ROLES, self.kill, ("danger", "warning"))
        self.moment = ipywidgets.Dropdown(
            description="moment",
            options=list(MOMENTS),
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="290px"),
        )
        self.reset_button = button("Reset", self.reset, "", "refresh")
        self.status, self.processes, self.console = (ipywidgets.HTML() for _ in range(3))
        self.plot = LivePlot(self.session.records)
        self.page_map = PageMap(self.session)
        self.controls.delay.observe(lambda _: self._set_delay(), "value")
        self.children = (
            self.controls,
            self._button_line(),
            self.status,
            self.processes,
            self.plot,
            self.page_map,
            self.console,
        )
        self.update()
        watches.add(self)

    def __repr__(self) -> str:
        return f"<Dashboard after {self.session.records.total} checkpoints>"

    def _button_line(self) -> Any:
        line = [self.start_button, self.checkpoint_button, self.kill_buttons["primary"]]
        line += [self.moment, self.kill_buttons["secondary"], self.reset_button]
        return ipywidgets.HBox(line, layout=ipywidgets.Layout(flex_flow="row wrap"))

    # The buttons.

    def start(self) -> None:
        """Start a pair with the present choices."""
        words = "starting two processes, migrating the running guest; new kernels compile first"
        self._do(words, self._start)

    def checkpoint(self) -> None:
        """Take a checkpoint now."""
        self._do("taking a checkpoint", self.session.checkpoint)

    def kill(self, role: str) -> None:
        """Kill a node with SIGKILL, and let the other take over."""
        moment = self.moment.value if role == "primary" else "at once"
        self._do(f"killing the {role} {moment}", lambda: self._kill(role, moment))

    def reset(self) -> None:
        """End what runs, so that a new pair can be started."""
        self._do("ending both processes", lambda: self._reset("Ended. Start begins a new pair."))

    def _do(self, words: str, action: Any) -> None:
        self._touched = time.monotonic()
        self.background.do(words, action)

    def _set_delay(self) -> None:
        if self._stage is PairStage.PAIR:
            primary, delay = self.session.nodes["primary"], self.controls.delay.value
            self._do(
                "setting the delay",
                lambda: primary.execute("migrate-set-parameters", x_checkpoint_delay=delay),
            )

    # Actions in the background.

    def _new_session(self) -> Session:
        return Session(**self._settings | self.controls.chosen())

    def _show(self, session: Session) -> None:
        self.session = session
        self.plot.watch(session.records)
        self.page_map.watch(session)

    def _start(self) -> None:
        self._show(self._new_session())
        self.session.start()
        self._stage = PairStage.PAIR

    def _kill(self, role: str, moment: str) -> None:
        point = MOMENTS[moment][self.session.settings.checkpoint.layout.value]
        self._stage = PairStage.BROKEN
        killed = self.session.kill(role, at=point)
        self._take_over(f"SIGKILL hit the {role}, pid {killed.pid}, {moment}.", role)

    def _take_over(self, how: str, dead: str) -> None:
        survivor = next(role for role in ROLES if role != dead)
        takeover = self.session.failover(survivor)
        self._stage = PairStage.SURVIVOR
        self._story = f"{how} {tell_takeover(takeover)}"
        self.update()
        same = self.session.verify(survivor)
        self._story += f" {tell_ram(same)}"

    def _reset(self, story: str) -> None:
        self.session.close()
        self._stage, self._story = PairStage.NOTHING, story
        self._show(self._new_session())

    # Display.

    def update(self) -> None:
        """Show the present state, and enable the buttons that make sense in it."""
        ready = self.background.doing is None
        nothing, pair = self._stage is PairStage.NOTHING, self._stage is PairStage.PAIR
        self.controls.enable(delay=ready and (nothing or pair), others=ready and nothing)
        self.start_button.disabled = not (ready and nothing)
        for each in (self.checkpoint_button, self.moment, *self.kill_buttons.values()):
            each.disabled = not (ready and pair)
        self.reset_button.disabled = not ready or nothing
        self.status.value = self._status_line()

    def _status_line(self) -> str:
        doing, error = self.background.doing, self.background.error
        count = self.session.records.total
        stage, text = self._stage, self._story
        if error:
            stage, text = PairStage.BROKEN, f"It failed: {error}"
        elif doing:
            text = f"{begin_sentence(doing)} …"
        elif stage is PairStage.PAIR:
            text = f"Primary and secondary are in COLO: {count:,} checkpoints are committed."
        return status_line(stage.value, text)

    def refresh(self) -> None:
        """Look at processes and consoles; called by the pump."""
        if self.background.doing is not None or self._stage is PairStage.NOTHING:
            return
        unseen = is_unseen()
        if unseen or time.monotonic() - self._touched > IDLE_SECONDS:
            story = f"Ended: nobody pressed a button for {IDLE_SECONDS / 60:.0f} minutes."
            story = "Ended: no page showed this any more." if unseen else story
            self.background.do("ending both processes", lambda: self._reset(story))
            return
        dead = [node for node in self.session.nodes.values() if not node.alive()]
        if dead and self._stage is PairStage.PAIR:
            self._stage = PairStage.BROKEN
            how = f"The {dead[0].role} died, status {dead[0].process.returncode}."
            self.background.do("taking over", lambda: self._take_over(how, dead[0].role))
            return
        self.update()
        # A node that dies during this query is found dead by the next one.
        with suppress(ColobenchError):
            self._look()

    def _look(self) -> None:
        figures = " · ".join(
            f"{each.role}: process {each.pid}, {megabytes(each.resident_bytes)} resident"
            for each in self.session.processes()
        )
        self.processes.value = f'<span style="{_SMALL}">{figures}</span>'
        self.console.value = self._consoles()

    def _consoles(self) -> str:
        """Show the consoles of living nodes side by side."""
        living = [role for role, node in self.session.nodes.items() if node.alive()]
        return consoles({role: self.session.console(role) for role in living}, CONSOLE_LINES)

    def end(self) -> None:
        """End all processes and the display."""
        watches.remove(self)
        self.plot.close()
        self.page_map.close()
        self.session.close()
