"""A gate in a relay: each message of a conversation waits until it is let through."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

from colobench.lab.session.message_splitter import MessagePart, MessageSplitter
from colobench.settings.checkpoint import Layout
from colobench.wire.vmstate import Device

#: From the primary, which connects, to the secondary, which listens, or back.
Direction = Literal["P→S", "S→P"]
DIRECTIONS: tuple[Direction, Direction] = ("P→S", "S→P")


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that has left its sender, and has not reached the receiver.

    Attributes
    ----------
    direction, part
        Direction, and the message.
    """

    direction: Direction
    part: MessagePart


class MessageGate:
    """Holds the messages of one connection, from the secondary's first one on.

    That is CHECKPOINT_READY, before which the migration passes. The primary sends nothing between
    the end of the migration and that message, so what comes from it later is the conversation.

    Parameters
    ----------
    layout, devices
        See `MessageSplitter`.
    """

    def __init__(self, layout: Layout, devices: tuple[Device, ...] = ()) -> None:
        self._splitters = {each: MessageSplitter(layout, devices) for each in DIRECTIONS}
        self._waiting: deque[WaitingMessage] = deque()
        self._lock = threading.Lock()
        self.holds = threading.Event()

    def pass_by(self, direction: Direction, data: bytes) -> bytes:
        """Take bytes in that have arrived, and give those that may go on at once."""
        with self._lock:
            if direction == "S→P":
                self.holds.set()
            elif not self.holds.is_set():
                return data
            for part in self._splitters[direction].feed(data):
                self._waiting.append(WaitingMessage(direction, part))
            return b""

    def waiting(self) -> tuple[WaitingMessage, ...]:
        """Give the messages that wait, the oldest first."""
        with self._lock:
            return tuple(self._waiting)

    def arriving(self, direction: Direction) -> tuple[str, int]:
        """Give the name of the part that has not arrived whole, and the bytes of it that are here.

        The name is "" if there is none.
        """
        with self._lock:
            splitter = self._splitters[direction]
            return (splitter.expected if splitter.rest else "", len(splitter.rest))

    def holds_back(self, direction: Direction) -> bool:
        """Say whether a message of that direction waits."""
        return any(each.direction == direction for each in self.waiting())

    def take(self, direction: Direction) -> MessagePart | None:
        """Take out the oldest message of that direction; None if there is none."""
        with self._lock:
            for each in self._waiting:
                if each.direction == direction:
                    self._waiting.remove(each)
                    return each.part
        return None

    def drop(self) -> None:
        """Drop everything that waits: the host that sent it has died."""
        with self._lock:
            self._waiting.clear()
            for splitter in self._splitters.values():
                splitter.rest = b""
