"""A comparison as a value: what was measured, in words, tables, plots, pages and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from colobench.lab.compare.beside import rate_notes, ratio_rows
from colobench.lab.compare.cells import Cell
from colobench.lab.compare.findings import Findings, Group, Predictions
from colobench.lab.compare.judged import Judge
from colobench.lab.compare.measurement import Measurement, MeasurementFile
from colobench.lab.compare.metrics import Metric
from colobench.lab.compare.models import calibration_rows, predictions
from colobench.lab.compare.sentences import model_notes, notes, verdicts
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.compare.statistics import Estimate
from colobench.text_table import align

if TYPE_CHECKING:
    from colobench.lab.report.page import PlotCard


class Comparison(Findings):
    """Findings that show themselves, and that may be kept in a file.

    Parameters
    ----------
    cells, settings, measurements
        As of `Findings`.
    file
        File to which new measurements are appended; None keeps them in memory alone.
    """

    def __init__(
        self,
        cells: tuple[Cell, ...],
        settings: ComparisonSettings,
        measurements: Iterable[Measurement] = (),
        file: MeasurementFile | None = None,
    ) -> None:
        super().__init__(cells, settings, measurements)
        self._file = file

    def add(self, measurement: Measurement) -> None:
        """Take a measurement in, and write it to the file."""
        try:
            if self._file is not None:
                self._file.append(measurement)
        finally:
            # An interrupt may come when the line is written already.
            self.measurements.append(measurement)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from adding to the file meanwhile, and take in what they added before.

        Raises
        ------
        LocalError
            If another process adds to it.
        """
        if self._file is None:
            yield
            return
        with self._file.alone():
            have = {(each.round, each.key) for each in self.measurements}
            found = self._file.load(self.cells, self.settings)
            self.measurements += [each for each in found if (each.round, each.key) not in have]
            yield

    def __repr__(self) -> str:
        """Write the verdict, and a table for each guest and link."""
        judge, parts = Judge(self), ["\n".join(verdicts(self))]
        for group in self.groups():
            ratios = align(ratio_rows(group), right=range(1, len(group.cells)))
            parts += [self._table(group), "\n".join(ratios), self._predicted(group, judge)]
        parts += ["\n".join(align(calibration_rows(self)))]
        parts += ["\n".join([*notes(self), *model_notes(judge), *rate_notes(self)])]
        return "\n\n".join(part for part in parts if part)

    def predictions(self) -> Predictions:
        """Give what the models predict so far: by cell, values by the names of metrics."""
        return predictions(self)

    def _table(self, group: Group) -> str:
        names = [f"{cell.strategy} {self.marks(cell)}".rstrip() for cell in group.cells]
        rows = [(group.name, *names, "best")]
        for row in group.rows():
            shown = [_show(row.metric, row.estimates.get(each)) for each in group.strategies]
            rows.append((row.metric.heading, *shown, row.verdict()))
        return "\n".join(align(rows, right=range(1, 1 + len(group.strategies))))

    def _predicted(self, group: Group, judge: Judge) -> str:
        """Write a table of what the models say, with their errors; nothing without models."""
        rows = []
        for row in group.rows():
            judged = [
                judge.value(cell, row.metric, row.estimates.get(cell.strategy))
                for cell in group.cells
            ]
            if any(judged):
                shown = ("no model" if each is None else each.show(row.metric) for each in judged)
                rows.append((row.metric.heading, *shown))
        if not rows:
            return ""
        heading = (f"models of {group.name}", *group.strategies)
        return "\n".join(align([heading, *rows], right=range(1, 1 + len(group.cells))))

    def _repr_html_(self) -> str:
        """Write verdict and tables for a notebook."""
        from colobench.lab.compare.page import tables_html

        return tables_html(self, rate_notes(self))

    def plots(self) -> list[PlotCard]:
        """Draw pause over time, its distribution, and what is paid for it, for each group."""
        from colobench.lab.compare.plots import comparison_plots

        return comparison_plots(self, self.predictions())

    def write_page(self, path: Path | str, predictions: Predictions | None = None) -> Path:
        """Write a page that opens offline.

        Parameters
        ----------
        path
            File to write; an old one is replaced.
        predictions
            Values of metrics that a model predicts, drawn beside those measured; None takes those
            of colobench's models.
        """
        from colobench.lab.compare.page import write_comparison_page

        return write_comparison_page(path, self, predictions)

    def write_parquet(self, path: Path | str) -> tuple[Path, Path]:
        """Write a table with a row for each checkpoint, and one with a row for each measurement.

        Raises
        ------
        LocalError
            If pyarrow is not installed, or a file cannot be written.
        """
        from colobench.lab.compare.parquet import write_parquet

        return write_parquet(path, self.measurements, self.predictions())


def _show(metric: Metric, found: Estimate | None) -> str:
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return metric.show(found.median)
    low, high = (metric.show(end).split()[0] for end in (found.low, found.high))
    return f"{metric.show(found.median)} ({low} to {high})"
