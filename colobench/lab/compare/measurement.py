"""Measurements: one round of one cell each, as a value and as a line of a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.lab.compare.cells import Cell
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.compare.values import (
    are_columns,
    are_figures,
    are_numbers,
    is_calibration,
    is_number,
)
from colobench.lab.result_lines import ResultLines

#: Errors of reading a line that has anything in the place of a value.
WRONG_VALUES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
#: Beginning of each line of a file of measurements.
_BEGINNING = b'{"strategy": '


@dataclass(frozen=True, slots=True)
class Measurement:
    """One round of one cell, on a pair of its own.

    Attributes
    ----------
    strategy, guest, link
        Names of the cell.
    round
        Number of the round, from 1.
    settings
        Settings of the pair, whole, as JSON has them.
    comparison
        Other settings, see `ComparisonSettings.of_measurement`.
    figures
        Values by the names of `colobench.lab.compare.metrics.METRICS`; None if there is no value.
    unprotected
        Values of the same guest before it was protected: ``work_per_s``, ``memory_bytes``, and
        ``latency_p50_ms`` and ``latency_p99_ms`` if it serves.
    memcpy_gb_per_s
        Check of the machine, before and after: rate of a copy by one thread.
    checkpoints
        Columns of the checkpoints of the measured time, by the names of
        `colobench.lab.session.record.COLUMNS`, and ``stopped_s`` and ``committed_s``: seconds from
        its beginning to the stop of the guest, and to the commit.
    link_use
        Use of the link in the measured time, see `LinkUse.as_json`; None if there is no link.
    calibration
        Calibration of the models just before, see `colobench.lab.compare.calibrate`; None if the
        models need none, or a measurement earlier in the round has it.
    """

    strategy: str
    guest: str
    link: str
    round: int
    settings: Mapping[str, Any]
    comparison: Mapping[str, Any]
    figures: Mapping[str, float | None]
    unprotected: Mapping[str, float | None]
    memcpy_gb_per_s: tuple[float, float]
    checkpoints: Mapping[str, Sequence[Any]]
    link_use: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None

    @property
    def held_rate(self) -> float | None:
        """Rate that the link held, bits per second; None if nothing can be said of it."""
        rate: float | None = None if self.link_use is None else self.link_use["held_rate"]
        return rate

    @property
    def held(self) -> bool:
        """Whether the link held its rate within 3 %, or nothing can be said of it."""
        return self.link_use is None or self.link_use["held"] is not False

    @property
    def key(self) -> tuple[str, str, str]:
        """Strategy, guest and link."""
        return self.strategy, self.guest, self.link

    def to_json(self) -> str:
        """Write the measurement on one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Measurement:
        """Read what `to_json` wrote.

        Raises
        ------
        LocalError
            If it did not.
        """
        try:
            return cls.from_row(json.loads(line))
        except WRONG_VALUES as error:
            raise LocalError(f"expected a measurement, found {line[:80]!r}") from error

    @classmethod
    def from_row(cls, found: Mapping[str, Any]) -> Measurement:
        """Make it of its values by name, in JSON's form; others raise any error."""
        row = dict(found)
        before, after = row.pop("memcpy_gb_per_s")
        made = cls(memcpy_gb_per_s=(float(before), float(after)), **row)
        if not made._is_whole():
            raise TypeError("a value is of another type than in a measurement")
        return made

    def _is_whole(self) -> bool:
        """Say whether all values have their types, as a file may have anything."""
        columns, link, calibration = self.checkpoints, self.link_use, self.calibration
        return (
            isinstance(self.settings, Mapping)
            and isinstance(self.comparison, Mapping)
            and are_figures(self.figures)
            and are_figures(self.unprotected)
            and all(isinstance(each, str) for each in self.key)
            and isinstance(self.round, int)
            and all(0 < each < math.inf for each in self.memcpy_gb_per_s)
            and are_columns(columns)
            and {"pause_ms", "stopped_s"} <= columns.keys()
            and are_numbers([*columns["pause_ms"], *columns["stopped_s"]])
            and (link is None or _is_link_use(link))
            and (calibration is None or is_calibration(calibration))
        )


def _is_link_use(found: Mapping[str, Any]) -> bool:
    held, rate = found["held"], found["held_rate"]
    return (held is None or isinstance(held, bool)) and (rate is None or is_number(rate))


class MeasurementFile:
    """A file of measurements, a line for each.

    Parameters
    ----------
    path
        The file; it need not be there yet.
    """

    def __init__(self, path: Path | str) -> None:
        self._lines = ResultLines(path, _BEGINNING, "measurements")

    def append(self, measurement: Measurement) -> None:
        """Write a measurement behind the others; see `ResultLines.append`."""
        self._lines.append(measurement.to_json())

    def alone(self) -> AbstractContextManager[None]:
        """Keep other processes from adding to the file; see `ResultLines.alone`."""
        return self._lines.alone()

    def load(self, cells: Sequence[Cell], settings: ComparisonSettings) -> list[Measurement]:
        """Read the measurements, which must be those of these cells and settings.

        Raises
        ------
        LocalError
            If there is anything else in the file, or one of them twice; the error names the
            settings that differ.
        """
        found = self._lines.read(Measurement.from_json)
        by_key = {cell.key: cell for cell in cells}
        seen: set[tuple[int, tuple[str, str, str]]] = set()
        for each in found:
            if (each.round, each.key) in seen:
                raise LocalError(
                    f"{self._lines.path}: expected each measurement once, found round {each.round} "
                    f"of {' on '.join(each.key[:2])} twice"
                )
            seen.add((each.round, each.key))
            if each.key not in by_key:
                raise LocalError(
                    f"{self._lines.path}: expected measurements of "
                    f"{'; '.join(map(str, cells))}, found one of {' on '.join(each.key[:2])}"
                )
            of_cell = by_key[each.key].settings.as_json()
            expected = _comparable({**of_cell, **settings.of_measurement()})
            there = _comparable({**each.settings, **each.comparison})
            if there != expected:
                names = [
                    name for name in {**expected, **there} if there.get(name) != expected.get(name)
                ]
                raise LocalError(
                    f"{self._lines.path}: expected measurements with {_shown(expected, names)}, "
                    f"found some with {_shown(there, names)}"
                )
        return found


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where a user's trigger is written: a notebook's kernel names its cells anew."""
    found, trigger = dict(settings), settings.get("trigger")
    if isinstance(trigger, Mapping):
        found["trigger"] = {
            name: each for name, each in trigger.items() if name not in ("file", "line")
        }
    return found


def _shown(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_shown_value(settings.get(name))}" for name in names)


def _shown_value(value: Any) -> str:
    """Write a value; a user's trigger with a digest in the place of its source."""
    if isinstance(value, Mapping) and isinstance(value.get("code"), str):
        digest = hashlib.sha256(value["code"].encode()).hexdigest()[:8]
        others = {name: each for name, each in value.items() if name not in ("name", "code")}
        return f"{value.get('name')} {others} with source {digest}…"
    return str(value)
