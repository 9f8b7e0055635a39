"""Counts of miscompares as a value: runs of each dial, and the table of rates."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from colobench.lab.compare.metrics import digits
from colobench.lab.compare.statistics import CONFIDENCE
from colobench.lab.miscompares.dials import Dial
from colobench.lab.miscompares.rates import PER, Rate, rate_of
from colobench.lab.miscompares.settings import MiscompareSettings, pair_settings
from colobench.settings.settings import Settings
from colobench.text_table import align


@dataclass(frozen=True, slots=True)
class Run:
    """Run of a dial, with a pair of its own.

    Attributes
    ----------
    dial, round
        Name of the dial, and number of the round from 1.
    answers
        Answers that clients got; each was compared.
    miscompares
        Differences that were found. Of the answers of one connection, only the first that differs
        counts until a checkpoint has made both guests equal.
    checkpoints
        Checkpoints whose cause was a miscompare; one ends the differences of all connections.
    """

    dial: str
    round: int
    answers: int
    miscompares: int
    checkpoints: int


class Miscompares:
    """Counts of miscompares, which may still grow.

    Parameters
    ----------
    dials
        Settings of chance.
    settings
        Settings of the count.

    Attributes
    ----------
    dials, settings
        As the parameters.
    runs
        The runs so far.
    """

    def __init__(self, dials: tuple[Dial, ...], settings: MiscompareSettings) -> None:
        self.dials, self.settings = dials, settings
        self.runs: list[Run] = []

    @property
    def total(self) -> int:
        """Number of runs when all are done."""
        return len(self.dials) * self.settings.rounds

    def of_dial(self, dial: Dial) -> list[Run]:
        """Give the runs of a dial."""
        return [run for run in self.runs if run.dial == dial.name]

    def rate(self, dial: Dial) -> Rate | None:
        """Give the miscompares for each 10,000 answers; None without an answer."""
        runs = self.of_dial(dial)
        return rate_of([run.miscompares for run in runs], [run.answers for run in runs])

    def __repr__(self) -> str:
        """Write the table of rates."""
        interval = f"{100 * CONFIDENCE:.0f} % interval"
        counted = ("dial, the others 0", "runs", "answers", "miscompares", "in 10,000", interval)
        heading: tuple[str, ...] = (*counted, "checkpoints for them", "in 10,000")
        rows = [heading, *(self._row(dial) for dial in self.dials if self.of_dial(dial))]
        settings = self.settings
        sent = (
            f"Clients send {settings.at_once} requests each {settings.every_ms} ms; where clock_us "
            f"is varied, one request in {settings.time_every} is TIME."
        )
        notes = [sent]
        if len(self.runs) < self.total:
            notes.append(f"{len(self.runs)} of {self.total} runs were done.")
        return "\n".join([*align(rows, right=range(1, len(heading))), "", *notes])

    def _row(self, dial: Dial) -> tuple[str, ...]:
        runs, found = self.of_dial(dial), self.rate(dial)
        answers = sum(run.answers for run in runs)
        miscompares = sum(run.miscompares for run in runs)
        checkpoints = sum(run.checkpoints for run in runs)
        rate, interval, each = "–", "–", "–"
        if found is not None:
            rate, interval = digits(found.rate), f"{digits(found.low)} to {digits(found.high)}"
            each = digits(PER * checkpoints / answers)
        counted = (f"{len(runs)}", f"{answers:,}", f"{miscompares:,}")
        return dial.name, *counted, rate, interval, f"{checkpoints:,}", each

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Miscompares:
        """Make counts of what `as_json` gave; `found` may have more keys."""
        dials = tuple(
            Dial(
                row["name"],
                Settings.from_json(row["settings"]).guest.nondeterminism,
                row["asks_time"],
            )
            for row in found["dials"]
        )
        counts = cls(dials, MiscompareSettings.from_json(found["count"]))
        counts.runs += [Run(**run) for row in found["dials"] for run in row["runs"]]
        return counts

    def as_json(self) -> dict[str, Any]:
        """Give all runs and rates, and the settings of each dial's pair, in JSON's form."""
        return {
            "count": self.settings.as_json(),
            "per": PER,
            "dials": [
                {
                    "name": dial.name,
                    "asks_time": dial.asks_time,
                    "rate": None if (rate := self.rate(dial)) is None else rate._asdict(),
                    "runs": [dataclasses.asdict(run) for run in self.of_dial(dial)],
                    "settings": pair_settings(dial.nondeterminism).as_json(),
                }
                for dial in self.dials
            ],
        }
