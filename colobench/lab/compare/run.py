"""A comparison from its first pair to its last: in interleaved rounds, and from a file on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import check_texts, show
from colobench.guest.making import check_guest
from colobench.lab.compare.calibrate import calibrate
from colobench.lab.compare.cells import (
    AXES,
    USUAL_GUESTS,
    Cell,
    GivenStrategy,
    in_rounds,
    make_cells,
)
from colobench.lab.compare.comparison import Comparison
from colobench.lab.compare.measure import measure_cell
from colobench.lab.compare.measurement import Measurement, MeasurementFile
from colobench.lab.compare.models import Calibrations, axes_of
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.compare.underway import Underway
from colobench.lab.interrupt import interruptible
from colobench.lab.progress import bar
from colobench.lab.session.places import check_libraries
from colobench.lab.session.session import Session
from colobench.settings.checkpoint import Strategy
from colobench.settings.own_trigger import is_asked
from colobench.strategy.model.predict import has_model


def compare(
    strategies: Sequence[GivenStrategy],
    *,
    guest: str | Sequence[str] = USUAL_GUESTS,
    link: str | Sequence[str] = (),
    results: Path | str | None = None,
    into: Comparison | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Comparison:
    """Compare ways of checkpointing on the same work, with real pairs, in interleaved rounds.

    Parameters
    ----------
    strategies
        Texts such as ``"memfd,delay=20"``, see ``colobench strategies``, or values of `Strategy`.
    guest, link
        One or several: programs, which may have settings behind commas, and links.
    results
        File to which each measurement is appended as a line of JSON; measurements that are in it
        are not made again.
    into
        Comparison that grows meanwhile, for others to watch; see `begin_comparison`.
    progress
        Function that is called with the number of measurements done and the total; by default a
        bar is shown.
    settings
        Settings by name: of `ComparisonSettings`, such as ``rounds``, and of `Session`.

    Returns
    -------
    Comparison
        `into`, or a new one.

    Raises
    ------
    LocalError
        If settings do not go together, or `results` has measurements with others.
    CellFailed
        If a pair breaks.
    """
    if into is None:
        into = begin_comparison(strategies, guest=guest, link=link, results=results, **settings)
    if progress is not None:
        measure_missing(into, progress=progress)
    else:
        with bar("comparing", "measurements") as shown:
            measure_missing(into, progress=shown)
    return into


def begin_comparison(
    strategies: Sequence[GivenStrategy],
    *,
    guest: str | Sequence[str] = USUAL_GUESTS,
    link: str | Sequence[str] = (),
    results: Path | str | None = None,
    **settings: Any,
) -> Comparison:
    """Make a comparison that has what the file of results has; parameters as of `compare`."""
    if axes := [name for name in settings if name in AXES]:
        raise LocalError(
            f"compare: expected {axes[0]} in each strategy, such as colo_v12,{axes[0]}=…, "
            "found it beside them"
        )
    chosen = ComparisonSettings().override(**settings)
    guests, links = check_texts("guest", guest), check_texts("link", link)
    cells = make_cells(_several(strategies), guests, links, chosen.pair)
    return plan_comparison(cells, chosen, results)


def _several(strategies: Any) -> list[GivenStrategy]:
    """Make a list of strategies, of which a single one is as good as a list of it."""
    if isinstance(strategies, str | Strategy) or is_asked(strategies):
        return [strategies]
    if not isinstance(strategies, Iterable):
        raise LocalError(f"compare: expected a list of strategies, found {show(strategies)}")
    return list(strategies)


def plan_comparison(
    cells: Sequence[Cell], settings: ComparisonSettings, results: Path | str | None
) -> Comparison:
    """Make a comparison of cells that has what the file of results has."""
    file = None if results is None else MeasurementFile(results)
    found = [] if file is None else file.load(cells, settings)
    return Comparison(tuple(cells), settings, found, file)


@interruptible("its pair has ended; `into` and `results` keep what was measured")
def measure_missing(
    comparison: Comparison,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda what: None,
    show: Callable[[Underway], None] = lambda underway: None,
    opened: Callable[[Session], None] = lambda session: None,
) -> None:
    """Make the measurements that a comparison lacks; it grows by each.

    Parameters
    ----------
    comparison
        From `plan_comparison` or `begin_comparison`.
    progress, say
        Functions that are called with the numbers of measurements done and in all, and with the
        name of the cell that is being measured.
    show
        Function that is called with each measurement before its pair is started.
    opened
        Function that is called with the session of each calibration before it is started.

    Raises
    ------
    LocalError
        If another process adds to the file of results.
    CellFailed
        If a pair breaks.
    MeasurementStopped
        If a measurement was stopped by `Underway.stop`.
    """
    total = len(comparison.cells) * comparison.settings.rounds
    with comparison.alone():
        left = list(_left(comparison))
        for cell in comparison.cells if left else ():
            # What is missing for the last cell is not found out after all others.
            check_guest(cell.settings.guest)
            check_libraries(cell.settings)
        progress(total - len(left), total)
        for done, (number, cell) in enumerate(left, total - len(left) + 1):
            calibration = None
            if comparison.settings.models and _needs_calibration(comparison, number, cell):
                say(f"calibrating {cell}")
                calibration = calibrate(cell, number, comparison.settings, opened)
            say(str(cell))
            measurement = measure_cell(cell, number, comparison.settings, show=show)
            comparison.add(dataclasses.replace(measurement, calibration=calibration))
            progress(done, total)


def _left(comparison: Comparison) -> Iterator[tuple[int, Cell]]:
    """Give the rounds and cells that were not measured, in their order."""
    measured = {_place(each) for each in comparison.measurements}
    for number, cell in in_rounds(comparison.cells, comparison.settings.rounds):
        if (number, *cell.key) not in measured:
            yield number, cell


def _needs_calibration(comparison: Comparison, number: int, cell: Cell) -> bool:
    """Say whether a cell has a model, and the round no calibration for it that others share."""
    if not has_model(axes_of(cell.settings)):
        return False
    of_round = (each.calibration for each in comparison.measurements if each.round == number)
    return not Calibrations(each for each in of_round if each is not None).of_pair(cell.settings)


def _place(measurement: Measurement) -> tuple[int, str, str, str]:
    return (measurement.round, *measurement.key)
