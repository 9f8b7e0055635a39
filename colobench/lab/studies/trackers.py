"""Trackers side by side: the same guest under each of them, epoch by epoch, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np

from colobench.errors import LocalError
from colobench.guest.numba.machine import Machine
from colobench.guest.settings import GuestSettings
from colobench.kernels import bitmap
from colobench.lab.compilation import compile_with_bar
from colobench.lab.interrupt import interruptible
from colobench.memory.tracker import TrackerUnavailable, check_tracker
from colobench.memory.tracker_names import TRACKERS
from colobench.node.kernels import kernel_modules
from colobench.settings.transport import PageTransport


@dataclass(frozen=True, slots=True)
class Epoch:
    """Result of one tracker in one epoch.

    Attributes
    ----------
    tracker
        Name of the tracker.
    epoch
        1 for the first after it was armed.
    pages
        Number of pages that it named.
    write_ns
        Nanoseconds of processor time of a step of the guest, tracking included; but for `idle` each
        step stores one word. The time of a call of the guest's kernel is measured just before, and
        subtracted. 0 where the steps of an epoch took less than that time varies.
    collect_ms
        Milliseconds of the collection, which also begins the next epoch.
    exact
        Whether the pages are those that a guest of its own, watched by `marked`, wrote.
    bitmap
        The pages as little-endian 64-bit words, bit i of word w for page 64 w + i.
    """

    tracker: str
    epoch: int
    pages: int
    write_ns: float
    collect_ms: float
    exact: bool
    bitmap: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnavailableTracker:
    """A tracker that cannot run here, and the reason in one line."""

    tracker: str
    reason: str


@interruptible("its guests have ended, and nothing is kept")
def compare_trackers(
    ram: str = "64M",
    guest: str = "uniform",
    epochs: int = 20,
    writes: int = 4000,
    trackers: Sequence[str] | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Epoch | UnavailableTracker]:
    """Run the same guest under several trackers, and measure the pages and the cost of each.

    Parameters
    ----------
    ram, guest, seed
        The guest, as in `Session`.
    epochs, writes
        Number of epochs, and of the guest's steps in each.
    trackers
        Names of `colobench.memory.tracker.TRACKERS`; None for all.
    progress
        Function that is called with the number of epochs done by all trackers, and the total.

    Returns
    -------
    list
        First an `UnavailableTracker` for each tracker that cannot run here, then the epochs: the
        first of all trackers, then the second, so that noise meets all alike.

    Raises
    ------
    LocalError
        If an argument is out of range.
    """
    names = list(TRACKERS) if trackers is None else list(trackers)
    total = epochs * len(names)
    found: list[Epoch | UnavailableTracker] = []
    for each in measure_epochs(ram, guest, epochs, writes, names, seed=seed):
        found.append(each)
        if isinstance(each, UnavailableTracker):
            total -= epochs
        else:
            progress(sum(isinstance(one, Epoch) for one in found), total)
    return found


def measure_epochs(
    ram: str, guest: str, epochs: int, writes: int, trackers: Sequence[str], *, seed: int = 0
) -> Iterator[Epoch | UnavailableTracker]:
    """Yield the results of `compare_trackers` one by one."""
    for name in trackers:
        check_tracker(name)
    if epochs < 1 or writes < 1:
        raise LocalError(f"epochs, writes: expected at least 1, found {epochs}, {writes}")
    settings = GuestSettings().override(ram=ram, guest=guest, seed=seed)
    compile_with_bar(kernel_modules((settings.program,), PageTransport.STREAM, trackers))
    with ExitStack() as stack:
        reference = _Watched(settings, "marked", stack)
        watched = []
        for name in trackers:
            try:
                watched.append(_Watched(settings, name, stack))
            except TrackerUnavailable as error:
                yield UnavailableTracker(name, str(error))
        for number in range(1, epochs + 1):
            _, _, expected = reference.run(writes)
            for each in watched:
                write_ns, collect_ms, pages = each.run(writes)
                count = int.from_bytes(pages, "little").bit_count()
                exact = pages == expected
                yield Epoch(each.name, number, count, write_ns, collect_ms, exact, pages)


class _Watched:
    """A guest under an armed tracker; `stack` closes it."""

    def __init__(self, settings: GuestSettings, tracker: str, stack: ExitStack) -> None:
        self.name = tracker
        self.machine = stack.enter_context(closing(Machine(settings, tracker)))
        self._into = np.zeros(self.machine.ram.pages // 64, dtype=np.uint64)
        # Makes the kernel ready.
        self.machine.run_until(1)
        self._least = self.machine.run_until(1)
        self.machine.tracker.arm()

    def run(self, writes: int) -> tuple[float, float, bytes]:
        """Do an epoch; give nanoseconds per step, milliseconds of collecting, and the pages."""
        bitmap.clear(self._into)
        work = self.machine.work
        # A call takes longer than many steps.
        call, taken = self.machine.run_until(work), self.machine.run_until(work + writes)
        self._least = min(self._least, call)
        if call >= taken:
            # This one took exceptionally long.
            call = self._least
        begin = time.perf_counter_ns()
        self.machine.tracker.collect(self._into)
        collect_ms = (time.perf_counter_ns() - begin) / 1e6
        write_ns = max(0, taken - call) / writes
        return write_ns, collect_ms, self._into.astype("<u8").tobytes()
