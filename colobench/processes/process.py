"""A node as a child process: its start, its monitor, and its end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from colobench.errors import LocalError
from colobench.kernels import cache_directory
from colobench.processes.errors import NodeGone, NotStarted
from colobench.processes.owner import Owner
from colobench.processes.qmp import Event, QMPConnection

#: Seconds that a node has to end after it was asked to; then it is killed.
QUIT_TIMEOUT = 5.0
#: Seconds that the kernel may take to deliver the last bytes of a process that has ended.
_DRAIN_SECONDS = 1.0
#: Beginning of what a process writes that `colobench.node.thread_alarm` ends.
_STACK = "Stack (most recent call first)"
#: Descriptors that are open at a time while a node starts; about half of them stay open.
_DESCRIPTORS = 12

# The kernel kills a node when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG), so
# all are started by one that lasts as long as this process.
_starter: ThreadPoolExecutor


def _make_starter() -> None:
    global _starter
    _starter = ThreadPoolExecutor(1, thread_name_prefix="colobench start")


_make_starter()
# A thread does not survive a fork: a child that starts nodes needs one of its own.
os.register_at_fork(after_in_child=_make_starter)


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Use of memory and processor by a node, as the operating system counts it.

    Attributes
    ----------
    role, pid
        Role and process id of the node.
    resident_bytes, shared_bytes
        Memory in use, and the part of it that is shared, such as guest RAM and RAM cache.
    cpu_seconds
        Processor time since the start.
    threads
        Number of threads.
    """

    role: str
    pid: int
    resident_bytes: int
    shared_bytes: int
    cpu_seconds: float
    threads: int


class NodeProcess:
    """A node that this process started.

    Parameters
    ----------
    role
        ``primary``, ``secondary``, ``switch`` or ``arbiter``; a survivor's becomes another.
    directory
        Directory for its monitor's socket and its standard error.
    arguments
        Arguments behind the role on its command line.
    on_event
        Function that is called with each event of its monitor, in the thread of that connection.
    name
        Its name among the files of `directory`; None is its role.
    files
        More files that it may leave.
    known
        Function that is called with this object as soon as the process exists, in another thread:
        an interrupt of the calling thread comes too late to lose the process.

    Attributes
    ----------
    files
        Files that it may leave in `directory`; `release` removes them.

    Raises
    ------
    NotStarted
        If the process cannot be made.
    """

    def __init__(
        self,
        role: str,
        directory: Path,
        arguments: list[str],
        on_event: Callable[[str, Event], None],
        name: str | None = None,
        *,
        files: Sequence[Path] = (),
        known: Callable[[NodeProcess], None] = lambda process: None,
    ) -> None:
        self.role = role
        name = name or role
        self._errors = directory / f"{name}.stderr"
        self.qmp_path = directory / f"{name}.qmp"
        self.files = [self._errors, self.qmp_path, *files]
        self._owner = Owner()
        self._last_words: str | None = None
        self._connected = False
        self.qmp = QMPConnection(str(self.qmp_path))
        self.qmp.on_event(lambda event: on_event(self.role, event))
        _check_descriptors(role)
        try:
            starting = _starter.submit(self._start, arguments, known)
            try:
                starting.result()
            except KeyboardInterrupt:
                starting.result()
                self._abandon()
                raise
        except (OSError, subprocess.SubprocessError, RuntimeError, MemoryError) as error:
            self._errors.unlink(missing_ok=True)
            raise NotStarted(f"start of the {role}: {_reason(error)}") from error

    def _start(self, arguments: list[str], known: Callable[[NodeProcess], None]) -> None:
        self.process = self._spawn(arguments)
        known(self)

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        # -P: a file in the current directory must not replace a module of Python.
        command = [sys.executable, "-P", "-m", "colobench.node", self.role]
        command += ["--qmp", str(self.qmp_path), "--parent", str(os.getpid()), *arguments]
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with open(self._errors, "wb") as errors:
            return subprocess.Popen(
                command,
                env=os.environ | {"PYTHONPATH": path} | cache_directory.environment(),
                # Never written to: its end tells the node that this process has ended.
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # A terminal's Ctrl-C is for us alone.
                start_new_session=True,
            )

    def _abandon(self) -> None:
        """End a process whose start was interrupted."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def alive(self) -> bool:
        """Say whether the process runs."""
        self._owner.check(self.role)
        return self.process.poll() is None

    def is_gone(self) -> bool:
        """Ask whether the process has ended.

        The kernel closes a dead process's connections before its end can be waited for. So the
        process may be found alive for a moment after a connection to it was lost.
        """
        try:
            self.execute("query-status")
        except NodeGone:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(QUIT_TIMEOUT)
        except LocalError:
            pass
        return not self.alive()

    def connect(self, timeout: float) -> None:
        """Wait until its monitor answers.

        Raises
        ------
        NodeGone
            If it ends first; the message has its standard error.
        """
        try:
            self.qmp.connect(self.alive, timeout=timeout)
            self._connected = True
        except NodeGone as error:
            if self.alive():
                raise
            raise NodeGone(
                f"expected the {self.role} to become ready, found it {self.how_it_ended()}"
            ) from error

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a QMP command, see `QMPConnection.execute`."""
        if self._last_words is not None:
            raise NodeGone(
                f"{self.role}: {command}: expected a living node, found it {self.how_it_ended()}"
            )
        try:
            return self.qmp.execute(command, **arguments)
        except NodeGone as error:
            raise NodeGone(f"{self.role}: {error}{self.last_words()}") from error

    def how_it_ended(self) -> str:
        """Give the exit status of an ended process, and its last words."""
        return f"ended with status {self.process.poll()}{self.last_words()}"

    def last_words(self) -> str:
        """Return the end of its standard error, to be appended to an error's text."""
        words = self._read_errors() if self._last_words is None else self._last_words
        if words.startswith(_STACK):
            return f"; its trigger did not answer, and kept it from going on: {words}"
        return f"; it said: {words}" if words else ""

    def _read_errors(self) -> str:
        try:
            return self._errors.read_text(errors="replace").strip()[-2000:]
        except OSError:
            return ""

    def kill(self) -> int:
        """Kill it with SIGKILL, wait for its end, and give the exit status, -9 if that ended it."""
        self._owner.check(self.role)
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait()

    def usage(self) -> ProcessUsage | None:
        """Measure its use of memory and processor; None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            with process.oneshot():
                memory, times = process.memory_info(), process.cpu_times()
                return ProcessUsage(
                    self.role,
                    self.pid,
                    memory.rss,
                    memory.shared,
                    times.user + times.system,
                    process.num_threads(),
                )
        except psutil.NoSuchProcess:
            return None

    def ask_to_quit(self) -> None:
        """Tell it to end, if it still listens."""
        if not self._connected:
            # It may not listen yet.
            self.process.kill()
        elif self.alive():
            # A stopped one would not answer; `end` goes on anyway.
            self.qmp.tell("quit")

    def end(self) -> None:
        """End the process, by request or else by SIGKILL, and release its resources."""
        try:
            self.process.wait(QUIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
        self.release()

    def release(self) -> None:
        """Release the connection, pipe and files of an ended process."""
        if self._last_words is not None:
            return
        self._last_words = self._read_errors()
        self.qmp.drain(_DRAIN_SECONDS)
        self.qmp.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        for path in self.files:
            path.unlink(missing_ok=True)


def _check_descriptors(role: str) -> None:
    """Refuse a start for which there are too few descriptors."""
    found: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            found.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise NotStarted(
            f"start of the {role}: expected {_DESCRIPTORS} free descriptors, found {len(found)} "
            f"with a limit of {limit} (ulimit -n): {error.strerror}"
        ) from error
    finally:
        for each in found:
            os.close(each)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
