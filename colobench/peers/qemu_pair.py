"""Two real QEMUs in COLO, and the pauses of their checkpoints."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from colobench.errors import LocalError, RemoteError
from colobench.peers.firmware import FIRST_BYTE, PAGE_SIZE, guest_image
from colobench.peers.qemu import (
    PROGRAM,
    TIMEOUT,
    QEMUProcess,
    QEMUUnavailable,
    find_program,
    uninterrupted,
)
from colobench.processes.errors import NodeGone, QMPCommandError
from colobench.processes.qmp import Event
from colobench.processes.resource_limits import usable_memory
from colobench.processes.session_directory import qemu_directory

#: RAM (MiB) that QEMU's ``pc`` has in one piece, below what is mapped for devices.
MOST_RAM_MIB = 3072
#: Checkpoints that are not measured: at the first, the secondary flushes its whole RAM cache, which
#: may take longer than the delay; then the next follows at once, and finds few pages.
SETTLING = 3
POLL_SECONDS = 0.2

# QEMU's trace events that count pages: newly dirty ones, and those in the RAM cache to flush.
_DIRTIED = "migration_bitmap_sync_end"
_FLUSHED = "colo_flush_ram_cache_begin"

_RECEIVER = """
import sys
from colobench.node.parent import die_with
from colobench.node.receive.receiver import Receiver
die_with(int(sys.argv[1]))
with Receiver(sys.argv[2]) as receiver:
    # Nobody reads more than this line: a pipe that fills up would stop the receiver.
    print("listening", flush=True)
    receiver.wait()
"""

_ENDS = {"COLO_EXIT", "SHUTDOWN"}


class QEMUPairFailed(RemoteError):
    """A pair of QEMUs failed; the message has the last words of both."""


class QEMUPair(contextlib.AbstractContextManager["QEMUPair"]):
    """Two QEMUs on this machine, in COLO with each other over a UNIX socket.

    Parameters
    ----------
    pages
        Number of pages that the guest writes between two checkpoints.
    ram_mib
        The guest's RAM in MiB.
    delay_ms
        Milliseconds from one checkpoint to the next, QEMU's ``x-checkpoint-delay``; by default,
        what the guest needs to write all of its pages between any two.
    receives
        True for a secondary that is no QEMU, but ``colobench receive``.

    Notes
    -----
    KVM only: before 9.0 a TCG primary loses pages and deadlocks. There is neither a disk nor a
    network card, so that a checkpoint is RAM and devices alone. Pages are sent whole: XBZRLE is
    off, as by default; it would make next to nothing of a page with one new word.

    Examples
    --------
    >>> with QEMUPair(pages=1000) as pair:
    ...     milliseconds = pair.stop_times(checkpoints=15)
    ...     pages = pair.pages_per_checkpoint()
    """

    def __init__(
        self,
        pages: int,
        ram_mib: int = 512,
        delay_ms: int | None = None,
        *,
        receives: bool = False,
    ) -> None:
        most = min(ram_mib, MOST_RAM_MIB) * 2**20 - FIRST_BYTE
        if not 1 <= pages <= most // PAGE_SIZE:
            raise LocalError(
                f"pages: expected 1 to {most // PAGE_SIZE} in {ram_mib} MiB of RAM, found {pages}"
            )
        # RAM on both sides, the RAM cache on one.
        if 3 * ram_mib * 2**20 > usable_memory():
            raise LocalError(
                f"RAM: expected at most a third of the {usable_memory() / 2**20:.0f} MiB of memory "
                f"that may be used, found {ram_mib} MiB"
            )
        if delay_ms is not None and not 0 <= delay_ms < 2**32:
            raise LocalError(f"delay: expected 0 to {2**32 - 1} ms, found {delay_ms}")
        self.pages = pages
        self.ram_mib = ram_mib
        self.delay_ms = default_delay(pages) if delay_ms is None else delay_ms
        self._receives = receives
        self._nodes: dict[str, QEMUProcess] = {}
        self._said: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        self._directory = Path()
        self._pauses: list[tuple[int, int]] = []
        self._logs = {"secondary": "", "primary": ""}
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> QEMUPair:
        """Start both and bring them into COLO.

        Raises
        ------
        QEMUUnavailable
            If this machine has no QEMU that does COLO under KVM.
        QEMUPairFailed
            If they did not get into COLO.
        """
        if self._nodes:
            raise LocalError("pair: expected one that was not started, found it started")
        try:
            self._start()
            self._migrate()
            for _ in range(SETTLING):
                self._pause()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End both and remove all that they left."""
        self._close()

    def _close(self) -> None:
        with uninterrupted():
            self._closing.close()

    def stop_times(self, checkpoints: int = 15) -> list[float]:
        """Measure the pauses of the next checkpoints.

        Parameters
        ----------
        checkpoints
            Number of checkpoints to wait for.

        Returns
        -------
        list of float
            Milliseconds from STOP to RESUME on the primary, by QEMU's timestamps; a number for each
            checkpoint.

        Raises
        ------
        QEMUPairFailed
            If they do not come.
        """
        self._forget()
        self._pauses = [self._pause() for _ in range(checkpoints)]
        logs = {role: self._trace_path(role) for role in self._nodes}
        self._logs = {role: log.read_text() if log.exists() else "" for role, log in logs.items()}
        return [(resumed - stopped) / 1000 for stopped, resumed in self._pauses]

    def pages_per_checkpoint(self) -> list[int]:
        """Give the numbers of pages that the primary found dirty, and sent, at checkpoints.

        Returns
        -------
        list of int
            A number for each checkpoint of the last `stop_times`.

        Raises
        ------
        QEMUPairFailed
            If QEMU did not say so: it was built without a log of its trace events.
        """
        return self._counted(_dirtied(self._traced("primary", _DIRTIED)))

    def flushed_pages_per_checkpoint(self) -> list[int]:
        """Give the numbers of pages that the secondary flushed from its RAM cache, likewise."""
        return self._counted(self._traced("secondary", _FLUSHED))

    # Start.

    def _start(self) -> None:
        program = find_program()
        self._directory = qemu_directory(self._closing)
        image = self._directory / "bios"
        image.write_bytes(guest_image(self.pages))
        machine = [program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        machine += ["-machine", "pc,accel=kvm", "-m", str(self.ram_mib), "-bios", str(image)]
        machine += ["-msg", "timestamp=on"]
        roles = {
            "secondary": ["-incoming", "defer", "-trace", _FLUSHED],
            "primary": ["-trace", _DIRTIED],
        }
        if self._receives:
            del roles["secondary"]
        for role, arguments in roles.items():
            arguments += ["-D", str(self._trace_path(role))]
            with uninterrupted():
                node = QEMUProcess(role, self._directory, [*machine, *arguments], self._on_event)
                self._nodes[role] = node
                self._closing.callback(node.end)
        for node in self._nodes.values():
            self._prepare(node)

    def _prepare(self, node: QEMUProcess) -> None:
        states = [{"capability": name, "state": True} for name in ("x-colo", "events")]
        try:
            node.connect(TIMEOUT)
            node.execute("migrate-set-capabilities", capabilities=states)
        except QMPCommandError as error:
            raise QEMUUnavailable(f"this QEMU does no COLO: {error.description}") from error
        except NodeGone as error:
            # Its monitor goes first, but then it ends.
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(TIMEOUT)
            words = [str(error), *node.last_words().splitlines()]
            # QEMU puts its name and the time before a message.
            raise QEMUUnavailable(
                f"QEMU does not start under KVM: {words[-1].split(f'{PROGRAM}: ')[-1]}"
            ) from error

    def _migrate(self) -> None:
        uri = f"unix:{self._directory / 'colo'}"
        if self._receives:
            self._closing.callback(_end, _start_receiver(uri))
        else:
            self._execute("secondary", "migrate-incoming", uri=uri)
        # The first iteration of the migration is the last, however many pages are dirty.
        self._execute(
            "primary",
            "migrate-set-parameters",
            x_checkpoint_delay=self.delay_ms,
            max_bandwidth=1 << 40,
            downtime_limit=2_000_000,
        )
        self._execute("primary", "migrate", uri=uri)
        self._wait_for("MIGRATION", status="colo")

    def _execute(self, role: str, command: str, **arguments: Any) -> None:
        try:
            self._nodes[role].execute(command, **arguments)
        except (NodeGone, QMPCommandError) as error:
            raise self._failure(f"{command} to be executed", str(error)) from error

    # Events of both monitors.

    def _on_event(self, role: str, event: Event) -> None:
        self._said.put((role, event))

    def _pause(self) -> tuple[int, int]:
        """Wait for the next whole pause; give its begin and end, in microseconds since 1970."""
        return _microseconds(self._wait_for("STOP")), _microseconds(self._wait_for("RESUME"))

    def _wait_for(self, name: str, status: str | None = None) -> Event:
        """Wait for this event of the primary, as long as both QEMUs are well."""
        what = name if status is None else f"{name} {status}"
        deadline = time.monotonic() + TIMEOUT + self.delay_ms / 1000
        while time.monotonic() < deadline:
            try:
                role, event = self._said.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if not all(node.alive() for node in self._nodes.values()):
                    raise self._failure(what, "an end") from None
                continue
            self._check(what, role, event)
            found = event["event"], event.get("data", {}).get("status")
            if role == "primary" and found == (name, status):
                return event
        raise self._failure(what, "none in time")

    def _check(self, what: str, role: str, event: Event) -> None:
        name, data = event["event"], event.get("data", {})
        if name == "MIGRATION" and data["status"] == "completed":
            # QEMU 10.0 and 10.1 do so.
            raise QEMUUnavailable("this QEMU takes a migration with x-colo for an ordinary one")
        if name in _ENDS or (name == "MIGRATION" and data["status"] == "failed"):
            raise self._failure(what, f"{name} {data} of the {role}")

    def _forget(self) -> None:
        """Drop the events of checkpoints that were not measured."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._check("checkpoints", *self._said.get_nowait())

    def _failure(self, expected: str, found: str) -> QEMUPairFailed:
        both = "; ".join(
            f"the {role} {'runs' if node.alive() else f'ended with {node.process.returncode}'}"
            f"{node.last_words()}"
            for role, node in self._nodes.items()
        )
        return QEMUPairFailed(f"a pair of QEMUs: expected {expected}, found {found}; {both}")

    # Trace logs.

    def _trace_path(self, role: str) -> Path:
        return self._directory / f"{role}.trace"

    def _traced(self, role: str, event: str) -> list[tuple[int, int]]:
        """Give the number that each of these trace events ends with, after its microsecond."""
        line = re.compile(rf"@(\d+)\.(\d{{6}}):{event} .*?(\d+)$", re.MULTILINE)
        return [
            (int(seconds) * 1_000_000 + int(fraction), int(number))
            for seconds, fraction, number in line.findall(self._logs[role])
        ]

    def _counted(self, counts: list[tuple[int, int]]) -> list[int]:
        """Give the counts that were made in each of the last pauses."""
        found = []
        for begin, end in self._pauses:
            inside = [count for at, count in counts if begin <= at <= end]
            if len(inside) != 1:
                raise QEMUPairFailed(
                    "a pair of QEMUs: expected one count of pages in the log of trace events, from "
                    f"STOP to RESUME, found {len(inside)}"
                )
            found += inside
        return found


def default_delay(pages: int) -> int:
    """Give a delay (ms) in which the guest sleeps once and goes over its pages more than twice.

    Where KVM is itself virtualized and emulates each instruction, a round took 2 to 3 ms per 1000
    pages on a busy machine.
    """
    return 100 + pages // 75


def _start_receiver(uri: str) -> subprocess.Popen[str]:
    """Start a receiver, and wait until it listens."""
    command = [sys.executable, "-P", "-c", _RECEIVER, str(os.getpid()), uri]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # As the QEMUs, see `QEMUProcess`.
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        _end(process)
        raise QEMUPairFailed(f"receiver of {uri}: expected it to listen, found its end")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    with process:
        process.kill()


def _microseconds(event: Event) -> int:
    timestamp = event["timestamp"]
    return int(timestamp["seconds"]) * 1_000_000 + int(timestamp["microseconds"])


def _dirtied(counts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Tell apart the syncs of a dirty bitmap, whose pages QEMU adds up for about a second.

    The sum begins anew with the first sync more than a second after it last did.
    """
    total = 0
    new = []
    for (before, _), (at, count) in zip([*counts[:1], *counts], counts, strict=False):
        new.append((at, count - total if count >= total else count))
        total = count if at - before <= 1_000_000 else 0
    return new
