"""Results of a sweep: a directory with a line for each finished cell, and tables as Parquet."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from colobench.errors import LocalError
from colobench.lab.compare.measurement import WRONG_VALUES, Measurement
from colobench.lab.compare.parquet import checkpoint_rows, measurement_row, write_table
from colobench.lab.result_lines import ResultLines
from colobench.lab.sweep.cells import SweepCell

#: Beginning of each line.
_BEGINNING = b'{"cell": '
#: Files of the directory of results.
LINES, CELLS, CHECKPOINTS = "cells.jsonl", "cells.parquet", "checkpoints.parquet"


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Result of a cell.

    Attributes
    ----------
    cell
        Identity of the cell.
    name
        The cell in words.
    varied
        Settings of the grid.
    settings
        Settings of the pair, whole: the pair runs again by ``colobench run --settings``.
    worker
        Host and process id of the worker that ran it.
    error
        Error that prevented the measurement; None if there is one.
    measurement
        The measurement; None after an error.
    """

    cell: str
    name: str
    varied: Mapping[str, Any]
    settings: Mapping[str, Any]
    worker: str
    error: str | None
    measurement: Measurement | None

    @classmethod
    def of(
        cls, cell: SweepCell, measurement: Measurement | None, error: str | None, worker: str
    ) -> SweepResult:
        """Make the result of a cell."""
        settings = cell.cell.settings.as_json()
        return cls(cell.identity, str(cell), cell.varied, settings, worker, error, measurement)

    def to_json(self) -> str:
        """Write the result on one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> SweepResult:
        """Read what `to_json` wrote.

        Raises
        ------
        LocalError
            If it did not.
        """
        try:
            found = json.loads(line)
            measurement = found.pop("measurement")
            made = None if measurement is None else Measurement.from_row(measurement)
            result = cls(measurement=made, **found)
        except WRONG_VALUES as error:
            raise _no_result(line) from error
        texts = (
            result.cell,
            result.name,
            result.worker,
            "" if result.error is None else result.error,
        )
        tables = result.varied, result.settings
        if not all(isinstance(each, str) for each in texts) or not all(
            isinstance(each, Mapping) for each in tables
        ):
            raise _no_result(line)
        return result


def _no_result(line: str | bytes) -> LocalError:
    return LocalError(f"expected a result of a sweep, found {line[:80]!r}")


class SweepDirectory(AbstractContextManager["SweepDirectory"]):
    """Directory with the results of a sweep, which one sweep at a time writes.

    Parameters
    ----------
    path
        The directory; it need not be there yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lines = ResultLines(self.path / LINES, _BEGINNING, "results of a sweep")
        self._lock = -1

    def __enter__(self) -> SweepDirectory:
        """Make the directory, and keep others from writing there.

        Raises
        ------
        LocalError
            If it cannot be made, or another sweep writes there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__(None, None, None)
            raise LocalError(f"{self.path}: expected no other sweep, found one that runs") from (
                error
            )
        except OSError as error:
            raise LocalError(
                f"{self.path}: expected a directory for results: {error.strerror}"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let others write there."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def load(self, cells: Sequence[SweepCell]) -> dict[str, SweepResult]:
        """Read the results, by the identities of cells; the last of a cell counts.

        Raises
        ------
        LocalError
            If one is of another cell.
        """
        known, found = {cell.identity for cell in cells}, {}
        for result in self._lines.read(SweepResult.from_json):
            if result.cell not in known:
                raise LocalError(
                    f"{self._lines.path}: expected results of this specification, found one of "
                    f"another cell: {result.name}; name another directory with --results"
                )
            found[result.cell] = result
        return found

    def append(self, result: SweepResult) -> None:
        """Write a result, so that it is on disk when this returns."""
        self._lines.append(result.to_json())

    def write_tables(self, results: Iterable[SweepResult]) -> None:
        """Write a row for each cell, and a row for each checkpoint, as Parquet."""
        found = list(results)
        if not found:
            return
        cells, checkpoints = [], []
        for each in found:
            place = {"cell": each.cell, **{f"grid_{name}": v for name, v in each.varied.items()}}
            row = {**place, "name": each.name, "worker": each.worker, "error": each.error}
            if each.measurement is None:
                cells.append(row | {"settings": json.dumps(dict(each.settings))})
                continue
            cells.append(row | measurement_row(each.measurement))
            checkpoints += [place | one for one in checkpoint_rows(each.measurement)]
        write_table(self.path / CELLS, _of_one_type(cells))
        write_table(self.path / CHECKPOINTS, _of_one_type(checkpoints))


def _of_one_type(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the values of a setting of the grid as JSON if they have several types."""
    mixed = {
        name
        for name in {name for row in rows for name in row if name.startswith("grid_")}
        if len({type(row[name]) for row in rows if row[name] is not None}) > 1
        or any(isinstance(row[name], list | dict) for row in rows)
    }
    return [
        {name: json.dumps(value) if name in mixed else value for name, value in row.items()}
        for row in rows
    ]
