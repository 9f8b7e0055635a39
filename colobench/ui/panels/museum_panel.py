"""Panel of the bug museum: nodes are killed until the clients' history shows a planted bug."""

from __future__ import annotations

import threading
from html import escape

import ipywidgets

from colobench.lab.report.palette import BAD_COLOUR, BUSY_COLOUR, GOOD_COLOUR, IDLE_COLOUR
from colobench.lab.torture.bug_hunt import BugHunt, hunt_bug
from colobench.lab.torture.museum import MUSEUM
from colobench.settings.bug import Bug
from colobench.ui.base.controls import dropdown
from colobench.ui.base.markup import status_line, verdict_text
from colobench.ui.base.panel import Panel, button, turn
from colobench.ui.base.sentences import begin_sentence

KILLS = 20
_STORY = "padding: 4px 10px; font-size: 14px; line-height: 1.5; max-width: 860px"


class MuseumPanel(Panel):
    """Shows the exhibits, and the effect of each on clients.

    Parameters
    ----------
    bug
        The first choice.
    kills
        Limit of the number of kills.

    Attributes
    ----------
    hunt
        Results of the last run; None before the first.
    """

    _current = None

    def __init__(self, bug: str = Bug.MISSED_DIRTY_BIT.value, kills: int = KILLS) -> None:
        super().__init__()
        self._stop = threading.Event()
        self.hunt: BugHunt | None = None
        self._doing = ""
        self.bug = dropdown("bug", [each.value for each in MUSEUM], bug)
        self.bug.layout.width = "260px"
        self.bug.observe(lambda _: self.update(), "value")
        self.run_button = button("Break it", self.run, "danger", "bug")
        self.stop_button = button("Stop after this kill", self._stop.set, "", "stop")
        self.progress = ipywidgets.IntProgress(
            max=kills, description="kills", layout=ipywidgets.Layout(width="260px")
        )
        self.reset_button = self.make_reset([self.bug])
        self.story, self.status, self.found = (ipywidgets.HTML() for _ in range(3))
        line = [self.bug, self.run_button, self.stop_button, self.reset_button, self.progress]
        self.children = (
            ipywidgets.HBox(line, layout=ipywidgets.Layout(flex_flow="row wrap")),
            self.story,
            self.status,
            self.found,
        )
        self.update()

    def __repr__(self) -> str:
        return f"<MuseumPanel {self.hunt!r}>" if self.hunt else "<MuseumPanel>"

    def run(self) -> None:
        """Plant the chosen bug, and kill nodes until it is caught."""
        self._stop.clear()
        self.background.do("waiting for another panel's pair to end", self._run)

    def halt(self) -> None:
        """Stop after the present kill."""
        self._stop.set()

    def forget(self) -> None:
        """Forget the last run."""
        self.hunt = None

    def _go_on(self) -> bool:
        return not self._stop.is_set()

    def _run(self) -> None:
        self.hunt = None
        try:
            with turn.taken(self._go_on) as taken:
                if taken:
                    bug, kills = self.bug.value, self.progress.max
                    hunt_bug(bug, kills, into=self._watch, say=self._say, go_on=self._go_on)
        finally:
            self._doing = ""

    def _watch(self, hunt: BugHunt) -> None:
        self.hunt = hunt

    def _say(self, words: str) -> None:
        self._doing = words
        self.update()

    def update(self) -> None:
        """Show the present state."""
        ready = self.background.doing is None
        self.bug.disabled = self.run_button.disabled = not ready
        self.stop_button.disabled = ready
        hunt = self.hunt
        self.progress.value = len(hunt.results) if hunt else 0
        shown = MUSEUM[Bug(self.bug.value)]
        self.story.value = (
            f'<div style="{_STORY}"><b>{escape(shown.promise)}</b> {escape(shown.story)} '
            f"Caught by {escape(shown.catch.value)}.</div>"
        )
        self.status.value = status_line(*self._words())
        self.found.value = verdict_text(repr(hunt) if hunt and hunt.caught else "")

    def _words(self) -> tuple[str, str]:
        doing, error, hunt = self.background.doing, self.background.error, self.hunt
        if doing:
            return BUSY_COLOUR, f"{begin_sentence(self._doing or doing)} …"
        if error:
            return BAD_COLOUR, f"It failed: {error}"
        if hunt is None:
            return IDLE_COLOUR, "Choose a bug, and break it."
        if not hunt.exhibit.catch.kills:
            caught, colour = ("Caught", GOOD_COLOUR) if hunt.caught else ("Not caught", IDLE_COLOUR)
            return colour, f"{caught} by {hunt.exhibit.catch.value}."
        if hunt.caught:
            return GOOD_COLOUR, f"Caught by kill {len(hunt.results)}; the proof:"
        return IDLE_COLOUR, f"Not caught by {len(hunt.results)} kills: it takes luck. Try again."

    def end(self) -> None:
        """Stop after the present kill."""
        self._stop.set()
