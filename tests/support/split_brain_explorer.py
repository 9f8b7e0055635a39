"""The explorer: every interleaving of two nodes and their arbiter, walked by the nodes' tables.

The explorer walks all states that a pair and its arbiter can reach, with the tables that the nodes
use, `Arbiter` itself, and everything around them as bad as it may be: a node suspects its peer
whenever it likes, and stands still for as long as it likes (that is what a stop is: others move);
nodes and the arbiter die between any two steps; each message between the nodes may be lost, and so
all of them, when their link is cut; a question or an answer arrives never, late, or again and
again. Only the number of the guest's outputs is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from colobench.protocol.arbiter import (
    STANDING,
    Arbiter,
    Standing,
    StandingAction,
    StandingEvent,
)
from colobench.protocol.colo import (
    UPSTREAM,
    ColoAction,
    ColoState,
    ColoTable,
    LocalEvent,
    Variant,
    primary_table,
    secondary_table,
)
from colobench.protocol.failover import FAILOVER, FailoverAction, FailoverEvent, FailoverState
from colobench.protocol.table import (
    RemoteProtocolError,
    StateMachine,
    Table,
)
from colobench.settings.checkpoint import Capture, Layout
from colobench.wire.messages import Message

PAIRING = "pairing"
PRIMARY, SECONDARY = "primary", "secondary"
SAYS = {
    ColoAction.SEND_CHECKPOINT_REQUEST: Message.CHECKPOINT_REQUEST,
    ColoAction.SEND_CHECKPOINT_REPLY: Message.CHECKPOINT_REPLY,
    ColoAction.SEND_VMSTATE_RECEIVED: Message.VMSTATE_RECEIVED,
    ColoAction.SEND_VMSTATE_LOADED: Message.VMSTATE_LOADED,
}
StandingTable = Table[Standing, StandingEvent, StandingAction]
FailoverTable = Table[FailoverState, FailoverEvent, FailoverAction]


@dataclass(frozen=True)
class Rules:
    """The protocol that is explored: as it is, or with one rule broken.

    Attributes
    ----------
    outputs
        How many outputs the guest makes while the nodes are a pair; there is a checkpoint at most
        for each.
    compare
        Whether the primary may let out what the secondary's guest said itself.
    writes_first
        Whether the arbiter has a grant on disk before it answers.
    remembers
        Whether an arbiter that starts again reads what it had on disk.
    tells_frames_apart
        Whether a frame that the secondary's guest sent before a checkpoint counts for nothing after
        it, however late it comes.
    seals
        Whether a release lets out only what the guest had made when its checkpoint was captured.
    human
        Whether somebody says x-colo-lost-heartbeat, whenever they like.
    """

    outputs: int = 2
    compare: bool = False
    standing: StandingTable = field(default_factory=lambda: STANDING)
    failover: FailoverTable = field(default_factory=lambda: FAILOVER)
    primary: ColoTable = field(
        default_factory=lambda: primary_table(UPSTREAM, Capture.STOP_AND_SEND)
    )
    secondary: ColoTable = field(
        default_factory=lambda: secondary_table(UPSTREAM, Layout.SEPARATED)
    )
    writes_first: bool = True
    remembers: bool = True
    tells_frames_apart: bool = True
    seals: bool = True
    human: bool = False


class Primary(NamedTuple):
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
    up: bool = True
    #: Whether it has ever served alone.
    served: bool = False


class Secondary(NamedTuple):
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
    up: bool = True
    served: bool = False


class ArbiterProcess(NamedTuple):
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
    """Everything."""

    primary: Primary = Primary()
    secondary: Secondary = Secondary()
    arbiter: ArbiterProcess = ArbiterProcess()
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
    return None


class Model:
    """What may happen next in a world under some rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def moves(self, world: World) -> Iterator[Move]:
        if world.primary.up:
            yield from self._primary_moves(world)
            yield from self._either_moves(world, PRIMARY, world.primary)
        if world.secondary.up:
            yield from self._secondary_moves(world)
            yield from self._either_moves(world, SECONDARY, world.secondary)
        yield from self._link_moves(world)
        yield from self._arbiter_moves(world)

    # What both nodes do.

    def _either_moves(self, world: World, name: str, node: Primary | Secondary) -> Iterator[Move]:
        yield f"{name} dies", self._die(world, name)
        if node.colo not in (None, ColoState.LOADING):
            # Silence for too long, a connection that is closed, a message that cannot be sent.
            yield f"{name}: COLO_EXIT", self._exit(world, name)
        row = self.rules.standing[node.standing]
        events = [StandingEvent.PEER_LOST]
        events += [StandingEvent.GRANTED] * ((name, True) in world.arbiter.answers)
        events += [StandingEvent.REFUSED] * ((name, False) in world.arbiter.answers)
        events += [StandingEvent.TOLD] * self.rules.human
        for event in events:
            if event in row:
                yield f"{name}: {event.name}", self._stand(world, name, event)

    def _stand(self, world: World, name: str, event: StandingEvent) -> World:
        node = world.primary if name == PRIMARY else world.secondary
        machine = StateMachine(self.rules.standing, node.standing)
        actions = machine.on(event)
        world = self._put(world, name, node._replace(standing=machine.state))
        for action in actions:
            if action is StandingAction.ASK:
                asked = world.arbiter.questions | {name}
                world = world._replace(arbiter=world.arbiter._replace(questions=asked))
            elif action is StandingAction.STOP:
                world = self._die(world, name)
            else:
                world = self._lost_heartbeat(world, name)
        return world

    def _lost_heartbeat(self, world: World, name: str) -> World:
        node = world.primary if name == PRIMARY else world.secondary
        machine = StateMachine(self.rules.failover, node.failover)
        machine.on(FailoverEvent.LOST_HEARTBEAT)
        loading = name == SECONDARY and node.colo is ColoState.LOADING
        actions = machine.on(FailoverEvent.LOADING if loading else FailoverEvent.BEGIN)
        if FailoverAction.CUT_OFF in actions:
            world = self._exit(world, name)
            node = node._replace(colo=None)
            actions = machine.on(FailoverEvent.TAKEN_OVER)
        if FailoverAction.RUN_ALONE in actions:
            node = node._replace(served=True)
        return self._put(world, name, node._replace(failover=machine.state))

    @staticmethod
    def _put(world: World, name: str, node: Primary | Secondary) -> World:
        if isinstance(node, Primary):
            return world._replace(primary=node)
        return world._replace(secondary=node)

    @staticmethod
    def _exit(world: World, name: str) -> World:
        """End a node's part in the conversation: it hears no more of it."""
        if name == PRIMARY:
            return world._replace(primary=world.primary._replace(colo=None), to_primary=())
        return world._replace(secondary=world.secondary._replace(colo=None), to_secondary=())

    @staticmethod
    def _die(world: World, name: str) -> World:
        """Forget all of a node but what it has let out, so that there are fewer worlds."""
        if name == PRIMARY:
            primary = world.primary
            left = Primary(
                Standing.OUT, colo=None, out=primary.out, served=primary.served, up=False
            )
            return world._replace(primary=left, to_primary=())
        secondary = world.secondary
        rest = Secondary(
            Standing.OUT,
            colo=None,
            contains=secondary.contains,
            said=secondary.said,
            served=secondary.served,
            up=False,
        )
        return world._replace(secondary=rest, to_secondary=())

    # The primary.

    def _primary_moves(self, world: World) -> Iterator[Move]:
        primary, secondary = world.primary, world.secondary
        if primary.running and primary.made < self.rules.outputs and not primary.served:
            made = primary.made + 1
            after = world._replace(primary=primary._replace(made=made))
            yield f"primary's guest makes output {made}", after
            if secondary.contains >= made:
                # The secondary's guest was ahead, and its output is another one.
                other = secondary._replace(contains=made - 1, said=made - 1, diverged=True)
                primary = after.primary._replace(heard=min(primary.heard, made - 1))
                after = after._replace(primary=primary, secondary=other)
                yield f"primary's guest makes another output {made}", after
                primary = world.primary
        if self.rules.compare:
            if primary.heard < secondary.said:
                after = world._replace(primary=primary._replace(heard=primary.heard + 1))
                yield f"output {primary.heard + 1} of the secondary arrives", after
            if primary.out < min(primary.made, primary.heard):
                after = world._replace(primary=primary._replace(out=primary.out + 1))
                yield f"output {primary.out + 1} is equal on both sides and let out", after
        if primary.colo is ColoState.RUNNING and primary.checkpoint < primary.made:
            yield "a checkpoint is due", self._primary_on(world, LocalEvent.CHECKPOINT_DUE)
        if world.to_primary:
            (message, _), *rest = world.to_primary
            yield (
                f"primary hears {message.name}",
                self._primary_on(world._replace(to_primary=tuple(rest)), message),
            )

    def _primary_on(self, world: World, event: Message | LocalEvent) -> World:
        primary = world.primary
        assert primary.colo is not None
        machine = StateMachine(self.rules.primary, primary.colo)
        try:
            actions = machine.on(event, remote=isinstance(event, Message))
        except RemoteProtocolError:
            return self._exit(world, PRIMARY)
        world = world._replace(primary=primary._replace(colo=machine.state))
        for action in actions:
            world = self._primary_does(world, action)
        return world

    def _primary_does(self, world: World, action: ColoAction) -> World:
        primary = world.primary
        if action in SAYS:
            return _say(world, SECONDARY, SAYS[action])
        if action is ColoAction.STOP_GUEST:
            return world._replace(primary=primary._replace(running=False))
        if action is ColoAction.START_GUEST:
            return world._replace(primary=primary._replace(running=True))
        if action is ColoAction.RELEASE_OUTPUT:
            out = primary.checkpoint if self.rules.seals else primary.made
            released = primary._replace(out=out, heard=out)
            return world._replace(primary=released)
        if action is not ColoAction.SEND_COPY:
            # It consists of what there is now: the guest stands still.
            assert action in (ColoAction.SEND_CHECKPOINT, ColoAction.COPY_CHECKPOINT)
            assert not primary.running
            primary = primary._replace(checkpoint=primary.made)
            world = world._replace(primary=primary)
        if action is ColoAction.COPY_CHECKPOINT:
            return world
        # Two messages, so that it can be torn.
        for message in (Message.VMSTATE_SEND, Message.VMSTATE_SIZE):
            world = _say(world, SECONDARY, message, primary.checkpoint)
        return self._primary_on(world, LocalEvent.ALL_SENT)

    # The secondary.

    def _secondary_moves(self, world: World) -> Iterator[Move]:
        secondary = world.secondary
        running = self.rules.compare and secondary.colo in (ColoState.RUNNING, None)
        if running and not secondary.served and not secondary.diverged:
            if secondary.contains < self.rules.outputs:
                contains = secondary.contains + 1
                said = max(secondary.said, contains)
                after = secondary._replace(contains=contains, said=said)
                yield f"secondary's guest says {contains}", world._replace(secondary=after)
            after = secondary._replace(diverged=True)
            yield "secondary's guest says something else", world._replace(secondary=after)
        if (
            secondary.colo is ColoState.RECEIVING_BUFFER
            and secondary.failover is FailoverState.NONE
        ):
            committed = world
            if self.rules.tells_frames_apart:
                after = secondary._replace(said=secondary.checkpoint)
                committed = world._replace(secondary=after)
            yield "secondary commits", self._secondary_on(committed, LocalEvent.BUFFER_RECEIVED)
        if secondary.colo is ColoState.LOADING:
            yield "secondary has loaded", self._load(world)
        if world.to_secondary:
            (message, checkpoint), *rest = world.to_secondary
            after = secondary._replace(checkpoint=checkpoint or secondary.checkpoint)
            yield (
                f"secondary hears {message.name}",
                self._secondary_on(
                    world._replace(to_secondary=tuple(rest), secondary=after), message
                ),
            )

    def _load(self, world: World) -> World:
        secondary = world.secondary
        loaded = secondary._replace(contains=secondary.checkpoint, diverged=False)
        world = world._replace(secondary=loaded)
        if loaded.failover is not FailoverState.RELAUNCH:
            return self._secondary_on(world, LocalEvent.LOADED)
        machine = StateMachine(self.rules.failover, loaded.failover)
        assert machine.on(FailoverEvent.LOADED) == (FailoverAction.REQUEST_AGAIN,)
        relaunched = loaded._replace(failover=machine.state, colo=ColoState.RUNNING)
        return self._lost_heartbeat(world._replace(secondary=relaunched), SECONDARY)

    def _secondary_on(self, world: World, event: Message | LocalEvent) -> World:
        secondary = world.secondary
        assert secondary.colo is not None
        machine = StateMachine(self.rules.secondary, secondary.colo)
        try:
            actions = machine.on(event, remote=isinstance(event, Message))
        except RemoteProtocolError:
            return self._exit(world, SECONDARY)
        world = world._replace(secondary=secondary._replace(colo=machine.state))
        for action in actions:
            if action in SAYS:
                world = _say(world, PRIMARY, SAYS[action])
            elif action is ColoAction.RECEIVE_RAM:
                world = self._secondary_on(world, LocalEvent.RAM_RECEIVED)
        return world

    # What lies between them.

    @staticmethod
    def _link_moves(world: World) -> Iterator[Move]:
        # A link that is cut loses all that it was given, and sooner or later COLO_EXIT follows.
        if world.to_primary:
            yield "a message is lost", world._replace(to_primary=world.to_primary[1:])
        if world.to_secondary:
            yield "a message is lost", world._replace(to_secondary=world.to_secondary[1:])

    def _arbiter_moves(self, world: World) -> Iterator[Move]:
        arbiter = world.arbiter
        # To be dead for a while is to be slow, and to stay dead is to be slow for ever.
        memory = arbiter.disk if self.rules.remembers else None
        after = arbiter._replace(memory=memory, todo=())
        yield "the arbiter dies and starts again", world._replace(arbiter=after)
        if not arbiter.todo:
            for name in arbiter.questions:
                if arbiter.memory is not None and (name, arbiter.memory == name) in arbiter.answers:
                    # It would be answered the same again.
                    continue
                yield (
                    f"the arbiter is asked by the {name}",
                    world._replace(arbiter=self._decide(arbiter, name)),
                )
            return
        step, *rest = arbiter.todo
        after = arbiter._replace(todo=tuple(rest))
        if isinstance(step, str):
            after = after._replace(disk=arbiter.memory)
            yield "the arbiter writes its grant", world._replace(arbiter=after)
        else:
            after = after._replace(answers=arbiter.answers | {step})
            yield f"the arbiter answers the {step[0]}", world._replace(arbiter=after)

    def _decide(self, arbiter: ArbiterProcess, name: str) -> ArbiterProcess:
        table = Arbiter({} if arbiter.memory is None else {PAIRING: arbiter.memory})
        verdict = table.ask(PAIRING, name)
        answer = (name, verdict.granted)
        todo: tuple[str | tuple[str, bool], ...] = (answer,)
        if verdict.first:
            todo = ("write", answer) if self.rules.writes_first else (answer, "write")
        return arbiter._replace(memory=verdict.holder, todo=todo)


def _say(world: World, to: str, message: Message, value: int = 0) -> World:
    receiver = world.primary if to == PRIMARY else world.secondary
    if receiver.colo is None:
        return world
    if to == PRIMARY:
        return world._replace(to_primary=(*world.to_primary, (message, value)))
    return world._replace(to_secondary=(*world.to_secondary, (message, value)))


@dataclass
class Exploration:
    """What an exploration found: how many worlds there are, and the shortest way to a bad one."""

    worlds: dict[World, Move | None]
    wrong: str | None = None
    way: list[str] = field(default_factory=list)


def explore(rules: Rules) -> Exploration:
    """Visit every world that can be reached, nearest first, until one is wrong."""
    model = Model(rules)
    came_from: dict[World, Move | None] = {World(): None}
    front = [World()]
    while front:
        beyond = []
        for world in front:
            for what, after in model.moves(world):
                if after in came_from:
                    continue
                came_from[after] = (what, world)
                wrong = split_brain(after)
                if wrong is not None:
                    return Exploration(came_from, wrong, way_to(after, came_from))
                beyond.append(after)
        front = beyond
    return Exploration(came_from)


def way_to(world: World, came_from: dict[World, Move | None]) -> list[str]:
    way = []
    while (step := came_from[world]) is not None:
        what, world = step
        way.append(what)
    return way[::-1]


def of_variant(
    variant: Variant,
    outputs: int,
    capture: Capture = Capture.STOP_AND_SEND,
    *,
    compare: bool = False,
) -> Rules:
    return Rules(
        outputs=outputs,
        compare=compare,
        primary=primary_table(variant, capture),
        secondary=secondary_table(variant, Layout.SEPARATED),
    )
