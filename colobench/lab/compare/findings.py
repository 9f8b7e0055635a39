"""Findings of a comparison: its measurements, and estimates over rounds, by guest and link."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from colobench.lab.compare.cells import Cell
from colobench.lab.compare.measurement import Measurement
from colobench.lab.compare.metrics import HELD_RATE, METRICS, Metric
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.compare.statistics import Estimate, best_of, estimate
from colobench.processes.hostinfo import describe_machine

#: Share by which a check of the machine may differ from the median of all.
DRIFT_LIMIT = 0.2
#: Predicted values of metrics, by strategy, guest and link.
Predictions: TypeAlias = Mapping[tuple[str, str, str], Mapping[str, float]]


class MetricRow(NamedTuple):
    """A metric in the table of a guest and a link.

    Attributes
    ----------
    metric
        The metric.
    estimates
        An estimate for each strategy that has values.
    best
        Names of the winner, or of those that tie, see `best_of`; empty if it is no contest.
    """

    metric: Metric
    estimates: Mapping[str, Estimate]
    best: tuple[str, ...]

    @property
    def undecided(self) -> bool:
        """Whether several are best because one of them has one round, which has no interval."""
        return len(self.best) > 1 and any(self.estimates[name].low is None for name in self.best)

    @property
    def leaders(self) -> tuple[str, ...]:
        """Those of the best that have the very best median."""
        return tuple(
            name
            for name in self.best
            if self.estimates[name].median == self.estimates[self.best[0]].median
        )

    def verdict(self) -> str:
        """Name the winner, or say that there is none."""
        if len(self.estimates) < 2 or not self.best:
            return "–"
        if self.undecided:
            leaders = self.leaders
            equal = len(leaders) == len(self.estimates)
            return f"after one round: {'equal' if equal else ', '.join(leaders)}"
        return self.best[0] if len(self.best) == 1 else f"tie: {', '.join(self.best)}"


class Group:
    """The cells with the same guest and link, which are compared with each other.

    Attributes
    ----------
    cells
        The cells, in the order of their strategies.
    measurements
        Their measurements so far.
    """

    def __init__(self, cells: Sequence[Cell], measurements: Iterable[Measurement]) -> None:
        self.cells = tuple(cells)
        self.strategies = tuple(cell.strategy for cell in cells)
        keys = {cell.key for cell in cells}
        self.measurements = [each for each in measurements if each.key in keys]

    @property
    def name(self) -> str:
        """Guest and link, in words."""
        cell = self.cells[0]
        return f"{cell.guest} over {cell.link}" if cell.link else cell.guest

    @property
    def serves(self) -> bool:
        """Whether the guest has clients."""
        return self.cells[0].serves

    def of_strategy(self, strategy: str) -> list[Measurement]:
        """Give the measurements of a strategy."""
        return [each for each in self.measurements if each.strategy == strategy]

    def estimate(self, strategy: str, metric: Metric) -> Estimate | None:
        """Give a strategy's median of a metric over rounds; None if it has no value."""
        values = [each.figures.get(metric.name) for each in self.of_strategy(strategy)]
        return estimate([value for value in values if value is not None])

    def row(self, metric: Metric) -> MetricRow:
        """Compare the strategies by a metric."""
        found = {each: self.estimate(each, metric) for each in self.strategies}
        estimates = {name: each for name, each in found.items() if each is not None}
        return MetricRow(metric, estimates, best_of(estimates, metric.more_is_better))

    def rows(self) -> list[MetricRow]:
        """Compare the strategies by each metric that one of them has; then the rate of the link."""
        rows = (*map(self.row, METRICS), self.link_row())
        return [row for row in rows if row.estimates]

    def link_row(self) -> MetricRow:
        """Give the rate that the link held under each strategy; nobody wins by it."""
        estimates = {}
        for name in self.strategies:
            rates = [each.held_rate for each in self.of_strategy(name)]
            found = estimate([rate for rate in rates if rate is not None])
            if found is not None:
                estimates[name] = found
        return MetricRow(HELD_RATE, estimates, ())

    def rounds(self) -> int:
        """Give the number of rounds that all strategies have."""
        return min(len(self.of_strategy(each)) for each in self.strategies)


class Findings:
    """Measurements of cells, which may still grow.

    Parameters
    ----------
    cells
        Cells, all of them checked.
    settings
        Settings that all have in common.
    measurements
        Measurements of earlier runs.

    Attributes
    ----------
    cells, settings
        As the parameters.
    measurements
        Measurements so far.
    """

    def __init__(
        self,
        cells: tuple[Cell, ...],
        settings: ComparisonSettings,
        measurements: Iterable[Measurement] = (),
    ) -> None:
        self.cells, self.settings = cells, settings
        self.measurements = list(measurements)

    @cached_property
    def machine(self) -> dict[str, Any]:
        """Description of the machine, see `describe_machine`."""
        return describe_machine()

    def groups(self) -> list[Group]:
        """Give what is compared with each other: a group for each guest and link."""
        places = dict.fromkeys((cell.guest, cell.link) for cell in self.cells)
        return [
            Group(
                [cell for cell in self.cells if (cell.guest, cell.link) == place],
                self.measurements,
            )
            for place in places
        ]

    @property
    def missing(self) -> int:
        """Number of measurements that are still to be made."""
        rounds = range(1, self.settings.rounds + 1)
        done = {(each.round, each.key) for each in self.measurements}
        return sum((number, cell.key) not in done for number in rounds for cell in self.cells)

    def drift(self, cell: Cell) -> float:
        """Give the largest share by which the machine was quicker or slower beside a cell.

        The rate of a copy by one thread, before and after each measurement, is divided by the
        median of all; see `DRIFT_LIMIT`.
        """
        rates = [rate for each in self.measurements for rate in each.memcpy_gb_per_s]
        own = [each for each in self.measurements if each.key == cell.key]
        middle = statistics.median(rates) if rates else 1.0
        return max(
            (abs(rate / middle - 1) for each in own for rate in each.memcpy_gb_per_s), default=0.0
        )

    def drifted(self, cell: Cell) -> bool:
        """Say whether the machine changed so much beside a cell that its figures are doubtful."""
        return self.drift(cell) > DRIFT_LIMIT

    def held(self, cell: Cell) -> bool:
        """Say whether the link held its rate within 3 % in all measurements of a cell."""
        return all(each.held for each in self.measurements if each.key == cell.key)

    def marks(self, cell: Cell) -> str:
        """Give the marks behind the name of a cell whose figures are doubtful; see `notes`."""
        return ("*" if self.drifted(cell) else "") + ("" if self.held(cell) else "†")
