"""A state diagram of any table: states in a column, numbered arrows, and the steps as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from colobench.errors import LocalError
from colobench.lab.report.palette import PRIMARY_COLOUR, TAKEOVER_COLOUR
from colobench.lab.studies.protocol_tables import ProtocolTable
from colobench.protocol.table import name_of, text

#: Sizes in pixels: a state, the gap below it, and the distance of one arrow from the next.
_WIDTH, _HEIGHT, _GAP, _LANE = 210, 36, 26, 26
_CELL = "padding: 1px 8px; text-align: left; background: none; border: 0; font-size: 12px"


@dataclass(frozen=True, slots=True)
class _Step:
    """One entry of the table, with its number in the diagram."""

    number: int
    before: str
    event: str
    actions: str
    after: str


class StateDiagram:
    """State diagram of a table.

    Parameters
    ----------
    machine
        The table, with its title and its first state.
    present
        Name of the present state, which is filled and framed; None if there is none.
    visited
        Names of states that are marked.

    Raises
    ------
    LocalError
        If the table has no such state.
    """

    def __init__(
        self, machine: ProtocolTable, present: str | None = None, visited: Iterable[str] = ()
    ) -> None:
        self.machine, self.present, self.visited = machine, present, frozenset(visited)
        self._states = _in_order(machine)
        for name in (self.visited | {present}) - {None}:
            if name not in self._states:
                raise LocalError(
                    f"state: expected one of {', '.join(self._states)}, found {name!r}"
                )
        self._steps = _steps(machine)

    def __repr__(self) -> str:
        """Write the table, and the present state below it."""
        present = "" if self.present is None else f"\n\npresent state: {self.present}"
        return f"{self.machine.title}\n\n{text(self.machine.table)}{present}"

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f'<td style="{_CELL}">{escape(str(cell))}</td>' for cell in row)
            for row in (
                (each.number, each.before, each.event, each.actions or "–", each.after)
                for each in self._steps
            )
        )
        names = ("", "state", "event", "does", "next state")
        head = "".join(f'<th style="{_CELL}">{each}</th>' for each in names)
        table = f'<table style="border-collapse: collapse"><tr>{head}</tr>{rows}</table>'
        return (
            '<div style="display: flex; flex-wrap: wrap; align-items: flex-start; gap: 16px">'
            f'<div>{self.svg()}</div><div style="overflow-x: auto">{table}</div></div>'
        )

    def svg(self) -> str:
        """Draw the states and arrows as SVG."""
        tops = {name: 16 + at * (_HEIGHT + _GAP) for at, name in enumerate(self._states)}
        arrows = _Arrows(self._steps, self._states)
        left = 16 + _LANE * arrows.lanes("left")
        width = left + _WIDTH + _LANE * arrows.lanes("right") + 40
        height = 16 + len(self._states) * (_HEIGHT + _GAP)
        boxes = "".join(self._box(name, left, top) for name, top in tops.items())
        drawn = "".join(arrows.draw(tops, left))
        label = escape(f"State diagram of {self.machine.title}: {self._sentence()}", quote=True)
        return (
            f'<svg role="img" aria-label="{label}" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" style="font: 12px sans-serif; color: inherit">'
            f"{drawn}{boxes}</svg>"
        )

    def _sentence(self) -> str:
        states = f"{len(self._states)} states, {len(self._steps)} steps, listed beside it"
        return states + ("" if self.present is None else f"; the present state is {self.present}")

    def _box(self, name: str, left: int, top: int) -> str:
        ends = not any(each.before == name for each in self._steps)
        here, seen = name == self.present, name in self.visited
        # The colour of a takeover alone is too dark for a frame on a dark page.
        stroke = PRIMARY_COLOUR if seen and not here else "currentColor"
        fill = f'"{TAKEOVER_COLOUR}" fill-opacity="0.3"' if here else '"none"'
        frame = (
            f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
            f'fill={fill} stroke="{stroke}" stroke-width="{3 if here or seen else 1}"/>'
        )
        if ends:
            frame += (
                f'<rect x="{left + 3}" y="{top + 3}" width="{_WIDTH - 6}" '
                f'height="{_HEIGHT - 6}" rx="4" fill="none" stroke="{stroke}"/>'
            )
        mark = "▶ " if name == self.machine.start.name else ""
        mark += "● " if here else "✓ " if seen else ""
        words = (
            f'<text x="{left + _WIDTH // 2}" y="{top + _HEIGHT // 2 + 4}" text-anchor="middle" '
            f'fill="currentColor">{mark}{escape(name)}</text>'
        )
        return frame + words


@dataclass(frozen=True, slots=True)
class _Arrow:
    """All steps from one state to another, drawn as one arrow."""

    before: int
    after: int
    numbers: tuple[int, ...]
    side: str
    lane: int
    #: How many arrows begin at the same side of the same state before this one.
    slot: int


class _Arrows:
    """Arrows between states of a column: down to the next, else around it, each in a free lane."""

    def __init__(self, steps: Sequence[_Step], states: Sequence[str]) -> None:
        between: dict[tuple[int, int], list[int]] = {}
        for each in steps:
            way = (states.index(each.before), states.index(each.after))
            between.setdefault(way, []).append(each.number)
        self._arrows: list[_Arrow] = []
        # Short ones are nearest to the states, so that few cross.
        for (before, after), numbers in sorted(
            between.items(), key=lambda item: abs(item[0][0] - item[0][1])
        ):
            side = "down" if after == before + 1 else "left" if after < before else "right"
            lane = 0 if side == "down" else self._free_lane(side, before, after)
            slot = sum((each.before, each.side) == (before, side) for each in self._arrows)
            self._arrows.append(_Arrow(before, after, tuple(numbers), side, lane, slot))

    def lanes(self, side: str) -> int:
        """Count the lanes of a side."""
        return max((each.lane + 1 for each in self._arrows if each.side == side), default=0)

    def draw(self, tops: dict[str, int], left: int) -> Iterable[str]:
        """Draw all arrows with the numbers of their steps."""
        at = list(tops.values())
        for each in self._arrows:
            if each.side == "down":
                x = left + _WIDTH // 2
                begin, end = at[each.before] + _HEIGHT, at[each.after]
                yield _line(f"M {x} {begin} V {end - 5}") + _head(x, end, "down")
                yield _number(x + 8, (begin + end) // 2 + 4, each.numbers, "start")
                continue
            outward = 1 if each.side == "right" else -1
            edge = left + _WIDTH if each.side == "right" else left
            lane = edge + outward * (_LANE * (each.lane + 1) - 6)
            # An arrow leaves below the place at which others arrive, and each below the one before.
            begin, end = at[each.before] + 16 + 13 * each.slot, at[each.after] + 6
            path = f"M {edge} {begin} H {lane} V {end} H {edge + outward * 5}"
            yield _line(path) + _head(edge, end, each.side)
            anchor = "start" if outward > 0 else "end"
            yield _number(edge + outward * 9, begin + 12, each.numbers, anchor)

    def _free_lane(self, side: str, before: int, after: int) -> int:
        low, high = sorted((before, after))
        taken = {
            each.lane
            for each in self._arrows
            if each.side == side
            and min(each.before, each.after) <= high
            and max(each.before, each.after) >= low
        }
        return next(lane for lane in range(len(taken) + 1) if lane not in taken)


def _line(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="currentColor" opacity="0.7"/>'


def _head(x: int, y: int, side: str) -> str:
    """Draw the head of an arrow that points to a place at the edge of a state."""
    if side == "down":
        points = f"{x},{y} {x - 4},{y - 7} {x + 4},{y - 7}"
    else:
        back = x + (7 if side == "right" else -7)
        points = f"{x},{y} {back},{y - 4} {back},{y + 4}"
    return f'<polygon points="{points}" fill="currentColor" opacity="0.7"/>'


def _number(x: int, y: int, numbers: Sequence[int], anchor: str) -> str:
    words = ", ".join(map(str, numbers))
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="11" fill="currentColor">'
        f"{words}</text>"
    )


def _in_order(machine: ProtocolTable) -> list[str]:
    """Give the names of all states, each near the one from which it is reached."""
    order: list[Any] = []
    waiting: list[Any] = [machine.start]
    while waiting:
        state = waiting.pop(0)
        if state in order:
            continue
        order.append(state)
        # The first step of a state leads on to the next one; the others come later.
        after = [step[0] for step in machine.table.get(state, {}).values()]
        waiting = [*after[:1], *waiting, *after[1:]]
    order += [state for state in machine.table if state not in order]
    return [state.name for state in order]


def _steps(machine: ProtocolTable) -> list[_Step]:
    order = _in_order(machine)
    found = [
        (state.name, name_of(event), ", ".join(action.name for action in actions), after.name)
        for state, row in sorted(machine.table.items(), key=lambda item: order.index(item[0].name))
        for event, (after, actions) in row.items()
    ]
    return [_Step(number, *each) for number, each in enumerate(found, 1)]
