"""Table of many students' scores, from their files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from colobench.errors import LocalError
from colobench.lab.course.score_sheet import ScoreSheet, possible, read_scores
from colobench.text_table import align


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of many students.

    Attributes
    ----------
    sheets
        Scores by name of the file.
    refused
        Reasons by name of the file, of files that cannot be read or were changed.
    """

    sheets: dict[str, ScoreSheet]
    refused: dict[str, str]

    def rows(self) -> list[tuple[str, ...]]:
        """Give the table's cells, heads first: file, name, points by notebook, and their sum."""
        notebooks = sorted(
            {score.notebook for sheet in self.sheets.values() for score in sheet.scores}
        )
        heads = ("file", "name", *(f"{each} (of {possible(each)})" for each in notebooks), "sum")
        return [
            heads,
            *(
                (
                    file,
                    sheet.name or "–",
                    *(f"{sheet.earned(each):g}" for each in notebooks),
                    f"{sheet.total:g}",
                )
                for file, sheet in self.sheets.items()
            ),
        ]

    def as_csv(self) -> str:
        """Give the table as CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows())
        return text.getvalue()

    def __str__(self) -> str:
        rows = self.rows()
        return "\n".join(align(rows, right=set(range(2, len(rows[0])))))


def read_score_files(paths: Sequence[str | Path] | Iterable[str | Path]) -> ScoreTable:
    """Read files of scores; those that are not as they were written are told apart.

    Parameters
    ----------
    paths
        The files.
    """
    sheets, refused = {}, {}
    for path in paths:
        try:
            sheets[str(path)] = read_scores(path)
        except LocalError as error:
            refused[str(path)] = str(error)
    return ScoreTable(sheets, refused)
