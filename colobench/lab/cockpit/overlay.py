"""The runs of a cockpit: one after another or at once, overlaid, named, hidden and deleted."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from colobench.errors import LocalError
from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.compare.calibrate import calibrate
from colobench.lab.compare.models import Calibrations
from colobench.lab.compare.settings import ComparisonSettings
from colobench.settings.settings import Settings

#: Runs that are kept at most: each has a colour or a shape of its own.
RUNS_LIMIT = 8
#: Axes that a name is made of, if they differ from the usual.
_NAMED = (
    *("guest", "ram", "delay", "trigger", "transport", "encoding", "layout", "capture"),
    *("output", "variant", "tracker", "link", "bug"),
)


def name_of_settings(settings: Settings, taken: Mapping[str, object] | frozenset[str]) -> str:
    """Name settings by what differs from the usual ones, so that no taken name comes twice."""
    usual, found = Settings().as_json(), settings.as_json()
    words = [
        f"{name} {found[name]}"
        for name in _NAMED
        if found[name] != usual[name] and not (name == "trigger" and not _has_trigger(settings))
    ]
    name = ", ".join(words) or "usual"
    numbers = itertools.count(2)
    chosen = name
    while chosen in taken:
        chosen = f"{name} ({next(numbers)})"
    return chosen


def _has_trigger(settings: Settings) -> bool:
    return settings.checkpoint.has_own_trigger()


def _name_is_taken(name: str) -> LocalError:
    return LocalError(f"name: expected one that no other run has, found {name!r}")


class Overlay:
    """Runs that are drawn over each other.

    Parameters
    ----------
    taken
        Makes the context in which a run may have processes, from a function that says whether it
        still wants to; see `colobench.ui.base.panel.Turn`. By default nobody else has any.

    Attributes
    ----------
    runs
        The runs that are kept, in the order of their starts.

    Notes
    -----
    Runs take turns, because pairs that run at once share processors and disturb each other's
    measurement. A run that is started `together` waits for nobody.
    """

    def __init__(
        self,
        taken: Callable[[Callable[[], bool]], AbstractContextManager[bool]] = lambda go_on: (
            nullcontext(True)
        ),
    ) -> None:
        self.runs: list[CockpitRun] = []
        self._taken = taken
        self._turn = threading.Lock()
        self._changes = threading.RLock()
        #: Threads of the runs, with what says that they have ended: before Python 3.13 a thread
        #: whose `join` was interrupted counts as ended.
        self._threads: dict[int, tuple[threading.Thread, threading.Event]] = {}
        self._calibrations: list[dict[str, Any]] = []

    def start(
        self,
        settings: Settings,
        *,
        name: str = "",
        seconds: float = 20.0,
        together: bool = False,
        predict: bool = False,
    ) -> CockpitRun:
        """Start a run, in a thread of its own.

        Parameters
        ----------
        settings
            Settings of its pair.
        name
            Name; empty for one that says how the settings differ from the usual ones.
        seconds
            Protected time.
        together
            Whether it runs beside others, instead of after them.
        predict
            Whether a short pair is run before, whose costs are the input of the models.

        Raises
        ------
        LocalError
            If there are too many runs, another one has the name, or the settings cannot be had on
            this machine.
        """
        with self._changes:
            if len(self.runs) >= RUNS_LIMIT:
                raise LocalError(
                    f"runs: expected at most {RUNS_LIMIT}, found as many: delete one first"
                )
            taken = frozenset(each.name for each in self.runs)
            free = min(set(range(RUNS_LIMIT)) - {each.number for each in self.runs})
            chosen = name.strip() or name_of_settings(settings, taken)
            if chosen in taken:
                raise _name_is_taken(chosen)
            run = CockpitRun(chosen, settings, seconds, free)
            self.runs.append(run)
            ended = threading.Event()
            thread = threading.Thread(
                target=self._conduct,
                args=(run, together, predict, ended),
                name=f"colobench run {free}",
                daemon=True,
            )
            self._threads[id(run)] = thread, ended
        try:
            thread.start()
        except BaseException:
            if thread.ident is None:
                ended.set()
            raise
        return run

    def _conduct(
        self, run: CockpitRun, together: bool, predict: bool, ended: threading.Event
    ) -> None:
        turn = nullcontext(True) if together else self._wait_for_turn(run)
        try:
            run.conduct(turn, self._predict if predict else None)
        finally:
            ended.set()

    @contextmanager
    def _wait_for_turn(self, run: CockpitRun) -> Iterator[bool]:
        """Wait for the runs before, and then for other owners of processes."""

        def wanted() -> bool:
            return not run.stopped

        while not self._turn.acquire(timeout=0.1):
            if not wanted():
                yield False
                return
        try:
            with self._taken(wanted) as taken:
                yield taken
        finally:
            self._turn.release()

    def _predict(self, run: CockpitRun) -> dict[str, float]:
        """Calibrate the models for a run, unless an earlier run has done so."""
        known = Calibrations(self._calibrations)
        if not known.of_pair(run.settings):
            settings, cell = ComparisonSettings(), run.underway.cell
            self._calibrations.append(calibrate(cell, 0, settings, run.hold_session))
        return self.predict(run)

    def predict(self, run: CockpitRun) -> dict[str, float]:
        """Predict a run's figures from the calibrations so far, and keep them in the run."""
        found = Calibrations(self._calibrations).predict(run.settings, run.alone)
        run.predicted = {} if found is None else dict(found.figures)
        return run.predicted

    def active(self) -> list[CockpitRun]:
        """Give the runs that wait or have processes."""
        return [each for each in self.runs if not each.is_over]

    def shown(self) -> list[CockpitRun]:
        """Give the runs that are drawn."""
        return [each for each in self.runs if each.shown]

    def find(self, name: str) -> CockpitRun:
        """Find a run by its name.

        Raises
        ------
        LocalError
            If none has it.
        """
        for each in self.runs:
            if each.name == name:
                return each
        raise LocalError(f"runs: expected the name of one, found {name!r}")

    def rename(self, run: CockpitRun, name: str) -> None:
        """Give a run another name.

        Raises
        ------
        LocalError
            If it is empty, or another run has it.
        """
        name = name.strip()
        if not name or any(each.name == name for each in self.runs if each is not run):
            raise _name_is_taken(name)
        run.name = name

    def delete(self, run: CockpitRun) -> None:
        """End a run, and forget it."""
        run.stop()
        self.wait(run)
        with self._changes:
            if run in self.runs:
                self.runs.remove(run)
            self._threads.pop(id(run), None)

    def stop(self) -> None:
        """End all runs; what was measured stays. May be called in any thread."""
        for each in self.active():
            each.stop()

    def wait(self, run: CockpitRun | None = None) -> None:
        """Wait until a run, or every run, is over."""
        for each in list(self.runs) if run is None else [run]:
            thread, ended = self._threads.get(id(each), (None, None))
            if ended is not None and thread is not threading.current_thread():
                ended.wait()

    def close(self) -> None:
        """End all runs, and wait for their ends."""
        self.stop()
        self.wait()
