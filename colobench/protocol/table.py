"""State machines as tables, which are executed, checked and printed."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from enum import Enum
from typing import Generic, TypeVar

from colobench.errors import LocalError, RemoteError
from colobench.text_table import align

StateT = TypeVar("StateT", bound=Enum)
EventT = TypeVar("EventT", bound=Hashable)
ActionT = TypeVar("ActionT", bound=Enum)

#: For each state and event, the next state and the actions to perform, in order.
Table = Mapping[StateT, Mapping[EventT, tuple[StateT, tuple[ActionT, ...]]]]


class LocalProtocolError(LocalError):
    """A step of our own that the table does not allow in this state."""


class RemoteProtocolError(RemoteError):
    """A message of the peer that the table does not allow in this state."""


class MissingAction(LocalError):
    """An action of a table that no function performs."""


def name_of(event: object) -> str:
    """Return an event's name for diagrams and errors."""
    return event.name if isinstance(event, Enum) else str(event)


class StateMachine(Generic[StateT, EventT, ActionT]):
    """State machine that follows a table.

    Parameters
    ----------
    table
        The allowed steps.
    state
        The first state.
    """

    def __init__(self, table: Table[StateT, EventT, ActionT], state: StateT) -> None:
        self.table = table
        self.state = state

    def allows(self, event: EventT) -> bool:
        """Say whether the table has this event in the present state."""
        return event in self.table.get(self.state, {})

    def on(self, event: EventT, *, remote: bool = False) -> tuple[ActionT, ...]:
        """Take in an event: enter the next state, and return the actions to perform, in order.

        Raises
        ------
        LocalProtocolError, RemoteProtocolError
            If the table has no such event in this state; the state stays as it was. The error is
            remote if the event was the peer's (`remote`).
        """
        row = self.table.get(self.state, {})
        if event not in row:
            error = RemoteProtocolError if remote else LocalProtocolError
            expected = " or ".join(name_of(known) for known in row) or "nothing"
            raise error(f"state {self.state.name}: expected {expected}, found {name_of(event)}")
        self.state, actions = row[event]
        return actions


def check_actions(table: Table[StateT, EventT, ActionT], performed: Container[ActionT]) -> None:
    """Check that each action of a table is performed.

    Raises
    ------
    MissingAction
        If one is not performed; the error names the action, its state and its event.
    """
    for state, row in table.items():
        for event, (_, actions) in row.items():
            for action in actions:
                if action not in performed:
                    raise MissingAction(
                        f"state {state.name}, {name_of(event)}: expected a function for "
                        f"{action.name}, found none"
                    )


def mermaid(table: Table[StateT, EventT, ActionT], start: StateT) -> str:
    """Draw a table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {start.name}"]
    for state, row in table.items():
        for event, (after, actions) in row.items():
            done = f" / {', '.join(action.name for action in actions)}" if actions else ""
            lines.append(f"    {state.name} --> {after.name}: {name_of(event)}{done}")
    lines += [f"    {state.name} --> [*]" for state, row in table.items() if not row]
    return "\n".join(lines)


def text(table: Table[StateT, EventT, ActionT]) -> str:
    """Draw a table as aligned lines of text: state, event, what is done, next state."""
    rows = [("state", "event", "does", "next state")]
    for state, row in table.items():
        if not row:
            rows.append((state.name, "", "", "the end"))
        for event, (after, actions) in row.items():
            does = ", ".join(action.name for action in actions)
            rows.append((state.name, name_of(event), does, after.name))
    rules = [("-" * max(map(len, column))) for column in zip(*rows, strict=True)]
    return "\n".join(align([rows[0], rules, *rows[1:]]))
