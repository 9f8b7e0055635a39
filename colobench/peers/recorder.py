"""Recorder of real QEMU's streams: a guest of our own migrates, and its bytes are kept."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colobench.errors import RemoteError
from colobench.peers.firmware import guest_image
from colobench.peers.qemu import (
    TIMEOUT,
    QEMUProcess,
    QEMUUnavailable,
    find_program,
    uninterrupted,
)
from colobench.peers.recordings import (
    CHECKPOINTS,
    DELAY_MS,
    PAGES,
    RAM_MIB,
    RecordingPlan,
)
from colobench.processes.errors import NodeGone, QMPCommandError
from colobench.processes.qmp import Event
from colobench.processes.session_directory import qemu_directory

_CHUNK = 1 << 20
#: Seconds that one recording may take.
_LONGEST = 120.0
#: Passes of a slow migration after which it is finished.
_PASSES = 4
_FAST: dict[str, Any] = {"max_bandwidth": 1 << 40, "downtime_limit": 2_000_000}


class RecordingFailed(RemoteError):
    """QEMU did not migrate; the message has its last words."""


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """Result of a recording.

    Attributes
    ----------
    channels
        Bytes of the main connection, then of each multifd channel.
    answers
        Bytes in the other direction on the main connection.
    ram
        The numbers that ``query-migrate`` gave at its end.
    arguments
        QEMU's arguments.
    version
        QEMU's version.
    """

    channels: tuple[bytes, ...]
    answers: bytes
    ram: dict[str, int]
    arguments: tuple[str, ...]
    version: str


class _Tap:
    """Listener that keeps what each connection carries, and passes it on if there is a peer."""

    def __init__(self, path: Path, peer: Path | None) -> None:
        self.forward: list[bytearray] = []
        self.backward: list[bytearray] = []
        self._peer = peer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                self.forward.append(bytearray())
                self.backward.append(bytearray())
                far = None
                if self._peer is not None:
                    far = socket.socket(socket.AF_UNIX)
                    far.connect(str(self._peer))
                    self._sockets.append(far)
                    self._start(far, near, self.backward[-1])
                self._start(near, far, self.forward[-1])

    def _start(self, near: socket.socket, far: socket.socket | None, kept: bytearray) -> None:
        thread = threading.Thread(target=self._copy, args=(near, far, kept))
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _copy(near: socket.socket, far: socket.socket | None, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(_CHUNK):
                kept += data
                if far is not None:
                    far.sendall(data)
        if far is not None:
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End all connections, after what has arrived was read."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RD)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


class _Recording:
    """QEMUs of one recording, and the events of the source."""

    def __init__(self, plan: RecordingPlan, directory: Path, closing: contextlib.ExitStack) -> None:
        self._plan = plan
        self._events: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        self._seen: list[tuple[str, Event]] = []
        self._deadline = time.monotonic() + _LONGEST
        self._directory = directory
        image = directory / "bios"
        image.write_bytes(guest_image(PAGES))
        machine = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        machine += ["-machine", f"{plan.machine},accel=kvm", "-m", str(RAM_MIB)]
        self.arguments = [*machine, *plan.options]
        program = find_program()
        self._nodes: dict[str, QEMUProcess] = {}
        roles = ["primary", *["secondary"] * (plan.way in ("colo", "postcopy"))]
        for role in roles:
            arguments = [program, *self.arguments, "-bios", str(image)]
            if role == "secondary":
                arguments += ["-incoming", "defer"]
            with uninterrupted():
                node = QEMUProcess(role, directory, arguments, self._on_event)
                self._nodes[role] = node
                closing.callback(node.end)
        names = ["events", *plan.capabilities, *["x-colo"] * (plan.way == "colo")]
        states = [{"capability": name, "state": True} for name in names]
        for role in roles:
            try:
                self._nodes[role].connect(TIMEOUT)
            except NodeGone as error:
                raise QEMUUnavailable(f"QEMU does not start under KVM: {error}") from error
            self.execute("migrate-set-capabilities", role, capabilities=states)

    def _on_event(self, role: str, event: Event) -> None:
        self._events.put((role, event))

    def execute(self, command: str, role: str = "primary", **arguments: Any) -> Any:
        try:
            return self._nodes[role].execute(command, **arguments)
        except (NodeGone, QMPCommandError) as error:
            raise self.failure(f"{command} to be executed", str(error)) from error

    def failure(self, expected: str, found: str) -> RecordingFailed:
        words = "".join(node.last_words() for node in self._nodes.values())
        return RecordingFailed(
            f"recording {self._plan.name!r}: expected {expected}, found {found}{words}"
        )

    def wait_for(self, what: str, wanted: Callable[[str, Event], bool]) -> Event:
        """Wait for an event."""
        while time.monotonic() < self._deadline:
            with contextlib.suppress(queue.Empty):
                role, event = self._events.get(timeout=0.2)
                status = event.get("data", {}).get("status")
                if status == "failed":
                    raise self.failure(what, "a migration that failed")
                if wanted(role, event):
                    return event
            if not all(node.alive() for node in self._nodes.values()):
                raise self.failure(what, "the end of a QEMU")
        raise self.failure(what, f"none within {_LONGEST:.0f} s")

    def wait_for_status(self, status: str, of: str = "primary") -> None:
        """Wait for a status of the migration."""
        self.wait_for(
            f"migration status {status}",
            lambda role, event: (
                role == of and event["event"] == "MIGRATION" and event["data"]["status"] == status
            ),
        )

    def wait_for_pass(self, number: int) -> None:
        """Wait for a pass over the dirty pages."""
        self.wait_for(
            f"pass {number}",
            lambda role, event: (
                role == "primary"
                and event["event"] == "MIGRATION_PASS"
                and event["data"]["pass"] >= number
            ),
        )

    def run(self, uri: str) -> None:
        """Migrate in the plan's way."""
        plan = self._plan
        for command, arguments in plan.commands:
            self.execute(command, **arguments)
        parameters: dict[str, Any] = {"x_checkpoint_delay": DELAY_MS, **_FAST, **plan.parameters}
        self.execute("migrate-set-parameters", **parameters)
        self._let_the_guest_write()
        if "secondary" in self._nodes:
            peer = f"unix:{self._directory / 'colo'}"
            self.execute("migrate-incoming", "secondary", uri=peer)
        self.execute("migrate", uri=uri)
        if plan.way == "colo":
            self._checkpoints()
        elif plan.way == "postcopy":
            self.wait_for_pass(2)
            self.execute("migrate-start-postcopy")
            self.execute("migrate-set-parameters", **_FAST)
            self.wait_for_status("completed")
        else:
            if plan.parameters.get("downtime_limit") == 1:
                self.wait_for_pass(_PASSES)
                self.execute("migrate-set-parameters", **_FAST)
            self.wait_for_status("completed")

    def _let_the_guest_write(self) -> None:
        """Wait until the guest has begun; its pages are then part of RAM."""
        probe = self._directory / "probe"
        while time.monotonic() < self._deadline:
            self.execute("pmemsave", val=16 << 20, size=4, filename=str(probe))
            if any(probe.read_bytes()):
                return
        raise self.failure("a guest that writes", "none")

    def _checkpoints(self) -> None:
        self.wait_for_status("colo")
        # The guest first goes on after it has entered COLO.
        for _ in range(1 + CHECKPOINTS):
            self.wait_for(
                "a checkpoint", lambda role, event: (role, event["event"]) == ("primary", "RESUME")
            )
        # Between two checkpoints, so that the last one is whole.
        self._nodes["primary"].kill()

    def ram(self) -> dict[str, int]:
        """Ask for the pages that were sent; nothing of a primary that is gone."""
        if self._plan.way == "colo":
            return {}
        ram = self.execute("query-migrate").get("ram", {})
        return {
            name: ram[name] for name in ("duplicate", "normal", "postcopy-bytes") if name in ram
        }

    def xbzrle(self) -> dict[str, int]:
        """Ask for the XBZRLE records that were sent."""
        if "xbzrle" not in self._plan.capabilities or self._plan.way == "colo":
            return {}
        found = self.execute("query-migrate").get("xbzrle-cache", {})
        return {f"xbzrle-{name}": found[name] for name in ("pages", "bytes") if name in found}

    def version(self) -> str:
        """Ask for the version."""
        qemu = self.execute("query-version")["qemu"]
        return f"{qemu['major']}.{qemu['minor']}.{qemu['micro']}"


def record(plan: RecordingPlan) -> RecordedStream:
    """Start a QEMU, migrate its guest as planned, and give the bytes.

    Raises
    ------
    QEMUUnavailable
        If this machine has no QEMU, or no KVM.
    RecordingFailed
        If QEMU did not migrate.
    """
    find_program()
    with contextlib.ExitStack() as closing:
        directory = qemu_directory(closing)
        recording = _Recording(plan, directory, closing)
        version = recording.version()
        peer = directory / "colo" if plan.way in ("colo", "postcopy") else None
        tap = _Tap(directory / "relay", peer)
        closing.callback(tap.close)
        recording.run(f"unix:{directory / 'relay'}")
        ram = recording.ram() | recording.xbzrle()
        # The kernel may still hold bytes: the source's end of a connection ends its stream.
        for node in list(recording._nodes.values()):
            node.kill()
        for thread in tap._threads[1:]:
            thread.join()
        return RecordedStream(
            tuple(map(bytes, tap.forward)),
            bytes(tap.backward[0]),
            ram,
            tuple(recording.arguments),
            version,
        )
