"""The steps of a pair and its arbiter: in each world, everything that may happen next."""

from __future__ import annotations

from collections.abc import Iterator

from colobench.protocol.arbiter import Arbiter, Standing, StandingAction, StandingEvent
from colobench.protocol.colo import ColoAction, ColoState, LocalEvent
from colobench.protocol.exploration.rules import Rules
from colobench.protocol.exploration.world import (
    ExploredArbiter,
    ExploredPrimary,
    ExploredSecondary,
    Move,
    World,
)
from colobench.protocol.failover import FailoverAction, FailoverEvent, FailoverState
from colobench.protocol.table import RemoteProtocolError, StateMachine
from colobench.wire.messages import Message

PAIRING = "pairing"
PRIMARY, SECONDARY = "primary", "secondary"
SAYS = {
    ColoAction.SEND_CHECKPOINT_REQUEST: Message.CHECKPOINT_REQUEST,
    ColoAction.SEND_CHECKPOINT_REPLY: Message.CHECKPOINT_REPLY,
    ColoAction.SEND_VMSTATE_RECEIVED: Message.VMSTATE_RECEIVED,
    ColoAction.SEND_VMSTATE_LOADED: Message.VMSTATE_LOADED,
}
#: Actions after which a checkpoint no longer depends on what the guest does.
_COPIES = (ColoAction.COPY_CHECKPOINT, ColoAction.FREEZE_CHECKPOINT)


class Model:
    """What may happen next in a world under some rules.

    Parameters
    ----------
    rules
        The protocol.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def moves(self, world: World) -> Iterator[Move]:
        """Yield each step with the world after it."""
        if world.primary.up:
            yield from self._primary_moves(world)
            yield from self._either_moves(world, PRIMARY, world.primary)
        if world.secondary.up:
            yield from self._secondary_moves(world)
            yield from self._either_moves(world, SECONDARY, world.secondary)
        yield from self._link_moves(world)
        yield from self._arbiter_moves(world)

    # What both nodes do.

    def _either_moves(
        self, world: World, name: str, node: ExploredPrimary | ExploredSecondary
    ) -> Iterator[Move]:
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
            if isinstance(node, ExploredSecondary) and not self.rules.drops_passes:
                node = node._replace(torn=node.passed)
        return self._put(world, name, node._replace(failover=machine.state))

    @staticmethod
    def _put(world: World, name: str, node: ExploredPrimary | ExploredSecondary) -> World:
        if isinstance(node, ExploredPrimary):
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
            left = ExploredPrimary(
                Standing.OUT, colo=None, out=primary.out, served=primary.served, up=False
            )
            return world._replace(primary=left, to_primary=())
        secondary = world.secondary
        rest = ExploredSecondary(
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
        row = {} if primary.colo is None else self.rules.primary[primary.colo]
        if LocalEvent.CHECKPOINT_DUE in row and primary.checkpoint < primary.made:
            yield "a checkpoint is due", self._primary_on(world, LocalEvent.CHECKPOINT_DUE)
        if LocalEvent.PART_DUE in row:
            yield "an epoch is sent", self._primary_on(world, LocalEvent.PART_DUE)
        # More than one pass on its way, or in the cache, leads to nothing new.
        may_pass = not world.to_secondary and not secondary.passed
        if may_pass and LocalEvent.PASS_DUE in row:
            yield "a pass is due", self._primary_on(world, LocalEvent.PASS_DUE)
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
            covered = (primary.epochs or (primary.checkpoint,))[0 if self.rules.in_order else -1]
            out = covered if self.rules.seals else primary.made
            released = primary._replace(out=out, heard=out)
            return world._replace(primary=released)
        if action is ColoAction.SEND_PASS:
            return _say(world, SECONDARY, Message.MIGRATE_RAM_BACKGROUND)
        if action is ColoAction.CLOSE_EPOCH:
            return world._replace(primary=primary._replace(epochs=primary.epochs[1:]))
        if action not in (ColoAction.SEND_COPY, ColoAction.SEND_PART):
            # It consists of what there is now: the guest stands still.
            assert action in (ColoAction.SEND_CHECKPOINT, *_COPIES)
            assert not primary.running
            primary = primary._replace(checkpoint=primary.made)
            if LocalEvent.PART_DUE in self.rules.primary[ColoState.SENDING]:
                primary = primary._replace(
                    epochs=(*primary.epochs, primary.made),
                    unsent=(*primary.unsent, primary.made),
                )
            world = world._replace(primary=primary)
        if action in _COPIES:
            return world
        checkpoint = primary.checkpoint
        if action is ColoAction.SEND_PART:
            checkpoint = primary.unsent[0]
            world = world._replace(primary=primary._replace(unsent=primary.unsent[1:]))
        # Two messages, so that it can be torn.
        for message in (Message.VMSTATE_SEND, Message.VMSTATE_SIZE):
            world = _say(world, SECONDARY, message, checkpoint)
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
        elif world.to_secondary:
            # One that loads reads nothing: the messages of the next epoch wait.
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
        loaded = secondary._replace(contains=secondary.checkpoint, diverged=False, passed=False)
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
            elif action is ColoAction.RECEIVE_PASS:
                passed = world._replace(secondary=world.secondary._replace(passed=True))
                world = self._secondary_on(passed, LocalEvent.PASS_RECEIVED)
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

    def _decide(self, arbiter: ExploredArbiter, name: str) -> ExploredArbiter:
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
