"""A guest that is memory alone: nothing runs in it, and a test writes its RAM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from colobench.guest.interface import GuestDisk, NoNetwork
from colobench.kernels import bitmap
from colobench.kernels.digest import digest
from colobench.memory.ram import PAGE_SIZE, RAM, lay_out
from colobench.memory.tracker import watch
from colobench.wire.vmstate import Device, Field, State, StateParser, VMStateDescription


class Counter:
    """A device that counts the writes."""

    idstr, instance_id, version_id, minimum_version_id = "counter", 0, 1, 1
    vmstate = VMStateDescription("counter", 1, 1, (Field("writes", "u8"),))

    def __init__(self) -> None:
        self.writes = 0

    def _state(self) -> State:
        return {"writes": np.array([self.writes], np.uint64)}

    def save(self) -> bytes:
        return self.vmstate.save(self._state())

    def parse(self, version_id: int) -> StateParser:
        return self.vmstate.parse(version_id)

    def apply(self, state: State) -> None:
        self.writes = int(state["writes"][0])

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.idstr,
            "instance_id": self.instance_id,
            "vmsd_name": self.idstr,
            "version": self.version_id,
            "fields": self.vmstate.describe(self._state()),
        }


class MemoryGuest:
    """A guest with one block of RAM and one device."""

    machine_type = "memory-1"

    def __init__(self, ram_bytes: int, tracker: str = "marked") -> None:
        self.ram = RAM("memory-guest", lay_out({"memory": ram_bytes}))
        self.tracker = watch(tracker, self.ram)
        self.counter = Counter()
        self.devices: tuple[Device, ...] = (self.counter,)
        self.network = NoNetwork()
        self.disks: tuple[GuestDisk, ...] = ()
        self.running = False

    def write(self, at: int, data: bytes) -> None:
        """Write to RAM, within a page."""
        assert self.running
        self.ram.array[at : at + len(data)] = np.frombuffer(data, np.uint8)
        if len(self.tracker.marks):
            bitmap.mark(self.tracker.marks, at // PAGE_SIZE)
        self.counter.writes += 1

    @property
    def work(self) -> int:
        return self.counter.writes

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def load(self, states: Sequence[tuple[Device, State]]) -> None:
        for device, state in states:
            device.apply(state)

    def ram_digest(self) -> int:
        return int(digest(self.ram.array, 0))

    def describe(self) -> dict[str, Any]:
        return {"program": "none", "work": self.work}

    def console(self) -> str:
        return ""

    def plant(self, bug: int) -> None:
        """Leave the bug: there is no place for it."""

    def close(self) -> None:
        self.network.close()
        self.tracker.close()
        self.ram.close()
