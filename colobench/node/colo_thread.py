"""COLO thread: one side's conversation with its peer, event by event."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from colobench.errors import ColobenchError
from colobench.node.channel import Channel
from colobench.protocol.colo import ColoAction, ColoState, Conversation, LocalEvent
from colobench.protocol.table import check_actions
from colobench.wire.messages import Message, encode_message, message


class Interrupted(ColobenchError):
    """Raised in the COLO thread when a failover or a quit pre-empts its next step."""


class ColoSide(Protocol):
    """Steps that the COLO thread's node performs."""

    def actions(self) -> Mapping[ColoAction, Callable[[], None]]:
        """Return a function for each action of the conversation's table."""

    def message_received(self, received: Message, value: int | None) -> None:
        """Take note of a message that the table allows, before its actions are performed."""

    def size_limit(self) -> int:
        """Return the largest VMSTATE_SIZE that is accepted, bytes."""

    def colo_failed(self, error: BaseException) -> None:
        """Take note that COLO cannot go on; called at the end of the COLO thread."""


class ColoThread:
    """Thread that follows a conversation's table.

    Events are messages of the peer and events of this side. The latter are queued, so that all
    actions of an event are performed before the next event is handled.

    Parameters
    ----------
    conversation
        Conversation's table and state.
    side
        Node that performs the actions.

    Attributes
    ----------
    channel
        Connection to the peer; None until there is one.

    Raises
    ------
    MissingAction
        If the table asks for an action that `side` does not perform.
    """

    def __init__(self, conversation: Conversation, side: ColoSide) -> None:
        self._conversation, self._side = conversation, side
        self._actions = side.actions()
        check_actions(conversation.table, self._actions)
        self._events: deque[LocalEvent] = deque()
        self._thread: threading.Thread | None = None
        self.channel: Channel | None = None

    @property
    def state(self) -> ColoState:
        """State of the conversation."""
        return self._conversation.state

    @property
    def waiting_events(self) -> bool:
        """Whether events of this side wait for `step`."""
        return bool(self._events)

    def allows(self, event: LocalEvent) -> bool:
        """Say whether the conversation's table has this event in the present state."""
        return self._conversation.allows(event)

    def run(self, body: Callable[[], None]) -> None:
        """Run `body` in the COLO thread; pass an error that ends it to the side.

        Raises
        ------
        RuntimeError, MemoryError
            If no thread can be started.
        """

        def run() -> None:
            try:
                body()
            except Interrupted:
                pass
            except ColobenchError as error:
                self._side.colo_failed(error)
            except BaseException as error:
                traceback.print_exc()
                self._side.colo_failed(error)

        thread = threading.Thread(target=run, name="COLO", daemon=True)
        thread.start()
        self._thread = thread

    def happened(self, event: LocalEvent) -> None:
        """Queue an event of this side; the next `step` handles it."""
        self._events.append(event)

    def step(self) -> None:
        """Handle the next event: a queued one, otherwise the peer's next message."""
        if self._events:
            actions = self._conversation.on(self._events.popleft())
        else:
            received, value = self._receive()
            actions = self._conversation.receive(received)
            self._side.message_received(received, value)
        for action in actions:
            self._actions[action]()

    def run_to(self, state: ColoState) -> None:
        """Handle events until the conversation is in `state`."""
        while self._conversation.state is not state:
            self.step()

    def send(self, *messages: Message) -> None:
        """Send messages, after the bytes that wait to be sent."""
        assert self.channel is not None
        for each in messages:
            self.channel.write(encode_message(each))
        self.channel.flush()

    def shut_down(self) -> None:
        """Shut down the connection, which ends any wait of the thread."""
        if self.channel is not None:
            self.channel.shut_down()

    def join(self) -> None:
        """Wait for the thread's end, unless it is the one that calls."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def close(self) -> None:
        """Close the connection."""
        if self.channel is not None:
            self.channel.close()

    def _receive(self) -> tuple[Message, int | None]:
        assert self.channel is not None
        limit = self._side.size_limit()
        return self.channel.parse(message(self.channel.buffer, size_limit=limit))
