"""The COLO conversation: what primary and secondary say to each other, checkpoint by checkpoint.

::

     primary                                       secondary
        | precopy, stop, END ram, devices, EOF ------> |  flush the cache, load the devices
        | <------------------------- CHECKPOINT_READY  |
        |===== every x-checkpoint-delay ===============|
        | CHECKPOINT_REQUEST ------------------------> |  today: stop the guest
        | <------------------------- CHECKPOINT_REPLY  |
        | stop the guest                               |
        | VMSTATE_SEND, RAM section -----------------> |  pages into the RAM cache
        | VMSTATE_SIZE, device buffer ---------------> |  buffered whole, parsed, checked
        | <------------------------- VMSTATE_RECEIVED  |  the commit point
        | today: release output                        |  flush the cache, load the devices
        | <--------------------------- VMSTATE_LOADED  |  today: start the guest
        | v12: release output; start the guest         |

Two variants are one table and three flags: ``V12`` is the series of December 2015, ``UPSTREAM`` is
QEMU 7.2 and later. The layout (``SEPARATED``, or ``BUFFERED`` as before patch 31) decides whether
RAM travels by itself or inside the sized buffer.

Nothing here does I/O or knows a clock: a `Conversation` is told what happened, and answers what
has to be done.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache

from colobench.protocol.table import StateMachine, Table
from colobench.wire.messages import Message


class Role(enum.Enum):
    """Which side of the conversation."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class Layout(enum.Enum):
    """How a checkpoint is laid out in the stream."""

    #: RAM straight onto the stream, devices in a sized buffer (patch 31 and all since).
    SEPARATED = "separated"
    #: RAM and devices together in one sized buffer, as before patch 31.
    BUFFERED = "buffered"


@dataclass(frozen=True, slots=True)
class Variant:
    """What differs between the versions of COLO.

    Attributes
    ----------
    name
        As users write it.
    release_after
        The secondary's message that lets held output go.
    secondary_runs
        Whether the secondary's guest runs between checkpoints.
    shutdown_message
        Whether the primary says GUEST_SHUTDOWN before it ends.
    """

    name: str
    release_after: Message
    secondary_runs: bool
    shutdown_message: bool


V12 = Variant("v12", Message.VMSTATE_LOADED, secondary_runs=False, shutdown_message=True)
UPSTREAM = Variant(
    "upstream", Message.VMSTATE_RECEIVED, secondary_runs=True, shutdown_message=False
)
VARIANTS = {variant.name: variant for variant in (V12, UPSTREAM)}


class State(enum.Enum):
    """Where a side stands."""

    #: In live migration, not yet in COLO.
    MIGRATING = enum.auto()
    #: Between checkpoints.
    RUNNING = enum.auto()
    #: Primary: asked for a checkpoint. Secondary: agreed to one.
    REQUESTED = enum.auto()
    #: Primary: stopped, saving and sending.
    SENDING = enum.auto()
    #: Secondary: pages are arriving in the RAM cache.
    RECEIVING_RAM = enum.auto()
    #: Secondary: the sized buffer is to come, or is coming.
    RECEIVING_SIZE = enum.auto()
    RECEIVING_BUFFER = enum.auto()
    #: Primary: all is sent, the secondary has not said that it has it.
    SENT = enum.auto()
    #: The checkpoint is committed and being loaded.
    LOADING = enum.auto()
    #: Shut down in order.
    ENDED = enum.auto()


class Local(enum.Enum):
    """What happens on our own side."""

    CHECKPOINT_DUE = enum.auto()
    SHUTDOWN = enum.auto()
    ALL_SENT = enum.auto()
    MIGRATED = enum.auto()
    RAM_RECEIVED = enum.auto()
    BUFFER_RECEIVED = enum.auto()
    LOADED = enum.auto()


class Action(enum.Enum):
    """What a side has to do now."""

    START_GUEST = enum.auto()
    STOP_GUEST = enum.auto()
    SEND_CHECKPOINT_REQUEST = enum.auto()
    SEND_CHECKPOINT = enum.auto()
    RELEASE_OUTPUT = enum.auto()
    SEND_GUEST_SHUTDOWN = enum.auto()
    SEND_CHECKPOINT_READY = enum.auto()
    SEND_CHECKPOINT_REPLY = enum.auto()
    RECEIVE_RAM = enum.auto()
    RECEIVE_BUFFER = enum.auto()
    SEND_VMSTATE_RECEIVED = enum.auto()
    FLUSH_AND_LOAD = enum.auto()
    SEND_VMSTATE_LOADED = enum.auto()


Event = Message | Local
ColoTable = Table[State, Event, Action]


@cache
def primary_table(variant: Variant) -> ColoTable:
    """Give the primary's side of the conversation; the layout makes no difference to it."""

    def release(message: Message) -> tuple[Action, ...]:
        return (Action.RELEASE_OUTPUT,) if message is variant.release_after else ()

    farewell = (Action.SEND_GUEST_SHUTDOWN,) if variant.shutdown_message else ()
    return {
        State.MIGRATING: {Message.CHECKPOINT_READY: (State.RUNNING, (Action.START_GUEST,))},
        State.RUNNING: {
            Local.CHECKPOINT_DUE: (State.REQUESTED, (Action.SEND_CHECKPOINT_REQUEST,)),
            Local.SHUTDOWN: (State.ENDED, farewell),
        },
        State.REQUESTED: {
            Message.CHECKPOINT_REPLY: (State.SENDING, (Action.STOP_GUEST, Action.SEND_CHECKPOINT))
        },
        State.SENDING: {Local.ALL_SENT: (State.SENT, ())},
        State.SENT: {
            Message.VMSTATE_RECEIVED: (State.LOADING, release(Message.VMSTATE_RECEIVED)),
        },
        State.LOADING: {
            Message.VMSTATE_LOADED: (
                State.RUNNING,
                (*release(Message.VMSTATE_LOADED), Action.START_GUEST),
            ),
        },
        State.ENDED: {},
    }


@cache
def secondary_table(variant: Variant, layout: Layout) -> ColoTable:
    """Give the secondary's side of the conversation."""
    start = (Action.START_GUEST,) if variant.secondary_runs else ()
    stop = (Action.STOP_GUEST,) if variant.secondary_runs else ()
    running: dict[Event, tuple[State, tuple[Action, ...]]] = {
        Message.CHECKPOINT_REQUEST: (State.REQUESTED, (*stop, Action.SEND_CHECKPOINT_REPLY)),
    }
    if variant.shutdown_message:
        running[Message.GUEST_SHUTDOWN] = (State.ENDED, ())
    ram_first = layout is Layout.SEPARATED
    after_send = (
        (State.RECEIVING_RAM, (Action.RECEIVE_RAM,)) if ram_first else (State.RECEIVING_SIZE, ())
    )
    table: dict[State, dict[Event, tuple[State, tuple[Action, ...]]]] = {
        State.MIGRATING: {
            Local.MIGRATED: (State.RUNNING, (Action.SEND_CHECKPOINT_READY, *start)),
        },
        State.RUNNING: running,
        State.REQUESTED: {Message.VMSTATE_SEND: after_send},
    }
    if ram_first:
        table[State.RECEIVING_RAM] = {Local.RAM_RECEIVED: (State.RECEIVING_SIZE, ())}
    table |= {
        State.RECEIVING_SIZE: {
            Message.VMSTATE_SIZE: (State.RECEIVING_BUFFER, (Action.RECEIVE_BUFFER,)),
        },
        State.RECEIVING_BUFFER: {
            Local.BUFFER_RECEIVED: (
                State.LOADING,
                (Action.SEND_VMSTATE_RECEIVED, Action.FLUSH_AND_LOAD),
            ),
        },
        State.LOADING: {
            Local.LOADED: (State.RUNNING, (Action.SEND_VMSTATE_LOADED, *start)),
        },
    }
    if variant.shutdown_message:
        table[State.ENDED] = {}
    return table


class Conversation(StateMachine[State, Event, Action]):
    """One side of the conversation.

    Parameters
    ----------
    role, variant, layout
        Whose side, and in which form. Both nodes must be started with the same form: nothing in
        the stream tells it.
    """

    def __init__(self, role: Role, variant: Variant, layout: Layout) -> None:
        table = primary_table(variant) if role is Role.PRIMARY else secondary_table(variant, layout)
        super().__init__(table, State.MIGRATING)

    def receive(self, message: Message) -> tuple[Action, ...]:
        """Take in a message of the peer.

        Raises
        ------
        RemoteProtocolError
            If the table has no such message in this state.
        """
        return self.on(message, remote=True)
