"""Base of both conversations: received bytes, the parser that takes them, and bytes to be sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, TypeAlias, TypeVar

import numpy as np

from colobench.block.nbd.errors import NBDEnded
from colobench.errors import LocalError

Event = TypeVar("Event")
T = TypeVar("T")

#: A parser yields a number of bytes, and is sent them; or memory, which is filled.
Wanted: TypeAlias = int | memoryview
NBDParser: TypeAlias = Generator[Wanted, Any, T]
#: Function that gives writable memory of a number of bytes.
Allocate: TypeAlias = Callable[[int], memoryview]

#: Bytes for headers that are received at once: some small requests, and little of a payload, which
#: would be copied.
_HEADER_BYTES: Final = 32 << 10


def fresh_memory(size: int) -> memoryview:
    """Give new memory, whose contents are arbitrary."""
    return np.empty(size, np.uint8).data


class NBDConversation(ABC, Generic[Event]):
    """One side's conversation, fed with bytes.

    The caller receives into `space` and calls `received`, or calls `feed`; then it sends what
    `take_outgoing` gives. A payload is received directly into memory of its own.

    Attributes
    ----------
    over
        Whether the peer has ended the conversation as the protocol provides; further bytes are
        ignored.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_HEADER_BYTES))
        self._start = self._end = 0
        self._filled = 0
        self._events: list[Event] = []
        self._outgoing = bytearray()
        self._failure: Exception | None = None
        self._between = False
        self.over = False
        self._parser = self._parse()
        self._wanted: Wanted = 0
        self._advance(None)

    @abstractmethod
    def _parse(self) -> NBDParser[None]:
        """Parse the whole conversation."""

    @property
    def idle(self) -> bool:
        """Whether negotiation is over, and nothing of a further message has arrived."""
        return self._between and self._start == self._end

    def space(self) -> memoryview:
        """Return writable memory of at least one byte, to receive into; then call `received`."""
        wanted = self._wanted
        if isinstance(wanted, memoryview) and self._start == self._end:
            return wanted[self._filled :]
        if self._start:
            rest = self._buffer[self._start : self._end].tobytes()
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._buffer[self._end :]

    def received(self, count: int) -> list[Event]:
        """Take `count` bytes that are in `space` now, and return what they complete.

        Raises
        ------
        NBDError
            If the protocol does not allow the bytes. Events before that are lost, and every
            further call raises the same error.
        """
        if self._failure is not None:
            raise self._failure
        if self.over:
            return []
        if isinstance(self._wanted, memoryview) and self._start == self._end:
            self._filled += count
        else:
            self._end += count
        try:
            self._work()
        except Exception as error:
            self._failure = error
            raise
        events, self._events = self._events, []
        return events

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes, copied, and return what they complete; see `received`."""
        view, events = memoryview(data), []
        while len(view) and not self.over:
            space = self.space()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            events += self.received(count)
            view = view[count:]
        return events

    def take_outgoing(self) -> bytes:
        """Take the bytes that are to be sent before anything else."""
        if not self._outgoing:
            return b""
        outgoing = bytes(self._outgoing)
        self._outgoing.clear()
        return outgoing

    def ended(self) -> NBDEnded:
        """Make the error for bytes that end here."""
        wanted = self._wanted
        expected = len(wanted) if isinstance(wanted, memoryview) else wanted
        found = self._filled if isinstance(wanted, memoryview) else self._end - self._start
        return NBDEnded("connection", expected=f"{expected} bytes", found=f"{found} and its end")

    def _work(self) -> None:
        """Parse as much as has arrived."""
        while not self.over:
            wanted = self._wanted
            if isinstance(wanted, memoryview):
                count = min(len(wanted) - self._filled, self._end - self._start)
                if count:
                    part = self._buffer[self._start : self._start + count]
                    wanted[self._filled : self._filled + count] = part
                    self._filled += count
                    self._start += count
                if self._filled < len(wanted):
                    return
                self._advance(None)
            elif self._end - self._start < wanted:
                return
            else:
                start = self._start
                self._start += wanted
                self._advance(self._buffer[start : self._start])

    def _advance(self, answer: memoryview | None) -> None:
        """Give the parser what it wanted."""
        self._filled = 0
        try:
            self._wanted = self._parser.send(answer)
        except StopIteration:
            self.over = True
            self._wanted = 0
        if isinstance(self._wanted, int) and self._wanted > _HEADER_BYTES:
            raise LocalError(f"NBD: a parser wanted {self._wanted} bytes at once")


def skip(size: int) -> NBDParser[None]:
    """Read bytes and forget them."""
    while size:
        count = min(size, _HEADER_BYTES)
        yield count
        size -= count
