"""A score that makes one number of what a strategy costs, and ranks by intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.fields.checks import check_number
from colobench.lab.compare.findings import Findings, Group
from colobench.lab.compare.metrics import COMMIT_AGE, DEGRADATION, LATENCY, Metric
from colobench.lab.compare.statistics import Estimate, estimate, overlap
from colobench.text_table import align

#: Limit of a price, by which a microsecond of waiting is worth all of the guest's work.
PRICE_LIMIT = 1000.0


@dataclass(frozen=True, slots=True)
class Score:
    """Score of a strategy on a guest.

    Attributes
    ----------
    strategy
        Its name.
    found
        Median over rounds, with its interval; less is better.
    rank
        1 and the number of strategies that are better; those whose intervals overlap are not. So
        strategies that cannot be told apart share a rank.
    degradation, waiting_ms
        Medians of the two parts.
    """

    strategy: str
    found: Estimate
    rank: int
    degradation: float
    waiting_ms: float


class Scores(tuple[Score, ...]):
    """Scores of strategies, the best first; they show themselves as a table."""

    __slots__ = ()

    def of(self, name: str) -> Score:
        """Give the score of the strategy whose name is this, or begins with this and a bracket.

        Raises
        ------
        LocalError
            If there is not exactly one.
        """
        found = [
            each for each in self if each.strategy == name or each.strategy.startswith(f"{name}(")
        ]
        if len(found) != 1:
            names = ", ".join(each.strategy for each in self)
            raise LocalError(f"score: expected one strategy of {names}, found {name}")
        return found[0]

    def beaten(self, name: str) -> list[str]:
        """Name the strategies whose whole intervals are above that of the one of this name."""
        own = self.of(name)
        return [each.strategy for each in self if _better(own.found, each.found)]

    def __repr__(self) -> str:
        rows = [("rank", "strategy", "score", "= degradation", "+ price × waiting")]
        for each in self:
            found, interval = each.found, ""
            if found.low is not None and found.high is not None:
                interval = f" ({found.low:.3f} to {found.high:.3f})"
            shown = f"{found.median:.3f}{interval}", f"{each.degradation:.3f}"
            rows.append((str(each.rank), each.strategy, *shown, f"{each.waiting_ms:.1f} ms"))
        return "\n".join(align(rows, right=(0,)))


def score(comparison: Findings, price: float) -> Scores:
    """Score strategies: degradation + price × waiting.

    Parameters
    ----------
    comparison
        Measurements of one guest over one link; those made so far count.
    price
        Share of the guest's work that a millisecond of waiting is worth.

    Returns
    -------
    Scores
        The score of a round is its degradation, a share, and `price` times its waiting in
        milliseconds. The waiting is the median output latency if clients ask the guest, and
        otherwise the mean age of the newest commit. The score of a strategy is the median over
        rounds, with a 95 % bootstrap interval. A strategy is better than another if its interval
        is wholly below the other's.

    Raises
    ------
    LocalError
        If there are several guests or links, or the price is out of its range.
    """
    check_number("score: price", price, 0.0, PRICE_LIMIT)
    groups = comparison.groups()
    if len(groups) != 1:
        names = ", ".join(group.name for group in groups)
        raise LocalError(f"score: expected one guest over one link, found {names}")
    [group] = groups
    waiting = LATENCY if group.serves else COMMIT_AGE
    found = _estimates(group, waiting, price)
    ranks = {
        name: 1 + sum(_better(other, mine) for other in found.values())
        for name, mine in found.items()
    }
    order = sorted(found, key=lambda name: (ranks[name], found[name].median))
    return Scores(
        Score(name, found[name], ranks[name], *_parts(group, name, (DEGRADATION, waiting)))
        for name in order
    )


def _estimates(group: Group, waiting: Metric, price: float) -> dict[str, Estimate]:
    """Estimate the score of each strategy that was measured."""
    estimates = {}
    for name in group.strategies:
        figures = [each.figures for each in group.of_strategy(name)]
        values = [
            lost + price * waited
            for lost, waited in ((each[DEGRADATION.name], each[waiting.name]) for each in figures)
            if lost is not None and waited is not None
        ]
        if (found := estimate(values)) is not None:
            estimates[name] = found
    return estimates


def _parts(group: Group, name: str, metrics: Sequence[Metric]) -> list[float]:
    """Give a strategy's medians of metrics."""
    found = [group.estimate(name, metric) for metric in metrics]
    return [each.median for each in found if each is not None]


def _better(one: Estimate, other: Estimate) -> bool:
    return one.median < other.median and not overlap(one, other)
