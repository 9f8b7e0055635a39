"""Everything that the explorer keeps of a pair and its arbiter, and the states that are wrong."""

from __future__ import annotations

from typing import NamedTuple

from colobench.protocol.arbiter import Standing
from colobench.protocol.colo import ColoState
from colobench.protocol.failover import FailoverState
from colobench.wire.messages import Message


class ExploredPrimary(NamedTuple):
    """The primary; its guest's outputs are numbered from 1."""

    standing: Standing = Standing.PAIRED
    failover: FailoverState = FailoverState.NONE
    #: None once the conversation is over.
    colo: ColoState | None = ColoState.RUNNING
    running: bool = True
    #: Outputs that the guest has made, that are out, and that the secondary's guest has said, too.
    made: int = 0
    out: int = 0
    heard: int = 0
    #: Outputs that are part of the last checkpoint.
    checkpoint: int = 0
    #: Outputs that are part of each open epoch, and of each of those that is not sent.
    epochs: tuple[int, ...] = ()
    unsent: tuple[int, ...] = ()
    up: bool = True
    #: Whether it has ever served alone.
    served: bool = False


class ExploredSecondary(NamedTuple):
    """The secondary; what matters of its guest is how many of the primary's outputs it has made."""

    standing: Standing = Standing.PAIRED
    failover: FailoverState = FailoverState.NONE
    colo: ColoState | None = ColoState.RUNNING
    #: Its state contains so many of the primary's outputs, and whether others of its own.
    contains: int = 0
    diverged: bool = False
    #: Outputs equal to the primary's that it said since the last load, or before.
    said: int = 0
    #: Outputs that are part of the checkpoint that is arriving.
    checkpoint: int = 0
    #: Whether pages have come that belong to no complete checkpoint, and whether it served on them.
    passed: bool = False
    torn: bool = False
    up: bool = True
    served: bool = False


class ExploredArbiter(NamedTuple):
    """The arbiter, and what is on its way to and from it."""

    memory: str | None = None
    disk: str | None = None
    #: What it does next for the question that it took: "write", then answer this node.
    todo: tuple[str | tuple[str, bool], ...] = ()
    #: Once asked or answered, a question or an answer may arrive at any time, and again.
    questions: frozenset[str] = frozenset()
    answers: frozenset[tuple[str, bool]] = frozenset()


Queue = tuple[tuple[Message, int], ...]


class World(NamedTuple):
    """State of both nodes, their arbiter, and the messages on their way."""

    primary: ExploredPrimary = ExploredPrimary()
    secondary: ExploredSecondary = ExploredSecondary()
    arbiter: ExploredArbiter = ExploredArbiter()
    to_primary: Queue = ()
    to_secondary: Queue = ()


Move = tuple[str, World]


def split_brain(world: World) -> str | None:
    """Say what is wrong if both let out what the other's state does not contain."""
    primary, secondary = world.primary, world.secondary
    if primary.served and secondary.served:
        return "both served alone"
    if secondary.served and primary.out > secondary.contains:
        return "the secondary served without an output that was out"
    if secondary.torn:
        return "the secondary served on pages of no complete checkpoint"
    return None
