"""A real QEMU whose checkpoints are kept in a file, from which it is brought back when killed."""

from __future__ import annotations

import contextlib
import queue
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from colobench.errors import RemoteError
from colobench.node.receive.receiver import Receiver
from colobench.node.receive.records import ReceivedCheckpoint, SavedCheckpoint
from colobench.peers.qemu import (
    TIMEOUT,
    QEMUProcess,
    QEMUUnavailable,
    check_command,
    uninterrupted,
)
from colobench.processes.errors import NodeGone, QMPCommandError
from colobench.processes.qmp import Event
from colobench.processes.resource_limits import free_memory
from colobench.processes.session_directory import qemu_directory

#: Milliseconds from one checkpoint to the next.
DELAY_MS: Final = 500
_POLL_SECONDS = 0.02


class ProtectionFailed(RemoteError):
    """A QEMU could not be protected, or not be brought back; the message has its last words."""


class ProtectedQEMU(contextlib.AbstractContextManager["ProtectedQEMU"]):
    """A QEMU that this process starts, protects, and starts again from its last checkpoint.

    Parameters
    ----------
    command
        QEMU's program and arguments, without ``-incoming`` and ``-daemonize``. It has to use KVM.
    file
        File of the last checkpoint, see `Receiver`.
    delay_ms
        Milliseconds from one checkpoint to the next.
    image
        Contents of a firmware's file, which is given to QEMU as ``-bios``; None for none.
    on_checkpoint
        Function that is called with each committed checkpoint, in another thread.
    on_unsaved
        Function that is called with each checkpoint that could not be saved, as on a full disk, in
        another thread. The protection goes on with the next one.

    Attributes
    ----------
    receiver
        The secondary of the QEMU that runs.

    Raises
    ------
    LocalError
        If the command has one of these options.

    Examples
    --------
    >>> with ProtectedQEMU(["qemu-system-x86_64", "-accel", "kvm"], "guest.migration") as vm:
    ...     vm.protect()
    ...     vm.kill()
    ...     vm.bring_back()
    """

    def __init__(
        self,
        command: Sequence[str],
        file: Path | str,
        *,
        delay_ms: int = DELAY_MS,
        image: bytes | None = None,
        on_checkpoint: Callable[[ReceivedCheckpoint], object] = lambda checkpoint: None,
        on_unsaved: Callable[[SavedCheckpoint], object] = lambda saved: None,
    ) -> None:
        check_command(command)
        self._command, self._image = list(command), image
        self._file, self._delay_ms = Path(file).absolute(), delay_ms
        self._on_checkpoint, self._on_unsaved = on_checkpoint, on_unsaved
        self._closing = contextlib.ExitStack()
        self._directory = Path()
        self._starts = 0
        #: Number of the checkpoint that QEMU was brought back from last, if it was.
        self._brought_back: int | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._process: QEMUProcess | None = None
        self.receiver: Receiver | None = None

    def __enter__(self) -> ProtectedQEMU:
        """Start QEMU, not yet protected.

        Raises
        ------
        QEMUUnavailable
            If it does not start, or emulates.
        """
        program = shutil.which(self._command[0]) if self._command else None
        if program is None:
            raise QEMUUnavailable(f"no {' '.join(self._command[:1]) or 'QEMU'} on PATH")
        self._command[0] = program
        try:
            self._directory = qemu_directory(self._closing)
            if self._image is not None:
                (self._directory / "bios").write_bytes(self._image)
                self._command += ["-bios", str(self._directory / "bios")]
            self._start([])
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End QEMU and the protection; the file stays."""
        self._close()

    def _close(self) -> None:
        with uninterrupted():
            self._closing.close()

    @property
    def process(self) -> QEMUProcess:
        """The QEMU that runs, or has ended last."""
        assert self._process is not None
        return self._process

    def _start(self, arguments: list[str]) -> None:
        self._starts += 1
        with uninterrupted():
            self._process = QEMUProcess(
                "primary",
                self._directory,
                [*self._command, *arguments],
                lambda _, event: self._events.put(event),
                name=f"primary-{self._starts}",
            )
            self._closing.callback(self._process.end)
        try:
            self.process.connect(TIMEOUT)
            kvm = self.process.execute("query-kvm")
        except (NodeGone, QMPCommandError) as error:
            raise QEMUUnavailable(f"QEMU does not start: {error}") from error
        if not kvm["enabled"]:
            raise QEMUUnavailable(
                "QEMU: expected one that uses KVM (-accel kvm), found one that emulates, which "
                "loses written pages"
            )

    def protect(self) -> ReceivedCheckpoint:
        """Migrate into COLO, and wait until a checkpoint is saved; give the migration's record.

        Raises
        ------
        ProtectionFailed
            If that does not work.
        """
        address = f"unix:{self._directory / f'colo-{self._starts}'}"
        self.receiver = Receiver(
            address,
            self._file,
            ram_limit=free_memory(),
            on_checkpoint=self._on_checkpoint,
            on_saved=self._saved,
        )
        self.receiver.start()
        self._closing.callback(self.receiver.stop)
        try:
            self._migrate(self.receiver, address)
        except ProtectionFailed:
            # It may never have been connected to.
            self.receiver.stop()
            raise
        return self.receiver.checkpoints[0]

    def _migrate(self, receiver: Receiver, address: str) -> None:
        states = [{"capability": name, "state": True} for name in ("x-colo", "events")]
        self.execute("migrate-set-capabilities", capabilities=states)
        # The first pass of the migration is the last, however much the guest writes.
        self.execute(
            "migrate-set-parameters",
            x_checkpoint_delay=self._delay_ms,
            max_bandwidth=1 << 40,
            downtime_limit=2_000_000,
        )
        self.execute("migrate", uri=address)
        while receiver.saved is None:
            if receiver.error is not None or not self.process.alive():
                raise self._failure("the first checkpoint", str(receiver.error or "an end"))
            status = self.execute("query-migrate").get("status")
            if status in ("failed", "cancelled", "completed"):
                raise self._failure("a migration into COLO", f"one that has {status}")
            time.sleep(_POLL_SECONDS)

    def _saved(self, record: SavedCheckpoint) -> None:
        if record.error:
            self._on_unsaved(record)

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command of QEMU's monitor.

        Raises
        ------
        ProtectionFailed
            If QEMU refuses it, or has ended.
        """
        try:
            return self.process.execute(command, **arguments)
        except (NodeGone, QMPCommandError) as error:
            raise ProtectionFailed(f"QEMU: {error}") from error

    def kill(self) -> int:
        """Kill QEMU with SIGKILL; give its status, -9."""
        return self.process.kill()

    def wait_for_end(self) -> int | None:
        """Wait for the end of QEMU, or of its protection.

        Returns
        -------
        int or None
            QEMU's exit status, negative after a signal; None if it runs, unprotected from now on.
        """
        assert self.receiver is not None
        while self.process.alive():
            if self.receiver.error is not None and not self.process.is_gone():
                self.execute("x-colo-lost-heartbeat")
                return None
            time.sleep(_POLL_SECONDS)
        return self.process.process.returncode

    def wait_for_exit(self) -> int:
        """Wait for the end of QEMU, protected or not; give its exit status."""
        while self.process.alive():
            time.sleep(_POLL_SECONDS)
        return int(self.process.process.returncode)

    def can_come_back(self) -> bool:
        """Say whether a signal has ended QEMU, and the file has a checkpoint of it."""
        return (
            self.process.is_gone() and self.wait_for_exit() < 0 and self._saved_number is not None
        )

    @property
    def _saved_number(self) -> int | None:
        assert self.receiver is not None
        saved = self.receiver.saved
        return self._brought_back if saved is None else saved

    def bring_back(self) -> int:
        """Start a fresh QEMU from the last checkpoint of the one that has ended.

        Returns
        -------
        int
            Number of the checkpoint that its guest goes on from.

        Raises
        ------
        ProtectionFailed
            If no checkpoint was saved, or QEMU does not take it.
        """
        assert self.receiver is not None
        # What is committed is saved first.
        self.receiver.wait()
        number = self._brought_back = self._saved_number
        if number is None:
            raise self._failure("a saved checkpoint", "none")
        self.process.release()
        self._start(["-incoming", f"exec: cat {shlex.quote(str(self._file))}"])
        deadline = time.monotonic() + TIMEOUT
        while (status := self.execute("query-status")["status"]) != "running":
            if not self.process.alive() or time.monotonic() >= deadline:
                raise self._failure("its guest to run", status)
            time.sleep(_POLL_SECONDS)
        return number

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

    def _failure(self, expected: str, found: str) -> ProtectionFailed:
        words = self.process.last_words()
        return ProtectionFailed(f"QEMU: expected {expected}, found {found}{words}")
