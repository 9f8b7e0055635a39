"""The triggers, but for the hybrid: by time, miscompare, output, degradation and dirty pages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from colobench.errors import LocalError
from colobench.fields.kinds import Integer, Number
from colobench.fields.part import setting
from colobench.strategy.trigger import (
    DIRTY_PAGES,
    MISCOMPARE,
    NEVER_MS,
    OUTPUT_FRAMES,
    TIMER,
    Answer,
    BoundedTrigger,
    Situation,
    Trigger,
    maximum,
)

#: A trigger that estimates when it will be due asks again no sooner than after so many ms.
STEP_MS = 1.0
#: Part by which the dirty pages may exceed their number: each look has a cost.
EXCESS = 0.05
#: Limit of the pages of a guest: 2**64 bytes of RAM are beyond any machine.
PAGES_LIMIT = 2**52


def next_on_grid(due_from: float, delay: float, seen: Situation) -> float:
    """Give the time from which a delay counts after a checkpoint.

    A checkpoint by the timer is counted from when it was due, so that a pause does not add to the
    delay. Late ones follow at once, but do not pile up. After any other checkpoint, the delay
    begins anew.
    """
    if seen.cause != TIMER:
        return seen.began_ms
    return max(due_from + delay, seen.began_ms - delay)


@dataclass(frozen=True, slots=True)
class FixedDelay(Trigger):
    """A checkpoint a fixed time after the last one was due (QEMU's x-checkpoint-delay)."""

    title = "fixed"
    kind: ClassVar[str] = "fixed"
    source: ClassVar[str] = "Remus, NSDI 2008; QEMU's x-checkpoint-delay"

    ms: int | None = setting(
        Integer(0, NEVER_MS, "ms", or_none=True),
        100,
        "time from one checkpoint to the next; 0: back to back, none: on request alone",
    )

    @property
    def longest_ms(self) -> int | None:
        """The delay."""
        return self.ms

    def ask(self, seen: Situation, memory: float | None) -> Answer:
        """Decide by the time since the last checkpoint was due."""
        if self.ms is None:
            return float(NEVER_MS)
        left = (memory or 0.0) + self.ms - seen.now_ms
        return left if left > 0 else TIMER

    def learn(self, seen: Situation, memory: float | None) -> float:
        """Count the delay from when the checkpoint was due, see `next_on_grid`."""
        return next_on_grid(memory or 0.0, float(self.ms or 0), seen)


@dataclass(frozen=True, slots=True)
class OnMiscompare(Trigger):
    """A checkpoint as soon as the guests' output differs, and after a fixed time."""

    title = "miscompare"
    kind: ClassVar[str] = "miscompare"
    needs: ClassVar[frozenset[str]] = frozenset({MISCOMPARE})
    source: ClassVar[str] = "COLO, SoCC 2013; QEMU's colo-compare"

    maximum: int | None = setting(
        Integer(0, NEVER_MS, "ms", or_none=True),
        100,
        "longest time from one checkpoint to the next; none: on request and miscompare alone",
    )

    @property
    def longest_ms(self) -> int | None:
        """The maximum."""
        return self.maximum

    def ask(self, seen: Situation, memory: float | None) -> Answer:
        """Decide by what colo-compare wants, or else as `FixedDelay` does."""
        return seen.miscompare or FixedDelay(self.maximum).ask(seen, memory)

    def learn(self, seen: Situation, memory: float | None) -> float:
        """Count the maximum as `FixedDelay` does."""
        return FixedDelay(self.maximum).learn(seen, memory)


@dataclass(frozen=True, slots=True)
class OnOutput(BoundedTrigger):
    """A checkpoint as soon as output waits for one; an idle guest is left alone."""

    title = "output"
    kind: ClassVar[str] = "output"
    needs: ClassVar[frozenset[str]] = frozenset({OUTPUT_FRAMES})
    source: ClassVar[str] = "Kemari, 2009; Adaptive Remus, 2016"

    maximum: int = maximum()

    @property
    def longest_ms(self) -> int:
        """The maximum."""
        return self.maximum

    def decide(self, seen: Situation, memory: None) -> Answer:
        """Decide by whether output waits."""
        return "output" if seen.output_frames else float(self.maximum)


@dataclass(frozen=True, slots=True)
class Degradation(BoundedTrigger):
    """A checkpoint when the last pauses are a given part of all time.

    The guest runs for T = p (1 - d) / d after a pause of p, so that p / (T + p) is the target d. As
    p depends on T, T approaches its fixed point from checkpoint to checkpoint. p is a mean in which
    each older pause counts half as much.
    """

    title = "degradation"
    kind: ClassVar[str] = "degradation"
    source: ClassVar[str] = "HERE (HAL hal-04095419)"

    target: float = setting(
        Number(0.001, 0.9, ""), 0.1, "part of all time for which the guest may stand still"
    )
    minimum: int = setting(Integer(0, NEVER_MS, "ms"), 10, "shortest time between checkpoints")
    maximum: int = maximum()

    @property
    def longest_ms(self) -> int:
        """The maximum."""
        return self.maximum

    def complete(self) -> None:
        """Check that the minimum is no longer than the maximum."""
        check_bounds(self.minimum, self.maximum)

    def decide(self, seen: Situation, memory: float | None) -> Answer:
        """Decide by the time that the pauses so far allow."""
        run = max(self.minimum, (memory or 0.0) * (1 - self.target) / self.target)
        return run - seen.ran_ms if run > seen.ran_ms else "degradation"

    def learn(self, seen: Situation, memory: float | None) -> float:
        """Take the last pause into the mean."""
        return seen.pause_ms if memory is None else (memory + seen.pause_ms) / 2


@dataclass(frozen=True, slots=True)
class DirtyVolume(BoundedTrigger):
    """A checkpoint when so many pages have been written, which bounds the pause."""

    title = "dirty"
    kind: ClassVar[str] = "dirty"
    needs: ClassVar[frozenset[str]] = frozenset({DIRTY_PAGES})
    source: ClassVar[str] = "a fork of QEMU that forces a checkpoint at a number of dirty pages"

    pages: int = setting(Integer(1, PAGES_LIMIT), 5000, "pages that may be written in between")
    maximum: int = maximum()

    @property
    def longest_ms(self) -> int:
        """The maximum."""
        return self.maximum

    def decide(self, seen: Situation, memory: None) -> Answer:
        """Look again half-way to when all will be written, at the rate so far."""
        dirty = seen.dirty_pages or 0
        if dirty >= self.pages:
            return "dirty"
        if not dirty or seen.ran_ms <= 0:
            return STEP_MS
        soonest = max(STEP_MS, seen.ran_ms * EXCESS)
        return max(soonest, (self.pages - dirty) * seen.ran_ms / dirty / 2)


class _Past(NamedTuple):
    """Checkpoints so far; each older one counts less.

    Attributes
    ----------
    pause_ms, frames, ran_ms
        Mean pause, frames of output, and time that the guest ran, in which each older checkpoint
        counts half as much.
    weight, run_sum, pause_sum, run_squares, products
        Sums of the line of the pause over the run: of 1, T, p, T² and T p, in which each older
        checkpoint counts `KEPT` times as much.
    number
        Number of checkpoints.
    """

    pause_ms: float = 0.0
    frames: float = 0.0
    ran_ms: float = 0.0
    weight: float = 0.0
    run_sum: float = 0.0
    pause_sum: float = 0.0
    run_squares: float = 0.0
    products: float = 0.0
    number: int = 0

    def fixed_pause_ms(self) -> float:
        """Give the part of the pause that does not grow with the run.

        It is the intercept of the line of least squares, and no less than `LEAST_FIXED` of the
        pause: a disturbed checkpoint or two must not make it nothing. All of the pause, as long as
        the runs hardly differ.
        """
        if not self.weight:
            return self.pause_ms
        run, pause = self.run_sum / self.weight, self.pause_sum / self.weight
        spread = self.run_squares / self.weight - run**2
        if spread <= (LEAST_SPREAD * run) ** 2:
            return self.pause_ms
        slope = max(0.0, (self.products / self.weight - run * pause) / spread)
        return min(pause, max(pause - slope * run, LEAST_FIXED * pause))


#: Factor with which a checkpoint counts in the line of the pause after each further one.
KEPT = 0.9
#: Factor by which every other run is longer than the best one, and the others are shorter: a line
#: needs runs that differ. It costs 2.5 % more, as T + 1 / T has its least at T = 1.
STRETCH = 1.25
#: Least ratio of the standard deviation of runs to their mean, for a line.
LEAST_SPREAD = 0.05
#: Least part of the pause that counts as fixed.
LEAST_FIXED = 0.05


@dataclass(frozen=True, slots=True)
class PriceOfWaiting(BoundedTrigger):
    """A checkpoint when the output that waits has cost as much as a pause.

    With a pause p after each T, and r frames of output a second that wait for T / 2 each, the guest
    loses p / T + w r T / 2 of all time, where w is the price of a waiting frame. A pause that grows
    with the pages that were written meanwhile, p = a + b T, costs b whatever T is. So the least is
    at T = sqrt(2 a / (r w)). A price towards 0 is Young's optimum for rare failures, 1 counts a
    waiting frame like a guest that stands still. To know a, the trigger makes runs of two lengths
    in turn.
    """

    title = "price"
    kind: ClassVar[str] = "price"
    needs: ClassVar[frozenset[str]] = frozenset({OUTPUT_FRAMES})
    source: ClassVar[str] = "Young, CACM 1974, with waiting output in place of failures"

    waiting: float = setting(
        Number(1e-9, 1e9, ""), 0.01, "price of a waiting frame, in guests that stand still"
    )
    minimum: int = setting(Integer(0, NEVER_MS, "ms"), 1, "shortest time between checkpoints")
    maximum: int = maximum()

    @property
    def longest_ms(self) -> int:
        """The maximum."""
        return self.maximum

    def complete(self) -> None:
        """Check that the minimum is no longer than the maximum."""
        check_bounds(self.minimum, self.maximum)

    def optimum_ms(self, fixed_ms: float, frames_per_ms: float, stretch: float = 1.0) -> float:
        """Give the time between checkpoints that costs least, within minimum and maximum.

        Parameters
        ----------
        fixed_ms
            Part a of the pause that does not grow with the time, milliseconds.
        frames_per_ms
            Rate r of output.
        stretch
            Factor of the time before minimum and maximum are looked at.
        """
        if frames_per_ms <= 0:
            return self.maximum
        best = stretch * math.sqrt(2 * fixed_ms / (frames_per_ms * self.waiting))
        return min(max(best, self.minimum), self.maximum)

    def decide(self, seen: Situation, memory: _Past | None) -> Answer:
        """Decide by the optimum for the output of this interval and the ones before."""
        past = memory or _Past()
        frames, ran = past.frames + (seen.output_frames or 0), past.ran_ms + seen.ran_ms
        rate = frames / ran if ran > 0 else 0.0
        stretch = STRETCH if past.number % 2 else 1 / STRETCH
        best = self.optimum_ms(past.fixed_pause_ms(), rate, stretch)
        if best <= seen.ran_ms:
            return "price"
        # Output may come more quickly from now on.
        return max(STEP_MS, (best - seen.ran_ms) / 2)

    def learn(self, seen: Situation, memory: _Past | None) -> _Past:
        """Take in the last run, its pause, and the output that the checkpoint released."""
        past = memory or _Past(pause_ms=seen.pause_ms)
        run, pause = seen.last_run_ms, seen.pause_ms
        return _Past(
            (past.pause_ms + pause) / 2,
            (past.frames + seen.frames) / 2,
            (past.ran_ms + run) / 2,
            KEPT * past.weight + 1,
            KEPT * past.run_sum + run,
            KEPT * past.pause_sum + pause,
            KEPT * past.run_squares + run**2,
            KEPT * past.products + run * pause,
            past.number + 1,
        )


def usual_trigger(delay: int | None, compares: bool) -> Trigger:
    """Give the trigger of QEMU's COLO: a delay in ms, and miscompares where output is compared."""
    return OnMiscompare(delay) if compares else FixedDelay(delay)


def check_bounds(minimum: int, maximum: int) -> None:
    """Refuse, with LocalError, a minimum above the maximum."""
    if minimum > maximum:
        raise LocalError(f"minimum: expected at most the maximum, {maximum} ms, found {minimum}")
