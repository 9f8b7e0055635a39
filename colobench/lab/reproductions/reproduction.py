"""A reproduction as data: the claim, its source, its gates; and the verdict on its measurement."""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from colobench.lab.bench.case import Target
from colobench.lab.bench.context import BenchContext
from colobench.lab.compare.statistics import estimate
from colobench.lab.percentiles import percentiles
from colobench.lab.reproductions.points import Point
from colobench.settings.settings import Settings

#: Rounds below which nothing is judged.
LEAST_ROUNDS = 3
#: Largest ratio of the quartiles of memcpy's rates, beside a measurement, with which it is judged.
#: What is compared is measured in turn, so it stands a machine that becomes somewhat slower.
DRIFT_LIMIT = 2.0
#: Share of a processor, in those checks, below which nothing is called invalid: other work can hide
#: a shape, but can hardly make one.
LEAST_SHARE = 0.8


class State(enum.Enum):
    """Outcome of a judgement."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Gate:
    """A number that decides, and its bound.

    Attributes
    ----------
    name
        Name under which `Reproduction.figures` gives the number.
    words
        Description of the number.
    target
        Bound of it.
    published
        The number as it was published; empty if only its direction was.
    counted
        Whether it is a count, which does not depend on the speed of the machine.
    """

    name: str
    words: str
    target: Target
    published: str = ""
    counted: bool = False


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Judgement of a gate.

    Attributes
    ----------
    gate
        The gate.
    value
        Median over rounds; None without rounds.
    low, high
        Ends of its bootstrap interval; None if there are too few rounds for one.
    holds
        Whether the value meets the bound; None if that is unknown.
    reason
        Why it is unknown; else empty.
    """

    gate: Gate
    value: float | None
    low: float | None
    high: float | None
    holds: bool | None
    reason: str = ""

    @property
    def bound(self) -> Target:
        """The bound."""
        return self.gate.target

    @property
    def state(self) -> State:
        """The outcome."""
        if self.holds is None:
            return State.UNKNOWN
        return State.VALID if self.holds else State.INVALID


class Laboratory:
    """Surroundings of a measurement: memory and references, and a list of the pairs it has started.

    Attributes
    ----------
    context
        Context of the bench, with the scale of all sizes and the number of rounds.
    settings
        Settings of each pair that was started, by the name of its series.
    """

    def __init__(self, context: BenchContext) -> None:
        self.context = context
        self.settings: dict[str, Settings] = {}

    def rounds(self) -> range:
        """Give the numbers of the rounds."""
        return range(1, self.context.rounds + 1)


#: The points of one round after the other.
Rounds: TypeAlias = Generator[list[Point], None, None]
#: Function that measures: gives the points of one round after the other.
Measure = Callable[[Laboratory], Rounds]
#: Function that computes the numbers of the gates from the points of a round.
Figures = Callable[[Sequence[Point]], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A quantity that is drawn against what was varied.

    Attributes
    ----------
    quantity
        Name of the quantity.
    x_label, y_label
        Labels of the axes, with units.
    logarithmic
        Whether both axes are.
    """

    quantity: str
    x_label: str
    y_label: str
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A published claim, and how it is measured here.

    Attributes
    ----------
    name
        Name, as in `colobench reproduce NAME`.
    claim
        The claim as a sentence.
    kind
        ``shape`` if a direction or an order is reproduced, ``value`` if a number is.
    source
        Publication.
    here
        Sentences on the measurement.
    gates
        Numbers that decide.
    measure, figures
        Functions that measure a round, and compute the numbers of its gates.
    drawn
        Quantities that are drawn.
    """

    name: str
    claim: str
    kind: str
    source: str
    here: str
    gates: tuple[Gate, ...]
    measure: Measure
    figures: Figures
    drawn: tuple[Drawn, ...]

    def judge(
        self, points: Sequence[Point], drift: float = 1.0, share: float = 1.0
    ) -> tuple[GateVerdict, ...]:
        """Judge what was measured.

        Parameters
        ----------
        points
            Points of all rounds.
        drift
            Ratio of the quartiles of memcpy's rates beside the measurement.
        share
            Share of a processor that these checks had.
        """
        rounds = sorted({each.round for each in points})
        found = [self.figures([each for each in points if each.round == n]) for n in rounds]
        return tuple(
            judge(gate, [of[gate.name] for of in found], drift, share) for gate in self.gates
        )


def judge(
    gate: Gate, values: Sequence[float], drift: float = 1.0, share: float = 1.0
) -> GateVerdict:
    """Judge the values of a gate, one of each round.

    The median decides, if the bootstrap interval of the median is on one side of the bound.

    Parameters
    ----------
    gate, values
        The gate and its values.
    drift, share
        As of `Reproduction.judge`.
    """
    found = estimate(values)
    if found is None:
        return GateVerdict(gate, None, None, None, None, "nothing was measured")
    ends = found.low, found.high
    met = [bool(gate.target.met(each, each)) for each in ends if each is not None]
    reason = ""
    if len(values) < LEAST_ROUNDS:
        reason = f"{len(values)} of at least {LEAST_ROUNDS} rounds"
    elif drift > DRIFT_LIMIT and not gate.counted:
        reason = f"the speed of the machine changed {drift:.1f}-fold"
    elif len(set(met)) > 1:
        reason = "the interval has the bound in it"
    elif not met[0] and share < LEAST_SHARE and not gate.counted:
        reason = f"other work took {100 * (1 - share):.0f} % of a processor"
    holds = None if reason else met[0]
    return GateVerdict(gate, found.median, *ends, holds, reason)


def overall(states: Sequence[State]) -> State:
    """Give the worst of some outcomes: invalid, else unknown, else valid."""
    for state in (State.INVALID, State.UNKNOWN):
        if state in states:
            return state
    return State.VALID if states else State.UNKNOWN


@dataclass(slots=True)
class Reproduced:
    """A reproduction, and what was measured of it.

    Attributes
    ----------
    reproduction
        The reproduction.
    points
        Points of all whole rounds.
    settings
        Settings of each pair as JSON has them, by series.
    memcpy_gb_per_s
        Check of the machine, between rounds: rate of a copy by one thread.
    processor_shares
        Share of a processor that each of these checks had.
    failure
        Description of an error that ended it; empty if there was none.
    """

    reproduction: Reproduction
    points: list[Point] = field(default_factory=list)
    settings: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    memcpy_gb_per_s: list[float] = field(default_factory=list)
    processor_shares: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def drift(self) -> float:
        """Upper quartile of the rates of memcpy, divided by the lower one."""
        low, high = percentiles(self.memcpy_gb_per_s, (25, 75), without=1.0)
        return high / low

    def verdicts(self) -> tuple[GateVerdict, ...]:
        """Judge each gate."""
        share = percentiles(self.processor_shares, [50], without=1.0)[0]
        return self.reproduction.judge(self.points, self.drift, share)

    @property
    def state(self) -> State:
        """The worst outcome of all gates; a measurement that failed is not valid."""
        failed = [State.UNKNOWN] if self.failure else []
        return overall([*(each.state for each in self.verdicts()), *failed])
