"""Cases and their rows: two things that are compared, a target, and whether it is met."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colobench.lab.bench.measured import Measured
from colobench.lab.percentiles import percentiles

if TYPE_CHECKING:
    from colobench.lab.bench.context import BenchContext

#: Least speed-up of memcpy by a second thread for which a bound for two cores is judged.
TWO_CORES = 1.6


@dataclass(frozen=True, slots=True)
class Target:
    """Bound of the ratio of ours to the reference, or of ours alone if it has a unit.

    Parameters
    ----------
    sign
        ``≤`` or ``≥``.
    bound
        Largest, or smallest, value that meets the target.
    unit
        Empty for a ratio.
    """

    sign: str
    bound: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.bound} {self.unit}".rstrip()

    def met(self, ours: float, ratio: float | None) -> bool | None:
        """Judge a row; return None if there is no ratio to judge."""
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
    """A measurement to be made, and its target.

    Parameters
    ----------
    case
        Name of the measurement and of its reference.
    unit
        Unit of ours and of the reference.
    measure
        Function that measures; it raises LocalError if something that it needs is missing.
    target
        Target, or None. If `measure` gives `two_threads`, it is for two cores.
    one_core
        Target on a machine that does not give two cores, or None.
    """

    case: str
    unit: str
    measure: Callable[[], Measured]
    target: Target | None = None
    one_core: Target | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Measurement next to its reference, in the form of JSON and tables.

    Attributes
    ----------
    name, case
        Subject, and name of the measurement and its reference.
    ours, reference
        Medians; None if not measured, or if there is no reference.
    unit
        Unit of both.
    ratio
        ``ours / reference``.
    target
        Target that was judged, such as ``≤ 1.1``; empty if there is none.
    met
        Whether ours meets the target; None if it was not judged, for the reason in `note`.
    note
        Things that were missing, and other remarks.
    ours_spread, reference_spread
        Lower and upper quartile of the samples, or None.
    two_threads
        Rate of memcpy on two threads over that on one, beside this measurement.
    settings
        Settings of the session that was measured, whole; None if there was none.
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
    settings: Mapping[str, Any] | None = None


def quartiles(samples: Sequence[float]) -> tuple[float, float] | None:
    """Give the lower and the upper quartile of samples; None without samples."""
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
            notes.append(f"{words}: the target for one core is judged")
        elif case.one_core is None and target is not None:
            notes.append(f"{words}: not judged")
        target = case.one_core or target
    # A bound for two cores is shown, but not judged on one.
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
        note="; ".join(note for note in [*notes, "" if target else "no target"] if note),
        ours_spread=quartiles(measured.ours),
        reference_spread=quartiles(measured.reference),
        two_threads=cores,
        settings=measured.settings,
    )


def missing(name: str, case: Case, why: str) -> Row:
    """Make the row of a case that could not be measured, with the reason."""
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
    """A subject of the bench, as in `colobench bench NAME`.

    Attributes
    ----------
    name, words
        Name, and a description.
    cases
        Function that gives its cases; they measure nothing by themselves.
    """

    name: str
    words: str
    cases: Callable[[BenchContext], Iterable[Case]]


#: Every subject by its name, in the order of definition.
SUBJECTS: dict[str, Subject] = {}


def subject(name: str, words: str) -> Callable[[Any], Any]:
    """Add a function that yields a subject's cases to `SUBJECTS`."""

    def enter(cases: Callable[[BenchContext], Iterable[Case]]) -> Any:
        SUBJECTS[name] = Subject(name, words, cases)
        return cases

    return enter
