"""Journal of a pair that is stepped: what was seen at each step, to look at again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from colobench.lab.session.message_gate import WaitingMessage
from colobench.memory.tracker import Words

#: Moments that are kept; the oldest are dropped.
LIMIT = 1000


@dataclass(frozen=True, slots=True)
class NodeMoment:
    """One node at a moment.

    Attributes
    ----------
    alive
        Whether its process lives.
    state
        Its state in the conversation's table; "" if it takes part in none.
    held_at
        Point at which it is held; None if it waits for its peer, or for a cause.
    runs
        Whether its guest runs.
    checkpoint
        Number of its last checkpoint: committed by the primary, loaded by the secondary.
    frames_held, frames_out, frames_dropped
        Frames of its guest's output that it holds, that it has let out, and that it has dropped.
    """

    alive: bool
    state: str = ""
    held_at: str | None = None
    runs: bool = False
    checkpoint: int | None = None
    frames_held: int = 0
    frames_out: int = 0
    frames_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Maps:
    """Sets of pages at a moment, uint64[pages / 64], bit i of word w for page 64 w + i.

    Attributes
    ----------
    collected
        Pages of the checkpoint that is being made, or of the last one.
    received
        Pages that are in the RAM cache and not yet in the secondary's RAM.
    differing
        Pages in which the RAM of the two differs. A guest that runs may write meanwhile.
    """

    collected: Words | None = None
    received: Words | None = None
    differing: Words | None = None

    @staticmethod
    def count(words: Words | None) -> int | None:
        """Count the pages of a set; None if it is not known."""
        return None if words is None else int(np.bitwise_count(words).sum())


@dataclass(frozen=True, slots=True)
class StepMoment:
    """A pair at a moment at which nothing moves.

    Attributes
    ----------
    happened
        Sentence: the step that has led here.
    nodes
        The two nodes, by role.
    waiting
        Messages that have left their senders, and have not reached the receivers, oldest first.
    arriving
        Name and number of bytes of a message from the primary that has not left it whole.
    channel_bytes, channel_packets
        Bytes and packets of pages that wait on connections of their own.
    maps
        Sets of pages.
    said
        Errors that the nodes have reported since the moment before.
    equal
        Whether RAM and devices of both were equal after the last checkpoint; None if not compared.
    """

    happened: str
    nodes: dict[str, NodeMoment]
    waiting: tuple[WaitingMessage, ...] = ()
    arriving: tuple[str, int] = ("", 0)
    channel_bytes: int = 0
    channel_packets: int = 0
    maps: Maps = field(default_factory=Maps, repr=False)
    said: tuple[str, ...] = ()
    equal: bool | None = None

    @property
    def next_message(self) -> WaitingMessage | None:
        """The message that travels next."""
        return self.waiting[0] if self.waiting else None


class StepJournal(Sequence[StepMoment]):
    """Moments in order, and the one that is being looked at.

    Parameters
    ----------
    limit
        Number of moments that are kept.

    Attributes
    ----------
    dropped
        Number of moments that were dropped.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._moments: list[StepMoment] = []
        self._limit = limit
        self._at = -1
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> StepMoment:  # type: ignore[override]
        return self._moments[index]

    def __iter__(self) -> Iterator[StepMoment]:
        return iter(self._moments[:])

    @property
    def present(self) -> StepMoment | None:
        """The moment that is being looked at; None before the first."""
        return self._moments[self._at] if self._moments else None

    @property
    def number(self) -> int:
        """Number of the present moment, from 1 up, with those that were dropped."""
        return self.dropped + self._at + 1

    @property
    def total(self) -> int:
        """Number of all moments so far."""
        return self.dropped + len(self._moments)

    @property
    def is_live(self) -> bool:
        """Whether the present moment is the last one: the processes are as it says."""
        return self._at == len(self._moments) - 1

    def add(self, moment: StepMoment) -> None:
        """Add a moment, and look at it."""
        self._moments.append(moment)
        over = len(self._moments) - self._limit
        if over > 0:
            del self._moments[:over]
            self.dropped += over
        self._at = len(self._moments) - 1

    def back(self) -> bool:
        """Look at the moment before; return whether there is one."""
        if self._at <= 0:
            return False
        self._at -= 1
        return True

    def forward(self) -> bool:
        """Look at the moment after; return whether there is one."""
        if self.is_live:
            return False
        self._at += 1
        return True

    def to_end(self) -> None:
        """Look at the last moment."""
        self._at = len(self._moments) - 1

    def messages(self) -> list[tuple[str, str]]:
        """Give direction and name of each message that has waited, in the order of their first."""
        seen = ((each.direction, each.part.name) for moment in self for each in moment.waiting)
        return list(dict.fromkeys(seen))
