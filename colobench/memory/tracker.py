"""Trackers: ways to learn which pages of RAM the guest wrote.

All have one interface and name the same pages; they differ in what a write costs the guest, in what
the collection costs, and in what the machine must offer.
"""

from __future__ import annotations

import importlib
import mmap
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE, RAM, lay_out

Words = npt.NDArray[np.uint64]

#: Every tracker by its name, the default first; imported when it is wanted.
TRACKERS = {
    "marked": "colobench.memory.marked.Marked",
    "userfault": "colobench.memory.userfault.UserFault",
    "shadow": "colobench.memory.shadow.Shadow",
    "mprotect": "colobench.memory.mprotect.MProtect",
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
    ram
        What is watched.
    marks
        uint64[pages / 64], where the guest itself marks what it writes; empty unless it must.
    armed
        Whether RAM is watched now.

    Raises
    ------
    TrackerUnavailable
        If this machine cannot run it.

    Notes
    -----
    Watched is what this process writes through ``ram.array``. What comes through another mapping of
    the memfd is seen by comparison alone.
    """

    name: ClassVar[str]

    def __init__(self, ram: RAM) -> None:
        self.ram = ram
        self.marks: Words = np.zeros(0, dtype=np.uint64)
        self.armed = False

    def arm(self) -> None:
        """Begin an epoch in which nothing is written yet.

        A page that the guest writes meanwhile may be in that epoch or not. Before the first call,
        and after `disarm`, nothing is watched.
        """
        self._arm()
        self.armed = True

    def collect(self, into: Words) -> None:
        """Set the bits of the pages written in this epoch, and begin the next.

        The guest may run meanwhile: a write that is not in this epoch is in the next one. It
        may be in both. If nothing is watched, no bit is set.

        Parameters
        ----------
        into
            uint64[pages / 64]; bits that are set stay.
        """
        if self.armed:
            self._collect(into)

    def disarm(self) -> None:
        """Let writes pass unseen until the next `arm`."""
        if self.armed:
            self.armed = False
            self._disarm()

    def close(self) -> None:
        """Give back what it holds; RAM can be written as before."""
        self.disarm()

    @abstractmethod
    def _arm(self) -> None:
        """Forget what was written until now."""

    @abstractmethod
    def _collect(self, into: Words) -> None:
        """Do what `collect` promises; RAM is watched."""

    @abstractmethod
    def _disarm(self) -> None:
        """Stop watching."""

    @classmethod
    def try_effect(cls) -> str:
        """Watch a small RAM, write to it, and see whether the pages named are those written.

        Returns
        -------
        str
            What was found to work, one line.

        Raises
        ------
        TrackerUnavailable
            If this machine cannot run the tracker, or if other pages are named; one line.
        """
        ram = RAM("colobench-probe", lay_out({"probe": _PROBE_PAGES * PAGE_SIZE}))
        try:
            tracker = cls(ram)
            try:
                found = tracker._probe()
            finally:
                tracker.close()
        finally:
            ram.close()
        if found != _PROBE_ANSWERS:
            raise TrackerUnavailable(
                f"{cls.name}: expected written pages {_PROBE_ANSWERS}, found {found}"
            )
        return f"reported exactly the pages written{cls._probe_writers}"

    #: Who, besides the process itself, writes in `_touch`.
    _probe_writers: ClassVar[str] = ""

    def _probe(self) -> list[list[int]]:
        """Write in turn to watched and to unwatched pages; the pages named after each step."""

        def named() -> list[int]:
            into = np.zeros(self.ram.pages // 64, dtype=np.uint64)
            self.collect(into)
            return np.flatnonzero(np.unpackbits(into.view(np.uint8), bitorder="little")).tolist()

        def named_after(*pages: int) -> list[int]:
            for page in pages:
                self._touch(page)
            return named()

        self._touch(1)
        self.arm()
        answers = [named_after(), named_after(5, _PROBE_PAGES - 1), named()]
        self.disarm()
        answers.append(named_after(7))
        self.arm()
        return [*answers, named(), named_after(9)]

    def _touch(self, page: int) -> None:
        """Write to a page as a guest would."""
        self.ram.array[page * PAGE_SIZE] += np.uint8(1)


_PROBE_PAGES = 99
_PROBE_ANSWERS = [[], [5, _PROBE_PAGES - 1], [], [], [], [9]]


def require_small_pages(name: str) -> None:
    """Refuse a kernel whose pages are not the guest's, with TrackerUnavailable."""
    if mmap.PAGESIZE != PAGE_SIZE:
        raise TrackerUnavailable(
            f"{name}: expected a kernel with pages of {PAGE_SIZE} bytes, found {mmap.PAGESIZE}"
        )


def tracker_class(name: str) -> type[Tracker]:
    """Import the tracker of that name, one of TRACKERS.

    Raises
    ------
    LocalError
        If there is none of that name.
    """
    check_tracker(name)
    module, class_name = TRACKERS[name].rsplit(".", 1)
    found: type[Tracker] = getattr(importlib.import_module(module), class_name)
    return found


def watch(name: str, ram: RAM) -> Tracker:
    """Make the tracker of that name, one of TRACKERS, after its effect was tried.

    Raises
    ------
    TrackerUnavailable
        If this machine cannot run it.
    LocalError
        If there is none of that name.
    """
    found = tracker_class(name)
    found.try_effect()
    return found(ram)


def check_tracker(name: str) -> None:
    """Refuse a name that is not in TRACKERS with LocalError."""
    if name not in TRACKERS:
        raise LocalError(f"tracker: expected one of {', '.join(TRACKERS)}, found {name!r}")
