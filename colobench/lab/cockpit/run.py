"""One run of the cockpit: a pair with any settings, watched from its start to its end."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from typing import Any

from colobench.errors import ColobenchError, LocalError
from colobench.lab.compare.cells import Cell, let_clients_in
from colobench.lab.compare.load import asking_clients
from colobench.lab.compare.measure import answers_per_s, wait_for_work
from colobench.lab.compare.underway import Underway, stopped_at
from colobench.lab.session.journal import ROLES
from colobench.lab.session.node_pair import PEERS
from colobench.lab.session.record import Records, check_all_are_kept
from colobench.lab.session.session import Session
from colobench.lab.session.takeover import TakeoverRecord
from colobench.processes.process import NodeProcess
from colobench.settings.settings import Settings

#: Seconds until buffers have grown and connections are open, and in which the guest is measured
#: alone.
SETTLING_SECONDS, UNPROTECTED_SECONDS = 0.5, 1.0
#: Milliseconds from one request of a client to the next.
EVERY_MS = 5
#: Seconds from one look at the processes to the next.
LOOK_SECONDS = 0.5
#: Longest run that somebody asks for, seconds.
SECONDS_LIMIT = 3600.0
#: Newest events that a log shows.
LOG_ENTRIES = 200


class RunStopped(LocalError):
    """A run that was stopped before its pair was protected."""


class RunStage(enum.Enum):
    """Stages of a run, in their order; the value is what is done or was done."""

    WAITING = "waiting for its turn"
    CALIBRATING = "calibrating the models on a pair of its own"
    STARTING = "starting its processes"
    UNPROTECTED = "measuring its guest alone"
    MIGRATING = "migrating its guest"
    PROTECTED = "protected"
    ALONE = "its survivor runs alone"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Usage:
    """Resident memory of a process at a time since the measured time began, seconds."""

    seconds: float
    role: str
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a run's log: monotonic time, who said it, and what."""

    time: float
    role: str
    text: str


class CockpitRun:
    """One pair, with what is measured of it; `conduct` runs it in the caller's thread.

    Parameters
    ----------
    name
        Name, which may be changed.
    settings
        Settings of the pair.
    seconds
        Protected time; at most `SECONDS_LIMIT`.
    number
        Number among the runs that are kept, which decides on colour and shape.

    Attributes
    ----------
    name, settings, seconds, number
        As the parameters.
    shown
        Whether plots draw it.
    stage
        What is done now.
    error
        Why it failed; empty if it did not.
    session
        The session; it is started when the run's turn has come.
    underway
        The measured time: checkpoints, work and answers in it.
    usage
        Memory of each process, as it was seen.
    predicted
        Figures that a model predicts, by the names of metrics; empty without a calibration.
    takeover
        The takeover after a kill; None if there was none.
    alone
        Figures of the unprotected guest, see `colobench.lab.compare.models.unprotected_figures`.
    """

    def __init__(self, name: str, settings: Settings, seconds: float, number: int = 0) -> None:
        if not 0 < seconds <= SECONDS_LIMIT:
            raise LocalError(f"seconds: expected more than 0 to {SECONDS_LIMIT:g}, found {seconds}")
        check_all_are_kept(settings)
        self.name, self.seconds, self.number = name, seconds, number
        self.settings = let_clients_in(settings)
        self.session = Session(self.settings)
        guest = self.settings.guest
        cell = Cell(name, guest.program.label, str(self.settings.link.link), self.settings)
        self.underway = Underway(cell, number, self.session)
        self.shown = True
        self.stage = RunStage.WAITING
        self.error = ""
        self.usage: list[Usage] = []
        self.predicted: dict[str, float] = {}
        self.takeover: TakeoverRecord | None = None
        self.alone: dict[str, float] = {}
        self.began: float | None = None
        self.over: float | None = None
        self.lines: list[LogLine] = []
        self._stop = threading.Event()
        # A kill, and the search for dead nodes, take turns.
        self._hands = threading.RLock()
        self._others: list[Session] = []

    def __repr__(self) -> str:
        return f"<CockpitRun {self.name!r}, {self.stage.value}, {len(self.records())} checkpoints>"

    @property
    def serves(self) -> bool:
        """Whether clients can ask the guest."""
        return self.underway.cell.serves

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it."""
        return self._stop.is_set()

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.stage in (RunStage.ENDED, RunStage.FAILED)

    @property
    def elapsed(self) -> float:
        """Seconds of the measured time so far."""
        if self.began is None:
            return 0.0
        return (self.over or time.monotonic()) - self.began

    def records(self) -> Records:
        """Give the checkpoints of the measured time."""
        begin, end = self.began, self.over or float("inf")
        if begin is None:
            return Records()
        found = self.session.records[:]
        return Records(each for each in found if begin <= stopped_at(each) <= end)

    def log(self) -> list[LogLine]:
        """Give the newest events of all processes and the run's own words, in their order."""
        events = [
            LogLine(each.time, each.role, f"{each.event} {_data(each.data)}".strip())
            for each in self.session.journal.newest(LOG_ENTRIES)
        ]
        return sorted([*events, *self.lines], key=lambda line: line.time)[-LOG_ENTRIES:]

    def say(self, text: str) -> None:
        """Add a line to the log."""
        self.lines.append(LogLine(time.monotonic(), "cockpit", text))

    # The life of a run.

    def conduct(
        self,
        turn: AbstractContextManager[bool],
        calibrate: Callable[[CockpitRun], dict[str, float]] | None = None,
    ) -> None:
        """Run the pair to its end; an error is kept, not raised.

        Parameters
        ----------
        turn
            Context in which the pair may run; it yields False if the run was stopped before.
        calibrate
            Function that gives the predicted figures, called before the pair is started.
        """
        try:
            with turn as taken:
                if taken and not self._stop.is_set():
                    if calibrate is not None:
                        self._enter(RunStage.CALIBRATING)
                        calibrate(self)
                    with closing(self.session):
                        self._run()
            self.stage = RunStage.ENDED
        except RunStopped:
            self.stage = RunStage.ENDED
        except (ColobenchError, OSError) as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._end_of_measurement()

    def stop(self) -> None:
        """End the run; may be called in any thread, and more than once."""
        self._stop.set()
        if self.stage not in (RunStage.PROTECTED, RunStage.ALONE):
            # To start may take long; it fails then.
            for session in (self.session, *self._others):
                session.close()

    def hold_session(self, session: Session) -> None:
        """Let another session, of a calibration, end with the run.

        Raises
        ------
        RunStopped
            If the run was stopped already.
        """
        self._others.append(session)
        if self._stop.is_set():
            raise RunStopped(f"{self.name}: stopped before a calibration")

    def _fail(self, error: str) -> None:
        if self._stop.is_set():
            # Its session was closed while something else was done with it.
            self.stage = RunStage.ENDED
        else:
            self.stage, self.error = RunStage.FAILED, " ".join(error.split())
            self.say(self.error)

    def _enter(self, stage: RunStage) -> None:
        if self._stop.is_set():
            raise RunStopped(f"{self.name}: stopped while {self.stage.value}")
        self.stage = stage
        self.say(f"{stage.value} …")

    def _end_of_measurement(self) -> None:
        if self.began is not None and self.over is None:
            self.over = time.monotonic()
            self.underway.end(self.over)

    def _run(self) -> None:
        self._enter(RunStage.STARTING)
        self.session.start(unprotected=self._measure_unprotected)
        address = self.session.address() if self.serves else None
        with asking_clients(address, self.seconds + SETTLING_SECONDS, EVERY_MS) as answers:
            self._stop.wait(SETTLING_SECONDS)
            work = int(self.session.nodes["primary"].execute("x-query-guest")["work"])
            self.began = time.monotonic()
            self.underway.begin(self.began, work, answers)
            self._enter(RunStage.PROTECTED)
            self._watch()
            self._end_of_measurement()

    def _measure_unprotected(self) -> None:
        self._enter(RunStage.UNPROTECTED)
        primary = self.session.nodes["primary"]
        address = self.session.address() if self.serves else None
        wait_for_work(primary, address)
        asked = SETTLING_SECONDS + UNPROTECTED_SECONDS
        with asking_clients(address, asked, EVERY_MS) as answers:
            self._stop.wait(SETTLING_SECONDS)
            begin, first = time.monotonic(), _work(primary)
            self._stop.wait(UNPROTECTED_SECONDS)
            end, last = time.monotonic(), _work(primary)
        counted = [each for each in answers if begin <= each.time <= end]
        rate = (last - first) / (end - begin)
        self.underway.work_per_s = answers_per_s(counted) if self.serves else rate
        if not self.serves:
            self.alone = {"work_per_ms": rate / 1000}
        self._enter(RunStage.MIGRATING)

    def _watch(self) -> None:
        """Look at the pair until its time is over, or somebody stops it."""
        assert self.began is not None
        while not self._stop.wait(LOOK_SECONDS):
            self._look()
            with self._hands:
                dead = None if self.takeover else self.session.found_dead()
                if dead is not None:
                    self.say(f"The {dead.role}, pid {dead.pid}, died, status {dead.status}.")
                    self._take_over(dead.role)
            if time.monotonic() >= self.began + self.seconds:
                return

    def _look(self) -> None:
        seconds = self.elapsed
        for role, process in self._processes():
            found = process.usage()
            if found is not None:
                self.usage.append(Usage(seconds, role, found.resident_bytes))

    def _processes(self) -> Iterator[tuple[str, NodeProcess]]:
        yield from list(self.session.nodes.items())
        yield from list(self.session.others.items())

    # Kills.

    def roles(self) -> list[str]:
        """Name the processes that live."""
        return [role for role, process in self._processes() if process.alive()]

    def points(self) -> list[str]:
        """Give the points of a checkpoint at which a node can be killed, of both sides."""
        return list(dict.fromkeys(point for role in ROLES for point in self.session.points(role)))

    def kill(self, role: str, at: str | None = None) -> None:
        """Kill a process with SIGKILL, and let the survivor of a killed node take over.

        Parameters
        ----------
        role
            One of `roles`.
        at
            Point of a checkpoint at which the node, or if it never passes that its peer, is held;
            None is now.

        Raises
        ------
        LocalError
            If the process is dead, or the pair is not in COLO.
        """
        with self._hands:
            if role in self.session.others:
                self._kill_other(role)
                return
            if self.stage is not RunStage.PROTECTED:
                raise LocalError(f"kill: expected a protected pair, found {self.stage.value}")
            held = None
            if at is not None and at not in self.session.points(role):
                held = PEERS[role]
            killed = self.session.kill(role, at=at, held=held)
            where = "at once" if at is None else f"with the {held or role} held at {at}"
            self.say(f"SIGKILL hit the {role}, pid {killed.pid}, {where}.")
            self._take_over(role)

    def _kill_other(self, role: str) -> None:
        process = self.session.others[role]
        if not process.alive():
            raise LocalError(f"kill: expected a living {role}, found it dead")
        pid = process.pid
        process.kill()
        self.say(f"SIGKILL hit the {role}, pid {pid}.")

    def _take_over(self, dead: str) -> None:
        self.stage = RunStage.ALONE
        by_itself = self.settings.heartbeat is not None
        self.takeover = self.session.takeover() if by_itself else self.session.failover(PEERS[dead])

    def verify(self) -> bool | None:
        """Compare the survivor's RAM with that of a guest never migrated; None if it cannot be."""
        if self.takeover is None or not self.settings.guest.program.is_reproducible:
            return None
        with self._hands:
            same = self.session.verify(self.takeover.role)
        self.say(f"The survivor's RAM is {'' if same else 'NOT '}that of a guest never migrated.")
        return same

    def consoles(self) -> dict[str, str]:
        """Give what the guest has written to its serial console, by the role of the node."""
        found = {}
        for role, node in list(self.session.nodes.items()):
            # A node that dies during this query is found dead by the next look.
            with suppress(ColobenchError):
                if node.alive():
                    found[role] = self.session.console(role)
        return found


def _work(node: NodeProcess) -> int:
    return int(node.execute("x-query-guest")["work"])


def _data(data: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in data.items())


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def differences(runs: Sequence[CockpitRun]) -> list[str]:
    """Name the settings in which runs differ."""
    written = [each.settings.as_json() for each in runs]
    return [name for name in Settings().as_json() if len({repr(w[name]) for w in written}) > 1]
