"""What a node needs of a guest. `colobench.guest.numba` has one; a KVM guest would be another.

A node makes a guest, which stands at first, and lets it run. At a checkpoint it stops the guest,
has its devices saved one by one, collects from the tracker which pages it has written, sends these
out of `ram`, and starts it again. A secondary's node writes pages into `ram` while the guest
stands, and hands over device states that were parsed and checked; then the guest goes on from them.
All methods but `Tracker.collect` and those of the network are called by one thread at a time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from colobench.memory.ram import RAM
from colobench.memory.tracker import Tracker
from colobench.wire.vmstate import Device, State


class GuestNetwork(Protocol):
    """A guest's network card, seen from its host."""

    @property
    def kick_fd(self) -> int:
        """An eventfd that becomes readable when the guest took or put frames."""

    def put(self, frame: bytes) -> bool:
        """Put a frame into the receive queue; False if that is full. The guest is not woken."""

    def take_all(self) -> list[bytes]:
        """Take all frames out of the transmit queue, the oldest first."""

    def wake(self) -> None:
        """Have the guest look at its receive queue."""


class Guest(Protocol):
    """A machine that can be protected: RAM, devices, and something that runs.

    Attributes
    ----------
    devices
        In the order in which they are saved. A node appends its own, such as the rewriter's.
    """

    devices: tuple[Device, ...]

    @property
    def machine_type(self) -> str:
        """QEMU's name for what it is; a stream says it, and another type refuses the stream."""

    @property
    def ram(self) -> RAM:
        """Its RAM, whose blocks are the same on both nodes of a pair."""

    @property
    def tracker(self) -> Tracker:
        """What knows which pages of RAM the guest wrote."""

    @property
    def network(self) -> GuestNetwork:
        """Its network card, or `NoNetwork`."""

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped since."""

    @property
    def work(self) -> int:
        """A number that grows with what the guest has done, and is part of its state."""

    def start(self) -> None:
        """Let the guest run; nothing happens if it does."""

    def stop(self) -> None:
        """Stop the guest: it changes neither RAM nor devices once this returns."""

    def load(self, states: Sequence[tuple[Device, State]]) -> None:
        """Take over device states that were parsed and checked; the guest stands."""

    def ram_digest(self) -> int:
        """Digest all of RAM, 64 bits, in the same way on both nodes; the guest stands."""

    def describe(self) -> dict[str, Any]:
        """Say in QMP's words what it runs and how much it has done, ``work`` at least."""

    def console(self) -> str:
        """Give the last output of its console; empty if it has none."""

    def plant(self, bug: int) -> None:
        """Put a bug of `colobench.guest.bugs` in, if it has a place for it."""

    def close(self) -> None:
        """End the guest, and give back all that it holds."""


class NoNetwork:
    """The network of a guest that has none: it takes no frame, and sends none."""

    def __init__(self) -> None:
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def put(self, frame: bytes) -> bool:
        """Leave the frame; False."""
        return False

    def take_all(self) -> list[bytes]:
        """Give none."""
        return []

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.kick_fd)
