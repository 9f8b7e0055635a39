"""Processes of a session: they start in a directory of their own, and all of them end with it."""

from __future__ import annotations

import contextlib
import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colobench.lab.session.services import forwarded, start_arbiter, start_link, start_switch
from colobench.processes.owner import Owner
from colobench.processes.process import NodeProcess
from colobench.processes.qmp import Event
from colobench.processes.session_directory import SessionDirectory, remove_left
from colobench.settings.checkpoint import Output
from colobench.settings.settings import Settings
from colobench.strategy.own import OwnTrigger
from colobench.strategy.written import write_trigger

if TYPE_CHECKING:
    from colobench.lab.session.relay import Relay


def settings_arguments(settings: Settings) -> list[str]:
    """Give what the command lines of both nodes say of the session."""
    if isinstance(settings.checkpoint.trigger, OwnTrigger):
        # A user's source goes as a file, see `SessionProcesses.trigger_parameters`.
        settings = settings.override(delay=settings.checkpoint.delay)
    return ["--settings", json.dumps(settings.as_json())]


class SessionProcesses:
    """The nodes, the switch, the arbiter and the link of a session, and the relays beside them.

    Parameters
    ----------
    settings
        Settings of the session.
    deliver
        Called with the role and each event of every process.

    Attributes
    ----------
    nodes
        The two nodes of the present pair, by role.
    others
        The switch, the arbiter and the link, if there are, by role.
    ports
        The guest's forwarded ports, see `forwarded`, as they were at the start.
    open
        Whether processes can be started: between `begin` and `close`.
    pids
        The pid of every process that was started, the dead ones too.
    owner
        Process that started them.
    """

    def __init__(self, settings: Settings, deliver: Callable[[str, Event], None]) -> None:
        self._settings, self._deliver = settings, deliver
        self.nodes: dict[str, NodeProcess] = {}
        self.others: dict[str, NodeProcess] = {}
        self.ports: list[tuple[int, tuple[str, int]]] = []
        self.pids: list[int] = []
        self.owner = Owner()
        self.open = False
        self._processes: list[NodeProcess] = []
        self._relays: list[Relay] = []
        self._secondaries = 0
        self._directory: Path | None = None
        self._closing = contextlib.ExitStack()
        self._finalizer: weakref.finalize[Any, Any] | None = None

    @property
    def directory(self) -> Path:
        """Directory of the sockets and files; there is one between `begin` and `close`."""
        assert self._directory is not None
        return self._directory

    def begin(self) -> None:
        """Make the directory, and have everything end with this object, or this interpreter."""
        self.open = True
        directory = SessionDirectory()
        self._closing.callback(directory.remove)
        self._directory = directory.path
        remove_left(directory.path.parent)
        self._closing.callback(_end_all, self._processes)
        self._closing.callback(_close_all, self._relays)
        self.owner = Owner()
        self._finalizer = weakref.finalize(self, _close_unless_forked, self._closing, self.owner)

    def close(self) -> None:
        """End all processes and relays, and remove the directory."""
        self.open = False
        self._closing.close()
        # Also end a process that a concurrent start has made just now.
        _end_all(self._processes)
        if self._finalizer is not None:
            self._finalizer.detach()

    # Switch, arbiter and link.

    def start_others(self, timeout: float) -> None:
        """Start switch, arbiter and link, if the settings have them, and wait for them."""
        network = self._settings.network
        if network.hostfwd:
            hold = not network.serve_unprotected
            rules, pcap = network.hostfwd, network.pcap
            self.others["switch"] = start_switch(
                self.directory, rules, pcap, hold, self._deliver, self._take_in
            )
        if self._settings.heartbeat is not None:
            self._start_arbiter()
        if not self._settings.link.link.is_local:
            self._start_link()
        for other in self.others.values():
            other.connect(timeout)
        self.ports = self.forwarded()

    def revive_arbiter(self, timeout: float) -> bool:
        """Start the arbiter again if it has ended; say whether it had."""
        arbiter = self.others.get("arbiter")
        if arbiter is None or arbiter.alive():
            return False
        self.release_dead()
        self._start_arbiter()
        self.others["arbiter"].connect(timeout)
        return True

    def over_link(self, name: str, uri: str, timeout: float) -> str:
        """Give the address at which connections to `uri` cross the link: itself if there is none.

        A link that has ended is started again; it ends connections, never a guest.

        Parameters
        ----------
        name
            ``colo``, ``mirror`` or ``disks``; a later address of that name replaces this one.
        uri
            Address at which a secondary listens.
        timeout
            Seconds to wait for the link.
        """
        link = self.others.get("link")
        if link is None:
            return uri
        if not link.alive():
            self.release_dead()
            link = self._start_link()
            link.connect(timeout)
        unix = uri.startswith("unix:")
        listen = f"unix:{self.directory / f'link-{name}'}" if unix else "tcp:127.0.0.1:0"
        return str(link.execute("x-link-forward", name=name, listen=listen, to=uri)["address"])

    def _start_link(self) -> NodeProcess:
        link = self._settings.link.link
        started = start_link(self.directory, link, self._deliver, self._take_in)
        self.others["link"] = started
        return started

    def _start_arbiter(self) -> None:
        grants = self._settings.experiment.arbiter_state
        self.others["arbiter"] = start_arbiter(self.directory, grants, self._deliver, self._take_in)

    def forwarded(self) -> list[tuple[int, tuple[str, int]]]:
        """Give the guest's port, and host and port, of each rule of the switch."""
        return forwarded(self.others["switch"]) if "switch" in self.others else []

    # Nodes.

    def trigger_parameters(self) -> dict[str, str]:
        """Give the primary's parameters of the trigger; a user's source is in a file of theirs."""
        trigger = self._settings.checkpoint.trigger
        if not isinstance(trigger, OwnTrigger):
            return {"x_trigger": write_trigger(trigger)}
        source = self.directory / "trigger.py"
        source.write_text(trigger.code, encoding="utf-8")
        written = {name: each for name, each in trigger.written().items() if name != "code"}
        return {"x_trigger": json.dumps(written), "x_trigger_source": str(source)}

    def start_primary(self, images: Sequence[str]) -> NodeProcess:
        """Start a primary, whose disks are these images."""
        arguments = settings_arguments(self._settings)
        for image in images:
            arguments += ["--image", image]
        return self._start_node("primary", "node-0", arguments, [])

    def start_secondary(self) -> NodeProcess:
        """Start a secondary, which listens for a primary."""
        self._secondaries += 1
        arguments = settings_arguments(self._settings)
        arguments += ["--incoming", self._listening("colo")]
        if self._settings.checkpoint.output is Output.COMPARE:
            arguments += ["--mirror", self._listening("mirror")]
        if self._settings.guest.disks:
            arguments += ["--disks", self._listening("disks")]
        name = f"node-{self._secondaries}"
        names = ("colo", "mirror", "disks")
        sockets = [self.directory / f"{each}-{self._secondaries}" for each in names]
        return self._start_node("secondary", name, arguments, sockets)

    def _start_node(
        self, role: str, name: str, arguments: list[str], files: list[Path]
    ) -> NodeProcess:
        return NodeProcess(
            role,
            self.directory,
            arguments,
            self._deliver,
            name,
            files=files,
            known=self._take_in,
        )

    def _listening(self, name: str) -> str:
        """Give the URI at which the newest secondary listens."""
        if self._settings.checkpoint.transport.socket == "tcp":
            return "tcp:127.0.0.1:0"
        return f"unix:{self.directory / name}-{self._secondaries}"

    def close_relays(self) -> None:
        """Close the relays of earlier pairs."""
        _close_all(self._relays)

    def add_relay(self, relay: Relay) -> None:
        """Let a relay end with the processes."""
        self._relays.append(relay)

    def _take_in(self, process: NodeProcess) -> None:
        """Let a process end with the others."""
        self._processes.append(process)
        self.pids.append(process.pid)

    def release_dead(self) -> None:
        """Release the resources of processes that have ended."""
        for process in self._processes[:]:
            if not process.alive():
                process.release()
                self._processes.remove(process)


def _end_all(processes: list[NodeProcess]) -> None:
    """End all processes, and take them off the list."""
    ending, processes[:] = processes[:], []
    try:
        for process in ending:
            process.ask_to_quit()
        for process in ending:
            process.end()
    except KeyboardInterrupt:
        # An impatient caller gets an abrupt end, but an end of all processes.
        for process in ending:
            process.process.kill()
            process.end()
        raise


def _close_all(relays: list[Relay]) -> None:
    """Close all relays, and take them off the list."""
    while relays:
        relays.pop().close()


def _close_unless_forked(closing: contextlib.ExitStack, owner: Owner) -> None:
    if owner.is_this_process():
        closing.close()
