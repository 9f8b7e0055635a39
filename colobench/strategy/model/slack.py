"""Model of a guest's rests: how much of a pause it makes up for when it runs again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from colobench.strategy.model.spread import NO_SPREAD, Spread


@dataclass(frozen=True, slots=True)
class GuestPace:
    """Pace of a guest that is not protected.

    Attributes
    ----------
    tick_ms
        Time between two ticks of its timer, milliseconds.
    busy
        Share of the time in which it does not rest, from 0 to 1.
    kept
        Ticks that wait for it while it stands still, whose work it does later; further ones are
        lost. Infinite where no work is lost, as that of a trace or of clients, which goes on with
        the time.
    busy_behind
        Share of the time that its work takes while it makes up for a pause: less than `busy`, which
        includes that it wakes up at each tick. None: as `busy`.
    """

    tick_ms: float = 1.0
    busy: float = 0.0
    kept: float = 1.0
    busy_behind: float | None = None

    def catching_up_ms(self, pause: float) -> float:
        """Give the time in which it works without a rest behind a pause, milliseconds.

        In the time C it does what was due in the pause p and in C: C = v (p + C). It is 0 where
        ticks are lost, which leave at most the work of one.
        """
        if math.isfinite(self.kept):
            return 0.0
        share = self.busy_at_most
        return pause * share / (1 - share) if share < 1 else math.inf

    @property
    def busy_at_most(self) -> float:
        """Share of the time that its work takes if it does not rest."""
        return self.busy if self.busy_behind is None else min(self.busy, self.busy_behind)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Checkpoints that are due as soon as they can be.

    The pair prepares them while its guest runs: the last one's record is written and read, and the
    threads that wait for the next one begin to run. That takes longer while the guest makes up for
    a pause, and works all the time.

    Attributes
    ----------
    alone, beside
        Milliseconds from when all is loaded and the guest runs until a checkpoint can be due,
        beside a guest that rests, and beside one that works all the time.
    spread
        Single pauses of such checkpoints.
    """

    alone: float = 0.0
    beside: float = 0.0
    spread: Spread = NO_SPREAD

    def takes_ms(self, catching_up: float) -> float:
        """Give the time that it takes if the guest works for so many milliseconds at first."""
        more = max(0.0, self.beside - self.alone)
        return self.alone + (more * min(1.0, catching_up / self.beside) if more else 0.0)


#: Preparation that takes no time.
AT_ONCE = Preparation()


def done_ms(ran: float, pause: float, pace: GuestPace, slowed: float = 0.0) -> float:
    """Give the work of a period as the time that it takes the unprotected guest, milliseconds.

    The timer goes on while the guest stands still, so a period T + p has (T + p) / τ ticks, with
    the time τ between two. A guest that wakes takes one tick at once and drops the others that are
    due, like the periodic timers of hypervisors when they coalesce ticks
    (`colobench.guest.numba.cpu.wait_for_tick`). Let a pause begin at the moment x of a tick's
    period, in ticks, and let q = p / τ. The tick's work takes the share u of its period. A guest
    that rests at x takes the next tick at x + q, and one that works takes it at u + q. So it loses
    floor(max(x, u) + q) - 1 ticks, if that is more than 0. The mean over x from 0 to 1 is

        L = floor(q)      if q >= 1, and the fraction of q is above 1 - u,
        L = max(0, q - 1) otherwise.

    What is kept is made up for out of the rests, at the rate 1 - u. The guest cannot do more than
    without any rest, (T - s) / u, if a part s of T is lost to something else. So a guest that never
    rests (u = 1) loses the whole pause, and one that rests loses a tick less. One that takes many
    ticks at once wakes up once for all of them, so it needs only the share v <= u of the time.

    If all ticks are kept, L is 0, and (T - s) / v alone limits the work. These are a server with
    vacations that has one place for waiting, and one with a queue that has no limit (B. Doshi,
    "Queueing systems with vacations: a survey", Queueing Systems 1, 1986), with constant times.

    Parameters
    ----------
    ran, pause
        Times T and p, milliseconds.
    pace
        Pace of the guest: τ, u, v, and the ticks that are kept.
    slowed
        Part s of T, milliseconds, in which a guest that would work cannot.
    """
    due = ran + pause
    if math.isfinite(pace.kept):
        due -= pace.tick_ms * lost_ticks(pause / pace.tick_ms, pace.busy)
    busy = pace.busy_at_most
    return min(due, max(0.0, ran - slowed) / busy) if busy > 0 else due


def lost_ticks(pause: float, busy: float) -> float:
    """Give the mean number of ticks that are lost in a pause of so many ticks; see `done_ms`."""
    whole = math.floor(pause)
    if whole >= 1 and pause - whole > 1 - busy:
        return float(whole)
    return max(0.0, pause - 1)
