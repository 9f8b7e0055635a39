"""The search: every world that can be reached, nearest first, until one is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from colobench.protocol.exploration.model import Model
from colobench.protocol.exploration.rules import Rules
from colobench.protocol.exploration.world import Move, World, split_brain


@dataclass
class Exploration:
    """Findings of an exploration.

    Attributes
    ----------
    worlds
        Each world that was reached, with the step and the world before it; None for the first.
    wrong
        Fault of the nearest wrong world; None if no world is wrong.
    way
        Steps of a shortest way to it.
    """

    worlds: dict[World, Move | None] = field(repr=False)
    wrong: str | None = None
    way: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.wrong is None:
            return f"{len(self.worlds):,} worlds, and none of them is wrong"
        steps = "\n".join(f"{number:4}. {step}" for number, step in enumerate(self.way, 1))
        return f"{self.wrong}, after {len(self.way)} steps:\n{steps}"


def explore(
    rules: Rules, *, progress: Callable[[int, int], None] = lambda visited, known: None
) -> Exploration:
    """Visit every world that can be reached, nearest first, until one is wrong.

    Parameters
    ----------
    rules
        The protocol.
    progress
        Function that is called now and then with the number of worlds whose steps have all been
        tried, and the number of worlds reached.
    """
    model = Model(rules)
    came_from: dict[World, Move | None] = {World(): None}
    front = [World()]
    while front:
        beyond = []
        for world in front:
            for what, after in model.moves(world):
                if after in came_from:
                    continue
                came_from[after] = (what, world)
                wrong = split_brain(after)
                if wrong is not None:
                    return Exploration(came_from, wrong, _way_to(after, came_from))
                beyond.append(after)
        front = beyond
        progress(len(came_from) - len(beyond), len(came_from))
    return Exploration(came_from)


def _way_to(world: World, came_from: dict[World, Move | None]) -> list[str]:
    """Give the steps that lead to a world."""
    way = []
    while (step := came_from[world]) is not None:
        what, world = step
        way.append(what)
    return way[::-1]
