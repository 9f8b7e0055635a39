"""Models of triggers: for how long the guest runs between two checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable

from colobench.strategy.hybrid import CYCLES, NEW, OLD, Hybrid
from colobench.strategy.model.checkpoint import Checkpoint
from colobench.strategy.model.curve import DirtyCurve
from colobench.strategy.model.inputs import Workload
from colobench.strategy.trigger import Trigger
from colobench.strategy.triggers import (
    EXCESS,
    LEAST_FIXED,
    STEP_MS,
    STRETCH,
    Degradation,
    DirtyVolume,
    FixedDelay,
    OnMiscompare,
    OnOutput,
    PriceOfWaiting,
)

#: Longest interval that is looked for, milliseconds.
LONGEST_MS = 1e8

#: Gives the checkpoint after the guest has run for so many milliseconds.
After = Callable[[float], Checkpoint]


def has_interval_model(trigger: Trigger) -> bool:
    """Say whether there is a model of a trigger, and it takes checkpoints by itself."""
    return _wanted(trigger, Workload(DirtyCurve((), (), 0.0), 1.0), None) is not None


def run_time(trigger: Trigger, workload: Workload, after: After) -> float | None:
    """Predict for how many milliseconds T the guest runs between two checkpoints.

    T depends on the pause, which depends on the dirty pages of T: the result is a fixed point. It
    is never shorter than the time for which the last checkpoint keeps the pair busy.

    Parameters
    ----------
    trigger
        The trigger.
    workload
        Rates of output and miscompares.
    after
        Function that gives the checkpoint after a run of so many milliseconds.

    Returns
    -------
    float
        None if there is no model of this trigger, or it takes no checkpoint by itself.
    """
    wanted = _wanted(trigger, workload, after)
    if wanted is None:
        return None
    return _fixed_point(lambda ran: max(wanted(ran, after(ran)), after(ran).busy))


def _wanted(
    trigger: Trigger, load: Workload, after: After | None
) -> Callable[[float, Checkpoint], float] | None:
    """Give the time that the trigger wants, as a function of the run and its checkpoint."""
    if isinstance(trigger, FixedDelay) and trigger.ms is not None:
        return fixed_delay(trigger.ms)
    if isinstance(trigger, OnMiscompare) and trigger.maximum is not None:
        return on_miscompare(trigger.maximum, load.miscompares_per_ms)
    if isinstance(trigger, OnOutput):
        return on_output(trigger.maximum, load)
    if isinstance(trigger, Degradation):
        return degradation(trigger)
    if isinstance(trigger, DirtyVolume):
        return dirty_volume(trigger, load)
    if isinstance(trigger, PriceOfWaiting):
        return price_of_waiting(trigger, load, after)
    if isinstance(trigger, Hybrid):
        return hybrid(trigger, load.miscompares_per_ms)
    return None


def fixed_delay(delay: float) -> Callable[[float, Checkpoint], float]:
    """T + p = the delay: it counts from when the last checkpoint was due (`next_on_grid`)."""
    return lambda ran, found: delay - found.pause


def on_miscompare(maximum: float, rate: float) -> Callable[[float, Checkpoint], float]:
    """E[T] = (1 − exp(−κ M)) / κ, with κ miscompares a millisecond and the longest run M.

    Source: the mean of the smaller of an exponential time and M.
    """
    return lambda ran, found: (
        mean_until(rate, max(0.0, maximum - found.pause)) + (found.request if rate else 0.0)
    )


def mean_until(rate: float, longest: float) -> float:
    """Give the mean of the smaller of an exponential time with this rate and the longest."""
    return longest if rate * longest < 1e-12 else -math.expm1(-rate * longest) / rate


def on_output(maximum: float, load: Workload) -> Callable[[float, Checkpoint], float]:
    """One checkpoint for each frame of output (Kemari, 2009).

    A guest that sends a frame after so much work sends the next one T = 1 / ρ later. Clients ask
    each 1 / ρ whether or not the guest stands still: T + p = 1 / ρ.
    """
    every = min(maximum, 1 / load.frames_per_ms) if load.frames_per_ms > 0 else maximum
    if load.clients and load.frames_per_ms > 0:
        return lambda ran, found: every - found.pause
    return lambda ran, found: every


def degradation(trigger: Degradation) -> Callable[[float, Checkpoint], float]:
    """T = p (1 − d) / d, within minimum and maximum (HERE); the guest runs during the request."""
    share = (1 - trigger.target) / trigger.target
    return lambda ran, found: (
        min(trigger.maximum, max(trigger.minimum, found.pause * share)) + found.request
    )


def dirty_volume(trigger: DirtyVolume, load: Workload) -> Callable[[float, Checkpoint], float]:
    """D(T) = the number of pages, and half of the step between the trigger's last two looks."""
    work = load.curve.work_for(trigger.pages, trigger.maximum * load.work_per_ms)
    due = work / load.work_per_ms if load.work_per_ms > 0 else trigger.maximum
    late = max(STEP_MS, EXCESS * due) / 2
    return lambda ran, found: min(trigger.maximum, due + late) + found.request


def price_of_waiting(
    trigger: PriceOfWaiting, load: Workload, after: After | None
) -> Callable[[float, Checkpoint], float]:
    """T = √(2 a / (ρ w)), see `PriceOfWaiting`; clients send ρ (T + p) / T in a time of running.

    a is the intercept of the line through the pauses after the two runs that the trigger makes in
    turn, T STRETCH and T / STRETCH; the mean of these is what is predicted.
    """

    def wanted(ran: float, found: Checkpoint) -> float:
        rate = load.frames_per_ms
        if load.clients and ran > 0:
            rate *= (ran + found.pause) / ran
        runs = [
            trigger.optimum_ms(_fixed_pause(ran, found, after), rate, stretch)
            for stretch in (STRETCH, 1 / STRETCH)
        ]
        return sum(runs) / 2 + found.request

    return wanted


def _fixed_pause(ran: float, found: Checkpoint, after: After | None) -> float:
    if after is None or ran <= 0:
        return found.pause
    long, short = ran * STRETCH, ran / STRETCH
    slope = max(0.0, (after(long).pause - after(short).pause) / (long - short))
    return max(found.pause - slope * ran, LEAST_FIXED * found.pause)


def hybrid(trigger: Hybrid, rate: float) -> Callable[[float, Checkpoint], float]:
    """The mean over both modes (Gilbert 2015): five comparing intervals, then the passive ones.

    The passive mode is entered if the mean, which begins at 0, is below the limit after five
    intervals.
    """
    comparing = max(trigger.minimum, mean_until(rate, trigger.maximum))
    judged = comparing * (1 - OLD**CYCLES) * NEW / (1 - OLD)
    if judged >= trigger.passive_limit:
        return lambda ran, found: comparing + found.request
    total = CYCLES * comparing + trigger.passive_count * trigger.passive_time
    mean = total / (CYCLES + trigger.passive_count)
    return lambda ran, found: mean + found.request


def _fixed_point(wanted: Callable[[float], float]) -> float:
    """Find T with wanted(T) = T, by bisection; wanted(T) grows more slowly than T in the end."""
    low, high = 0.0, 1.0
    while wanted(high) > high and high < LONGEST_MS:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if wanted(middle) > middle else (low, middle)
    return high
