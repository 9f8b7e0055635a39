"""The COLO thread: it does what the table says, one event after the other, or is not built."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from colobench.node.colo_thread import ColoThread
from colobench.protocol.colo import (
    V12,
    VARIANTS,
    ColoAction,
    ColoState,
    Conversation,
    LocalEvent,
    Role,
)
from colobench.protocol.table import LocalProtocolError, MissingAction
from colobench.settings.checkpoint import Capture, Layout
from colobench.wire.messages import Message


class Side:
    """A side of a conversation that writes down what it is asked to do."""

    def __init__(self, performed: set[ColoAction] | None = None) -> None:
        self.done: list[str] = []
        self.thread: ColoThread | None = None
        self._performed = set(ColoAction) if performed is None else performed

    def actions(self) -> Mapping[ColoAction, Callable[[], None]]:
        return {action: lambda action=action: self._do(action) for action in self._performed}

    def _do(self, action: ColoAction) -> None:
        self.done.append(f"begin {action.name}")
        if action is ColoAction.FLUSH_AND_LOAD:
            assert self.thread is not None
            self.thread.happened(LocalEvent.LOADED)
        self.done.append(f"end {action.name}")

    def message_received(self, received: Message, value: int | None) -> None:
        self.done.append(f"received {received.name}")

    def size_limit(self) -> int:
        return 0

    def colo_failed(self, error: BaseException) -> None:
        self.done.append(f"failed: {error}")


def thread_of(role: Role, layout: Layout = Layout.SEPARATED) -> tuple[ColoThread, Side]:
    side = Side()
    side.thread = ColoThread(Conversation(role, V12, layout, Capture.STOP_AND_SEND), side)
    return side.thread, side


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("capture", Capture)
def test_action_that_nobody_performs_is_found_when_the_thread_is_made(role, variant, capture):
    conversation = Conversation(role, variant, Layout.SEPARATED, capture)
    asked = {
        action for row in conversation.table.values() for _, done in row.values() for action in done
    }
    ColoThread(conversation, Side(asked))
    for action in asked:
        with pytest.raises(MissingAction, match=rf"expected a function for {action.name}"):
            ColoThread(conversation, Side(asked - {action}))


def test_what_happens_during_an_action_is_taken_in_after_it_and_those_beside_it():
    thread, side = thread_of(Role.SECONDARY)
    conversation = thread._conversation
    conversation.state = ColoState.RECEIVING_BUFFER
    thread.happened(LocalEvent.BUFFER_RECEIVED)
    assert side.done == []
    thread.run_to(ColoState.RUNNING)
    assert side.done == [
        "begin SEND_VMSTATE_RECEIVED",
        "end SEND_VMSTATE_RECEIVED",
        "begin FLUSH_AND_LOAD",
        "end FLUSH_AND_LOAD",
        "begin SEND_VMSTATE_LOADED",
        "end SEND_VMSTATE_LOADED",
    ]


def test_event_that_the_table_does_not_allow_ends_the_thread_and_nothing_is_done():
    thread, side = thread_of(Role.PRIMARY)
    thread.happened(LocalEvent.ALL_SENT)
    with pytest.raises(LocalProtocolError, match="expected CHECKPOINT_READY, found ALL_SENT"):
        thread.step()
    thread.happened(LocalEvent.SHUTDOWN)
    thread.run(thread.step)
    thread.join()
    assert side.done == ["failed: state MIGRATING: expected CHECKPOINT_READY, found SHUTDOWN"]
