"""The trigger of a checkpoint: asks a trigger of `colobench.strategy`, and keeps what it needs."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from colobench.node.own_trigger import OwnTriggerRunner
from colobench.strategy.trigger import (
    DIRTY_PAGES,
    MISCOMPARE,
    NEVER_MS,
    OUTPUT_FRAMES,
    Situation,
    Trigger,
)
from colobench.strategy.triggers import FixedDelay
from colobench.strategy.written import write_trigger

#: QEMU's default of x-checkpoint-delay.
DELAY_DEFAULT_MS = 20_000
#: The cause by which a participant says that output begins to wait for a checkpoint.
OUTPUT = "output"
#: The cause by which the disks ask for a checkpoint: the secondary keeps much that it has to undo.
DISK = "disk"
#: Most requests that are counted.
MOST_COUNTED = 4096


@dataclass(frozen=True, slots=True)
class CheckpointCause:
    """Cause of a checkpoint.

    Attributes
    ----------
    name
        requested, shutdown, disk, or as the trigger has it: timer, output and so on, or what
        colo-compare calls it: miscompare, timeout, overflow.
    connection, offset
        Connection whose output differed, and the offset; see `colobench.net.outcome`.
    lead
        Seconds for which the guest runs on after the request for the checkpoint.
    passive
        Whether the secondary's guest stands still after the checkpoint.
    """

    name: str
    connection: str | None = None
    offset: int | None = None
    lead: float = 0.0
    passive: bool = False

    @property
    def need(self) -> str:
        """The need of a trigger that looks at it, see `NEEDS`; "" if no trigger is asked."""
        if self.name == OUTPUT:
            return OUTPUT_FRAMES
        return MISCOMPARE if self.connection is not None else ""


@dataclass(slots=True)
class _Last:
    """The last checkpoint, in seconds of the monotonic clock."""

    count: int = 0
    cause: str = ""
    began: float = 0.0
    stopped: float = 0.0
    started: float = 0.0
    run: float = 0.0
    due: float = 0.0
    pages: int = 0
    frames: int = 0


class CheckpointTrigger:
    """Tells when the next checkpoint is due: as its trigger says, or at once if one is asked for.

    Parameters
    ----------
    count_dirty_pages, count_output_frames
        Give what a `Situation` has of them; called only for a trigger that needs it.
    counts_requests
        Whether each of colo-compare's requests causes a checkpoint, as with a semaphore; else one
        settles all, as with an event.

    Attributes
    ----------
    trigger
        The trigger that is asked; see `set`.
    wake_fd
        Descriptor that is readable when `due` has a new answer, or the COLO thread is to end.
    """

    def __init__(
        self,
        count_dirty_pages: Callable[[], int],
        count_output_frames: Callable[[], int],
        counts_requests: bool = False,
    ) -> None:
        self._count_dirty_pages = count_dirty_pages
        self._count_output_frames = count_output_frames
        self.trigger: Trigger | OwnTriggerRunner = FixedDelay(DELAY_DEFAULT_MS)
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: `wake` may come after `close`, when the descriptor's number may be another file's.
        self._lock = threading.Lock()
        self._closed = False
        self._memory: Any = None
        #: The trigger that the COLO thread asks, or teaches, just now; it may have been replaced.
        self._used: Trigger | OwnTriggerRunner | None = None
        self._entered = 0.0
        self._last = _Last()
        self._requested: CheckpointCause | None = None
        #: The cause for which a participant wants a checkpoint; set in its thread, without a lock.
        self._wanted: CheckpointCause | None = None
        self._counts_requests = counts_requests
        self._counted: deque[CheckpointCause] = deque(maxlen=MOST_COUNTED)

    @property
    def delay_ms(self) -> int:
        """The longest time between checkpoints, in milliseconds (``x-checkpoint-delay``)."""
        longest = self.trigger.longest_ms
        return NEVER_MS if longest is None else longest

    @property
    def text(self) -> str:
        """The trigger as a text; of a user's own its name."""
        trigger = self.trigger
        return trigger.kind if isinstance(trigger, OwnTriggerRunner) else write_trigger(trigger)

    def set(self, trigger: Trigger | OwnTriggerRunner) -> None:
        """Ask another trigger from now on, which remembers nothing; none if all has ended."""
        with self._lock:
            if self._closed:
                unused: Trigger | OwnTriggerRunner | None = trigger
            else:
                before, self.trigger, self._memory = self.trigger, trigger, None
                unused = None if before is self._used else before
        if unused is not None:
            _close(unused)

    def begin(self) -> None:
        """Enter COLO: the guest is about to run, and times count from now on."""
        now = time.monotonic()
        with self._lock:
            self._memory = None
        self._entered, self._last = now, _Last(began=now, stopped=now, started=now)

    def request(self, cause: str) -> None:
        """Request a checkpoint at once; a shutdown has precedence over other causes."""
        with self._lock:
            if self._requested is None or self._requested.name != "shutdown":
                self._requested = CheckpointCause(cause)
        self.wake()

    def want(self, cause: CheckpointCause) -> None:
        """Ask for a checkpoint unless one comes first, from any thread and without delay.

        Of output that waits, or differs, only the trigger is told. The disks' checkpoint is taken.
        """
        if cause.name == DISK:
            self.request(DISK)
            return
        if cause.name != OUTPUT:
            self._wanted = cause
            if self._counts_requests:
                self._counted.append(cause)
        if not cause.need or cause.need in self.trigger.needs:
            self.wake()

    def satisfy(self) -> None:
        """Drop colo-compare's request, or one of those counted: both guests are equal now."""
        if self._counted:
            self._counted.popleft()
        self._wanted = self._counted[0] if self._counted else None

    def guest_stopped(self) -> None:
        """Take the time: the guest stands still from now on."""
        self._last.stopped = time.monotonic()
        self._last.run = self._last.stopped - self._last.started

    def guest_started(self) -> None:
        """Take the time: the guest runs from now on."""
        self._last.started = time.monotonic()

    def due(self) -> CheckpointCause | float:
        """Give the cause of a checkpoint that is due now, or the seconds until the next look."""
        self.woken()
        with self._lock:
            requested, self._requested = self._requested, None
        wanted, now = self._wanted, time.monotonic()
        if requested is None and wanted is not None and not wanted.need:
            requested = wanted
        with self._use() as (trigger, memory):
            cause = requested or self._ask(trigger, memory, wanted, now)
        if not isinstance(cause, CheckpointCause):
            return cause
        self._last.began, self._last.cause = now, cause.name
        self._last.due = now - self._last.started
        if isinstance(trigger, OwnTriggerRunner):
            return cause
        seen = self._observe(now, trigger.needs, cause)
        lead = 0.0 if requested else trigger.lead_ms(seen, memory) / 1000
        return replace(cause, lead=lead, passive=trigger.secondary_stands(seen, memory))

    def woken(self) -> bool:
        """Make `wake_fd` unreadable until the next `wake`; return whether it was readable."""
        with suppress(BlockingIOError):
            return bool(os.eventfd_read(self.wake_fd))
        return False

    def taken(self, pages: int, frames: int) -> None:
        """Let the trigger learn of a checkpoint, after which the guest runs again.

        Parameters
        ----------
        pages, frames
            Pages that it sent, and frames of output that it released.
        """
        last = self._last
        last.count += 1
        last.pages, last.frames = pages, frames
        seen = self._observe(time.monotonic(), frozenset(), None)
        with self._use() as (trigger, memory):
            memory = trigger.learn(seen, memory)
        with self._lock:
            if self.trigger is trigger:
                self._memory = memory

    def wake(self) -> None:
        """Make `wake_fd` readable."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.wake_fd, 1)

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.wake_fd)
        _close(self.trigger)

    @contextmanager
    def _use(self) -> Iterator[tuple[Trigger | OwnTriggerRunner, Any]]:
        """Give the trigger and its memory; if it is replaced meanwhile, it is closed afterwards."""
        with self._lock:
            trigger, memory = self.trigger, self._memory
            self._used = trigger
        try:
            yield trigger, memory
        finally:
            with self._lock:
                self._used = None
                replaced = self.trigger is not trigger
            if replaced:
                _close(trigger)

    def _ask(
        self,
        trigger: Trigger | OwnTriggerRunner,
        memory: Any,
        wanted: CheckpointCause | None,
        now: float,
    ) -> CheckpointCause | float:
        seen = self._observe(now, trigger.needs, wanted)
        answer = trigger.ask(seen, memory)
        if not isinstance(answer, str):
            return answer / 1000 if answer > 0 else CheckpointCause(trigger.kind)
        return wanted if wanted is not None and answer == wanted.name else CheckpointCause(answer)

    def _observe(
        self, now: float, needs: frozenset[str], wanted: CheckpointCause | None
    ) -> Situation:
        last, heeded = self._last, wanted is not None and wanted.need in needs
        return Situation(
            now_ms=(now - self._entered) * 1000,
            ran_ms=(now - last.started) * 1000,
            checkpoints=last.count,
            cause=last.cause,
            began_ms=(last.began - self._entered) * 1000,
            last_run_ms=last.run * 1000,
            last_due_ms=last.due * 1000,
            pause_ms=(last.started - last.stopped) * 1000,
            pages=last.pages,
            frames=last.frames,
            dirty_pages=self._count_dirty_pages() if DIRTY_PAGES in needs else None,
            output_frames=self._count_output_frames() if OUTPUT_FRAMES in needs else None,
            miscompare=wanted.name if wanted and heeded else None,
        )


def _close(trigger: Trigger | OwnTriggerRunner) -> None:
    if isinstance(trigger, OwnTriggerRunner):
        trigger.close()
