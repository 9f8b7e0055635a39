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


class ColoState(enum.Enum):
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


class LocalEvent(enum.Enum):
    """What happens on our own side."""

    CHECKPOINT_DUE = enum.auto()
    SHUTDOWN = enum.auto()
    ALL_SENT = enum.auto()
    MIGRATED = enum.auto()
    RAM_RECEIVED = enum.auto()
    BUFFER_RECEIVED = enum.auto()
    LOADED = enum.auto()


class ColoAction(enum.Enum):
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


ColoEvent = Message | LocalEvent
ColoTable = Table[ColoState, ColoEvent, ColoAction]


@cache
def primary_table(variant: Variant) -> ColoTable:
    """Give the primary's side of the conversation; the layout makes no difference to it."""

    def release(message: Message) -> tuple[ColoAction, ...]:
        return (ColoAction.RELEASE_OUTPUT,) if message is variant.release_after else ()

    farewell = (ColoAction.SEND_GUEST_SHUTDOWN,) if variant.shutdown_message else ()
    return {
        ColoState.MIGRATING: {
            Message.CHECKPOINT_READY: (ColoState.RUNNING, (ColoAction.START_GUEST,))
        },
        ColoState.RUNNING: {
            LocalEvent.CHECKPOINT_DUE: (ColoState.REQUESTED, (ColoAction.SEND_CHECKPOINT_REQUEST,)),
            LocalEvent.SHUTDOWN: (ColoState.ENDED, farewell),
        },
        ColoState.REQUESTED: {
            Message.CHECKPOINT_REPLY: (
                ColoState.SENDING,
                (ColoAction.STOP_GUEST, ColoAction.SEND_CHECKPOINT),
            )
        },
        ColoState.SENDING: {LocalEvent.ALL_SENT: (ColoState.SENT, ())},
        ColoState.SENT: {
            Message.VMSTATE_RECEIVED: (ColoState.LOADING, release(Message.VMSTATE_RECEIVED)),
        },
        ColoState.LOADING: {
            Message.VMSTATE_LOADED: (
                ColoState.RUNNING,
                (*release(Message.VMSTATE_LOADED), ColoAction.START_GUEST),
            ),
        },
        ColoState.ENDED: {},
    }


@cache
def secondary_table(variant: Variant, layout: Layout) -> ColoTable:
    """Give the secondary's side of the conversation."""
    start = (ColoAction.START_GUEST,) if variant.secondary_runs else ()
    stop = (ColoAction.STOP_GUEST,) if variant.secondary_runs else ()
    running: dict[ColoEvent, tuple[ColoState, tuple[ColoAction, ...]]] = {
        Message.CHECKPOINT_REQUEST: (
            ColoState.REQUESTED,
            (*stop, ColoAction.SEND_CHECKPOINT_REPLY),
        ),
    }
    if variant.shutdown_message:
        running[Message.GUEST_SHUTDOWN] = (ColoState.ENDED, ())
    ram_first = layout is Layout.SEPARATED
    after_send = (
        (ColoState.RECEIVING_RAM, (ColoAction.RECEIVE_RAM,))
        if ram_first
        else (ColoState.RECEIVING_SIZE, ())
    )
    table: dict[ColoState, dict[ColoEvent, tuple[ColoState, tuple[ColoAction, ...]]]] = {
        ColoState.MIGRATING: {
            LocalEvent.MIGRATED: (ColoState.RUNNING, (ColoAction.SEND_CHECKPOINT_READY, *start)),
        },
        ColoState.RUNNING: running,
        ColoState.REQUESTED: {Message.VMSTATE_SEND: after_send},
    }
    if ram_first:
        table[ColoState.RECEIVING_RAM] = {LocalEvent.RAM_RECEIVED: (ColoState.RECEIVING_SIZE, ())}
    table |= {
        ColoState.RECEIVING_SIZE: {
            Message.VMSTATE_SIZE: (ColoState.RECEIVING_BUFFER, (ColoAction.RECEIVE_BUFFER,)),
        },
        ColoState.RECEIVING_BUFFER: {
            LocalEvent.BUFFER_RECEIVED: (
                ColoState.LOADING,
                (ColoAction.SEND_VMSTATE_RECEIVED, ColoAction.FLUSH_AND_LOAD),
            ),
        },
        ColoState.LOADING: {
            LocalEvent.LOADED: (ColoState.RUNNING, (ColoAction.SEND_VMSTATE_LOADED, *start)),
        },
    }
    if variant.shutdown_message:
        table[ColoState.ENDED] = {}
    return table


class Conversation(StateMachine[ColoState, ColoEvent, ColoAction]):
    """One side of the conversation.

    Parameters
    ----------
    role, variant, layout
        Whose side, and in which form. Both nodes must be started with the same form: nothing in
        the stream tells it.
    """

    def __init__(self, role: Role, variant: Variant, layout: Layout) -> None:
        table = primary_table(variant) if role is Role.PRIMARY else secondary_table(variant, layout)
        super().__init__(table, ColoState.MIGRATING)

    def receive(self, message: Message) -> tuple[ColoAction, ...]:
        """Take in a message of the peer.

        Raises
        ------
        RemoteProtocolError
            If the table has no such message in this state.
        """
        return self.on(message, remote=True)
