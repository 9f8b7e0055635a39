"""Trackers: they find the pages of RAM that the guest wrote.

All have one interface and report the same pages. They differ in the cost of a write, in the cost of
a collection, and in the features that they need of the machine.
"""

from __future__ import annotations

import importlib
import mmap
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE, RAM, lay_out
from colobench.memory.tracker_names import ALL_TRACKERS

if TYPE_CHECKING:
    from colobench.memory.frozen import FrozenPages

Words = npt.NDArray[np.uint64]


class TrackerUnavailable(LocalError):
    """A tracker that cannot run here, because a feature of the machine is missing or broken."""


class Tracker(ABC):
    """Base class: finds the pages of RAM written since it was armed, or since the last collection.

    Parameters
    ----------
    ram
        RAM to watch; it must outlive the tracker.

    Attributes
    ----------
    name
        Name of the tracker in settings.
    ram
        RAM that is watched.
    marks
        uint64[pages / 64] in which the guest must mark the pages that it writes; empty if it need
        not.
    armed
        True while RAM is watched.
    frozen
        The pages that keep their content while the guest writes; None unless `make_freezable` has
        been called.

    Raises
    ------
    TrackerUnavailable
        If this machine cannot run it.

    Notes
    -----
    A tracker sees the writes of this process to ``ram.array``. Only `shadow` also sees writes
    through other mappings of the memfd.
    """

    name: ClassVar[str]

    def __init__(self, ram: RAM) -> None:
        self.ram = ram
        self.marks: Words = np.zeros(0, dtype=np.uint64)
        self.armed = False
        self.frozen: FrozenPages | None = None

    def make_freezable(self) -> None:
        """Have the guest look before each store whether the page is frozen.

        A guest that runs already has other marks, so this comes before its start.

        Raises
        ------
        LocalError
            If the guest need not mark the pages that it writes.
        """
        raise LocalError(
            f"tracker {self.name}: expected marked, whose guest looks before each store, to freeze "
            "pages"
        )

    def arm(self) -> None:
        """Begin an epoch, with no page written yet.

        A page that the guest writes during this call may be in the epoch or not. Before the first
        call, and after `disarm`, nothing is watched.
        """
        self._arm()
        self.armed = True

    def collect(self, into: Words) -> None:
        """Set the bits of the pages written in this epoch, and begin the next.

        The guest may run during this call: a page that it writes is in this epoch, in the next one,
        or in both. If RAM is not watched, no bit is set.

        Parameters
        ----------
        into
            uint64[pages / 64]; bits that are set already stay set.
        """
        if self.armed:
            self._collect(into)

    def disarm(self) -> None:
        """Stop watching until the next `arm`."""
        if self.armed:
            self.armed = False
            self._disarm()

    def close(self) -> None:
        """Release all resources; RAM can be written as before."""
        self.disarm()

    @abstractmethod
    def _arm(self) -> None:
        """Forget the pages written so far, and begin to watch."""

    @abstractmethod
    def _collect(self, into: Words) -> None:
        """Do the work of `collect`; called only while RAM is watched."""

    @abstractmethod
    def _disarm(self) -> None:
        """Stop watching."""

    @classmethod
    def try_effect(cls) -> str:
        """Watch a small RAM, write to it, and check that exactly the written pages are reported.

        Returns
        -------
        str
            One line that says what works.

        Raises
        ------
        TrackerUnavailable
            If this machine cannot run the tracker, or if other pages are reported; one line.
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

    #: End of `try_effect`'s line: says which writers `_touch` tried.
    _probe_writers: ClassVar[str] = ""

    def _probe(self) -> list[list[int]]:
        """Write while RAM is watched and while not; return the pages reported after each step."""

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
        """Write to a page as the guest does."""
        self.ram.array[page * PAGE_SIZE] += np.uint8(1)


_PROBE_PAGES = 99
_PROBE_ANSWERS = [[], [5, _PROBE_PAGES - 1], [], [], [], [9]]


def require_small_pages(name: str) -> None:
    """Raise TrackerUnavailable if Linux's page size differs from the guest's."""
    if mmap.PAGESIZE != PAGE_SIZE:
        raise TrackerUnavailable(
            f"{name}: expected a kernel with pages of {PAGE_SIZE} bytes, found {mmap.PAGESIZE}"
        )


def tracker_class(name: str) -> type[Tracker]:
    """Import the tracker with this name, one of ALL_TRACKERS.

    Raises
    ------
    LocalError
        If there is no such tracker.
    """
    check_tracker(name)
    module, class_name = ALL_TRACKERS[name].rsplit(".", 1)
    found: type[Tracker] = getattr(importlib.import_module(module), class_name)
    return found


def watch(name: str, ram: RAM) -> Tracker:
    """Make the tracker with this name, one of ALL_TRACKERS, after trying its effect.

    Raises
    ------
    TrackerUnavailable
        If this machine cannot run it.
    LocalError
        If there is no such tracker.
    """
    found = tracker_class(name)
    found.try_effect()
    return found(ram)


def check_tracker(name: str) -> None:
    """Raise LocalError if a name is not in ALL_TRACKERS."""
    if name not in ALL_TRACKERS:
        raise LocalError(f"tracker: expected one of {', '.join(ALL_TRACKERS)}, found {name!r}")
