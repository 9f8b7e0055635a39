"""Results of kills: a file with a line for each, and statistics over all."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.lab.percentiles import percentiles
from colobench.lab.result_lines import ResultLines
from colobench.lab.torture.kill_plan import AT_ONCE, Kill

#: Percentages of the statistics of durations.
PERCENTS = (50, 90, 99, 100)
#: Names that each kill has.
_NAMES = ("transport", "output", "victim", "holder", "point")
#: Names of details: requests to disks under way at a kill, and the time from which a guest that was
#: started on the disk that was left has lost answered writes, before the kill.
UNDER_WAY, LOST_MS = "requests_under_way", "lost_ms"
#: Beginning of each line of a file of results.
_BEGINNING = b'{"kill": {"number": '


@dataclass(frozen=True, slots=True)
class KillResult:
    """Result of a kill.

    Attributes
    ----------
    kill
        Kill as planned.
    takeover_ms
        Milliseconds from the kill to the survivor's first answer to a client; None without one. If
        the guest serves no clients, to its running guest, as is `every_ms`.
    every_ms
        Milliseconds from the kill until every client had one.
    operations
        Number of operations that the checker looked at: of clients, or the guest's writes to disks.
    linearizable
        Verdict of the checker, of whatever history; None if it was undecided.
    violations
        Sentences about violations: of the checker, of lost connections, of processes left behind,
        and so on.
    details
        Other things that were noted, by name.
    settings
        Those of the pair, whole, as JSON has them.
    torture
        Other settings of its run, see `TortureSettings.own_json`.
    undecided
        A sentence about the search for each key that the checker gave up.
    """

    kill: Kill
    takeover_ms: float | None
    every_ms: float | None
    operations: int
    linearizable: bool | None
    violations: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    torture: Mapping[str, Any] = field(default_factory=dict)
    undecided: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write the result on one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> KillResult:
        """Read what `to_json` wrote.

        Raises
        ------
        LocalError
            If it did not.
        """
        try:
            row = json.loads(line)
            kill, violations = Kill(**row.pop("kill")), _sentences(row.pop("violations"))
            undecided = _sentences(row.pop("undecided", []))
            found = cls(kill=kill, violations=violations, undecided=undecided, **row)
            found._check()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LocalError(f"result: expected one of a kill, found {line[:80]!r}") from error
        return found

    def _check(self) -> None:
        """Check that everything is of its type, with TypeError."""
        parts = (self.details, self.settings, self.torture)
        names = self.kill.named().values()
        if not (
            all(isinstance(each, dict) for each in parts)
            and all(isinstance(each, str) for each in names)
            and all(map(_is_number, (self.kill.number, self.operations)))
            and all(each is None or _is_number(each) for each in (self.takeover_ms, self.every_ms))
            and self.linearizable in (True, False, None)
            and _is_number(self.details.get(UNDER_WAY, 0))
            and (self.details.get(LOST_MS) is None or _is_number(self.details[LOST_MS]))
        ):
            raise TypeError


def _sentences(found: object) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TypeError
    return tuple(found)


def _is_number(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


class Results:
    """A file of results, a line for each kill.

    Parameters
    ----------
    path
        The file; it need not be there yet.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._lines = ResultLines(path, _BEGINNING, "results of kills")

    def alone(self) -> AbstractContextManager[None]:
        """Keep other processes from adding to the file; see `ResultLines.alone`."""
        return self._lines.alone()

    def load(self) -> list[KillResult]:
        """Read the results.

        Raises
        ------
        LocalError
            If there is anything else in the file, or one of them twice.
        """
        found: dict[int, KillResult] = {}
        for number, line in enumerate(self._lines.load(), start=1):
            try:
                result = KillResult.from_json(line)
            except LocalError as error:
                raise LocalError(f"{self._path}: line {number}: {error}") from error
            if found.setdefault(result.kill.number, result) is not result:
                raise LocalError(
                    f"{self._path}: line {number}: expected each kill once, found kill "
                    f"{result.kill.number} twice"
                )
        return list(found.values())

    def append(self, result: KillResult) -> None:
        """Write a result behind the others; see `ResultLines.append`."""
        self._lines.append(result.to_json())

    def remaining(
        self,
        planned: Sequence[Kill],
        settings: Callable[[Kill], Mapping[str, Any]],
    ) -> list[Kill]:
        """Give those of a plan's kills that have no result.

        Parameters
        ----------
        planned
            The kills.
        settings
            Gives the settings that a kill's result is to have: of its pair, and of the run.

        Raises
        ------
        LocalError
            If the results are those of another plan, or of kills with other settings.
        """
        found = self.load()
        done = {each.kill.number: each.kill for each in found}
        for each in planned:
            if done.get(each.number, each) != each:
                raise LocalError(
                    f"{self._path}: expected results of {each}, found those of {done[each.number]}"
                )
        for result in found:
            expected = settings(result.kill)
            there = {**result.settings, **result.torture}
            if there != expected:
                every = {**expected, **there}
                names = [each for each in every if there.get(each) != expected.get(each)]
                raise LocalError(
                    f"{self._path}: expected results with {_shown(expected, names)}, "
                    f"found some with {_shown(there, names)}"
                )
        return [each for each in planned if each.number not in done]


def _shown(settings: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {settings.get(name)}" for name in names)


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics over kills.

    Attributes
    ----------
    kills, operations
        Number of kills, and of operations that the checker looked at.
    takeover_ms, every_ms
        Percentiles, by 50, 90, 99 and 100; empty without a takeover.
    without_answer
        Kills after which no client had an answer, although a node was left.
    undecided
        Kills whose history the checker could not decide.
    violations
        Kills and what was wrong, a sentence each.
    tried
        Kills and what the checker tried before it gave up, a sentence for each key.
    per_value
        For each name of `Kill.named`, the number of kills by value.
    per_combination
        The number of kills by combination.
    under_way
        Numbers of requests to the guest's disks that were under way at the kills, sorted.
    lost_ms
        Percentiles of the time before its end from which the guest has lost answered writes; empty
        if nothing may be lost.
    """

    kills: int
    operations: int
    takeover_ms: Mapping[int, float]
    every_ms: Mapping[int, float]
    without_answer: int
    undecided: int
    violations: tuple[tuple[Kill, str], ...]
    tried: tuple[tuple[Kill, str], ...]
    per_value: Mapping[str, Mapping[str, int]]
    per_combination: Mapping[tuple[str, ...], int]
    under_way: tuple[float, ...] = ()
    lost_ms: Mapping[int, float] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether there were kills, all without a violation, and everything was decided."""
        return self.kills > 0 and not (self.violations or self.undecided or self.without_answer)


def summarize(results: Iterable[KillResult]) -> Summary:
    """Sum up results."""
    found = list(results)
    combined = Counter(each.kill.combination for each in found)
    per_value: dict[str, Counter[str]] = {name: Counter() for name in _NAMES}
    for each in found:
        for name, value in each.kill.named().items():
            per_value.setdefault(name, Counter())[value] += 1
    return Summary(
        kills=len(found),
        operations=sum(each.operations for each in found),
        takeover_ms=_percentiles(each.takeover_ms for each in found),
        every_ms=_percentiles(each.every_ms for each in found),
        without_answer=sum(
            each.takeover_ms is None for each in found if each.kill.second != AT_ONCE
        ),
        undecided=sum(each.linearizable is None for each in found),
        violations=tuple(
            (each.kill, sentence)
            for each in found
            for sentence in each.violations
            or (("not linearizable",) if each.linearizable is False else ())
        ),
        tried=tuple((each.kill, sentence) for each in found for sentence in each.undecided),
        per_value={name: dict(counts) for name, counts in per_value.items()},
        per_combination=dict(combined),
        under_way=tuple(
            sorted(each.details[UNDER_WAY] for each in found if UNDER_WAY in each.details)
        ),
        lost_ms=_percentiles(each.details.get(LOST_MS) for each in found),
    )


def _percentiles(values: Iterable[float | None]) -> dict[int, float]:
    known = [each for each in values if each is not None]
    found = zip(PERCENTS, percentiles(known, PERCENTS, without=None), strict=True)
    return {percent: value for percent, value in found if value is not None}
