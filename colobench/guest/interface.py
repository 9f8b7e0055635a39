"""Interface of a guest for its node: `colobench.guest.numba` and `colobench.guest.kvm` have one.

A node makes a guest, which is stopped at first, and starts it. At a checkpoint the node stops the
guest, saves its devices one by one, collects the written pages from the tracker, sends them from
`ram`, and starts the guest again. A secondary's node writes pages to `ram` while the guest is
stopped, and applies device states that were parsed and checked; then the guest goes on from them.
All methods except `Tracker.collect` and those of network and disks are called by one thread at a
time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from colobench.block.request import BlockRequest
from colobench.memory.ram import RAM
from colobench.memory.tracker import Tracker
from colobench.wire.vmstate import Device, State


class GuestNetwork(Protocol):
    """A guest's network card, seen from its host."""

    @property
    def kick_fd(self) -> int:
        """An eventfd that becomes readable when the guest has taken or sent frames."""

    def put(self, frame: bytes) -> bool:
        """Put a frame into the receive queue, without waking the guest; return False if full."""

    def take_all(self) -> list[bytes]:
        """Take all frames out of the transmit queue, the oldest first."""

    def wake(self) -> None:
        """Make the guest read its receive queue."""


@dataclass(frozen=True, eq=False, slots=True)
class SubmittedRequest:
    """Request that a guest has submitted to one of its disks.

    Attributes
    ----------
    slot
        Number of its slot, from which a later request may come, too.
    request
        The request, which fits into the disk; a write's data are a copy.
    """

    slot: int
    request: BlockRequest


class GuestDisk(Protocol):
    """One of a guest's disks, seen from its host. All methods may be called while the guest runs.

    The requests are in guest RAM. One that is under way when the guest is stopped is still
    submitted there, whole. The guest that goes on from this RAM, here or elsewhere, gets its
    completion or, after `Guest.load`, submits it once more.
    """

    @property
    def name(self) -> str:
        """Name of its block of RAM, such as ``disk0``."""

    @property
    def size(self) -> int:
        """Size in bytes."""

    @property
    def kick_fd(self) -> int:
        """An eventfd that becomes readable when the guest has submitted requests."""

    def take(self) -> list[SubmittedRequest]:
        """Take the requests that were submitted since the last call.

        Malformed ones are completed with an error, counted, and not returned. After `Guest.load`
        all requests that are submitted in the loaded RAM are new, and completions of older ones are
        ignored.
        """

    def complete(self, submitted: SubmittedRequest, status: int, data: bytes = b"") -> None:
        """Complete a request, without waking the guest; any thread, in any order.

        Parameters
        ----------
        submitted
            The request, as `take` returned it. It is ignored if a state was loaded since.
        status
            0, or an errno: EIO, ENOSPC, EINVAL or EPERM.
        data
            The bytes that a read without an error has read; empty otherwise.

        Raises
        ------
        LocalError
            If the data have another length.
        """

    def wake(self) -> None:
        """Make the guest take completions."""


class Guest(Protocol):
    """A machine that can be protected: RAM, devices, and a program that runs.

    Attributes
    ----------
    tracker
        The tracker, which finds the pages of RAM that the guest wrote.
    devices
        Devices in the order in which they are saved. A node appends its own, such as the
        rewriter's.
    """

    tracker: Tracker
    devices: tuple[Device, ...]

    @property
    def machine_type(self) -> str:
        """QEMU's machine type, sent in the stream, which a guest of another type refuses."""

    @property
    def ram(self) -> RAM:
        """The guest's RAM, with the same blocks on both nodes of a pair."""

    @property
    def network(self) -> GuestNetwork:
        """The guest's network card, or `NoNetwork`."""

    @property
    def disks(self) -> Sequence[GuestDisk]:
        """The guest's disks, often none; the same number and sizes on both nodes of a pair."""

    @property
    def running(self) -> bool:
        """True if the guest was started and not stopped since."""

    @property
    def work(self) -> int:
        """Number of steps that the guest has done, a part of its state."""

    def start(self) -> None:
        """Start the guest, unless it runs."""

    def stop(self) -> None:
        """Stop the guest; after the return it changes neither RAM nor devices."""

    def load(self, states: Sequence[tuple[Device, State]]) -> None:
        """Apply device states that were parsed and checked; the guest is stopped.

        Its disks forget the requests that were under way.
        """

    def ram_digest(self) -> int:
        """Digest all of RAM, 64 bits, in the same way on both nodes; the guest is stopped."""

    def describe(self) -> dict[str, Any]:
        """Return a description for QMP: the program, and at least ``work``, the steps done."""

    def console(self) -> str:
        """Return the last output of the console; empty if there is none."""

    def plant(self, bug: int) -> None:
        """Plant a bug of `colobench.guest.bugs`, if this guest can have it."""

    def close(self) -> None:
        """End the guest, and release its resources."""


class NoNetwork:
    """Network of a guest without a network card: it takes no frame, and sends none."""

    def __init__(self) -> None:
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def put(self, frame: bytes) -> bool:
        """Refuse the frame: return False."""
        return False

    def take_all(self) -> list[bytes]:
        """Return no frames."""
        return []

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.kick_fd)
