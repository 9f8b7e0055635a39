"""The table of reproductions, with a row for each gate, and a sentence on all of them."""

from __future__ import annotations

from collections.abc import Iterable

from colobench.lab.bench.text import number
from colobench.lab.reproductions.reproduction import GateVerdict, Reproduced

HEADINGS = ("claim", "label", "gate", "published", "measured", "bound", "verdict")


def rows(reproductions: Iterable[Reproduced]) -> list[tuple[str, ...]]:
    """Give the cells of the table, under `HEADINGS`."""
    return [
        (*_head(found, first), *_cells(verdict))
        for found in reproductions
        for first, verdict in enumerate(found.verdicts())
    ]


def sentences(reproductions: Iterable[Reproduced]) -> list[str]:
    """Say how many gates hold and how many are unknown, and what has failed."""
    found = list(reproductions)
    verdicts = [each for of_one in found for each in of_one.verdicts()]
    held = sum(each.holds is True for each in verdicts)
    unknown = sum(each.holds is None for each in verdicts)
    words = [f"{held} of {len(verdicts)} gates hold, {unknown} are unknown."]
    return words + [f"{each.reproduction.name}: {each.failure}" for each in found if each.failure]


def _head(found: Reproduced, first: int) -> tuple[str, str]:
    return ("", "") if first else (found.reproduction.name, found.reproduction.kind)


def _cells(verdict: GateVerdict) -> tuple[str, ...]:
    measured = number(verdict.value)
    if verdict.low is not None and verdict.high is not None:
        measured += f" ({number(verdict.low)} to {number(verdict.high)})"
    state = verdict.state.value + (f": {verdict.reason}" if verdict.reason else "")
    gate = verdict.gate
    return gate.words, gate.published or "–", measured, str(gate.target), state
