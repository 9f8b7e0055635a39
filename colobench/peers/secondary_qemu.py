"""A real QEMU as COLO's secondary: its monitor, its events, its failover, its guest's memory."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import select
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from colobench.errors import RemoteError
from colobench.peers.qemu import (
    PROGRAM,
    TIMEOUT,
    QEMUProcess,
    QEMUUnavailable,
    check_command,
    uninterrupted,
)
from colobench.processes.errors import NodeGone, QMPCommandError
from colobench.processes.qmp import Event, QMPConnection
from colobench.processes.session_directory import qemu_directory

#: Events after which QEMU follows no primary.
_ENDS = ("COLO_EXIT", "SHUTDOWN")
_POLL_SECONDS = 0.02
#: Lines of QEMU's standard error that are none: hints about the host and its own monitor.
_NO_ERROR = re.compile("^warning: |: info: ")


class SecondaryFailed(RemoteError):
    """A QEMU did not become a secondary, or did not run on after a failover."""


class SecondaryMonitor:
    """The monitor of a secondary, and the events that it has sent.

    Attributes
    ----------
    wake_fd
        Descriptor that is readable once the secondary has said that it follows no more.
    """

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._executor: QEMUProcess | QMPConnection | None = None
        self._process: QEMUProcess | None = None

    def _took_event(self, event: Event) -> None:
        self._events.put(event)
        if event["event"] in _ENDS:
            os.eventfd_write(self.wake_fd, 1)

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command.

        Raises
        ------
        SecondaryFailed
            If QEMU refuses it, or has ended.
        """
        assert self._executor is not None
        try:
            return self._executor.execute(command, **arguments)
        except (NodeGone, QMPCommandError) as error:
            raise SecondaryFailed(f"QEMU: {error}") from error

    def alive(self) -> bool:
        """Say whether QEMU runs; of one that another process has started, it is not known."""
        return self._process is None or self._process.alive()

    def wait_for_end(self, timeout: float) -> None:
        """Wait until QEMU has said that it follows no more, or has ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.alive():
            if select.select([self.wake_fd], [], [], _POLL_SECONDS)[0]:
                return

    def words(self) -> str:
        """Give what QEMU has said since the last call: events of COLO, and its standard error."""
        said = []
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if event["event"] in _ENDS:
                    data = event.get("data", {})
                    said.append(" ".join([event["event"], *map(str, data.values())]))
        if self._process is not None:
            said += _errors(self._process.last_words().removeprefix("; it said: "))
            if not self._process.alive():
                said.append(f"ended with status {self._process.process.poll()}")
        return "; ".join(said)

    def lost_heartbeat(self) -> str:
        """Tell QEMU that its primary is lost (x-colo-lost-heartbeat), and wait until it runs on.

        Returns
        -------
        str
            Its run state, ``running``.

        Raises
        ------
        SecondaryFailed
            If it refuses, or does not run on in time.
        """
        self.execute("x-colo-lost-heartbeat")
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            status = self.execute("query-status")["status"]
            mode = self.execute("query-colo-status")["mode"]
            if (status, mode) == ("running", "none"):
                return str(status)
            time.sleep(_POLL_SECONDS)
        raise SecondaryFailed(f"QEMU: expected it to run after a failover, found it {status}")


def _errors(words: str) -> list[str]:
    """Give the errors among the lines of QEMU's standard error, without its name."""
    lines = [line.removeprefix(f"{PROGRAM}: ") for line in words.splitlines()]
    return [line for line in dict.fromkeys(lines) if line and not _NO_ERROR.search(line)]


@contextlib.contextmanager
def attached_secondary(path: str) -> Iterator[SecondaryMonitor]:
    """Connect to the monitor of a QEMU that another process has started.

    Parameters
    ----------
    path
        UNIX socket of its monitor (``-qmp unix:PATH,server=on``).

    Raises
    ------
    NodeGone, LocalError
        If no QMP monitor is there.
    """
    monitor = SecondaryMonitor()
    connection = QMPConnection(path)
    connection.on_event(monitor._took_event)
    monitor._executor = connection
    try:
        connection.connect(timeout=0.0 if not Path(path).exists() else TIMEOUT)
        yield monitor
    finally:
        connection.close()
        os.close(monitor.wake_fd)


class SecondaryQEMU(SecondaryMonitor, contextlib.AbstractContextManager["SecondaryQEMU"]):
    """A QEMU that this process starts, and that waits for a primary.

    Parameters
    ----------
    command
        Its program and arguments, without ``-incoming`` and ``-daemonize``.
    image
        Contents of a firmware's file, which is given to QEMU as ``-bios``; None for none.

    Attributes
    ----------
    address
        Where it waits, as a migration URI.

    Raises
    ------
    LocalError
        If the command has one of these options.
    """

    def __init__(self, command: Sequence[str], image: bytes | None = None) -> None:
        check_command(command)
        super().__init__()
        self._command, self._image = list(command), image
        self._closing = contextlib.ExitStack()
        self._directory = Path()
        self.address = ""

    def __enter__(self) -> SecondaryQEMU:
        """Start it.

        Raises
        ------
        QEMUUnavailable
            If it does not start; the message has its last words.
        SecondaryFailed
            If it does not become a secondary.
        """
        self._closing.callback(os.close, self.wake_fd)
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and remove what it left."""
        self._close()

    def _close(self) -> None:
        with uninterrupted():
            self._closing.close()

    def _start(self) -> None:
        program = shutil.which(self._command[0])
        if program is None:
            raise QEMUUnavailable(f"no {self._command[0]} on PATH")
        self._directory = qemu_directory(self._closing)
        command = [program, *self._command[1:], "-incoming", "defer"]
        if self._image is not None:
            (self._directory / "bios").write_bytes(self._image)
            command += ["-bios", str(self._directory / "bios")]
        with uninterrupted():
            self._process = QEMUProcess(
                "secondary", self._directory, command, lambda _, event: self._took_event(event)
            )
            self._closing.callback(self._process.end)
        self._executor = self._process
        try:
            self._process.connect(TIMEOUT)
        except NodeGone as error:
            raise QEMUUnavailable(f"QEMU does not start: {error}") from error
        states = [{"capability": name, "state": True} for name in ("x-colo", "events")]
        self.execute("migrate-set-capabilities", capabilities=states)
        self.address = f"unix:{self._directory / 'colo'}"
        self.execute("migrate-incoming", uri=self.address)

    def memory(self, address: int, size: int) -> bytes:
        """Read the guest's memory.

        Parameters
        ----------
        address, size
            Place in the guest's physical memory, and number of bytes.
        """
        probe = self._directory / "probe"
        self.execute("pmemsave", val=address, size=size, filename=str(probe))
        return probe.read_bytes()
