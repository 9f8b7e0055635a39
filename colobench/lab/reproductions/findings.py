"""Results of reproductions as a value that shows itself: table, plots and page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colobench.errors import LocalError
from colobench.lab.reproductions.reproduction import Reproduced, State, overall
from colobench.lab.reproductions.table import HEADINGS, rows, sentences
from colobench.text_table import align

if TYPE_CHECKING:
    from colobench.lab.report.page import PlotCard


class Reproductions:
    """Results of reproductions, in order.

    Attributes
    ----------
    machine
        Description of the machine, of a run that was kept; else empty.
    """

    def __init__(self) -> None:
        self._found: dict[str, Reproduced] = {}
        self.machine: dict[str, Any] = {}

    def add(self, found: Reproduced) -> None:
        """Add a result, which may grow; it replaces an earlier one of the same claim."""
        self._found[found.reproduction.name] = found

    def __iter__(self) -> Iterator[Reproduced]:
        return iter(tuple(self._found.values()))

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, name: str) -> Reproduced:
        """Give the result of a name.

        Raises
        ------
        LocalError
            If it was not measured.
        """
        if name not in self._found:
            known = ", ".join(self._found) or "none"
            raise LocalError(f"reproductions: expected one of {known}, found {name!r}")
        return self._found[name]

    def only(self, *names: str) -> Reproductions:
        """Give the results of some names alone."""
        chosen = Reproductions()
        chosen.machine = self.machine
        for name in names:
            chosen.add(self[name])
        return chosen

    @property
    def state(self) -> State:
        """The worst outcome of all."""
        return overall([each.state for each in self])

    def __repr__(self) -> str:
        """Write the table, and a sentence."""
        lines = align([HEADINGS, *rows(self)], right=(4, 5))
        return "\n".join([*lines, "", *sentences(self)])

    def plots(self) -> list[PlotCard]:
        """Draw each quantity of each claim."""
        from colobench.lab.reproductions.plots import plots_of

        return [card for found in self for card in plots_of(found)]

    def write_page(self, path: Path | str) -> Path:
        """Write a page that opens offline."""
        from colobench.lab.reproductions.page import write_reproductions_page

        return write_reproductions_page(path, tuple(self), self.machine)
