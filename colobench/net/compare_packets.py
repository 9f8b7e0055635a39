"""Flows of frames that wait for comparison, and the flow whose packets are compared whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, NamedTuple, TypeVar

from colobench.net.outcome import Counters
from colobench.settings.compare import Quirk

Content = TypeVar("Content")


class Held(NamedTuple, Generic[Content]):
    """A frame of the primary that waits.

    Attributes
    ----------
    order
        Its number among all frames of the primary.
    arrived
        Time of its arrival, seconds.
    frame
        The whole frame.
    content
        The part of it that is compared.
    """

    order: int
    arrived: float
    frame: bytes
    content: Content


class Flow(ABC, Generic[Content]):
    """Both guests' frames of one connection, or of one kind of packet.

    Attributes
    ----------
    held
        The primary's frames that wait, in their order.
    difference
        Offset and kind of the first difference, as in `Miscompare`; None while there is none.
    asked
        True if a checkpoint was requested since the last one.
    closed
        True if the guest has ended its side of the flow.
    last
        Time at which its last frame arrived, seconds.
    """

    def __init__(self, limit: int, quirks: frozenset[Quirk], counters: Counters) -> None:
        self.held: deque[Held[Content]] = deque()
        self.difference: tuple[int, str] | None = None
        self.asked = False
        self.closed = False
        self.last = 0.0
        self._limit = limit
        self._quirks = quirks
        self._counters = counters

    @abstractmethod
    def primary(self, held: Held[Content]) -> list[bytes]:
        """Take in a frame of the primary; return the frames that may leave now."""

    @abstractmethod
    def secondary(self, content: Content, now: float) -> list[bytes]:
        """Take in content from the secondary; return the primary's frames that may leave now."""

    @abstractmethod
    def overflowing(self) -> str | None:
        """Name the side on which more than the limit waits, or None."""

    @abstractmethod
    def oldest(self) -> float | None:
        """Return the time since which the oldest content of either side waits, seconds."""

    @abstractmethod
    def checkpoint(self) -> bool:
        """Forget what waits: both guests have the same state now. False if the flow may go."""

    def ease(self) -> list[bytes]:
        """Return frames with those parts of held frames that may leave."""
        return []

    def _full(self) -> bool:
        """Say whether a frame of the primary is to be dropped, and count it."""
        full = Quirk.DROP_OVERFLOW in self._quirks and len(self.held) > self._limit
        self._counters.dropped_primary += full
        return full


class Packets(Flow[bytes]):
    """Packets that are compared whole: payload of UDP, body of any other IP packet.

    Their order does not matter: a packet of one guest must be among the other guest's packets. If
    each guest has sent a packet that the other one has not sent, that is a difference.
    """

    def __init__(self, limit: int, quirks: frozenset[Quirk], counters: Counters) -> None:
        super().__init__(limit, quirks, counters)
        self._said: deque[tuple[float, bytes]] = deque()

    def primary(self, held: Held[bytes]) -> list[bytes]:
        """Release the frame if the secondary has sent the same, or hold it."""
        if self._full():
            return []
        self.held.append(held)
        if Quirk.NEWEST_FIRST in self._quirks:
            return self._newest_first()
        for at, (_, content) in enumerate(self._said):
            if content == held.content:
                del self._said[at]
                self.held.pop()
                return self._equal(held)
        self._look()
        return []

    def secondary(self, content: bytes, now: float) -> list[bytes]:
        """Release the first held frame that is equal, or keep the content."""
        if len(self._said) > self._limit:
            self._counters.dropped_secondary += 1
            return []
        if Quirk.NEWEST_FIRST in self._quirks:
            self._said.append((now, content))
            return self._newest_first()
        for at, held in enumerate(self.held):
            if content == held.content:
                del self.held[at]
                return self._equal(held)
        self._said.append((now, content))
        self._look()
        return []

    def overflowing(self) -> str | None:
        """Name the side on which more than the limit waits, or None."""
        if len(self.held) > self._limit:
            return "primary"
        return "secondary" if len(self._said) > self._limit else None

    def oldest(self) -> float | None:
        """Return the time since which the oldest content of either side waits, seconds."""
        times = [self.held[0].arrived] if self.held else []
        times += [self._said[0][0]] if self._said else []
        return min(times, default=None)

    def checkpoint(self) -> bool:
        """Forget what waits; the flow has no other state."""
        self._counters.dropped_secondary += len(self._said)
        return False

    def _equal(self, held: Held[bytes]) -> list[bytes]:
        self._counters.frames_released_equal += 1
        self._counters.bytes_compared += len(held.content)
        return [held.frame]

    def _look(self) -> None:
        if self.held and self._said and self.difference is None:
            ours, theirs = self.held[0].content, self._said[0][1]
            self.difference = (first_difference(ours, theirs), "payload")

    def _newest_first(self) -> list[bytes]:
        released: list[bytes] = []
        while self.held and self._said:
            held = self.held[-1]
            found = next((each for each in self._said if each[1] == held.content), None)
            if found is None:
                self._look()
                break
            self._said.remove(found)
            self.held.pop()
            released += self._equal(held)
        return released


def first_difference(left: bytes | bytearray, right: bytes | bytearray) -> int:
    """Return the offset at which two strings first differ, or the length of the shorter one."""
    least, most = 0, min(len(left), len(right))
    while least < most:
        middle = (least + most + 1) // 2
        if left[least:middle] == right[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least
