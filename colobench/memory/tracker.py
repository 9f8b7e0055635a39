"""Trackers: ways to learn which pages of RAM the guest wrote.

All have one interface and name the same pages; they differ in what a write costs the guest, in what
the collection costs, and in what the machine must offer.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.memory.ram import RAM

Words = npt.NDArray[np.uint64]

#: Every tracker by its name, the default first; imported when it is wanted.
TRACKERS = {
    "marked": "colobench.memory.marked.Marked",
}


class TrackerUnavailable(LocalError):
    """A tracker that cannot run here: the machine lacks something, or does not do what it says."""


class Tracker(ABC):
    """Knows which pages of RAM were written since it was armed, or since it was last asked.

    Parameters
    ----------
    ram
        What is watched; it must outlive the tracker.

    Attributes
    ----------
    name
        As users write it.
    marks
        uint64[pages / 64], where the guest itself marks what it writes; empty unless it must.

    Raises
    ------
    TrackerUnavailable
        If this machine cannot run it; its effect was tried.
    """

    name: ClassVar[str]

    def __init__(self, ram: RAM) -> None:
        self.marks: Words = np.zeros(0, dtype=np.uint64)

    @abstractmethod
    def arm(self) -> None:
        """Begin an epoch in which nothing is written yet; the guest must be stopped or unwatched.

        Before the first call, and after `disarm`, nothing is watched.
        """

    @abstractmethod
    def collect(self, into: Words) -> None:
        """Set the bits of the pages written in this epoch, and begin the next.

        The guest may run meanwhile: a write that is not in this epoch is in the next one. It
        may be in both.

        Parameters
        ----------
        into
            uint64[pages / 64]; bits that are set stay.
        """

    @abstractmethod
    def disarm(self) -> None:
        """Let writes pass unseen, and at full speed, until the next `arm`."""

    def close(self) -> None:
        """Give back what it holds; RAM can be written as before."""
        self.disarm()


def watch(name: str, ram: RAM) -> Tracker:
    """Make the tracker of that name, one of TRACKERS.

    Raises
    ------
    TrackerUnavailable
        If this machine cannot run it.
    LocalError
        If there is none of that name.
    """
    check_tracker(name)
    module, class_name = TRACKERS[name].rsplit(".", 1)
    tracker: Tracker = getattr(importlib.import_module(module), class_name)(ram)
    return tracker


def check_tracker(name: str) -> None:
    """Refuse a name that is not in TRACKERS with LocalError."""
    if name not in TRACKERS:
        raise LocalError(f"tracker: expected one of {', '.join(TRACKERS)}, found {name!r}")
