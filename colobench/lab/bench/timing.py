"""Comparison of two things: in turn, in one process, by the medians of their samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

#: Function that takes one sample: seconds, or another quantity.
Sampler = Callable[[], float]
#: Calls that are shorter than this (seconds) are timed many at a time.
SHORTEST_SAMPLE = 1e-3
#: Factor by which the rounds of quick samples may exceed those asked for.
MOST_TIMES = 10


def alternate(
    samplers: Sequence[Sampler], rounds: int, enough_seconds: float = 0
) -> list[list[float]]:
    """Take samples in turn, every other round in the opposite order.

    So a machine that grows slower meanwhile slows down all of them, and none always follows the
    same other one. A first sample of each, which warms caches and compiles, is thrown away.

    Parameters
    ----------
    samplers
        Samplers of the things that are compared.
    rounds
        Least number of rounds.
    enough_seconds
        There are more rounds, up to `MOST_TIMES` as many, as long as all took no longer than this.

    Returns
    -------
    list
        For each sampler its samples, one for each round.
    """
    for sampler in samplers:
        sampler()
    samples: list[list[float]] = [[] for _ in samplers]
    order = list(zip(samplers, samples, strict=True))
    began = time.perf_counter()
    for turn in range(MOST_TIMES * rounds):
        if turn >= rounds and time.perf_counter() - began > enough_seconds:
            break
        for sampler, taken in order if turn % 2 == 0 else reversed(order):
            taken.append(sampler())
    return samples


def timed(
    work: Callable[[], object],
    prepare: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.thread_time,
) -> Sampler:
    """Make a sampler of the seconds that `work` takes.

    Parameters
    ----------
    work
        Called once for a sample, or as often as makes `SHORTEST_SAMPLE`; that gives the mean.
    prepare
        Called before each sample, untimed; work with a preparation is called once.
    clock
        By default the time in which this thread ran, which other work on the machine does not
        lengthen; what waits, or has threads of its own, needs another one.
    """
    calls = 0

    def sample() -> float:
        nonlocal calls
        if prepare is not None:
            prepare()
        elif not calls:
            work()
        begin = clock()
        for _ in range(max(calls, 1)):
            work()
        seconds = (clock() - begin) / max(calls, 1)
        if not calls:
            calls = 1 if prepare else math.ceil(SHORTEST_SAMPLE / max(seconds, 1e-7))
        return seconds

    return sample
