"""A moment of a stepped pair as HTML: state machines, bytes about to travel, guests and output."""

from __future__ import annotations

from html import escape

from colobench.lab.report.palette import (
    MUTED_COLOUR,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    SHADE_COLOUR,
)
from colobench.lab.session.journal import ROLES
from colobench.lab.session.message_gate import WaitingMessage
from colobench.lab.studies.step_journal import NodeMoment, StepJournal, StepMoment
from colobench.protocol.colo import ColoTable
from colobench.protocol.table import name_of
from colobench.ui.base.markup import table
from colobench.ui.views.diagram import bytes_table

#: Decoded items of a message that are shown.
ITEMS = 16

_COLOURS = dict(zip(ROLES, (PRIMARY_COLOUR, SECONDARY_COLOUR), strict=True))
_FLEX = "display: flex; flex-wrap: wrap; gap: 4px 20px; align-items: flex-start"
#: As wide as the panel, whatever a table in it needs.
_FIT = "width: 0; min-width: 100%"
_BOX = "flex: 1 1 380px; min-width: 0; overflow-x: auto"
_HEAD = "font-weight: 600; line-height: 1.6; margin-top: 6px"
_CELL = "padding: 2px 8px; text-align: left; vertical-align: top; line-height: 1.4; font-size: 12px"


def position(journal: StepJournal, *, over: bool) -> str:
    """Say which step is shown, and whether the processes stand there."""
    where = f"Step {journal.number} of {journal.total}"
    if journal.is_live:
        return f"{where}: the last one." if over else f"{where}: live, the processes stand here."
    stand = "" if over else f" The processes stand at step {journal.total}."
    return f"{where}: recorded.{stand} Next goes forward through what was seen."


def machines(tables: dict[str, ColoTable], moment: StepMoment) -> str:
    """Draw the state machines of both sides, with the present states lit."""
    boxes = "".join(_machine(role, tables[role], moment.nodes[role]) for role in ROLES)
    return f'<div style="{_FLEX}; {_FIT}">{boxes}</div>'


def _machine(role: str, steps: ColoTable, node: NodeMoment) -> str:
    rows = "".join(
        _state(role, state.name, _ways(steps, state.name), lit=state.name == node.state)
        for state in steps
    )
    heads = "".join(
        f'<th scope="col" style="{_CELL}">{text}</th>'
        for text in ("state", "event → next: actions")
    )
    return (
        f'<div style="{_BOX}"><div style="{_HEAD}">{escape(_sentence(role, node))}</div>'
        f'<table aria-label="state machine of the {role}" style="width: 100%; '
        f'border-collapse: collapse"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>"
    )


def _sentence(role: str, node: NodeMoment) -> str:
    if not node.alive:
        return f"{role.capitalize()}: dead"
    if not node.state:
        return f"{role.capitalize()}: serves alone"
    held = f"held at {node.held_at!r}" if node.held_at else "waits"
    return f"{role.capitalize()}: {node.state}, {held}"


def _ways(steps: ColoTable, name: str) -> list[str]:
    row = next(row for state, row in steps.items() if state.name == name)
    found = []
    for event, (after, actions) in row.items():
        does = ", ".join(action.name for action in actions)
        found.append(f"{name_of(event)} → {after.name}" + (f": {does}" if does else ""))
    return found or ["the end"]


def _state(role: str, name: str, ways: list[str], *, lit: bool) -> str:
    bar = _COLOURS[role] if lit else "transparent"
    look = f"border-left: 6px solid {bar}; background: {SHADE_COLOUR if lit else 'none'}"
    mark, current = ("▶ ", ' aria-current="step"') if lit else ("", "")
    weight = "600" if lit else "400"
    lines = "<br>".join(map(escape, ways))
    return (
        f'<tr{current} style="{look}"><td style="{_CELL}; font-weight: {weight}; white-space: '
        f'nowrap">{mark}{escape(name)}</td><td style="{_CELL}; overflow-wrap: anywhere">{lines}'
        "</td></tr>"
    )


def travelling(moment: StepMoment) -> str:
    """Show the message that travels next, field by field, and what is behind it."""
    message = moment.next_message
    if message is None:
        text = f'<div style="{_HEAD}">No message is on its way.</div>'
    else:
        text = _message(message)
    notes = []
    if len(moment.waiting) > 1:
        notes.append(f"Behind it: {', '.join(map(_title, moment.waiting[1:]))}.")
    name, size = moment.arriving
    if name:
        notes.append(f"Not whole yet: {name} of the primary, {size:,} bytes so far.")
    if moment.channel_bytes:
        notes.append(
            f"On page channels: {moment.channel_packets} packets wait, "
            f"{moment.channel_bytes:,} bytes. They pass with their RAM section."
        )
    lines = "".join(f'<div style="line-height: 1.5">{escape(each)}</div>' for each in notes)
    return (
        f'<div role="region" aria-label="bytes about to travel" style="{_FIT}">{text}{lines}</div>'
    )


def _title(message: WaitingMessage) -> str:
    return f"{message.direction} {message.part.name} ({len(message.part.data):,} bytes)"


def _message(message: WaitingMessage) -> str:
    part = message.part
    more = len(part.items) - ITEMS
    rest = (
        f'<div style="color: {MUTED_COLOUR}; line-height: 1.5">and {more} more items</div>'
        if more > 0
        else ""
    )
    decoded = bytes_table(part.items[:ITEMS], part.data, wrap=True)
    return (
        f'<div style="{_HEAD}">On its way: {escape(_title(message))}. It has left its sender, and '
        "has not reached its receiver.</div>"
        f'<div style="overflow-x: auto">{decoded}</div>{rest}'
    )


def guests(moment: StepMoment) -> str:
    """Tell both guests' checkpoints, whether they run, and the output frames that each side has."""
    heads = ("", "guest", "checkpoint", "frames held", "frames let out", "frames dropped")
    rows: list[tuple[str, ...]] = []
    for role in ROLES:
        node = moment.nodes[role]
        if not node.alive:
            rows.append((role, "dead"))
            continue
        counts = (node.frames_held, node.frames_out, node.frames_dropped)
        runs = "runs" if node.runs else "stands still"
        rows.append((role, runs, str(node.checkpoint), *(f"{count:,}" for count in counts)))
    filled = [(*row, *[""] * (len(heads) - len(row))) for row in rows]
    written = table(filled, heads, right=range(2, len(heads)))
    return f'<div style="{_HEAD}">Guests, and their output</div>{written}'
