"""Panel for kills of either node at any point, while clients send requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from bokeh.layouts import row
from bokeh.models import ColumnDataSource, LayoutDOM, Range1d

from colobench.lab.report.palette import (
    BAD_COLOUR,
    BUSY_COLOUR,
    GOOD_COLOUR,
    IDLE_COLOUR,
    NEUTRAL_COLOUR,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    TAKEOVER_COLOUR,
)
from colobench.lab.session.journal import ROLES
from colobench.lab.session.session import Session
from colobench.lab.torture.kill_plan import OUTPUTS, POINTS
from colobench.lab.torture.story import (
    ALONE,
    CLIENTS,
    PROTECTED,
    SILENT,
    FailoverStory,
    serving_pair,
)
from colobench.ui.base.controls import dropdown
from colobench.ui.base.figure import Columns, FigureData, LiveFigure
from colobench.ui.base.markup import status_line, table, verdict_text
from colobench.ui.base.panel import Panel, button, turn
from colobench.ui.base.pump import frames
from colobench.ui.base.sentences import begin_sentence
from colobench.ui.views.plots import legend_above, make_plot

NOBODY = "nobody: any moment"
COLOURS = {PROTECTED: PRIMARY_COLOUR, SILENT: TAKEOVER_COLOUR, ALONE: SECONDARY_COLOUR}
#: Least distance of a client's answers that are drawn, seconds: in the whole story, and near the
#: kill.
WHOLE_SECONDS, NEAR_SECONDS = 0.05, 0.005
#: Seconds before and after the kill that count as near: twice the limit of the heartbeat.
BEFORE, AFTER = 0.15, 1.0


class FailoverPanel(Panel):
    """Panel whose button runs a pair with clients, a kill, a takeover, a rejoin, and a verdict.

    Parameters
    ----------
    settings
        Arguments of `colobench.lab.torture.story.serving_pair`.

    Attributes
    ----------
    story
        The last story, or the one that goes on; None before the first.
    """

    _current = None

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = settings
        self._stopped = False
        self._doing = ""
        self._session: Session | None = None
        self.story: FailoverStory | None = None
        self._dots = _Dots()
        self.output = dropdown("output", OUTPUTS, settings.get("output", "buffer"))
        self.victim = dropdown("victim", ROLES, "primary")
        self.holder = dropdown("held", [NOBODY, *ROLES], "primary")
        self.holder.layout.width = "220px"
        self.point = dropdown("at", _points("primary"), "ram")
        self.holder.observe(lambda _: self._offer_points(), "value")
        self.kill_button = button("Kill", self.kill, "danger", "bolt")
        self.stop_button = button("Stop", self.stop, "", "stop")
        self._choices = (self.output, self.victim, self.holder, self.point)
        self.reset_button = self.make_reset(self._choices)
        self.status, self.words = ipywidgets.HTML(), ipywidgets.HTML()
        self.figure = LiveFigure(_draw())
        wrapped = ipywidgets.Layout(flex_flow="row wrap")
        buttons = [self.kill_button, self.stop_button, self.reset_button]
        self.children = (
            ipywidgets.HBox([*self._choices, *buttons], layout=wrapped),
            self.status,
            self.figure,
            self.words,
        )
        self.update()
        frames.add(self)

    def __repr__(self) -> str:
        return repr(self.story) if self.story else "<FailoverPanel before the first kill>"

    def _offer_points(self) -> None:
        holder = self.holder.value
        self.point.options = () if holder == NOBODY else _points(holder)
        self.update()

    # The buttons.

    def kill(self) -> None:
        """Start a pair with clients, kill as chosen, and follow the story to its end."""
        self._stopped = False
        self.background.do("waiting for another panel's pair to end", self._live)

    def stop(self) -> None:
        """End the pair at once."""
        self._stopped = True
        session = self._session
        if session is not None:
            session.close()

    def halt(self) -> None:
        """End the pair at once."""
        self.stop()

    def forget(self) -> None:
        """Forget the last story."""
        self._stopped = False
        self.story, self._dots = None, _Dots()
        self.figure.show(None, _nothing)

    def _live(self) -> None:
        try:
            self._take_turn()
        finally:
            self._doing = ""

    def _take_turn(self) -> None:
        with turn.taken(lambda: not self._stopped) as taken:
            if not taken:
                return
            self.story = None
            self._say("starting a pair, a spare node, a switch and an arbiter")
            settings = self._settings | {"output": self.output.value}
            with serving_pair(**settings) as session:
                self._session = session
                try:
                    # A stop before this found no session to close.
                    if not self._stopped:
                        self._tell(session)
                finally:
                    self._session = None

    def _tell(self, session: Session) -> None:
        holder, point = self.holder.value, self.point.value
        held = (None, None) if holder == NOBODY else (point, holder)
        story = FailoverStory(session, self.victim.value, *held)
        self._dots = _Dots()
        self.story = story
        story.run(self._say)

    def _say(self, words: str) -> None:
        self._doing = words
        self.update()

    # Display.

    def refresh(self) -> None:
        """Show new data; called by the pump."""
        story, dots = self.story, self._dots
        if story is None:
            return
        dots.take(story)
        version = (dots, len(dots.whole), len(dots.near), len(story.spans))
        # Reset may have forgotten it meanwhile.
        if self.story is story:
            self.figure.show(version, lambda: _figure_data(story, dots))

    def update(self) -> None:
        """Show the present state, and enable the buttons that make sense in it."""
        ready = self.background.doing is None
        for each in (*self._choices, self.kill_button):
            each.disabled = not ready
        self.point.disabled = not ready or self.holder.value == NOBODY
        self.stop_button.disabled = ready
        self.status.value = status_line(*self._status())
        story = self.story
        self.words.value = _html(story) if story is not None else ""

    def _status(self) -> tuple[str, str]:
        doing, error, story = self.background.doing, self.background.error, self.story
        if doing:
            return BUSY_COLOUR, f"{begin_sentence(self._doing or doing)} …"
        if self._stopped:
            return IDLE_COLOUR, "Stopped."
        if error:
            return BAD_COLOUR, f"It failed: {error}"
        if story is None or story.first_ms is None:
            return IDLE_COLOUR, "Choose who dies, and when; then kill."
        if story.violations:
            return BAD_COLOUR, "The clients have seen what must not be."
        verdict = story.verdict
        sentence = (
            f"The first answer came {story.first_ms:.0f} ms after the kill. No connection was "
            f"lost, and the history of {len(story.clients.answers):,} answers is "
            f"{verdict.in_words if verdict else 'not checked'}."
        )
        return (GOOD_COLOUR if verdict and verdict.linearizable else IDLE_COLOUR), sentence

    def end(self) -> None:
        """End all processes and the display."""
        frames.remove(self)
        self.stop()


class _Dots:
    """Answers that are drawn, thinned out for each client to those that can be told apart."""

    def __init__(self) -> None:
        self.whole: list[tuple[float, int]] = []
        self.near: list[tuple[float, int]] = []
        self.end = 0.0
        self._seen = 0
        self._fine: list[tuple[float, int]] = []
        self._fine_taken = 0
        self._last: dict[tuple[int, float], float] = {}

    def take(self, story: FailoverStory) -> None:
        """Take new answers."""
        answers = story.clients.answers
        count = len(answers)
        for each in answers[self._seen : count]:
            dot = each.returned / 1e9 - story.began, each.client
            if each.client < CLIENTS:
                self._add(dot, self._fine, NEAR_SECONDS)
                self._add(dot, self.whole, WHOLE_SECONDS)
                self.end = dot[0]
        self._seen = count
        if story.killed is not None:
            kill = story.killed.time - story.began
            self.near += [
                dot
                for dot in self._fine[self._fine_taken :]
                if kill - BEFORE <= dot[0] <= kill + AFTER
            ]
            self._fine_taken = len(self._fine)

    def _add(self, dot: tuple[float, int], dots: list[tuple[float, int]], apart: float) -> None:
        seconds, client = dot
        if seconds - self._last.get((client, apart), -1.0) >= apart:
            self._last[client, apart] = seconds
            dots.append(dot)


def _points(holder: str) -> list[str]:
    return [point for point in POINTS[holder] if point is not None]


def _figure_data(story: FailoverStory, dots: _Dots) -> FigureData:
    tables: dict[str, Columns] = {
        "whole": _table(dots.whole, "seconds", "client"),
        "near": _table(dots.near, "seconds", "client"),
    }
    for state in COLOURS:
        tables[state] = _spans(story, state, dots.end)
    kill = story.spans[1][0] if len(story.spans) > 1 else dots.end
    ranges = {"around": (kill - BEFORE, kill + AFTER), "all": (0.0, max(dots.end, 1.0))}
    return FigureData(tables, ranges)


def _nothing() -> FigureData:
    """Give the data of a figure without a story."""
    empty = {name: _table((), "seconds", "client") for name in ("whole", "near")}
    return FigureData(empty | {state: _table((), "left", "right") for state in COLOURS})


def _table(rows: Sequence[tuple[float, float]], first: str, second: str) -> Columns:
    found = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return {first: found[:, 0], second: found[:, 1]}


def _spans(story: FailoverStory, state: str, end: float) -> Columns:
    """Give the spans of time in which the guest was in a state."""
    spans = story.spans[:]
    ends = [*(begin for begin, _ in spans[1:]), max(end, spans[-1][0])]
    found = [
        (begin, until) for (begin, each), until in zip(spans, ends, strict=True) if each == state
    ]
    return _table(found, "left", "right")


def _html(story: FailoverStory) -> str:
    """Write the story as a table, with times from the kill, and the checker's verdict."""
    if story.killed is None:
        return ""
    zero = story.killed.time - story.began
    rows = [
        (f"{1000 * (each.seconds - zero):+,.0f} ms", each.who, each.what) for each in story.moments
    ]
    verdict = story.violations or ([str(story.verdict)] if story.verdict else [])
    text = "\n".join(verdict)
    return table(rows, right=[0]) + verdict_text(text)


def _draw() -> LayoutDOM:
    """Draw clients' answers above the state of the guest, near the kill and whole; still empty."""
    plots = []
    spans = {state: ColumnDataSource({"left": [], "right": []}, name=state) for state in COLOURS}
    for name, title, shown in (
        ("near", "around the kill (s after the clients began)", "around"),
        ("whole", "all of it (s)", "all"),
    ):
        plot = make_plot(
            title,
            "answers to client",
            height=280,
            x_range=Range1d(start=0, end=1, name=shown),
            y_range=Range1d(start=-2.2, end=CLIENTS),
        )
        for state, source in spans.items():
            plot.quad(
                left="left",
                right="right",
                bottom=-2.0,
                top=-1.0,
                source=source,
                color=COLOURS[state],
                hatch_pattern="right_diagonal_line" if state == SILENT else " ",
                legend_label=state,
            )
        dots = ColumnDataSource({"seconds": [], "client": []}, name=name)
        plot.scatter("seconds", "client", source=dots, size=4, color=NEUTRAL_COLOUR)
        plot.yaxis.ticker = list(range(CLIENTS))
        legend_above(plot)
        plots.append(plot)
    return row(*plots, sizing_mode="stretch_width")
