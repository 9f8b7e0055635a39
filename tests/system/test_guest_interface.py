"""A pair protects any guest that has the interface, such as one that is memory alone."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from colobench.guest.interface import Guest
from colobench.memory.ram import PAGE_SIZE
from colobench.node.options import parse_options
from colobench.node.primary import Primary
from colobench.node.runtime import NodeRuntime
from colobench.node.secondary import Secondary
from memory_guest import MemoryGuest
from node_arguments import node_arguments

pytestmark = pytest.mark.usefixtures("nothing_left")

RAM_BYTES, WAIT = 64 * PAGE_SIZE, 60.0


def until(condition: Callable[[], bool]) -> None:
    """Look again and again until something that another thread does has happened."""
    never, deadline = threading.Event(), time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        never.wait(0.001)


class MemoryNode:
    """A node, in a thread of the test, whose guest is memory alone."""

    def __init__(self, role: str, directory: Path, tracker: str, *arguments: str) -> None:
        self.machine = MemoryGuest(RAM_BYTES, tracker)
        guest: Guest = self.machine
        options = parse_options([role, "--qmp", f"{directory}/{role}.qmp", *arguments])
        first = Primary if role == "primary" else Secondary
        self.runtime = NodeRuntime(options, first, machine=guest)
        self._thread = threading.Thread(target=self.runtime.run)
        self._thread.start()
        until(lambda: Path(f"{directory}/{role}.qmp").exists())
        self.execute(
            "migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": True}]
        )

    def execute(self, command: str, **arguments: object) -> object:
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.runtime.side.commands()[command].call(given)

    def checkpoint(self) -> int:
        """Say how many checkpoints are committed here."""
        return self.runtime.guest.checkpoint

    def status(self) -> str:
        """Give the state of migration."""
        found = self.execute("query-migrate")
        assert isinstance(found, dict)
        return str(found["status"])

    def end(self) -> None:
        self.runtime.quit()
        self._thread.join()


@pytest.mark.parametrize("transport", ["stream", "memfd"])
@pytest.mark.parametrize("tracker", ["marked", "shadow"])
def test_guest_that_is_memory_alone_is_checkpointed(
    tmp_path: Path, tracker: str, transport: str
) -> None:
    address = f"unix:{tmp_path}/colo"
    how = node_arguments(transport=transport)
    secondary = MemoryNode("secondary", tmp_path, tracker, *how, "--incoming", address)
    primary = MemoryNode("primary", tmp_path, tracker, *how)
    try:
        primary.execute("migrate-set-parameters", x_checkpoint_delay=2**32 - 1)
        until(lambda: primary.machine.running)
        primary.machine.write(0, b"before the pair")
        primary.execute("migrate", uri=address)
        # COLO is entered a moment before the guest stops for the rest of the migration.
        until(lambda: primary.status() == "colo" and primary.machine.running)
        for number in range(1, 4):
            primary.machine.write(number * PAGE_SIZE + 9, b"checkpoint %d" % number)
            primary.execute("x-colo-checkpoint")
            until(lambda done=number: min(primary.checkpoint(), secondary.checkpoint()) == done)
            until(lambda: primary.machine.running)
            assert secondary.machine.ram_digest() == primary.machine.ram_digest()
            assert secondary.machine.work == primary.machine.work == number + 1
        # What no checkpoint covers is lost with the primary.
        primary.machine.write(9 * PAGE_SIZE, b"never sent")
        secondary.execute("x-colo-lost-heartbeat")
        until(lambda: secondary.machine.running)
        assert secondary.machine.work == 4
        assert bytes(secondary.machine.ram.array[9 * PAGE_SIZE :][:10]) == bytes(10)
        assert secondary.execute("x-query-guest")["program"] == "none"
    finally:
        primary.end()
        secondary.end()
        gc.unfreeze()
