"""State of a session's guest, as ``colobench status`` and observers in this process learn it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colobench.lab.session.session_processes import SessionProcesses
from colobench.lab.session.status import PairState, publish
from colobench.processes.process import NodeProcess
from colobench.settings.settings import Settings


class PublishedState:
    """State of a session's guest; each change is published, and told to observers.

    Parameters
    ----------
    settings, processes
        Settings of the session, and its processes.

    Attributes
    ----------
    state
        The present state; None before the start and after the end.
    lets_clients_in
        Whether clients may connect to the guest's forwarded ports.
    """

    def __init__(self, settings: Settings, processes: SessionProcesses) -> None:
        self._settings, self._processes = settings.as_json(), processes
        self._observers: list[Callable[[PairState], None]] = []
        self.state: PairState | None = None
        self.lets_clients_in = settings.network.serve_unprotected

    def on_state(self, observer: Callable[[PairState], None]) -> None:
        """Call `observer` with each new state, in the thread that brings it about."""
        self._observers.append(observer)

    def enter(self, state: PairState) -> None:
        """Change the state, and tell observers and ``colobench status``."""
        before, self.state = self.state, state
        self.publish()
        if state is not before:
            for observer in self._observers:
                observer(state)

    def publish(self) -> None:
        """Write the present state, nodes and ports for ``colobench status``."""
        assert self.state is not None
        nodes, others = self._processes.nodes, self._processes.others
        publish(
            self._processes.directory,
            {
                "state": self.state.value,
                "settings": self._settings,
                "nodes": {role: _who(node) for role, node in nodes.items() if node.alive()},
                "others": {role: _who(node) for role, node in others.items()},
                "ports": [[port, *address] for port, address in self._processes.ports],
                "lets-clients-in": self.lets_clients_in,
            },
        )


def _who(node: NodeProcess) -> dict[str, Any]:
    return {"pid": node.pid, "qmp": str(node.qmp_path)}
