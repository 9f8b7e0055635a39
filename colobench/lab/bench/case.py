"""Cases and their rows: what is measured against what, its bound, and whether it is met."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colobench.lab.bench.measured import Measured
from colobench.lab.percentiles import percentiles

if TYPE_CHECKING:
    from colobench.lab.bench.context import BenchContext

#: Two threads must copy this much faster than one before a bound for two cores is judged.
TWO_CORES = 1.6


@dataclass(frozen=True, slots=True)
class Target:
    """A bound: of the ratio of ours to the reference, or of ours alone where it has a unit.

    Parameters
    ----------
    sign
        ``≤`` or ``≥``.
    bound
        Ours must be at most, or at least, so much.
    unit
        Empty for a ratio.
    """

    sign: str
    bound: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.bound} {self.unit}".rstrip()

    def met(self, ours: float, ratio: float | None) -> bool | None:
        """Judge; None where there is no ratio to judge."""
        value = ours if self.unit else ratio
        if value is None:
            return None
        compare = {"≤": operator.le, "≥": operator.ge}[self.sign]
        return bool(compare(value, self.bound))


def at_most(bound: float, unit: str = "") -> Target:
    """Make a bound from above."""
    return Target("≤", bound, unit)


def at_least(bound: float, unit: str = "") -> Target:
    """Make a bound from below."""
    return Target("≥", bound, unit)


@dataclass(frozen=True, slots=True)
class Case:
    """One row to be: what is measured, and its bound.

    Parameters
    ----------
    case
        What is measured, and against what.
    unit
        Of ours and of the reference.
    measure
        Does it, and may raise LocalError where something that it needs is missing.
    target
        The bound, None where there is none. If `measure` gives `two_threads`, it is for two cores.
    one_core
        The bound where the machine gives no two cores, None where there is none.
    """

    case: str
    unit: str
    measure: Callable[[], Measured]
    target: Target | None = None
    one_core: Target | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside its reference, as JSON and tables have it.

    Attributes
    ----------
    name, case
        The subject, and what of it was measured against what.
    ours, reference
        Medians; None if not measured, or if there is no reference.
    unit
        Of both.
    ratio
        ``ours / reference``.
    target
        The bound that was judged, such as ``≤ 1.1``; empty if there is none.
    met
        Whether ours reaches that; None if that was not judged, `note` then says why.
    note
        What was missing, or what one should know.
    ours_spread, reference_spread
        Lower and upper quartile of the samples, or None.
    two_threads
        How many times as fast as one thread two of them copied memory, beside this figure.
    """

    name: str
    case: str
    ours: float | None
    reference: float | None
    unit: str
    ratio: float | None
    target: str
    met: bool | None
    note: str
    ours_spread: tuple[float, float] | None
    reference_spread: tuple[float, float] | None
    two_threads: float | None


def quartiles(samples: Sequence[float]) -> tuple[float, float] | None:
    """Give the lower and the upper quartile, the samples being all there are; None without any."""
    low, high = percentiles(samples, (25, 75), without=None)
    return None if low is None or high is None else (low, high)


def _median(samples: Sequence[float]) -> float | None:
    return statistics.median(samples) if samples else None


def judge(name: str, case: Case, measured: Measured) -> Row:
    """Make the row of a case that was measured."""
    ours = statistics.median(measured.ours)
    reference, cores = _median(measured.reference), _median(measured.two_threads)
    ratio = ours / reference if reference else None
    target, notes = case.target, [measured.note]
    if cores is not None and cores <= TWO_CORES:
        words = f"the machine gives {cores:.1f} cores at the moment"
        if case.one_core is not None and case.one_core != target:
            notes.append(f"{words}: the bound for one core is judged")
        elif case.one_core is None and target is not None:
            notes.append(f"{words}: not judged")
        target = case.one_core or target
    # A bound for two cores alone is shown, but says nothing about one.
    judged = target if cores is None or cores > TWO_CORES or case.one_core else None
    return Row(
        name=name,
        case=case.case,
        ours=ours,
        reference=reference,
        unit=case.unit,
        ratio=ratio,
        target=str(target or ""),
        met=None if judged is None else judged.met(ours, ratio),
        note="; ".join(note for note in [*notes, "" if target else "no bound"] if note),
        ours_spread=quartiles(measured.ours),
        reference_spread=quartiles(measured.reference),
        two_threads=cores,
    )


def missing(name: str, case: Case, why: str) -> Row:
    """Make the row of a case that could not be measured, and why."""
    return Row(
        name=name,
        case=case.case,
        ours=None,
        reference=None,
        unit=case.unit,
        ratio=None,
        target=str(case.target or ""),
        met=None,
        note=why,
        ours_spread=None,
        reference_spread=None,
        two_threads=None,
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """What `colobench bench NAME` measures.

    Attributes
    ----------
    name, words
        How it is called, and what it measures.
    cases
        Gives its cases, which measure nothing before they are asked to.
    """

    name: str
    words: str
    cases: Callable[[BenchContext], Iterable[Case]]


#: Every subject by its name, in the order of definition.
SUBJECTS: dict[str, Subject] = {}


def subject(name: str, words: str) -> Callable[[Any], Any]:
    """Enter the function that gives a subject's cases into `SUBJECTS`."""

    def enter(cases: Callable[[BenchContext], Iterable[Case]]) -> Any:
        SUBJECTS[name] = Subject(name, words, cases)
        return cases

    return enter
