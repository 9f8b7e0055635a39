"""Specifications of sweeps: a TOML file, checked whole before anything starts."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import check_integer, check_texts, show
from colobench.fields.part import settings_of
from colobench.lab.compare.cells import (
    AXES,
    USUAL_GUESTS,
    Cell,
    in_rounds,
    make_cell,
    read_guest,
)
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.sweep.cells import SweepCell
from colobench.settings.settings import Settings
from colobench.settings.strategy import make_strategy
from colobench.strategy.written import read_setting

#: Keys of a specification that are not in a table, and its tables.
KEYS = ("strategies", "guests", "links", "seeds", "repetitions")
TABLES = ("measurement", "settings", "grid")
_SETTINGS = {each.name: each for each in settings_of(Settings)}
#: Settings of the measurement; repetitions take the place of a comparison's rounds, and a sweep
#: has no models.
_MEASUREMENT = {
    each.name: each
    for each in settings_of(ComparisonSettings)
    if each.name not in _SETTINGS and each.name not in ("rounds", "models")
}
#: Settings that have a key of their own, so that they are not in the tables.
_ELSEWHERE = {"guest": "guests", "link": "links", "seed": "seeds"}
_REPETITIONS_LIMIT, _CELLS_LIMIT = 10_000, 100_000


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """Cells of a sweep.

    Attributes
    ----------
    cells
        Cells to be measured, in their order: interleaved, as the rounds of a comparison.
    refused
        Places in the grid whose settings do not go together, with the reason.
    """

    cells: tuple[SweepCell, ...]
    refused: tuple[tuple[str, str], ...]


def read_plan(path: Path | str) -> SweepPlan:
    """Read a specification, and make its cells.

    Raises
    ------
    LocalError
        If the file cannot be read, has an unknown key or a wrong value, or no cell is left; the
        error names the line, the table and the key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LocalError(f"{path}: expected the specification of a sweep, found: {reason}") from (
            error
        )
    return _Specification(str(path), text, found).plan()


class _Specification:
    """A specification whose keys are checked one after the other."""

    def __init__(self, name: str, text: str, found: Mapping[str, Any]) -> None:
        self._name, self._text, self._found = name, text, found

    def plan(self) -> SweepPlan:
        """Check everything, and make the cells."""
        self._check_names("", self._found, (*KEYS, *TABLES))
        measurement = self._values("measurement", _MEASUREMENT, _read)
        settings = self._values("settings", _SETTINGS, _read)
        for name in (each for each in settings if each in AXES):
            with self._place("settings", name):
                raise LocalError(
                    f"{name}: expected it in each strategy, such as colo_v12,{name}=…, or in the "
                    "grid, as strategies go before this table"
                )
        with self._place("settings"):
            chosen = ComparisonSettings().override(**measurement, **settings)
        strategies = self._texts("strategies", None, make_strategy)
        guests = self._texts("guests", USUAL_GUESTS, lambda each: _check_guest(each, chosen.pair))
        links = self._texts("links", ("",), _check_link)
        grid = self._grid()
        with self._place("", "repetitions"):
            repetitions = self._found.get("repetitions", 1)
            check_integer("repetitions", repetitions, 1, _REPETITIONS_LIMIT)
        with self._place("grid"):
            sizes = map(len, (strategies, guests, links, *grid.values()))
            check_integer("number of cells", math.prod(sizes) * repetitions, 1, _CELLS_LIMIT)
        points, refused = _make_points(strategies, guests, links, grid, chosen)
        cells = tuple(
            SweepCell(cell, varied, number, chosen)
            for number, (cell, varied) in in_rounds(points, repetitions)
        )
        return SweepPlan(self._checked(cells, refused), tuple(refused))

    def _checked(
        self, cells: tuple[SweepCell, ...], refused: Sequence[tuple[str, str]]
    ) -> tuple[SweepCell, ...]:
        if not cells:
            reasons = "; ".join(dict.fromkeys(reason for _, reason in refused))
            raise LocalError(f"{self._name}: expected a cell, found all of them refused: {reasons}")
        seen: set[str] = set()
        for cell in cells:
            if cell.identity in seen:
                raise LocalError(f"{self._name}: expected each cell once, found {cell} twice")
            seen.add(cell.identity)
        return cells

    def _grid(self) -> dict[str, list[Any]]:
        """Give the values of each setting that is varied, in JSON's form."""
        grid = self._values("grid", _SETTINGS, _read_list)
        with self._place("", "seeds"):
            seeds = self._found.get("seeds")
            if seeds is not None:
                grid["seed"] = _read_list("seed", seeds)
        return grid

    def _values(
        self, table: str, known: Mapping[str, Any], read: Callable[[str, Any], Any]
    ) -> dict[str, Any]:
        """Read the table of settings of this name."""
        found = self._found.get(table, {})
        with self._place("", table):
            if not isinstance(found, dict):
                raise LocalError(f"{table}: expected a table, found {show(found)}")
        self._check_names(table, found, [name for name in known if name not in _ELSEWHERE])
        values = {}
        for name, value in found.items():
            with self._place(table, name):
                values[name] = read(name, value)
        return values

    def _texts(
        self, key: str, usual: Sequence[str] | None, check: Callable[[str], object]
    ) -> list[str]:
        with self._place("", key):
            if key not in self._found and usual is None:
                raise LocalError(f"{key}: expected at least one, found none")
            texts = check_texts(key, self._found.get(key, usual))
            if not texts:
                raise LocalError(f"{key}: expected at least one, found none")
            for text in texts:
                if key in self._found:
                    check(text)
            return texts

    def _check_names(self, table: str, found: Mapping[str, Any], known: Sequence[str]) -> None:
        for name in found:
            if name not in known:
                own = _ELSEWHERE.get(name)
                expected = f"it in {own}" if own and table else f"one of {', '.join(known)}"
                with self._place(table, name):
                    raise LocalError(f"{name}: expected {expected}, found this key")

    @contextmanager
    def _place(self, table: str, key: str = "") -> Iterator[None]:
        """Have errors name the file, the line and the table."""
        try:
            yield
        except LocalError as error:
            line = _line_of(self._text, table, key)
            where = f", line {line}" if line else ""
            of_table = f" [{table}]" if table else ""
            raise LocalError(f"{self._name}{where}:{of_table} {error}") from error


def _make_points(
    strategies: Sequence[str],
    guests: Sequence[str],
    links: Sequence[str],
    grid: Mapping[str, Sequence[Any]],
    chosen: ComparisonSettings,
) -> tuple[list[tuple[Cell, dict[str, Any]]], list[tuple[str, str]]]:
    """Make a cell for each place in the grid, or note the reason why it is refused."""
    points, refused = [], []
    for guest, link, values, strategy in itertools.product(
        guests, links, itertools.product(*grid.values()), strategies
    ):
        varied = dict(zip(grid, values, strict=True))
        try:
            points.append((make_cell(strategy, guest, link, chosen.pair, varied), varied))
        except LocalError as error:
            place = f"{strategy} on {guest}" + (f" over {link}" if link else "")
            words = [place, *(f"{name} {value}" for name, value in varied.items())]
            refused.append((", ".join(words), str(error.__cause__ or error)))
    return points, refused


def _read(name: str, value: Any) -> Any:
    """Check one value of a setting; a text is read as on the command line, such as ``"none"``."""
    setting = _SETTINGS[name] if name in _SETTINGS else _MEASUREMENT[name]
    if isinstance(value, str):
        value = read_setting(setting, value)
    if value is None and setting.or_none:
        return None
    return setting.kind.check(name, value)


def _read_list(name: str, values: Any) -> list[Any]:
    """Check a list of values, and give them in JSON's form."""
    if not isinstance(values, list) or not values:
        raise LocalError(f"{name}: expected a list of values, found {show(values)}")
    kind = _SETTINGS[name].kind
    found = [_read(name, value) for value in values]
    return [None if value is None else kind.to_json(value) for value in found]


def _check_guest(text: str, usual: Settings) -> None:
    usual.guest.override(**read_guest(text))


def _check_link(text: str) -> None:
    _SETTINGS["link"].kind.check("links", _SETTINGS["link"].kind.from_text(text))


def _line_of(text: str, table: str, key: str) -> int | None:
    """Find the line of a key, or of the heading of a table; None if it is written otherwise."""
    inside, heading = "", None
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"\s*\[\s*([\w-]+)\s*\]", line)
        if found:
            inside = found[1]
            heading = number if inside == (table or key) else heading
        elif key and inside == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    return heading
