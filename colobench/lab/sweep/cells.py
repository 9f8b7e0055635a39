"""Cells of a sweep: one measurement each, with all settings, and an identity for its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from colobench.lab.compare.cells import Cell
from colobench.lab.compare.settings import ComparisonSettings
from colobench.settings.settings import Settings


@dataclass(frozen=True)
class SweepCell:
    """One repetition of a strategy on a guest over a link, with settings of the grid.

    Attributes
    ----------
    cell
        Strategy, guest, link, and the pair's settings.
    varied
        Settings of the grid, by name, in JSON's form.
    repetition
        Number of the repetition, from 1.
    measurement
        How it is measured.
    """

    cell: Cell
    varied: Mapping[str, Any]
    repetition: int
    measurement: ComparisonSettings

    @cached_property
    def identity(self) -> str:
        """Digest of all that decides on the measurement; equal cells have the same."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def point(self) -> str:
        """Its place in the grid, in words, without the repetition."""
        varied = ", ".join(f"{name} {value}" for name, value in self.varied.items())
        return f"{self.cell}, {varied}" if varied else str(self.cell)

    def __str__(self) -> str:
        return f"{self.point}, repetition {self.repetition}"

    def to_json(self) -> str:
        """Write all that a worker needs."""
        return json.dumps(
            {
                "strategy": self.cell.strategy,
                "guest": self.cell.guest,
                "link": self.cell.link,
                "varied": dict(self.varied),
                "repetition": self.repetition,
                "settings": self.cell.settings.as_json(),
                "measurement": self.measurement.of_measurement(),
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> SweepCell:
        """Read what `to_json` wrote."""
        found = json.loads(text)
        settings = Settings.from_json(found["settings"])
        return cls(
            Cell(found["strategy"], found["guest"], found["link"], settings),
            found["varied"],
            found["repetition"],
            ComparisonSettings().override(**found["measurement"]),
        )
