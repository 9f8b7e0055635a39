"""COLO's conversation: the messages of primary and secondary in each checkpoint.

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

The two variants are made from one table by three flags: ``V12`` is the series of December 2015,
``UPSTREAM`` is QEMU 7.2 and later (above: "today"). The layout (``SEPARATED``, or ``BUFFERED`` as
before patch 31) decides whether RAM is sent by itself or inside the sized buffer. The capture
decides where the primary's guest starts again, and where its output is released. Above is
``STOP_AND_SEND``. ``COPY_THEN_SEND`` is as in Remus (B. Cully et al., NSDI 2008)::

        | stop the guest, copy the checkpoint          |
        | start the guest                              |
        | VMSTATE_SEND, RAM, device buffer, of the copy >|
        | <------------------------- VMSTATE_RECEIVED  |
        | release output of before the stop            |
        | <--------------------------- VMSTATE_LOADED  |  the next checkpoint may begin

This module does no I/O and has no clock: a `Conversation` takes events and returns actions.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache

from colobench.protocol.table import StateMachine, Table
from colobench.settings.checkpoint import Capture, Layout
from colobench.wire.messages import Message


class Role(enum.Enum):
    """Side of the conversation."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


@dataclass(frozen=True, slots=True)
class Variant:
    """A version of COLO, by the flags in which versions differ.

    Attributes
    ----------
    name
        Name of the variant in settings.
    release_after
        The secondary's message after which the primary releases held output.
    secondary_runs
        True if the secondary's guest runs between checkpoints.
    shutdown_message
        True if the primary sends GUEST_SHUTDOWN before it ends.
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
    """State of one side of the conversation."""

    #: In live migration, not yet in COLO.
    MIGRATING = enum.auto()
    #: Between checkpoints.
    RUNNING = enum.auto()
    #: Primary: has requested a checkpoint. Secondary: has agreed to it.
    REQUESTED = enum.auto()
    #: Primary: the guest is stopped, the checkpoint is being saved and sent.
    SENDING = enum.auto()
    #: Secondary: pages are arriving in the RAM cache.
    RECEIVING_RAM = enum.auto()
    #: Secondary: waits for the size of the sized buffer.
    RECEIVING_SIZE = enum.auto()
    #: Secondary: the sized buffer is arriving.
    RECEIVING_BUFFER = enum.auto()
    #: Primary: the checkpoint is sent, and VMSTATE_RECEIVED has not come.
    SENT = enum.auto()
    #: The checkpoint is committed and being loaded.
    LOADING = enum.auto()
    #: The conversation has ended by GUEST_SHUTDOWN.
    ENDED = enum.auto()


class LocalEvent(enum.Enum):
    """Event on our own side."""

    CHECKPOINT_DUE = enum.auto()
    SHUTDOWN = enum.auto()
    ALL_SENT = enum.auto()
    MIGRATED = enum.auto()
    RAM_RECEIVED = enum.auto()
    BUFFER_RECEIVED = enum.auto()
    LOADED = enum.auto()


class ColoAction(enum.Enum):
    """Action that a side has to perform."""

    START_GUEST = enum.auto()
    STOP_GUEST = enum.auto()
    SEND_CHECKPOINT_REQUEST = enum.auto()
    SEND_CHECKPOINT = enum.auto()
    #: Copy what the checkpoint consists of, while the guest stands still.
    COPY_CHECKPOINT = enum.auto()
    #: Send what was copied, while the guest runs.
    SEND_COPY = enum.auto()
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


#: A primary's actions once the secondary has agreed to a checkpoint.
_CAPTURE = {
    Capture.STOP_AND_SEND: (ColoAction.STOP_GUEST, ColoAction.SEND_CHECKPOINT),
    Capture.COPY_THEN_SEND: (
        ColoAction.STOP_GUEST,
        ColoAction.COPY_CHECKPOINT,
        ColoAction.START_GUEST,
        ColoAction.SEND_COPY,
    ),
}


def release_after(variant: Variant, capture: Capture) -> Message:
    """Return the message after which a primary releases output.

    A guest that runs on has output held for each message that is waited for, so it does not wait
    for more than the commit.
    """
    runs_on = ColoAction.START_GUEST in _CAPTURE[capture]
    return Message.VMSTATE_RECEIVED if runs_on else variant.release_after


@cache
def primary_table(variant: Variant, capture: Capture) -> ColoTable:
    """Return the primary's table, which does not depend on the layout."""
    runs_on = ColoAction.START_GUEST in _CAPTURE[capture]
    start = () if runs_on else (ColoAction.START_GUEST,)

    def release(message: Message) -> tuple[ColoAction, ...]:
        return (ColoAction.RELEASE_OUTPUT,) if message is release_after(variant, capture) else ()

    farewell = (ColoAction.SEND_GUEST_SHUTDOWN,) if variant.shutdown_message else ()
    return {
        ColoState.MIGRATING: {
            Message.CHECKPOINT_READY: (ColoState.RUNNING, (ColoAction.START_GUEST,))
        },
        ColoState.RUNNING: {
            LocalEvent.CHECKPOINT_DUE: (ColoState.REQUESTED, (ColoAction.SEND_CHECKPOINT_REQUEST,)),
            LocalEvent.SHUTDOWN: (ColoState.ENDED, farewell),
        },
        ColoState.REQUESTED: {Message.CHECKPOINT_REPLY: (ColoState.SENDING, _CAPTURE[capture])},
        ColoState.SENDING: {LocalEvent.ALL_SENT: (ColoState.SENT, ())},
        ColoState.SENT: {
            Message.VMSTATE_RECEIVED: (ColoState.LOADING, release(Message.VMSTATE_RECEIVED)),
        },
        ColoState.LOADING: {
            Message.VMSTATE_LOADED: (
                ColoState.RUNNING,
                (*release(Message.VMSTATE_LOADED), *start),
            ),
        },
        ColoState.ENDED: {},
    }


@cache
def secondary_table(variant: Variant, layout: Layout) -> ColoTable:
    """Return the secondary's table."""
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
    role
        Side of this node.
    variant, layout, capture
        Form of the conversation, the same on both nodes; its messages do not tell it.
    """

    def __init__(self, role: Role, variant: Variant, layout: Layout, capture: Capture) -> None:
        table = (
            primary_table(variant, capture)
            if role is Role.PRIMARY
            else secondary_table(variant, layout)
        )
        super().__init__(table, ColoState.MIGRATING)

    def receive(self, message: Message) -> tuple[ColoAction, ...]:
        """Take in a message of the peer, and return the actions to perform.

        Raises
        ------
        RemoteProtocolError
            If the table has no such message in this state.
        """
        return self.on(message, remote=True)
