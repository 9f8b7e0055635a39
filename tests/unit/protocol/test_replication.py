"""Block replication as tables: what each side does with its disks, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.protocol.colo import Role
from colobench.protocol.replication import (
    PRIMARY_REPLICATION,
    SECONDARY_REPLICATION,
    Replication,
    ReplicationAction,
    ReplicationEvent,
    ReplicationState,
)
from colobench.protocol.table import LocalProtocolError, mermaid, text

TABLES = {Role.PRIMARY: PRIMARY_REPLICATION, Role.SECONDARY: SECONDARY_REPLICATION}
SIDES = pytest.mark.parametrize("role", list(Role))


def follow(role: Role, *events: ReplicationEvent) -> list[ReplicationAction]:
    side = Replication(role)
    return [action for event in events for action in side.on(event)]


def test_a_primary_copies_then_divides_its_writes_at_each_seal() -> None:
    actions, event = ReplicationAction, ReplicationEvent
    assert follow(Role.PRIMARY, event.START, event.COPIED, event.LEAD, event.SEAL) == [
        actions.FORWARD_WRITES,
        actions.BEGIN_NO_WRITE,
        actions.COUNT_CLUSTERS,
    ]
    before = (event.START, event.COPIED, event.LEAD, event.SEAL)
    assert follow(Role.PRIMARY, *before, event.SEAL, event.CHECKPOINT)[3:] == [
        actions.BEGIN_NO_WRITE,
        actions.HOLD_WRITES,
        actions.RELEASE_WRITES,
    ]


def test_a_secondary_empties_its_layers_once_for_each_checkpoint() -> None:
    actions, event = ReplicationAction, ReplicationEvent
    life = (event.START, event.LOADED, event.CHECKPOINT, event.LOADED, event.CHECKPOINT)
    assert follow(Role.SECONDARY, *life, event.LOADED, event.STOP) == [
        actions.SERVE,
        actions.START_LAYERS,
        actions.EMPTY_LAYERS,
        actions.EMPTY_LAYERS,
        actions.STOP_SERVING,
        actions.MERGE_LAYERS,
    ]


def test_no_write_of_the_primary_comes_behind_the_merge() -> None:
    """The server stops first, whatever came before."""
    for row in SECONDARY_REPLICATION.values():
        for _, actions in row.values():
            if ReplicationAction.MERGE_LAYERS in actions:
                assert actions[0] is ReplicationAction.STOP_SERVING


def test_layers_are_emptied_by_a_checkpoint_alone() -> None:
    for row in SECONDARY_REPLICATION.values():
        for event, (_, actions) in row.items():
            emptied = ReplicationAction.EMPTY_LAYERS in actions
            assert not emptied or event is ReplicationEvent.CHECKPOINT


@SIDES
def test_an_error_never_raises_and_a_secondary_with_one_never_becomes_the_guest(
    role: Role,
) -> None:
    for state, row in TABLES[role].items():
        if (role, state) == (Role.SECONDARY, ReplicationState.NONE):
            # It serves nothing.
            continue
        after, _ = row[ReplicationEvent.ERROR]
        if role is Role.SECONDARY:
            assert after is ReplicationState.FAILED
            stop = SECONDARY_REPLICATION[after][ReplicationEvent.STOP]
            assert ReplicationAction.MERGE_LAYERS not in stop[1]


@given(st.lists(st.sampled_from(ReplicationEvent)))
def test_writes_of_a_primary_never_wait_for_a_secondary_that_is_gone(
    events: list[ReplicationEvent],
) -> None:
    """After STOP the guest writes alone, whatever has happened; until then it is held once for each
    open checkpoint, of which there are two at most."""
    side, held = Replication(Role.PRIMARY), 0
    for event in [*events, ReplicationEvent.STOP]:
        try:
            actions = side.on(event)
        except LocalProtocolError:
            continue
        for action in actions:
            if action is ReplicationAction.HOLD_WRITES:
                held += 1
                assert held <= 2
            if action is ReplicationAction.RELEASE_WRITES:
                held -= 1
                assert held >= 0
            if action is ReplicationAction.WRITE_ALONE:
                held = 0
    assert side.state is ReplicationState.NONE
    assert not held


@SIDES
def test_the_tables_can_be_printed(role: Role) -> None:
    table = TABLES[role]
    assert mermaid(table, ReplicationState.NONE).startswith("stateDiagram-v2")
    assert "CHECKPOINT" in text(table)
