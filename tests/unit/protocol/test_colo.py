"""The conversation: what the tables allow, what they refuse, and what follows from them."""

from __future__ import annotations

import itertools
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.protocol.colo import (
    UPSTREAM,
    V12,
    VARIANTS,
    ColoAction,
    ColoState,
    Conversation,
    LocalEvent,
    Role,
    Variant,
    comparing_primary_table,
    comparing_secondary_table,
    primary_table,
    secondary_table,
)
from colobench.protocol.failover import (
    FAILOVER,
    Failover,
    FailoverAction,
    FailoverEvent,
    FailoverState,
)
from colobench.protocol.table import LocalProtocolError, RemoteProtocolError, mermaid, text
from colobench.settings.checkpoint import Capture, Layout
from colobench.wire.messages import Message

Form = tuple[Variant, Layout, Capture]
FORMS: list[Form] = list(itertools.product(VARIANTS.values(), Layout, Capture))
TABLES = [primary_table(variant, capture) for variant in VARIANTS.values() for capture in Capture]
TABLES += [secondary_table(*form) for form in FORMS]
TABLES += [comparing_primary_table(UPSTREAM)]
TABLES += [comparing_secondary_table(UPSTREAM, layout) for layout in Layout]
SENT_BY = {
    ColoAction.SEND_CHECKPOINT_READY: [Message.CHECKPOINT_READY],
    ColoAction.SEND_CHECKPOINT_REQUEST: [Message.CHECKPOINT_REQUEST],
    ColoAction.SEND_CHECKPOINT_REPLY: [Message.CHECKPOINT_REPLY],
    ColoAction.SEND_CHECKPOINT: [Message.VMSTATE_SEND, Message.VMSTATE_SIZE],
    ColoAction.SEND_COPY: [Message.VMSTATE_SEND, Message.VMSTATE_SIZE],
    ColoAction.SEND_PART: [Message.VMSTATE_SEND, Message.VMSTATE_SIZE],
    ColoAction.SEND_PASS: [Message.MIGRATE_RAM_BACKGROUND],
    ColoAction.SEND_PAGE_HASHES: [Message.PAGE_HASHES],
    ColoAction.COMPARE_PAGES: [Message.DIVERGENT_PAGES],
    ColoAction.SEND_DIVERGENT: [Message.VMSTATE_SEND, Message.VMSTATE_SIZE],
    ColoAction.SEND_VMSTATE_RECEIVED: [Message.VMSTATE_RECEIVED],
    ColoAction.SEND_VMSTATE_LOADED: [Message.VMSTATE_LOADED],
    ColoAction.SEND_GUEST_SHUTDOWN: [Message.GUEST_SHUTDOWN],
}
#: What a side's own work leads to, once it has done an action.
THEN = {
    ColoAction.SEND_CHECKPOINT: LocalEvent.ALL_SENT,
    ColoAction.SEND_COPY: LocalEvent.ALL_SENT,
    ColoAction.SEND_PART: LocalEvent.ALL_SENT,
    ColoAction.RECEIVE_PASS: LocalEvent.PASS_RECEIVED,
    ColoAction.SEND_DIVERGENT: LocalEvent.ALL_SENT,
    ColoAction.RECEIVE_RAM: LocalEvent.RAM_RECEIVED,
    ColoAction.RECEIVE_BUFFER: LocalEvent.BUFFER_RECEIVED,
    ColoAction.FLUSH_AND_LOAD: LocalEvent.LOADED,
}


class Pair:
    """Both sides of a conversation, joined by two queues, and everything that they did."""

    def __init__(
        self, variant: Variant, layout: Layout, capture: Capture, *, compares_pages: bool = False
    ) -> None:
        self.sides = {
            role: Conversation(role, variant, layout, capture, compares_pages=compares_pages)
            for role in Role
        }
        self.inbox: dict[Role, list[Message]] = {role: [] for role in Role}
        self.done: list[tuple[Role, ColoAction]] = []
        self.happened(Role.SECONDARY, LocalEvent.MIGRATED)

    def happened(self, role: Role, event: LocalEvent) -> None:
        self._do(role, self.sides[role].on(event))

    def _do(self, role: Role, actions: tuple[ColoAction, ...]) -> None:
        peer = next(each for each in Role if each is not role)
        for action in actions:
            self.done.append((role, action))
            self.inbox[peer] += SENT_BY.get(action, [])
            if action in THEN:
                self.happened(role, THEN[action])

    def deliver(self, role: Role) -> bool:
        if not self.inbox[role]:
            return False
        self._do(role, self.sides[role].receive(self.inbox[role].pop(0)))
        return True

    def send_part(self) -> bool:
        """Send all of an epoch, if one waits for it."""
        if not self.sides[Role.PRIMARY].allows(LocalEvent.PART_DUE):
            return False
        self.happened(Role.PRIMARY, LocalEvent.PART_DUE)
        return True

    def settle(self) -> None:
        while self.send_part() or any(self.deliver(role) for role in Role):
            pass


@pytest.mark.parametrize(("variant", "layout", "capture"), FORMS)
def test_every_form_makes_checkpoint_after_checkpoint(
    variant: Variant, layout: Layout, capture: Capture
) -> None:
    pair = Pair(variant, layout, capture)
    pair.settle()
    for _ in range(3):
        pair.happened(Role.PRIMARY, LocalEvent.CHECKPOINT_DUE)
        pair.settle()
        assert {side.state for side in pair.sides.values()} == {ColoState.RUNNING}
    loads = [action for _, action in pair.done if action is ColoAction.FLUSH_AND_LOAD]
    assert len(loads) == 3


@pytest.mark.parametrize(("variant", "layout", "capture"), FORMS)
def test_output_leaves_only_after_the_commit_and_the_guest_stands_until_it_is_captured(
    variant: Variant, layout: Layout, capture: Capture
) -> None:
    pair = Pair(variant, layout, capture)
    pair.settle()
    pair.done.clear()
    pair.happened(Role.PRIMARY, LocalEvent.CHECKPOINT_DUE)
    pair.settle()
    actions = [action for _, action in pair.done]
    primary = [action for role, action in pair.done if role is Role.PRIMARY]
    commit = actions.index(ColoAction.SEND_VMSTATE_RECEIVED)
    release = actions.index(ColoAction.RELEASE_OUTPUT)
    assert commit < release
    captured = {
        Capture.STOP_AND_SEND: ColoAction.SEND_CHECKPOINT,
        Capture.COPY_THEN_SEND: ColoAction.COPY_CHECKPOINT,
        Capture.GAP_PRECOPY: ColoAction.SEND_CHECKPOINT,
        Capture.COPY_ON_WRITE: ColoAction.FREEZE_CHECKPOINT,
        Capture.TWO_EPOCHS: ColoAction.FREEZE_CHECKPOINT,
    }[capture]
    stop, start = primary.index(ColoAction.STOP_GUEST), primary.index(ColoAction.START_GUEST)
    assert stop < primary.index(captured) < start
    if capture.copies:
        two_epochs = capture is Capture.TWO_EPOCHS
        send = ColoAction.SEND_PART if two_epochs else ColoAction.SEND_COPY
        assert start < primary.index(send)
        table = primary_table(variant, capture)
        assert table[ColoState.SENT][Message.VMSTATE_RECEIVED][1] == (ColoAction.RELEASE_OUTPUT,)
        assert table[ColoState.LOADING][Message.VMSTATE_LOADED][1] == (
            (ColoAction.CLOSE_EPOCH,) if two_epochs else ()
        )
    elif variant.release_after is Message.VMSTATE_LOADED:
        assert actions.index(ColoAction.SEND_VMSTATE_LOADED) < release
    assert actions.index(ColoAction.FLUSH_AND_LOAD) < len(actions) - 1


@pytest.mark.parametrize(("variant", "layout", "capture"), FORMS)
def test_secondary_guest_runs_between_checkpoints_only_upstream(
    variant: Variant, layout: Layout, capture: Capture
) -> None:
    pair = Pair(variant, layout, capture)
    pair.settle()
    pair.happened(Role.PRIMARY, LocalEvent.CHECKPOINT_DUE)
    pair.settle()
    secondary = [action for role, action in pair.done if role is Role.SECONDARY]
    assert (ColoAction.START_GUEST in secondary) is variant.secondary_runs
    assert (ColoAction.STOP_GUEST in secondary) is variant.secondary_runs
    if variant.secondary_runs:
        assert secondary.index(ColoAction.STOP_GUEST) < secondary.index(ColoAction.FLUSH_AND_LOAD)


@pytest.mark.parametrize("layout", Layout)
def test_pages_are_compared_while_both_guests_stand_and_nothing_is_applied_before_the_commit(
    layout: Layout,
) -> None:
    pair = Pair(UPSTREAM, layout, Capture.STOP_AND_SEND, compares_pages=True)
    pair.settle()
    for _ in range(3):
        pair.done.clear()
        pair.happened(Role.PRIMARY, LocalEvent.CHECKPOINT_DUE)
        pair.settle()
        assert {side.state for side in pair.sides.values()} == {ColoState.RUNNING}
        order = [
            (Role.SECONDARY, ColoAction.STOP_GUEST),
            (Role.PRIMARY, ColoAction.STOP_GUEST),
            (Role.PRIMARY, ColoAction.SEND_PAGE_HASHES),
            (Role.SECONDARY, ColoAction.COMPARE_PAGES),
            (Role.PRIMARY, ColoAction.SEND_DIVERGENT),
            (Role.SECONDARY, ColoAction.SEND_VMSTATE_RECEIVED),
            (Role.SECONDARY, ColoAction.FLUSH_AND_LOAD),
            (Role.SECONDARY, ColoAction.START_GUEST),
            (Role.PRIMARY, ColoAction.START_GUEST),
        ]
        assert [each for each in pair.done if each in order] == order


def test_shutdown_ends_both_sides_of_v12_and_is_no_message_upstream() -> None:
    for variant, end in ((V12, ColoState.ENDED), (UPSTREAM, ColoState.RUNNING)):
        pair = Pair(variant, Layout.SEPARATED, Capture.STOP_AND_SEND)
        pair.settle()
        pair.happened(Role.PRIMARY, LocalEvent.SHUTDOWN)
        pair.settle()
        assert pair.sides[Role.PRIMARY].state is ColoState.ENDED
        assert pair.sides[Role.SECONDARY].state is end


@given(
    st.sampled_from(FORMS),
    st.sampled_from(list(Role)),
    st.sampled_from(list(ColoState)),
    st.sampled_from(list(Message)),
    st.booleans(),
)
def test_message_that_is_not_expected_is_the_peers_fault_and_changes_nothing(
    form: Form, role: Role, state: ColoState, message: Message, compares_pages: bool
) -> None:
    side = Conversation(role, *form, compares_pages=compares_pages)
    side.state = state
    row = side.table.get(state, {})
    if message in row:
        assert side.receive(message) == row[message][1]
        return
    with pytest.raises(RemoteProtocolError, match=f"state {state.name}: .*{message.name}"):
        side.receive(message)
    assert side.state is state


def test_step_that_is_not_allowed_is_our_own_fault() -> None:
    side = Conversation(Role.PRIMARY, V12, Layout.SEPARATED, Capture.STOP_AND_SEND)
    with pytest.raises(LocalProtocolError, match="expected CHECKPOINT_READY, found ALL_SENT"):
        side.on(LocalEvent.ALL_SENT)


@given(
    st.sampled_from(FORMS),
    st.lists(st.sampled_from(["due", "pass", "part", "primary", "secondary"])),
)
def test_no_interleaving_loads_what_was_not_sent_whole(form: Form, moves: list[str]) -> None:
    pair = Pair(*form)
    for move in moves:
        if move in ("due", "pass"):
            event = LocalEvent.CHECKPOINT_DUE if move == "due" else LocalEvent.PASS_DUE
            if event in pair.sides[Role.PRIMARY].table[pair.sides[Role.PRIMARY].state]:
                pair.happened(Role.PRIMARY, event)
        elif move == "part":
            pair.send_part()
        else:
            pair.deliver(Role(move))
        sending = (ColoAction.SEND_CHECKPOINT, ColoAction.SEND_COPY, ColoAction.SEND_PART)
        sent = sum(pair.done.count((Role.PRIMARY, action)) for action in sending)
        loaded = pair.done.count((Role.SECONDARY, ColoAction.FLUSH_AND_LOAD))
        released = pair.done.count((Role.PRIMARY, ColoAction.RELEASE_OUTPUT))
        open_epochs = 2 if form[2] is Capture.TWO_EPOCHS else 1
        assert sent - open_epochs <= loaded <= sent
        assert released <= loaded


@given(
    st.sampled_from(list(VARIANTS.values())),
    st.lists(st.sampled_from(["due", "part", "primary", "secondary"]), max_size=80),
)
def test_two_epochs_are_committed_loaded_and_released_in_order(
    variant: Variant, moves: list[str]
) -> None:
    pair = Pair(variant, Layout.SEPARATED, Capture.TWO_EPOCHS)
    pair.settle()
    for move in moves:
        if move == "due":
            if pair.sides[Role.PRIMARY].allows(LocalEvent.CHECKPOINT_DUE):
                pair.happened(Role.PRIMARY, LocalEvent.CHECKPOINT_DUE)
        elif move == "part":
            pair.send_part()
        else:
            pair.deliver(Role(move))
        count = {action: [each for _, each in pair.done].count(action) for action in ColoAction}
        cuts, closed = count[ColoAction.FREEZE_CHECKPOINT], count[ColoAction.CLOSE_EPOCH]
        assert closed <= cuts <= closed + 2
        assert count[ColoAction.RELEASE_OUTPUT] <= count[ColoAction.SEND_VMSTATE_RECEIVED]
        assert count[ColoAction.RELEASE_OUTPUT] - closed in (0, 1)
    # Pages of an epoch are taken in only when the one before has been committed and flushed.
    cycle = [ColoAction.RECEIVE_RAM, ColoAction.SEND_VMSTATE_RECEIVED, ColoAction.FLUSH_AND_LOAD]
    taken = [action for _, action in pair.done if action in cycle]
    assert taken == (cycle * len(taken))[: len(taken)]


def test_two_epochs_are_open_in_each_pair_of_stages_that_there_is() -> None:
    table = primary_table(V12, Capture.TWO_EPOCHS)
    both = {state for state in table if "_AND_" in state.name}
    assert all(LocalEvent.CHECKPOINT_DUE not in table[state] for state in both)
    one = {ColoState.RUNNING, ColoState.SENDING, ColoState.SENT, ColoState.LOADING}
    assert all(LocalEvent.CHECKPOINT_DUE in table[state] for state in one)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_pass_brings_pages_and_neither_stops_a_guest_nor_is_answered(variant: Variant) -> None:
    pair = Pair(variant, Layout.SEPARATED, Capture.GAP_PRECOPY)
    pair.settle()
    pair.done.clear()
    for _ in range(2):
        pair.happened(Role.PRIMARY, LocalEvent.PASS_DUE)
        pair.settle()
    passed = [(Role.PRIMARY, ColoAction.SEND_PASS), (Role.SECONDARY, ColoAction.RECEIVE_PASS)]
    assert pair.done == passed * 2
    assert {side.state for side in pair.sides.values()} == {ColoState.RUNNING}


@pytest.mark.parametrize("table", TABLES)
def test_every_state_can_be_reached_and_every_end_is_the_end(table: Any) -> None:
    reached = {ColoState.MIGRATING}
    for _ in table:
        reached |= {after for state in reached for after, _ in table[state].values()}
    assert reached == set(table)
    assert {state for state, row in table.items() if not row} <= {ColoState.ENDED}


@pytest.mark.parametrize("table", [*TABLES, FAILOVER])
def test_diagrams_show_every_line_of_the_table(table: Any) -> None:
    start: Enum = next(iter(table))
    drawn, written = mermaid(table, start), text(table)
    for state, row in table.items():
        for event, (after, actions) in row.items():
            arrow = f"{state.name} --> {after.name}: {event.name}"
            assert arrow in drawn
            assert any(
                line.split("  ")[0].strip() == state.name
                and all(action.name in line for action in actions)
                for line in written.splitlines()
            )


def test_failover_during_a_load_waits_for_it_and_comes_again() -> None:
    failover = Failover()
    failover.on(FailoverEvent.LOST_HEARTBEAT)
    assert failover.on(FailoverEvent.LOADING) == ()
    assert failover.state is FailoverState.RELAUNCH
    assert failover.on(FailoverEvent.LOADED) == (FailoverAction.REQUEST_AGAIN,)
    failover.on(FailoverEvent.LOST_HEARTBEAT)
    assert failover.on(FailoverEvent.BEGIN) == (FailoverAction.CUT_OFF,)
    assert failover.on(FailoverEvent.TAKEN_OVER) == (FailoverAction.RUN_ALONE,)
    assert failover.state is FailoverState.COMPLETED


@given(st.sampled_from(list(FailoverState)[1:]))
def test_second_request_for_a_failover_is_refused(state: FailoverState) -> None:
    failover = Failover()
    failover.state = state
    with pytest.raises(LocalProtocolError):
        failover.on(FailoverEvent.LOST_HEARTBEAT)
