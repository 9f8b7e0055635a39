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

With ``COPY_ON_WRITE`` only the devices are copied while the guest stands still. The pages are
frozen, and copied once it runs; the guest copies a page before it writes to it. The rest is the
same.

``TWO_EPOCHS`` is copy-on-write with two checkpoints on their way (A. Kivity, qemu-devel 2009). An
epoch is open from its cut until the secondary says that it has loaded it::

        | stop, freeze the pages of epoch n, start     |
        | CHECKPOINT_REQUEST ------------------------> |  not answered
        | VMSTATE_SEND, RAM in parts, device buffer -->|
        |   stop, freeze the pages of n + 1, start     |
        | <------------------------- VMSTATE_RECEIVED  |  epoch n is committed
        | release output of before the cut of n        |  flush the cache, load the devices
        | CHECKPOINT_REQUEST, VMSTATE_SEND, RAM … ---> |  epoch n + 1, read after the load of n
        | <--------------------------- VMSTATE_LOADED  |  epoch n is closed; n + 2 may be cut

No message names its epoch, because their order does. The primary sends all of an epoch before the
next one. The secondary reads on only when it has loaded an epoch, so pages of the next one are not
in its RAM cache before that. So RECEIVED and LOADED are those of the older open epoch.

``GAP_PRECOPY`` sends as ``STOP_AND_SEND`` what passes between checkpoints have left to be sent::

        |===== every pass_period, in parts ============|
        | MIGRATE_RAM_BACKGROUND, RAM section, EOF --> |  pages into the RAM cache

MIGRATE_RAM_BACKGROUND is no message of QEMU. The cache is not flushed before a checkpoint is
complete, and a takeover drops it with all that passes brought.

If the secondary's guest runs, a primary in the passive mode of Gilbert's hybrid (qemu-devel, 2015)
lets it stand still from a checkpoint to the next, by a message that is not QEMU's either::

        | CHECKPOINT_REQUEST, CHECKPOINT_PASSIVE ----> |  stop the guest
        |                   …                          |
        | <--------------------------- VMSTATE_LOADED  |  the guest stays stopped

With the encoding ``divergent`` the guests' pages are compared before they are sent, see
`colobench.wire.page_hashes`::

        | stop the guest                               |
        | PAGE_HASHES -------------------------------> |  hash the same pages of our RAM
        | <-------------------------- DIVERGENT_PAGES  |
        | VMSTATE_SEND, RAM section of these pages --> |

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
    #: The guests are stopped, and their pages are being compared.
    COMPARING = enum.auto()
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
    #: Primary, two open epochs: the older is being sent, the younger waits.
    SENDING_AND_WAITING = enum.auto()
    #: The older is sent and not committed; the younger is being sent, or sent.
    SENT_AND_SENDING = enum.auto()
    SENT_AND_SENT = enum.auto()
    #: The older is being loaded; the younger is being sent, or sent.
    LOADING_AND_SENDING = enum.auto()
    LOADING_AND_SENT = enum.auto()
    #: Secondary: pages of a pass between checkpoints are arriving in the RAM cache.
    RECEIVING_PASS = enum.auto()
    #: The conversation has ended by GUEST_SHUTDOWN.
    ENDED = enum.auto()


class LocalEvent(enum.Enum):
    """Event on our own side."""

    CHECKPOINT_DUE = enum.auto()
    #: A checkpoint is due, after which the secondary's guest is to stand still.
    PASSIVE_CHECKPOINT_DUE = enum.auto()
    #: A part of a pass is due.
    PASS_DUE = enum.auto()
    #: A part of an open epoch is due.
    PART_DUE = enum.auto()
    SHUTDOWN = enum.auto()
    ALL_SENT = enum.auto()
    MIGRATED = enum.auto()
    PASS_RECEIVED = enum.auto()
    RAM_RECEIVED = enum.auto()
    BUFFER_RECEIVED = enum.auto()
    LOADED = enum.auto()
    #: The checkpoint is loaded, and the guest is to stand still.
    LOADED_PASSIVE = enum.auto()


class ColoAction(enum.Enum):
    """Action that a side has to perform."""

    START_GUEST = enum.auto()
    STOP_GUEST = enum.auto()
    SEND_CHECKPOINT_REQUEST = enum.auto()
    SEND_CHECKPOINT_PASSIVE = enum.auto()
    SEND_CHECKPOINT = enum.auto()
    #: Copy what the checkpoint consists of, while the guest stands still.
    COPY_CHECKPOINT = enum.auto()
    #: Copy the devices and freeze the written pages, while the guest stands still.
    FREEZE_CHECKPOINT = enum.auto()
    #: Send what was copied, while the guest runs; copy frozen pages before.
    SEND_COPY = enum.auto()
    #: Send a part of a pass, while the guest runs.
    SEND_PASS = enum.auto()
    #: Send a part of the epoch that was requested last, while the guest runs.
    SEND_PART = enum.auto()
    #: Count the older open epoch as done.
    CLOSE_EPOCH = enum.auto()
    #: Save what the checkpoint consists of, and send the hashes of its pages.
    SEND_PAGE_HASHES = enum.auto()
    #: Send what was saved, and of the pages those that differ.
    SEND_DIVERGENT = enum.auto()
    RELEASE_OUTPUT = enum.auto()
    SEND_GUEST_SHUTDOWN = enum.auto()
    SEND_CHECKPOINT_READY = enum.auto()
    SEND_CHECKPOINT_REPLY = enum.auto()
    #: Take in a request that is not answered.
    TAKE_REQUEST = enum.auto()
    #: Let the guest stand still once this checkpoint is loaded.
    BECOME_PASSIVE = enum.auto()
    RECEIVE_PASS = enum.auto()
    #: Compare hashes with those of our RAM, and answer with DIVERGENT_PAGES.
    COMPARE_PAGES = enum.auto()
    RECEIVE_RAM = enum.auto()
    RECEIVE_BUFFER = enum.auto()
    SEND_VMSTATE_RECEIVED = enum.auto()
    FLUSH_AND_LOAD = enum.auto()
    SEND_VMSTATE_LOADED = enum.auto()


ColoEvent = Message | LocalEvent
ColoTable = Table[ColoState, ColoEvent, ColoAction]


#: A primary's actions once the secondary has agreed to a checkpoint; or, with two epochs, at a cut.
_CAPTURE = {
    Capture.STOP_AND_SEND: (ColoAction.STOP_GUEST, ColoAction.SEND_CHECKPOINT),
    Capture.COPY_THEN_SEND: (
        ColoAction.STOP_GUEST,
        ColoAction.COPY_CHECKPOINT,
        ColoAction.START_GUEST,
        ColoAction.SEND_COPY,
    ),
    Capture.GAP_PRECOPY: (ColoAction.STOP_GUEST, ColoAction.SEND_CHECKPOINT),
    Capture.COPY_ON_WRITE: (
        ColoAction.STOP_GUEST,
        ColoAction.FREEZE_CHECKPOINT,
        ColoAction.START_GUEST,
        ColoAction.SEND_COPY,
    ),
    Capture.TWO_EPOCHS: (
        ColoAction.STOP_GUEST,
        ColoAction.FREEZE_CHECKPOINT,
        ColoAction.START_GUEST,
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
    if capture is Capture.TWO_EPOCHS:
        return _two_epochs_table(variant)
    runs_on = ColoAction.START_GUEST in _CAPTURE[capture]
    start = () if runs_on else (ColoAction.START_GUEST,)

    def release(message: Message) -> tuple[ColoAction, ...]:
        return (ColoAction.RELEASE_OUTPUT,) if message is release_after(variant, capture) else ()

    farewell = (ColoAction.SEND_GUEST_SHUTDOWN,) if variant.shutdown_message else ()
    running: dict[ColoEvent, tuple[ColoState, tuple[ColoAction, ...]]] = {
        LocalEvent.CHECKPOINT_DUE: (ColoState.REQUESTED, (ColoAction.SEND_CHECKPOINT_REQUEST,)),
        LocalEvent.SHUTDOWN: (ColoState.ENDED, farewell),
    }
    if variant.secondary_runs:
        running[LocalEvent.PASSIVE_CHECKPOINT_DUE] = (
            ColoState.REQUESTED,
            (ColoAction.SEND_CHECKPOINT_REQUEST, ColoAction.SEND_CHECKPOINT_PASSIVE),
        )
    if capture is Capture.GAP_PRECOPY:
        running[LocalEvent.PASS_DUE] = (ColoState.RUNNING, (ColoAction.SEND_PASS,))
    return {
        ColoState.MIGRATING: {
            Message.CHECKPOINT_READY: (ColoState.RUNNING, (ColoAction.START_GUEST,))
        },
        ColoState.RUNNING: running,
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


def _two_epochs_table(variant: Variant) -> ColoTable:
    """Return the primary's table with up to two open epochs.

    In each state, RECEIVED and LOADED are those of the older epoch: see this module.
    """
    State, Event, Action = ColoState, LocalEvent, ColoAction
    cut, request = _CAPTURE[Capture.TWO_EPOCHS], Action.SEND_CHECKPOINT_REQUEST
    release, close, part = (Action.RELEASE_OUTPUT,), (Action.CLOSE_EPOCH,), (Action.SEND_PART,)
    received, loaded = Message.VMSTATE_RECEIVED, Message.VMSTATE_LOADED
    farewell = (Action.SEND_GUEST_SHUTDOWN,) if variant.shutdown_message else ()
    return {
        State.MIGRATING: {Message.CHECKPOINT_READY: (State.RUNNING, (Action.START_GUEST,))},
        State.RUNNING: {
            Event.CHECKPOINT_DUE: (State.SENDING, (*cut, request)),
            Event.SHUTDOWN: (State.ENDED, farewell),
        },
        State.SENDING: {
            Event.PART_DUE: (State.SENDING, part),
            Event.ALL_SENT: (State.SENT, ()),
            Event.CHECKPOINT_DUE: (State.SENDING_AND_WAITING, cut),
        },
        State.SENDING_AND_WAITING: {
            Event.PART_DUE: (State.SENDING_AND_WAITING, part),
            Event.ALL_SENT: (State.SENT_AND_SENDING, (request,)),
        },
        State.SENT: {
            received: (State.LOADING, release),
            Event.CHECKPOINT_DUE: (State.SENT_AND_SENDING, (*cut, request)),
        },
        State.SENT_AND_SENDING: {
            Event.PART_DUE: (State.SENT_AND_SENDING, part),
            Event.ALL_SENT: (State.SENT_AND_SENT, ()),
            received: (State.LOADING_AND_SENDING, release),
        },
        State.SENT_AND_SENT: {received: (State.LOADING_AND_SENT, release)},
        State.LOADING: {
            loaded: (State.RUNNING, close),
            Event.CHECKPOINT_DUE: (State.LOADING_AND_SENDING, (*cut, request)),
        },
        State.LOADING_AND_SENDING: {
            Event.PART_DUE: (State.LOADING_AND_SENDING, part),
            Event.ALL_SENT: (State.LOADING_AND_SENT, ()),
            loaded: (State.SENDING, close),
        },
        State.LOADING_AND_SENT: {loaded: (State.SENT, close)},
        State.ENDED: {},
    }


@cache
def secondary_table(variant: Variant, layout: Layout, capture: Capture) -> ColoTable:
    """Return the secondary's table.

    It differs by the capture only if there are passes, or if requests are not answered.
    """
    start = (ColoAction.START_GUEST,) if variant.secondary_runs else ()
    stop = (ColoAction.STOP_GUEST,) if variant.secondary_runs else ()
    answered = capture is not Capture.TWO_EPOCHS
    reply = ColoAction.SEND_CHECKPOINT_REPLY if answered else ColoAction.TAKE_REQUEST
    running: dict[ColoEvent, tuple[ColoState, tuple[ColoAction, ...]]] = {
        Message.CHECKPOINT_REQUEST: (ColoState.REQUESTED, (*stop, reply)),
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
    if variant.secondary_runs:
        table[ColoState.REQUESTED][Message.CHECKPOINT_PASSIVE] = (
            ColoState.REQUESTED,
            (ColoAction.BECOME_PASSIVE,),
        )
        table[ColoState.LOADING][LocalEvent.LOADED_PASSIVE] = (
            ColoState.RUNNING,
            (ColoAction.SEND_VMSTATE_LOADED,),
        )
    if capture is Capture.GAP_PRECOPY:
        running[Message.MIGRATE_RAM_BACKGROUND] = (
            ColoState.RECEIVING_PASS,
            (ColoAction.RECEIVE_PASS,),
        )
        table[ColoState.RECEIVING_PASS] = {LocalEvent.PASS_RECEIVED: (ColoState.RUNNING, ())}
    if variant.shutdown_message:
        table[ColoState.ENDED] = {}
    return table


@cache
def comparing_primary_table(variant: Variant) -> ColoTable:
    """Return the primary's table of the encoding ``divergent``, with stop and send."""
    return {
        **primary_table(variant, Capture.STOP_AND_SEND),
        ColoState.REQUESTED: {
            Message.CHECKPOINT_REPLY: (
                ColoState.COMPARING,
                (ColoAction.STOP_GUEST, ColoAction.SEND_PAGE_HASHES),
            )
        },
        ColoState.COMPARING: {
            Message.DIVERGENT_PAGES: (ColoState.SENDING, (ColoAction.SEND_DIVERGENT,))
        },
    }


@cache
def comparing_secondary_table(variant: Variant, layout: Layout) -> ColoTable:
    """Return the secondary's table of the encoding ``divergent``."""
    table = secondary_table(variant, layout, Capture.STOP_AND_SEND)
    requested = dict(table[ColoState.REQUESTED])
    receive = requested.pop(Message.VMSTATE_SEND)
    requested[Message.PAGE_HASHES] = (ColoState.COMPARING, (ColoAction.COMPARE_PAGES,))
    return {
        **table,
        ColoState.REQUESTED: requested,
        ColoState.COMPARING: {Message.VMSTATE_SEND: receive},
    }


class Conversation(StateMachine[ColoState, ColoEvent, ColoAction]):
    """One side of the conversation.

    Parameters
    ----------
    role
        Side of this node.
    variant, layout, capture
        Form of the conversation, the same on both nodes; its messages do not tell it.
    compares_pages
        Whether pages are compared before they are sent, as with the encoding ``divergent``.
    """

    def __init__(
        self,
        role: Role,
        variant: Variant,
        layout: Layout,
        capture: Capture,
        *,
        compares_pages: bool = False,
    ) -> None:
        if role is Role.PRIMARY:
            table = (
                comparing_primary_table(variant)
                if compares_pages
                else primary_table(variant, capture)
            )
        else:
            table = (
                comparing_secondary_table(variant, layout)
                if compares_pages
                else secondary_table(variant, layout, capture)
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
