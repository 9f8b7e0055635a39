"""Stepping of a pair: two live processes held at each message and at each point of a checkpoint.

A relay between them holds each message until it is let through, and each node stands at every
point of `colobench.node.breakpoints` until it is told to go on. So at each moment nothing moves,
and the message that is shown has really not reached its receiver.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from colobench.errors import ColobenchError, LocalError
from colobench.lab.session.journal import ROLES
from colobench.lab.session.message_gate import Direction, WaitingMessage
from colobench.lab.session.message_splitter import RAM_SECTION
from colobench.lab.session.node_pair import PEERS
from colobench.lab.session.page_lanes import PageLane
from colobench.lab.session.peer_memory import differing_pages, read_memory
from colobench.lab.session.relay import Relay
from colobench.lab.session.session import Session
from colobench.lab.studies.step_journal import Maps, NodeMoment, StepJournal, StepMoment
from colobench.memory.tracker import Words
from colobench.node.breakpoints import is_between_checkpoints
from colobench.protocol.colo import VARIANTS, ColoState, ColoTable, Conversation, Role
from colobench.settings.checkpoint import Capture, CheckpointSettings
from colobench.settings.transport import Encoding
from colobench.wire.messages import Message, encode_message

#: The conversation lasts as long as someone looks at it: a day, in seconds.
STALL_TIMEOUT = 86_400.0
#: Seconds after which a pair counts as at rest in which nothing has changed: a node may wait for
#: bytes in the middle of a page.
UNCHANGED_SECONDS = 5.0
#: Seconds in which a running guest is expected to write, so that a pass begins.
PASS_SECONDS = 3.0
_TICK_SECONDS = 0.002
_PASS_BEGUN = "The guest has written pages, and a pass has begun."
#: Direction of what a role sends.
_FROM: Final[dict[str, Direction]] = {"primary": "P→S", "secondary": "S→P"}
_TO: Final[dict[Direction, str]] = {"P→S": "secondary", "S→P": "primary"}
#: Ways of damaging a message.
FLIP, TRUNCATE, REPLACE = "flip a byte", "truncate", "replace"
DAMAGES = (FLIP, TRUNCATE, REPLACE)


class _View(NamedTuple):
    """A node's side of the conversation, as it tells it; `state` is "" if there is none."""

    state: str = ""
    held_at: str | None = None
    #: Whether it stands until something is done.
    rests: bool = True


class Stepping:
    """A pair that goes on by steps, and the journal of them.

    Parameters
    ----------
    settings
        Arguments of `Session`, except for delay and stall_timeout.

    Attributes
    ----------
    session
        The session.
    journal
        Moments so far.
    over
        Whether a node was killed, so that there is no pair any more.
    rounds
        Number of checkpoints that are done.

    Examples
    --------
    >>> with Stepping(ram="4M") as stepping:
    ...     stepping.run()
    ...     stepping.journal.messages()[:2]
    [('S→P', 'CHECKPOINT_READY'), ('P→S', 'CHECKPOINT_REQUEST')]
    """

    def __init__(self, **settings: Any) -> None:
        self.session = Session(**settings, delay=None, stall_timeout=STALL_TIMEOUT)
        self.session.hold_messages()
        self.journal = StepJournal()
        self.over = False
        self.rounds = 0
        self._heard = 0
        #: Checkpoints asked for in this round, and whether it has had a pass, and its LOADED.
        self._asked, self._passed, self._loaded = 0, False, False

    def __enter__(self) -> Stepping:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the pair; its first message waits then."""
        self.session.start()
        for role in ROLES:
            self.session.nodes[role].execute("x-colo-step")
        self._rest()
        self._record("The guest was migrated. The secondary has loaded it and says so.")

    def close(self) -> None:
        """End the pair; the journal stays."""
        self.over = True
        self.session.close()

    @property
    def checkpoint(self) -> CheckpointSettings:
        """Settings of the checkpoints."""
        return self.session.settings.checkpoint

    # Steps.

    def next(self) -> StepMoment:
        """Take one step: a message reaches its receiver, or a node goes on to its next point.

        At the end of the journal only; before it, look at the moment after.

        Raises
        ------
        LocalError
            If there is no pair any more.
        """
        if self.journal.forward():
            assert self.journal.present is not None
            return self.journal.present
        self._check()
        views = self._rest()
        by_itself = self._moved_by_itself(views)
        if by_itself:
            return self._record(by_itself)
        message = next(iter(self._gate_waiting()), None)
        if message is not None:
            return self._deliver(message, views)
        sent = views["primary"].state == ColoState.SENT.name
        if sent and self.checkpoint.capture is Capture.TWO_EPOCHS and self._asked == 1:
            return self._ask()
        for role in ROLES:
            if views[role].held_at is not None:
                return self._release(role, views[role].held_at or "")
        return self._ask()

    def back(self) -> bool:
        """Look at the moment before; the processes stay as they are."""
        return self.journal.back()

    def run(
        self,
        goes_on: Callable[[], bool] = lambda: True,
        seen: Callable[[], None] = lambda: None,
    ) -> None:
        """Step until the present checkpoint is done, or COLO has ended.

        Parameters
        ----------
        goes_on
            Function that is asked before each step; False ends the run.
        seen
            Function that is called after each step.
        """
        self.journal.to_end()
        rounds = self.rounds
        while self.rounds == rounds and not self.over and goes_on():
            self.next()
            seen()

    def kill(self, role: str) -> StepMoment:
        """Kill a node, with all that it has sent and that still waits; the other takes over."""
        self.journal.to_end()
        self._check_alive(role)
        relay = self._relay()
        relay.drop()
        killed = self.session.kill(role)
        self.over = True
        words = f"SIGKILL has ended the {role} (status {killed.status})."
        survivor = PEERS[role]
        if self.session.nodes[survivor].alive():
            words += " " + self._take_over(survivor)
        return self._record(words)

    def corrupt(
        self, how: str, *, at: int | None = None, other: str = "", channel: int | None = None
    ) -> StepMoment:
        """Damage the message that travels next, or a packet of its pages, and let it pass.

        Parameters
        ----------
        how
            `FLIP` inverts one byte, `TRUNCATE` ends the connection in the middle, and `REPLACE`
            puts another message in the place of this one.
        at
            The byte that is inverted, or the number of bytes that arrive; None chooses one.
        other
            Name of the other message.
        channel
            Number of a page channel, whose next packet is damaged in place of the message; the
            message is then that of a RAM section.

        Raises
        ------
        LocalError
            If no message waits, or its receiver has not come to it, or the damage is not possible.
        """
        self.journal.to_end()
        self._check()
        views = self._rest()
        message = next(iter(self._gate_waiting()), None)
        if message is None:
            raise LocalError("corrupt: expected a message that waits, found none; press Next")
        if channel is None:
            data, words = _damage(message.part.data, message.part.name, how, at, other)
            self._come_to(message, views)
            self._relay().let_through(message.direction, data, end=how == TRUNCATE)
        else:
            lane, packet = self._packet(message, channel, how)
            data, words = _damage(packet, f"the next packet of channel {channel}", how, at, other)
            self._come_to(message, views)
            lane.replace_packet(data, end=how == TRUNCATE)
            self._relay().let_through(message.direction)
        receiver = _TO[message.direction]
        self._rest(receiver)
        return self._record(f"{words[0].upper()}{words[1:]} The {receiver} was sent that.")

    def _come_to(self, message: WaitingMessage, views: dict[str, _View]) -> None:
        """Let the receiver of a message go on to where it waits for it."""
        receiver = _TO[message.direction]
        if views[receiver].held_at is None:
            return
        view = self._go_on(receiver)[receiver]
        if view.held_at is not None:
            self._record(f"The {receiver} has gone on to {view.held_at!r}.")
            raise LocalError(
                f"corrupt: expected a {receiver} that waits for {message.part.name}, found it "
                f"held at {view.held_at!r}; press Next until it waits"
            )

    def _packet(self, message: WaitingMessage, channel: int, how: str) -> tuple[PageLane, bytes]:
        """Find the packet that waits first on a page channel, for a RAM section that is due."""
        lanes = self._relay().lanes
        if not 0 <= channel < len(lanes):
            raise LocalError(
                f"corrupt: expected one of {len(lanes)} page channels, found number {channel}"
            )
        if message.part.name != RAM_SECTION:
            raise LocalError(
                f"corrupt: expected the announcement of a {RAM_SECTION}, which its packets follow, "
                f"found {message.part.name}; press Next until it waits"
            )
        if how == REPLACE:
            raise LocalError(f"corrupt: expected {FLIP} or {TRUNCATE} of a packet, found {how}")
        packet = lanes[channel].next_packet()
        if not packet:
            raise LocalError(f"corrupt: expected a packet on channel {channel}, found none")
        return lanes[channel], packet

    def _moved_by_itself(self, views: dict[str, _View]) -> str:
        """Say what has happened since the last moment without a step; "" if nothing has."""
        last = self.journal[-1]
        for role in ROLES:
            if last.nodes[role].alive and not self.session.nodes[role].alive():
                return f"The {role} has ended."
        held = {role: last.nodes[role].held_at for role in ROLES}
        if last.waiting == self._gate_waiting() and held == {
            role: views[role].held_at for role in ROLES
        }:
            return ""
        if is_between_checkpoints(views["primary"].held_at or ""):
            return _PASS_BEGUN
        return "The pair has gone on by itself."

    def _deliver(self, message: WaitingMessage, views: dict[str, _View]) -> StepMoment:
        receiver, name = _TO[message.direction], message.part.name
        held = views[receiver].held_at
        if held is not None:
            view = self._go_on(receiver)[receiver]
            if view.held_at is not None or not self._waits_first(message):
                return self._record(_went_on(receiver, held, view))
        self._relay().let_through(message.direction)
        view = self._rest(receiver)[receiver]
        self._loaded |= name == Message.VMSTATE_LOADED.name
        return self._record(f"{name} has reached the {receiver}{_and_held(view)}.")

    def _waits_first(self, message: WaitingMessage) -> bool:
        waiting = self._gate_waiting()
        return bool(waiting) and waiting[0] is message

    def _release(self, role: str, held: str) -> StepMoment:
        if role == "primary" and is_between_checkpoints(held):
            self._passed = True
            if not self._asked:
                # Otherwise pass would follow pass for as long as the guest writes.
                self._asked = 1
                self.session.nodes[role].execute("x-colo-checkpoint")
        return self._record(_went_on(role, held, self._go_on(role)[role]))

    def _ask(self) -> StepMoment:
        """Let the primary make a checkpoint or, if it sends passes, first a part of a pass."""
        primary = self.session.nodes["primary"]
        if self.checkpoint.capture is Capture.GAP_PRECOPY and not self._passed:
            self._passed = True
            if self._wait_for_hold(PASS_SECONDS):
                return self._record(_PASS_BEGUN)
        self._asked += 1
        primary.execute("x-colo-checkpoint")
        self._wait_for_hold(UNCHANGED_SECONDS)
        view = self._rest()["primary"]
        return self._record(f"A checkpoint is due{_and_held(view, 'the primary has gone on')}.")

    def _wait_for_hold(self, seconds: float) -> bool:
        """Wait until the primary is held; say whether it is."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._view("primary").held_at is not None:
                return True
            time.sleep(_TICK_SECONDS)
        return False

    def _go_on(self, role: str) -> dict[str, _View]:
        self.session.nodes[role].execute("x-colo-step")
        return self._rest()

    def _take_over(self, survivor: str) -> str:
        try:
            taken = self.session.failover(survivor)
        except ColobenchError as error:
            return f"The {survivor} could not take over: {error}"
        words = f"The {survivor} goes on from checkpoint {taken.checkpoint}."
        if taken.equal is not None:
            words += f" Its RAM and devices are{'' if taken.equal else ' NOT'} those of it."
        return words

    # The pair at rest.

    def _check(self) -> None:
        if self.over or not self.session.nodes:
            raise LocalError("step: expected a pair in COLO, found one that is over; start another")

    def _check_alive(self, role: str) -> None:
        self._check()
        if not self.session.nodes[role].alive():
            raise LocalError(f"kill: expected a living {role}, found it dead")

    def _relay(self) -> Relay:
        relay = self.session.relay
        assert relay is not None
        return relay

    def _gate_waiting(self) -> tuple[WaitingMessage, ...]:
        gate = self._relay().gate
        assert gate is not None
        return gate.waiting()

    def _rest(self, receiver: str | None = None) -> dict[str, _View]:
        """Wait until nothing moves, and give both nodes' views.

        A node rests if it is held; or if it waits for bytes, has received all that the relay has
        passed, and all that it has sent is at the relay; or if COLO has ended for it.
        """
        last: object = None
        changed = time.monotonic()
        while True:
            views = {role: self._view(role) for role in ROLES}
            if all(view.rests for view in views.values()):
                return views
            relay = self._relay()
            now = (views, relay.crossed("P→S"), relay.crossed("S→P"), len(self.session.journal))
            if now != last:
                last, changed = now, time.monotonic()
            elif time.monotonic() - changed > UNCHANGED_SECONDS:
                return views
            time.sleep(_TICK_SECONDS)

    def _view(self, role: str) -> _View:
        node = self.session.nodes[role]
        if not node.alive():
            return _View()
        try:
            found = node.execute("x-query-colo")
        except ColobenchError:
            # It ends just now.
            return _View(rests=not node.alive())
        relay, sends = self._relay(), _FROM[role]
        sent = found["sent"] == relay.crossed(sends)
        has_all = found["waits"] and found["received"] == relay.passed(_FROM[PEERS[role]])
        held = found["held-at"]
        rests = found["ended"] or (sent and (held is not None or has_all))
        return _View(found["state"], held, rests)

    # The journal.

    def _record(self, happened: str) -> StepMoment:
        relay = self._relay()
        gate = relay.gate
        assert gate is not None
        lanes = relay.lanes[:]
        nodes = {role: self._look_at(role) for role in ROLES}
        self._wait_for_record(nodes["primary"].checkpoint or 0)
        records = self.session.records
        moment = StepMoment(
            happened=happened,
            nodes=nodes,
            waiting=gate.waiting(),
            arriving=gate.arriving("P→S"),
            channel_bytes=sum(lane.waiting_bytes for lane in lanes),
            channel_packets=sum(lane.packets() for lane in lanes),
            maps=self._maps(),
            said=self._said(),
            equal=records[-1].verified if records else None,
        )
        self.journal.add(moment)
        self._count_rounds(moment)
        return moment

    def _wait_for_record(self, checkpoint: int) -> None:
        """Wait for what both nodes have just reported of a checkpoint."""
        deadline = time.monotonic() + UNCHANGED_SECONDS
        while self.session.records.total < checkpoint and time.monotonic() < deadline:
            if self.over:
                # A survivor has no peer that reports.
                return
            time.sleep(_TICK_SECONDS)

    def _count_rounds(self, moment: StepMoment) -> None:
        primary = moment.nodes["primary"]
        held = primary.held_at is not None and not is_between_checkpoints(primary.held_at)
        if self._loaded and primary.state == ColoState.RUNNING.name and not held:
            self.rounds += 1
            self._asked, self._passed, self._loaded = 0, False, False
        if any("COLO_EXIT" in each for each in moment.said):
            # Nothing is left to be run through.
            self.rounds += 1

    def _look_at(self, role: str) -> NodeMoment:
        node, view = self.session.nodes[role], self._view(role)
        try:
            guest = node.execute("x-query-guest")
            runs = bool(node.execute("query-status")["running"])
        except ColobenchError:
            return NodeMoment(alive=False)
        return NodeMoment(
            alive=True,
            state="" if self.over else view.state,
            held_at=view.held_at,
            runs=runs,
            checkpoint=guest["checkpoint"],
            frames_held=guest["frames-held"],
            frames_out=guest["frames-sent"],
            frames_dropped=guest["frames-discarded"],
        )

    def _maps(self) -> Maps:
        primary, secondary = (self.session.nodes[role] for role in ROLES)
        memories = [read_memory(node.pid) for node in (primary, secondary)]
        ours, theirs = memories
        differing = None if ours is None or theirs is None else differing_pages(ours, theirs)
        return Maps(
            self._pages("primary", "x-query-dirty-pages"),
            self._pages("secondary", "x-query-ram-cache"),
            differing,
        )

    def _pages(self, role: str, query: str) -> Words | None:
        try:
            encoded = self.session.nodes[role].execute(query)["pages-bitmap"]
        except ColobenchError:
            # It has ended, or is a survivor.
            return None
        return np.frombuffer(base64.b64decode(encoded), dtype="<u8").astype(np.uint64)

    def _said(self) -> tuple[str, ...]:
        """Give the errors that nodes have reported since the last call."""
        journal, since = self.session.journal, self._heard
        self._heard = len(journal)
        return tuple(
            f"COLO_EXIT of the {each.role}: {each.data['x-why']}"
            for each in journal.entries("COLO_EXIT", since=since)
            if each.data["reason"] == "error"
        )


def tables_of(checkpoint: CheckpointSettings) -> dict[str, ColoTable]:
    """Give the conversation's tables of both roles for a way of checkpointing."""
    return {
        role.value: Conversation(
            role,
            VARIANTS[checkpoint.variant],
            checkpoint.layout,
            checkpoint.capture,
            compares_pages=checkpoint.encoding is Encoding.DIVERGENT,
        ).table
        for role in Role
    }


def messages_of(checkpoint: CheckpointSettings) -> set[str]:
    """Name the messages of every whole checkpoint, by the tables.

    The others are for events that not every checkpoint has: a shutdown, a passive secondary.
    """
    rare = {Message.GUEST_SHUTDOWN, Message.CHECKPOINT_PASSIVE}
    return {
        event.name
        for table in tables_of(checkpoint).values()
        for row in table.values()
        for event in row
        if isinstance(event, Message) and event not in rare
    }


def _went_on(role: str, held: str, view: _View) -> str:
    after = f", and is held at {view.held_at!r}" if view.held_at else ", and waits"
    return f"The {role} has gone on from {held!r}{after}."


def _and_held(view: _View, otherwise: str = "") -> str:
    if view.held_at is not None:
        return (
            f", and it is held at {view.held_at!r}"
            if not otherwise
            else (f"; the primary is held at {view.held_at!r}")
        )
    return f"; {otherwise}" if otherwise else ", and it waits"


def _damage(data: bytes, name: str, how: str, at: int | None, other: str) -> tuple[bytes, str]:
    """Damage a message or a packet; give its bytes then, and a sentence."""
    if how == REPLACE:
        if other not in Message.__members__ or other == name:
            raise LocalError(f"corrupt: expected the name of another message, found {other!r}")
        chosen = Message[other]
        size = 1 << 20 if chosen is Message.VMSTATE_SIZE else None
        return encode_message(chosen, size), f"{name} was replaced by {other}."
    if how == TRUNCATE:
        kept = len(data) // 2 if at is None else at
        if not 0 <= kept < len(data):
            raise LocalError(f"corrupt: expected 0 to {len(data) - 1} bytes, found {kept}")
        return data[:kept], (
            f"{name} was cut off after {kept:,} of {len(data):,} bytes, and the connection ended."
        )
    if how != FLIP:
        raise LocalError(f"corrupt: expected one of {', '.join(DAMAGES)}, found {how!r}")
    place = 3 if at is None else at
    if not 0 <= place < len(data):
        raise LocalError(f"corrupt: expected a byte from 0 to {len(data) - 1}, found {place}")
    damaged = bytearray(data)
    damaged[place] ^= 0xFF
    return bytes(damaged), (
        f"Byte {place} of {name} was inverted ({data[place]:02x} → {damaged[place]:02x})."
    )
