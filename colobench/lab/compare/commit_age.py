"""Age of the newest commit: the time of work that is lost if the primary dies at any moment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


def commit_age(
    stopped: Times, committed: Times, begin: float, end: float, percent: float
) -> tuple[float, float] | None:
    """Give mean and percentile, over time, of the age of the newest committed state.

    A survivor that took over at time t would go on from the state of the last checkpoint
    committed by t, in which the guest had stopped at an earlier time; the age is the difference.
    It grows by a second a second, and falls at each commit. Time before the first commit is left
    out.

    Parameters
    ----------
    stopped, committed
        float64[n], ascending: when the guest stopped for each checkpoint, and when the secondary
        committed it, in any unit.
    begin, end
        Interval of time, in that unit, over which is averaged.
    percent
        Percentage of the time in which the age is at most the percentile.

    Returns
    -------
    tuple
        Mean and percentile, in that unit; None without a commit before `end`.
    """
    starts = np.clip(committed, begin, end)
    ends = np.append(starts[1:], end)[: len(starts)]
    some = ends > starts
    youngest, oldest = starts[some] - stopped[some], ends[some] - stopped[some]
    if not len(youngest):
        return None
    lengths = oldest - youngest
    mean = float(np.sum(lengths * (youngest + oldest) / 2) / np.sum(lengths))
    return mean, _percentile(youngest, oldest, percent)


def _percentile(youngest: Times, oldest: Times, percent: float) -> float:
    """Give a percentile of a mixture of uniform distributions, weighted by their lengths.

    Between two neighbouring ends of intervals the distribution function is a straight line.
    """
    ages = np.concatenate([youngest, oldest])
    slopes = np.concatenate([np.ones(len(youngest)), -np.ones(len(oldest))])
    order = np.argsort(ages, kind="stable")
    ages, slopes = ages[order], np.cumsum(slopes[order])
    time = np.concatenate([[0.0], np.cumsum(np.diff(ages) * slopes[:-1])])
    return float(np.interp(percent / 100 * time[-1], time, ages))
