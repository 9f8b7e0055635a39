"""Model of intervals: the trigger itself, asked as a node asks it, in the model's own time.

A trigger is a pure function, so its model needs no formula: `intervals` asks the function that runs
in the node, with the model's checkpoints in place of real ones, until what it has learned no longer
depends on how it began. So the result is the trigger's fixed point, or its cycle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from colobench.strategy.model.checkpoint import Checkpoint
from colobench.strategy.model.inputs import Workload
from colobench.strategy.model.output import FrameOutput
from colobench.strategy.model.slack import AT_ONCE, Preparation, done_ms
from colobench.strategy.model.spread import NO_SPREAD, Spread
from colobench.strategy.own import OwnTrigger
from colobench.strategy.trigger import DIRTY_PAGES, MISCOMPARE, OUTPUT_FRAMES, Situation, Trigger

#: Longest interval that is looked for, milliseconds.
LONGEST_MS = 1e8
#: Checkpoints that are made before any counts, and checkpoints that count.
SETTLING, COUNTED = 40, 240
#: Least time between two questions to a trigger: a node's wait and its look take no less.
LEAST_STEP_MS = 0.01

#: Gives the checkpoint after the guest has run for so many milliseconds.
After = Callable[[float], Checkpoint]
#: Gives the pages that are dirty after so many milliseconds.
Dirty = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Interval:
    """A run of the guest, and the checkpoint behind it.

    Attributes
    ----------
    ran
        Milliseconds for which the guest ran.
    ratio
        Pause of this checkpoint without what the link adds, divided by that of `found`.
    found
        Checkpoint, as the model has it.
    asked
        For each frame that waits: milliseconds from the client's request for it until the stop, or
        from when the guest sent it by itself. Empty unless the trigger looks at output.
    """

    ran: float
    ratio: float
    found: Checkpoint
    asked: tuple[float, ...] = ()

    @property
    def pause(self) -> float:
        """Milliseconds for which the guest stood still."""
        return self.found.pause + self.disturbed

    @property
    def disturbed(self) -> float:
        """Milliseconds by which this pause is longer than that of `found`."""
        return (self.ratio - 1) * self.found.alone

    @property
    def period(self) -> float:
        """Milliseconds from the resume before to the resume behind."""
        return self.ran + self.pause


def has_interval_model(trigger: Trigger) -> bool:
    """Say whether a trigger may be asked here, and takes checkpoints by itself."""
    return not isinstance(trigger, OwnTrigger) and trigger.longest_ms is not None


def intervals(
    trigger: Trigger,
    load: Workload,
    after: After,
    dirty: Dirty,
    spread: Spread = NO_SPREAD,
    preparation: Preparation = AT_ONCE,
) -> list[Interval] | None:
    """Ask a trigger for one checkpoint after another.

    The node's rules are those of `colobench.node.trigger`: a trigger is asked when the answer
    before says so, when the first frame of output begins to wait, and when outputs differ, if it
    looks at these; but not before the pair is ready for it (`Preparation`). When it gives a
    cause, the guest runs on for the time of the request, and for the trigger's own lead.

    What comes by chance has the distribution that was measured, without its chance: miscompares
    are exponential, single pauses have the distances from the line that those of the calibration
    had (`Spread`). A trigger that learns from pauses learns from long ones, too: the mean of
    pauses that are disturbed at times is above their median. Each of the equal parts of a
    distribution comes once, in an order that is always the same.

    Returns
    -------
    list of Interval
        Those that count; None if the trigger takes no checkpoint for `LONGEST_MS`.
    """
    if not has_interval_model(trigger):
        return None
    pair = _Pair(trigger, load, after, dirty, spread, preparation)
    found = [pair.next() for _ in range(SETTLING + COUNTED)]
    return None if any(each.ran >= LONGEST_MS for each in found) else found[SETTLING:]


def run_time(trigger: Trigger, load: Workload, after: After, dirty: Dirty) -> float | None:
    """Give the mean time T for which the guest runs between two checkpoints, in milliseconds."""
    found = intervals(trigger, load, after, dirty)
    return None if found is None else float(np.mean([each.ran for each in found]))


def shares(seed: int) -> list[float]:
    """Give a share of a distribution for each checkpoint: the middles of equal parts of 0 to 1.

    Those that count have each part once, in an order that is always the same.
    """
    chance = np.random.default_rng(seed)
    parts = [(chance.permutation(each) + 0.5) / each for each in (SETTLING, COUNTED)]
    return [float(each) for part in parts for each in part]


class _Pair:
    """A pair in the model's own time, as its trigger knows it."""

    def __init__(
        self,
        trigger: Trigger,
        load: Workload,
        after: After,
        dirty: Dirty,
        spread: Spread,
        preparation: Preparation,
    ) -> None:
        self._trigger, self._after, self._dirty, self._spread = trigger, after, dirty, spread
        self._preparation = preparation
        needs = trigger.needs
        self._miscompares = load.miscompares_per_ms if MISCOMPARE in needs else 0.0
        self._output = FrameOutput(load) if OUTPUT_FRAMES in needs else None
        self._pace = load.pace
        self._looks_at_pages = DIRTY_PAGES in needs
        self._chance = zip(shares(0), shares(1), strict=True)
        self._memory: Any = None
        #: When the guest was started, and for how long it has to run before a checkpoint.
        self._started = self._ready = 0.0
        self._last = Situation(0.0, 0.0)

    def next(self) -> Interval:
        """Make a checkpoint; give it with the run before."""
        differs, noise = next(self._chance)
        rate = self._miscompares
        seen, cause = self._wait(-math.log1p(-differs) / rate if rate else math.inf)
        lead = self._trigger.lead_ms(seen, self._memory)
        ran = seen.ran_ms + self._after(seen.ran_ms).request + lead
        found = self._after(ran)
        at_once = seen.ran_ms <= self._ready
        spread = (at_once and self._preparation.spread) or self._spread
        made = Interval(ran, spread.ratio(found.alone, noise), found)
        stopped = self._started + ran
        if self._output is not None:
            more = max(0.0, done_ms(ran, made.pause, self._pace) - ran)
            released, asked = self._output.release(stopped, stopped + made.pause, more)
            made = replace(made, asked=asked)
            self._last = replace(self._last, frames=released)
        self._learn(seen, cause, made)
        return made

    def _wait(self, miscompare: float) -> tuple[Situation, str]:
        """Ask until there is a cause; `miscompare` is when the guests' output differs."""
        ran = self._ready
        while True:
            seen = self._observe(ran, miscompare)
            answer = self._trigger.ask(seen, self._memory)
            if isinstance(answer, str):
                return seen, answer
            if answer <= 0 or ran >= LONGEST_MS:
                return seen, self._trigger.kind
            wakes = [ran + answer, miscompare if miscompare > ran else math.inf]
            if self._output is not None and not seen.output_frames:
                wakes.append(self._output.first_at() - self._started)
            ran = max(ran + LEAST_STEP_MS, min(wakes))

    def _observe(self, ran: float, miscompare: float) -> Situation:
        now = self._started + ran
        return replace(
            self._last,
            now_ms=now,
            ran_ms=ran,
            dirty_pages=int(self._dirty(ran)) if self._looks_at_pages else None,
            output_frames=None if self._output is None else self._output.waiting(now),
            miscompare=MISCOMPARE if ran >= miscompare else None,
        )

    def _learn(self, seen: Situation, cause: str, made: Interval) -> None:
        """Start the guest again, and let the trigger learn of the checkpoint."""
        found = made.found
        self._started += made.period
        prepared = self._preparation.takes_ms(self._pace.catching_up_ms(made.pause))
        self._ready = max(0.0, found.busy - found.request) + prepared
        self._last = replace(
            self._last,
            now_ms=self._started,
            ran_ms=0.0,
            checkpoints=self._last.checkpoints + 1,
            cause=cause,
            began_ms=seen.now_ms,
            last_run_ms=made.ran,
            last_due_ms=seen.ran_ms,
            pause_ms=made.pause,
            pages=round(found.pages),
        )
        self._memory = self._trigger.learn(self._last, self._memory)
