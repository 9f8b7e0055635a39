"""A takeover's standing towards the peer: a heartbeat and the end of COLO may come in any order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from colobench.node.heartbeat import DatagramAddress
from colobench.node.peer_watchdog import Pairing
from colobench.node.takeover import Takeover
from colobench.protocol.colo import Role

WAIT = 60.0
INTERVAL, LIMIT = 0.01, 0.05


class Side:
    """A node in COLO, of which nothing works but its takeover."""

    def __init__(self, role: Role, directory: Path) -> None:
        self.lost = threading.Event()
        monitor = SimpleNamespace(emit=lambda event, data: self.lost.set())
        node = SimpleNamespace(role=role, in_colo=lambda: True, run_alone=lambda: None)
        self.takeover = Takeover(node, monitor, threading.RLock())
        peer = Role.SECONDARY if role is Role.PRIMARY else Role.PRIMARY
        at, to = (DatagramAddress.parse(f"unix:{directory}/{each.value}") for each in (role, peer))
        self._pairing = Pairing("p", role.value, peer.value, at, to, INTERVAL, LIMIT, None)

    def watch(self) -> None:
        self.takeover.watch(self._pairing)


ORDERS: list[Callable[[Side], list[Callable[[], None]]]] = [
    lambda side: [side.watch, side.takeover.colo_failed],
    lambda side: [side.takeover.colo_failed, side.watch],
]


@pytest.mark.parametrize("first", ORDERS)
@pytest.mark.parametrize("second", ORDERS)
def test_nodes_whose_colo_has_failed_count_each_other_as_lost(first, second, tmp_path):
    with ExitStack() as end:
        sides = [Side(role, tmp_path) for role in (Role.PRIMARY, Role.SECONDARY)]
        for side, order in zip(sides, (first, second), strict=True):
            end.callback(side.takeover.stop)
            for step in order(side):
                step()
        for side in sides:
            assert side.lost.wait(WAIT)
