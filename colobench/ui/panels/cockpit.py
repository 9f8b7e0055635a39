"""The cockpit: all settings on one page, and runs with them over each other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets

from colobench.errors import ColobenchError
from colobench.lab.cockpit.curves import PLOTS, USUAL_PLOTS
from colobench.lab.cockpit.export import repeat_cell, runs_as_csv, runs_as_json
from colobench.lab.cockpit.form import SettingsForm
from colobench.lab.cockpit.overlay import RUNS_LIMIT, Overlay
from colobench.lab.cockpit.page import figure_rows, write_runs_page
from colobench.lab.cockpit.run import CockpitRun, RunStage
from colobench.lab.interrupt import interruptible
from colobench.lab.report.palette import BAD_COLOUR, BUSY_COLOUR, GOOD_COLOUR, IDLE_COLOUR
from colobench.settings.settings import Settings
from colobench.strategy.presets import PRESETS
from colobench.ui.base.markup import consoles, preformatted, status_line, table
from colobench.ui.base.panel import Panel, button, is_unseen, kill_buttons, turn
from colobench.ui.base.pump import Pump, frames
from colobench.ui.base.sentences import begin_sentence, tell_ram, tell_takeover
from colobench.ui.panels.run_rows import RunRows
from colobench.ui.views.downloads import Downloads
from colobench.ui.views.overlay_plots import OverlayPlots
from colobench.ui.views.settings_form import SettingsFormView

#: First choices: a guest that fits into Binder, and no digests, which lengthen the pause.
USUAL: dict[str, Any] = {"ram": "64M", "guest": "hotcold", "verify": False, "delay": 50}
#: Protected times that can be chosen, seconds, by their words.
TIMES = {"10 s": 10.0, "20 s": 20.0, "1 minute": 60.0, "2 minutes": 120.0, "10 minutes": 600.0}
#: Seconds from one frame to the next while pairs run: each takes processor time from them.
FRAME_SECONDS = 1.0
#: Seconds from one look at log and consoles to the next.
LOOK_SECONDS = 2.0
#: Lines of log and consoles that are shown.
LOG_LINES, CONSOLE_LINES = 14, 6
#: Choice of no preset, and of a kill at any point.
OWN, AT_ONCE = "–", "at once"
#: Processes in their order; a button for each.
PROCESSES = ("primary", "secondary", "switch", "arbiter", "link")
#: Apart from the frames, as a process that is asked may answer late.
looks = Pump(LOOK_SECONDS)

_WRAPPED = {"flex_flow": "row wrap", "align_items": "center"}


class Cockpit(Panel):
    """All settings, generated from their declarations, and up to eight runs over each other.

    Parameters
    ----------
    settings
        First choices, as arguments of `Session`.

    Attributes
    ----------
    form
        The choices.
    overlay
        The runs.

    Examples
    --------
    >>> cockpit = ui.Cockpit(ram="64M", guest="hotcold")
    >>> cockpit
    """

    _current = None

    def __init__(self, **settings: Any) -> None:
        # What is refused closes no other cockpit.
        self.form = SettingsForm(Settings().override(**USUAL | settings))
        super().__init__()
        self.overlay = Overlay(turn.taken)
        self.contact.feed.busy = lambda: bool(self.background.doing or self.overlay.active())
        self._story = "Choose settings; Start begins a pair of processes with them."
        self._drawn = float("-inf")
        self._make_controls()
        self._make_displays()
        self.children = (
            self.form_view,
            _line(self.preset, self.name, self.time, self.together, self.predict),
            _line(self.start_button, self.stop_button, self.reset_button),
            self.status,
            self.progress,
            self.rows,
            _line(*self.plot_choices.values()),
            self.plots,
            self.figures,
            _line(self.victim, self.moment, *self.kill_buttons.values()),
            self.events,
            self.consoles,
            _line(*self.export_buttons),
            self.downloads,
            self.cell,
        )
        own = (self.name, self.time, self.together, self.predict, *self.plot_choices.values())
        self._first = [(each, each.value) for each in own]
        self.form_view.show()
        self.update()
        self._looks = _Looks(self)
        frames.add(self)
        looks.add(self._looks)

    def __repr__(self) -> str:
        return f"<Cockpit with {len(self.overlay.runs)} runs>"

    def _make_controls(self) -> None:
        self.form_view = SettingsFormView(self.form, self.choose)
        self.preset = _dropdown("strategy", [OWN, *PRESETS], self.form.preset() or OWN, "260px")
        self.preset.observe(self._choose_preset, "value")
        self.name = ipywidgets.Text(
            description="name",
            placeholder="by itself",
            **_look("260px"),
        )
        self.time = _dropdown("run for", list(TIMES), "20 s", "170px")
        self.together = _checkbox(
            "beside other runs",
            "Runs take turns, as they would disturb each other's measurement. "
            "This one waits for none.",
        )
        self.predict = _checkbox(
            "predict", "A short pair is run before, whose costs are the input of the models."
        )
        self.start_button = button("Start", self.start, "success", "play")
        self.stop_button = button("Stop", self.stop, "", "stop")
        self.reset_button = button("Reset", self.reset, "", "refresh")
        self.victim = _dropdown("run", [], None, "300px")
        self.victim.observe(lambda _: self._show_points(), "value")
        self.moment = _dropdown("kill", [AT_ONCE], AT_ONCE, "230px")
        self.kill_buttons = kill_buttons(PROCESSES, self.kill)
        self.export_buttons = [
            button("JSON", self.export_json, "", "download"),
            button("CSV", self.export_csv, "", "download"),
            button("Python cell", self.export_cell, "", "code"),
            button("HTML report", self.export_page, "", "file-text-o"),
        ]

    def _make_displays(self) -> None:
        self.status, self.figures, self.events, self.consoles, self.cell = (
            ipywidgets.HTML() for _ in range(5)
        )
        self.progress = ipywidgets.IntProgress(
            max=1000,
            description="progress",
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="auto", margin="2px 10px"),
        )
        self.rows = RunRows(self.overlay, self._row_changed, self._delete)
        self.plots, self.downloads = OverlayPlots(), Downloads()
        self.plot_choices = {
            name: _checkbox(plot.title, plot.text, name in USUAL_PLOTS)
            for name, plot in PLOTS.items()
        }
        for each in self.plot_choices.values():
            each.observe(lambda _: self._draw(), "value")

    # The choices.

    def choose(self, name: str, text: str) -> None:
        """Choose the value of a setting by its text."""
        self.form.choose(name, text)
        self._form_changed()

    def _choose_preset(self, change: Any) -> None:
        if change["new"] != OWN and change["new"] != self.form.preset():
            self.form.choose_preset(change["new"])
            self._form_changed()

    def _form_changed(self) -> None:
        self.preset.value = self.form.preset() or OWN
        self.form_view.show()
        self.update()

    # The buttons.

    def start(self) -> None:
        """Start a run with the present choices."""
        self.background.do("preparing a run", self._start)

    def _start(self) -> None:
        self.overlay.start(
            self.form.settings(),
            name=self.name.value,
            seconds=TIMES[self.time.value],
            together=self.together.value,
            predict=self.predict.value,
        )
        self.name.value = ""
        self._story = ""

    def stop(self) -> None:
        """End what runs; what was measured stays."""
        self.overlay.stop()
        self._tell("Stopped; what was measured stays.")

    def reset(self) -> None:
        """End what runs, and go back to the first choices; the runs stay."""
        self.background.do("ending all processes", self._reset)

    def _reset(self) -> None:
        self.overlay.close()
        self.form.reset()
        for control, value in self._first:
            control.value = value
        self._story = "Ended. The runs stay; the choices are the first ones again."
        self._form_changed()

    def kill(self, role: str) -> None:
        """Kill a process of the chosen run with SIGKILL, and let a survivor take over."""
        run = self._chosen_run()
        if run is not None:
            at = None if self.moment.value == AT_ONCE else self.moment.value
            words = f"killing the {role} of {run.name} {self.moment.value}"
            self.background.do(words, lambda: self._kill(run, role, at))

    def _kill(self, run: CockpitRun, role: str, at: str | None) -> None:
        run.kill(role, at)
        if run.takeover is not None and role in ("primary", "secondary"):
            self._story = tell_takeover(run.takeover)
            self.update()
            same = run.verify()
            if same is not None:
                self._story += f" {tell_ram(same)}"
        else:
            self._story = f"The {role} of {run.name} was killed."

    def export_json(self) -> None:
        """Offer all runs as JSON with their settings."""
        self._export("colobench-runs.json", "application/json", runs_as_json)

    def export_csv(self) -> None:
        """Offer all checkpoints as CSV."""
        self._export("colobench-runs.csv", "text/csv", runs_as_csv)

    def export_cell(self) -> None:
        """Show and offer a Python cell that repeats the chosen run."""
        run = self._chosen_run()
        if run is not None:
            self.cell.value = preformatted(repeat_cell(run))
            self._export("repeat_run.py", "text/x-python", lambda _: repeat_cell(run))

    def export_page(self) -> None:
        """Offer a page of all runs, which opens offline."""
        self._export("colobench-runs.html", "text/html", _page)

    def _export(self, name: str, type: str, write: Callable[[Sequence[CockpitRun]], str]) -> None:
        self.background.do(f"writing {name}", lambda: self._write(name, type, write))

    def _write(self, name: str, type: str, write: Callable[[Sequence[CockpitRun]], str]) -> None:
        self.downloads.put(name, write(list(self.overlay.runs)).encode(), type)
        self._story = f"{name} is ready: press its link below."

    def _delete(self, run: CockpitRun) -> None:
        self.background.do(f"deleting {run.name}", lambda: self._forget(run))

    def _forget(self, run: CockpitRun) -> None:
        self.overlay.delete(run)
        self.plots.forget(run)
        self._story = f"{run.name} is deleted."

    def _tell(self, words: str) -> None:
        """Show words in place of earlier ones, also of those of an error."""
        self._story, self.background.error = words, None

    def _row_changed(self, error: str) -> None:
        self._tell(error)
        self._draw()
        self.update()

    def _chosen_run(self) -> CockpitRun | None:
        for each in self.overlay.runs:
            if each.number == self.victim.value:
                return each
        return None

    # Display.

    def refresh(self) -> None:
        """Show new data; called by the pump."""
        active, now = self.overlay.active(), time.monotonic()
        if active and is_unseen():
            self._story = "Ended: no page showed this any more."
            self.overlay.stop()
        if now - self._drawn >= FRAME_SECONDS:
            self._drawn = now
            self._draw()
            self.update()

    def _draw(self) -> None:
        names = [name for name, each in self.plot_choices.items() if each.value]
        self.plots.show(self.overlay.shown(), names)

    def _look(self) -> None:
        run = self._chosen_run()
        _put(self.figures, table(_transposed(self.overlay.runs)) if self.overlay.runs else "")
        _put(self.events, "" if run is None else _log(run))
        _put(self.consoles, "" if run is None or run.is_over else _consoles(run))

    def update(self) -> None:
        """Show the present state, and enable the buttons that make sense in it."""
        ready, runs = self.background.doing is None, self.overlay.runs
        active, error = self.overlay.active(), self.form.error
        self.start_button.disabled = not ready or bool(error) or len(runs) >= RUNS_LIMIT
        self.start_button.tooltip = error or (
            f"{RUNS_LIMIT} runs are kept: delete one" if len(runs) >= RUNS_LIMIT else ""
        )
        self.stop_button.disabled = not active
        self.reset_button.disabled = not ready
        for each in self.export_buttons:
            each.disabled = not (ready and runs)
        self.rows.show(ready)
        self._update_kills(ready)
        self._show_status()

    def _update_kills(self, ready: bool) -> None:
        choices = tuple((each.name, each.number) for each in reversed(self.overlay.runs))
        if self.victim.options != choices:
            before = self.victim.value
            newest = len(choices) > len(self.victim.options)
            self.victim.options = choices
            numbers = [number for _, number in choices]
            if numbers:
                self.victim.value = before if before in numbers and not newest else numbers[0]
            self._show_points()
        run = self._chosen_run()
        living = [] if run is None or run.is_over else run.roles()
        protected = run is not None and run.stage is RunStage.PROTECTED
        for role, each in self.kill_buttons.items():
            is_node = role in ("primary", "secondary")
            each.disabled = not (ready and role in living and (protected or not is_node))
            exists = run is not None and (is_node or role in run.session.others)
            each.layout.display = None if exists or is_node else "none"
        self.moment.disabled = not (ready and protected)

    def _show_points(self) -> None:
        run = self._chosen_run()
        points = [AT_ONCE] if run is None else [AT_ONCE, *run.points()]
        if list(self.moment.options) != points:
            self.moment.options = points

    def _show_status(self) -> None:
        active = self.overlay.active()
        current = [each for each in active if each.stage is not RunStage.WAITING] or active
        _put(self.status, status_line(*self._status(current, len(active))))
        done = min(1.0, current[0].elapsed / current[0].seconds) if current else 0.0
        self.progress.value = round(1000 * done)
        self.progress.layout.visibility = "visible" if current else "hidden"

    def _status(self, current: Sequence[CockpitRun], active: int) -> tuple[str, str]:
        doing, error = self.background.doing, self.background.error
        failed = [each for each in self.overlay.runs[-1:] if each.stage is RunStage.FAILED]
        if doing:
            return BUSY_COLOUR, f"{begin_sentence(doing)} …"
        if error:
            return BAD_COLOUR, f"It failed: {error}"
        if current:
            words = "; ".join(map(_words, current))
            waiting = active - len(current)
            more = f" {waiting} more wait for their turn." if waiting else ""
            return BUSY_COLOUR, f"{words}.{more} {self._story}".strip()
        if failed:
            return BAD_COLOUR, self._with_story(f"{failed[0].name} failed: {failed[0].error}")
        if self.form.error:
            words = f"These settings do not go together: {self.form.error}"
            return BAD_COLOUR, self._with_story(words)
        if not self.overlay.runs:
            return IDLE_COLOUR, self._story
        count = sum(len(each.records()) for each in self.overlay.runs)
        runs = len(self.overlay.runs)
        words = f"{runs} run{'s' * (runs != 1)}"
        kept = f"{words}, {count:,} checkpoints; nothing runs now."
        return GOOD_COLOUR, f"{self._story} {kept}".strip()

    def _with_story(self, words: str) -> str:
        return f"{words.rstrip('.')}. {self._story}" if self._story else words

    def repeat(self) -> None:
        """Send the panel's state again, for a page that was cut off."""
        super().repeat()
        self.rows.send_state("children")

    @interruptible("its runs go on, and can be waited for again")
    def wait(self) -> None:
        """Wait for the end of the work that a button has started, and of all runs."""
        super().wait()
        self.overlay.wait()

    def end(self) -> None:
        """End all processes and the display."""
        frames.remove(self)
        # A process that has ended answers no question any more, so that a look ends, too.
        self.overlay.close()
        looks.remove(self._looks)


class _Looks:
    """What `looks` refreshes of a cockpit."""

    def __init__(self, cockpit: Cockpit) -> None:
        self.refresh = cockpit._look
        self.tell_failure = cockpit.tell_failure


def _page(runs: Sequence[CockpitRun]) -> str:
    with tempfile.TemporaryDirectory() as directory:
        return write_runs_page(Path(directory) / "runs.html", runs).read_text(encoding="utf-8")


def _words(run: CockpitRun) -> str:
    seconds = f", {run.elapsed:.0f} of {run.seconds:.0f} s" if run.began else ""
    return f"{run.name}: {run.stage.value}{seconds}"


def _transposed(runs: Sequence[CockpitRun]) -> list[tuple[str, ...]]:
    """Give the figures with a column for each run, as their names are long."""
    return list(zip(*figure_rows(runs), strict=True))


def _log(run: CockpitRun) -> str:
    lines = run.log()[-LOG_LINES:]
    zero = run.began or (lines[0].time if lines else 0.0)
    written = [f"{each.time - zero:8.2f} s  {each.role:9}  {each.text}" for each in lines]
    return preformatted("\n".join([f"events of {run.name}", *written]))


def _consoles(run: CockpitRun) -> str:
    try:
        found = run.consoles()
    except ColobenchError:
        return ""
    return consoles(found, CONSOLE_LINES)


def _put(widget: Any, value: str) -> None:
    if widget.value != value:
        widget.value = value


def _line(*children: Any) -> Any:
    return ipywidgets.HBox(children, layout=_WRAPPED)


def _look(width: str) -> dict[str, Any]:
    layout = ipywidgets.Layout(width=width, max_width="98%", margin="2px 10px 2px 2px")
    return {"style": {"description_width": "initial"}, "layout": layout}


def _dropdown(text: str, options: Sequence[Any], value: Any, width: str) -> Any:
    return ipywidgets.Dropdown(description=text, options=list(options), value=value, **_look(width))


def _checkbox(text: str, help: str, value: bool = False) -> Any:
    look = _look("auto")
    return ipywidgets.Checkbox(value=value, description=text, tooltip=help, indent=False, **look)
