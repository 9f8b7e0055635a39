"""Panel that runs strategies side by side, and shows what has been found while it does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets

from colobench.guest.programs import Program
from colobench.lab.compare.cells import GivenStrategy, name_of
from colobench.lab.compare.comparison import Comparison
from colobench.lab.compare.findings import Predictions
from colobench.lab.compare.growth import grow
from colobench.lab.compare.measure import CellFailed
from colobench.lab.compare.page import tables_html
from colobench.lab.compare.plots import colour_of
from colobench.lab.compare.run import begin_comparison, measure_missing
from colobench.lab.compare.sentences import headline
from colobench.lab.compare.underway import MeasurementStage, MeasurementStopped, Underway
from colobench.lab.report.palette import BAD_COLOUR, BUSY_COLOUR, GOOD_COLOUR, IDLE_COLOUR
from colobench.lab.session.session import Session
from colobench.settings.link import PRESETS as LINKS
from colobench.strategy.presets import PRESETS
from colobench.ui.base.controls import dropdown
from colobench.ui.base.markup import status_line
from colobench.ui.base.panel import Panel, button, is_unseen, turn
from colobench.ui.base.pump import frames
from colobench.ui.base.sentences import begin_sentence
from colobench.ui.views.comparison_plots import MARKERS, ComparisonPlots

#: Choice of no strategy.
NONE = "–"
USUAL = ("colo_v12", "remus", "memfd", "degradation")
GUESTS = tuple(
    each.label for each in Program if not (each.takes_trace or each.needs_disk or each.needs_kvm)
)
#: Seconds from one frame to the next while pairs run: each frame takes processor time from them.
FRAME_SECONDS = 1.0


class StrategyComparison(Panel):
    """Compares up to four strategies on real pairs, in interleaved rounds, and draws it live.

    Parameters
    ----------
    strategies
        Strategies that can be chosen beside the presets, as `colobench.compare` takes them: texts
        such as ``colo_v12,delay=20``, values of `Strategy`, or triggers of your own. The first four
        are chosen.
    guest, link
        First choices, as of `colobench.compare`; a guest may have settings behind commas.
    settings
        Other arguments of `colobench.compare`, such as ``rounds``, ``seconds`` or ``ram``.

    Attributes
    ----------
    comparison
        The last comparison, or the one that goes on; None before the first.

    Examples
    --------
    >>> panel = ui.StrategyComparison(["colo_v12", "remus", Mine()], guest="hotcold", ram="64M")
    >>> panel
    """

    _current = None

    def __init__(
        self,
        strategies: Sequence[GivenStrategy] = USUAL,
        *,
        guest: str = Program.HOTCOLD.label,
        link: str = "local",
        **settings: Any,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._given: Mapping[str, GivenStrategy] = {
            **{name: name for name in PRESETS},
            **{name_of(each): each for each in strategies},
        }
        self._stopped = self._unseen = False
        self._doing = ""
        self._drawn = 0.0
        self._predicted: tuple[int, Predictions] = (0, {})
        self._calibrating: Session | None = None
        self._written: tuple[object, ...] = ()
        self._underway: list[Underway] = []
        self.comparison: Comparison | None = None
        self._make_controls([name_of(each) for each in strategies], guest, link)
        self.update()
        frames.add(self)

    def _make_controls(self, strategies: Sequence[str], guest: str, link: str) -> None:
        first = [*strategies, *[NONE] * len(MARKERS)][: len(MARKERS)]
        choices = [NONE, *self._given]
        self.strategies = [
            dropdown(str(number), choices, name) for number, name in enumerate(first, 1)
        ]
        self.guest = dropdown("guest", list(dict.fromkeys([*GUESTS, guest])), guest)
        for each in (*self.strategies, self.guest):
            each.layout.width = "220px"
        self.link = dropdown("link", list(dict.fromkeys([*LINKS, link])), link)
        self.start_button = button("Start", self.start, "success", "play")
        self.stop_button = button("Stop", self.stop, "", "stop")
        self._choices = (*self.strategies, self.guest, self.link)
        self.reset_button = self.make_reset(self._choices)
        self.progress = ipywidgets.IntProgress(
            max=1,
            description="progress",
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="auto", margin="2px 10px"),
        )
        self.status, self.legend, self.words = (ipywidgets.HTML() for _ in range(3))
        self.plots = ComparisonPlots()
        wrapped = ipywidgets.Layout(flex_flow="row wrap")
        buttons = [self.guest, self.link, self.start_button, self.stop_button, self.reset_button]
        self.children = (
            ipywidgets.HBox(self.strategies, layout=wrapped),
            ipywidgets.HBox(buttons, layout=wrapped),
            self.status,
            self.progress,
            self.legend,
            self.plots,
            self.words,
        )

    def __repr__(self) -> str:
        return repr(self.comparison) if self.comparison else "<StrategyComparison, not started>"

    # The buttons.

    def start(self) -> None:
        """Compare the chosen strategies on the chosen guest, over the chosen link."""
        self._stopped = self._unseen = False
        self.background.do("waiting for another panel's pair to end", self._compare)

    def stop(self) -> None:
        """End the pair that runs; what was measured before it stays."""
        self._stopped = True
        session = self._calibrating
        if session is not None:
            session.close()
        for each in self._underway[-1:]:
            if each.stage is not MeasurementStage.DONE:
                each.stop()

    def halt(self) -> None:
        """End the pair that runs."""
        self.stop()

    def forget(self) -> None:
        """Forget the comparison."""
        self.comparison, self._underway = None, []
        self.plots.show(None, [], [])
        self.plots.show_latencies(False)

    def _compare(self) -> None:
        with turn.taken(lambda: not self._stopped) as taken:
            if not taken:
                return
            self.comparison, self._underway, self._predicted = None, [], (0, {})
            chosen = [self._given[each.value] for each in self.strategies if each.value != NONE]
            link = () if self.link.value == "local" else self.link.value
            found = begin_comparison(chosen, guest=self.guest.value, link=link, **self._settings)
            self.plots.show_latencies(found.cells[0].serves)
            self.comparison = found
            try:
                measure_missing(found, say=self._say, show=self._show, opened=self._calibrate)
            except (CellFailed, MeasurementStopped):
                if not self._stopped:
                    raise
            finally:
                self._calibrating = None

    def _say(self, words: str) -> None:
        self._doing = words

    def _calibrate(self, session: Session) -> None:
        if self._stopped:
            raise MeasurementStopped("stopped before a calibration")
        self._calibrating = session

    def _show(self, underway: Underway) -> None:
        self._calibrating = None
        # A measurement that broke does not count.
        self._underway = [
            *(each for each in self._underway if each.stage is MeasurementStage.DONE),
            underway,
        ]
        if self._stopped:
            underway.stop()

    # Display.

    def refresh(self) -> None:
        """Show new data; called by the pump."""
        running = self.background.doing is not None
        if running and not self._stopped and is_unseen():
            self._unseen = True
            self.stop()
        if running and time.monotonic() - self._drawn < FRAME_SECONDS:
            return
        self._drawn = time.monotonic()
        self._draw()
        self.update()

    def _draw(self) -> None:
        found, underway = self.comparison, self._underway
        if found is None:
            return
        rounds = [[each for each in underway if each.cell == cell] for cell in found.cells]
        growths = [grow(each) for each in rounds]
        sizes = tuple((len(each.seconds), len(each.latencies_ms)) for each in growths)
        # They follow from what was measured.
        if (count := len(found.measurements)) != self._predicted[0]:
            self._predicted = count, found.predictions()
        predicted = [self._predicted[1].get(cell.key, {}) for cell in found.cells]
        # Reset may have forgotten it meanwhile.
        if self.comparison is found:
            self.plots.show((found, count, sizes), growths, predicted)

    def update(self) -> None:
        """Show the present state, and enable the buttons that make sense in it."""
        ready = self.background.doing is None
        for each in (*self._choices, self.start_button):
            each.disabled = not ready
        self.stop_button.disabled = ready
        self._show_progress(ready)
        self.status.value = status_line(*self._status())
        found = self.comparison
        written = (found, 0 if found is None else len(found.measurements))
        if written != self._written:
            self._written = written
            self.legend.value = "" if found is None else _legend(found)
            self.words.value = tables_html(found) if found and found.measurements else ""

    def _show_progress(self, ready: bool) -> None:
        found = self.comparison
        total = 1 if found is None else len(found.cells) * found.settings.rounds
        self.progress.max = total
        self.progress.value = 0 if found is None else total - found.missing
        self.progress.layout.visibility = "hidden" if ready else "visible"

    def _status(self) -> tuple[str, str]:
        doing, error, found = self.background.doing, self.background.error, self.comparison
        if doing:
            return BUSY_COLOUR, f"{self._what() or begin_sentence(doing)} …"
        if error:
            return BAD_COLOUR, f"It failed: {error}"
        if found is None:
            return IDLE_COLOUR, "Choose strategies, a guest and a link; then start."
        total = len(found.cells) * found.settings.rounds
        if found.missing:
            why = ", as no page showed this any more" if self._unseen else ""
            return (
                IDLE_COLOUR,
                f"Stopped after {total - found.missing} of {total} measurements{why}.",
            )
        return GOOD_COLOUR, f"All {total} measurements are made. {headline(found)}."

    def _what(self) -> str:
        """Say what is being measured."""
        found, underway = self.comparison, self._underway[-1:]
        if found is None:
            return ""
        total = len(found.cells) * found.settings.rounds
        what = self._doing
        if underway and self._calibrating is None:
            [now] = underway
            what = f"{now.cell}, round {now.round}: {now.doing}"
        return f"{total - found.missing} of {total} measurements are made; {what}"

    def repeat(self) -> None:
        """Send the panel's state again, for a page that was cut off."""
        super().repeat()
        self.plots.repeat()

    def end(self) -> None:
        """End the pair and the display."""
        frames.remove(self)
        self.stop()
        self.plots.close()


def _legend(found: Comparison) -> str:
    """Name the colours."""
    swatch = (
        '<span style="display: inline-block; width: 12px; height: 12px; margin-right: 5px; '
        'outline: 1px solid; background: {}"></span>'
    )
    names = "".join(
        '<span style="display: inline-block; margin-right: 16px">'
        f"{swatch.format(colour_of(number))}{escape(cell.strategy)}</span>"
        for number, cell in enumerate(found.cells)
    )
    lines = "dots and lines: measured; dashed: predicted" if found.settings.models else ""
    return f'<div style="padding: 4px 10px; line-height: 1.6">{names}{lines}</div>'
