"""A benchmark that was withdrawn: a drop between two commits that four noisy runs had shown.

In April 2020 a commit to COLO was blamed on qemu-devel for a drop from 9.7 to 1.8 Mbit/s, by four
runs. Two weeks later the figures were called noise. Here two equal programs are measured in runs
as noisy as one likes, and it is counted how often they seem to differ as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colobench.lab.compare.statistics import FEW_ROUNDS, best_of, estimate
from colobench.text_table import align

#: Mbit/s that were said to be the rate before the commit, and after it.
BEFORE, AFTER = 9.7, 1.8
#: Runs of each side.
RUNS = 4
#: Standard deviations of the logarithm of a run's rate.
SPREADS = (0.25, 0.5, 1.0, 1.5)
#: Pairs of sides that are compared.
TRIALS = 400


@dataclass(frozen=True, slots=True)
class FalseDrops:
    """Comparisons of two programs that are equal.

    Attributes
    ----------
    spread
        Standard deviation of the logarithm of a run's rate: about a third of the runs are off by
        more than a factor of exp(spread).
    runs, trials
        Runs of each side, and number of comparisons.
    dropped
        Comparisons in which the means differ, one way or the other, at least as 9.7 and 1.8 do.
    named
        Comparisons in which intervals name a winner.
    """

    spread: float
    runs: int
    trials: int
    dropped: int
    named: int


class WithdrawnBenchmark(tuple[FalseDrops, ...]):
    """Comparisons for each spread of the runs; its repr is a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        runs = self[0].runs
        heads = ("a run is off by", f"{AFTER} for {BEFORE}, by the means", "a winner, by intervals")
        rows = [heads]
        for each in self:
            rows.append(
                (
                    f"a factor of {np.exp(each.spread):.1f}",
                    f"{each.dropped} of {each.trials}",
                    f"{each.named} of {each.trials}",
                )
            )
        lines = [f"two equal programs, {runs} runs of each:", *align(rows, right=(1, 2))]
        if runs < FEW_ROUNDS:
            lines.append(f"fewer than {FEW_ROUNDS} runs: their intervals are too short")
        return "\n".join(lines)


def withdrawn_benchmark(
    runs: int = RUNS, spreads: Sequence[float] = SPREADS, *, trials: int = TRIALS, seed: int = 0
) -> WithdrawnBenchmark:
    """Compare equal programs, whose runs differ by chance alone.

    Rates are log-normal: a run is as often twice as fast as usual as it is half as fast. A winner
    is named as `colobench compare` does, by bootstrap intervals of the medians.

    Parameters
    ----------
    runs
        Runs of each program.
    spreads
        Standard deviations of the logarithm of a run's rate.
    trials
        Comparisons for each of them.
    seed
        Seed of the runs.
    """
    chance = np.random.default_rng(seed)
    found = []
    for spread in spreads:
        rates = np.exp(spread * chance.standard_normal((trials, 2, runs)))
        means = rates.mean(axis=2)
        ratios = means.max(axis=1) / means.min(axis=1)
        named = sum(_names_a_winner(*of_both) for of_both in rates)
        dropped = int((ratios >= BEFORE / AFTER).sum())
        found.append(FalseDrops(spread, runs, trials, dropped, named))
    return WithdrawnBenchmark(found)


def _names_a_winner(before: Sequence[float], after: Sequence[float]) -> bool:
    estimates = {"before": estimate(before), "after": estimate(after)}
    known = {name: each for name, each in estimates.items() if each is not None}
    return len(best_of(known, more_is_better=True)) == 1
