"""Block replication as tables: the guest's disks on both sides, from the copy to a failover.

The calls are QEMU's (``docs/block-replication.txt``): `START`, `CHECKPOINT`, `ERROR` and `STOP`.
The others say when the copy is complete, and how a checkpoint divides the guest's writes::

    primary                                        secondary
       |                                              |  START: serve the images
       |  START: forward all writes, copy             |
       |=============== clusters ====================>|  write them into the images
       |  COPIED                                      |
       |=============== live migration ==============>|
       |  LEAD, SEAL                                  |  LOADED: start the layers
       |--------------- writes, at once ------------->|  keep old contents, write
       |  SEAL: hold what the guest writes from now on |
       |=============== checkpoint ==================>|
       |                                              |  CHECKPOINT: empty the layers
       |<-------------- VMSTATE_RECEIVED -------------|  the commit point
       |  CHECKPOINT: forward what was held           |

A write that fails on the secondary's side ends the protection, and not the guest: the primary's
guest waits until it is the only one, and the secondary's node ends.
"""

from __future__ import annotations

import enum

from colobench.protocol.colo import Role
from colobench.protocol.table import StateMachine, Table


class ReplicationState(enum.Enum):
    """State of one side's disks."""

    #: The guest's disks are this side's alone, or this side has no guest yet.
    NONE = enum.auto()
    #: The images are being copied; the primary forwards what its guest writes.
    COPYING = enum.auto()
    #: Primary: the images are equal, but for writes on their way; RAM is being migrated.
    COPIED = enum.auto()
    #: Primary: the guest stands still for the end of live migration.
    SWITCHING = enum.auto()
    #: The secondary can undo what has been forwarded since the last checkpoint.
    RUNNING = enum.auto()
    #: Primary: what the guest writes belongs to the checkpoint after the coming one.
    SEALED = enum.auto()
    #: Primary: two checkpoints are open, and what the guest writes belongs to a third one.
    SEALED_TWICE = enum.auto()
    #: A disk of the secondary has failed, or the connection to it.
    FAILED = enum.auto()


class ReplicationEvent(enum.Enum):
    """Event in the life of one side's disks."""

    #: Secondary: it is to follow. Primary: the secondary's disks are connected.
    START = enum.auto()
    #: Primary: all clusters are copied.
    COPIED = enum.auto()
    #: Primary: live migration ends, and the guest has been stopped.
    LEAD = enum.auto()
    #: Primary: the guest has been stopped, and its state is about to be saved.
    SEAL = enum.auto()
    #: Secondary: RAM and devices have been loaded.
    LOADED = enum.auto()
    #: The checkpoint has been received whole, and is committed.
    CHECKPOINT = enum.auto()
    #: A forwarded write, or the secondary's disk, has failed.
    ERROR = enum.auto()
    #: This side goes on alone, or the pair does not come about.
    STOP = enum.auto()


class ReplicationAction(enum.Enum):
    """Action that a side has to perform."""

    #: Forward what the guest writes from now on.
    FORWARD_WRITES = enum.auto()
    #: Begin no write until the guest runs again, so that its disks stand still with it.
    BEGIN_NO_WRITE = enum.auto()
    #: Count the clusters that are changed from now on, for which the secondary has room.
    COUNT_CLUSTERS = enum.auto()
    #: Forward no write that the guest submits from now on.
    HOLD_WRITES = enum.auto()
    #: Forward the writes that were held by the oldest seal that has no checkpoint yet.
    RELEASE_WRITES = enum.auto()
    #: Let COLO know of the error, which ends the pair.
    TELL_COLO = enum.auto()
    #: End the connections to the secondary's disks.
    DISCONNECT = enum.auto()
    #: Complete the guest's writes when this side's own disk has done them.
    WRITE_ALONE = enum.auto()
    #: Serve the images to the primary.
    SERVE = enum.auto()
    #: Keep the old contents of what the primary overwrites, and the own guest's writes, in layers.
    START_LAYERS = enum.auto()
    #: Empty both layers at once: the images are the checkpoint's.
    EMPTY_LAYERS = enum.auto()
    #: End the primary's connections; no write of it happens afterwards.
    STOP_SERVING = enum.auto()
    #: Write the old contents into the images, then the own guest's writes.
    MERGE_LAYERS = enum.auto()
    #: End this process: its disks are of no moment that there was.
    END_PROCESS = enum.auto()


ReplicationTable = Table[ReplicationState, ReplicationEvent, ReplicationAction]

_NONE, _FAILED = ReplicationState.NONE, ReplicationState.FAILED
_Row = dict[ReplicationEvent, tuple[ReplicationState, tuple[ReplicationAction, ...]]]
_END = (ReplicationAction.DISCONNECT, ReplicationAction.WRITE_ALONE)
#: Before COLO an error ends the migration, and the guest does not wait.
_BEFORE_COLO: _Row = {
    ReplicationEvent.ERROR: (_NONE, (ReplicationAction.TELL_COLO, *_END)),
    ReplicationEvent.STOP: (_NONE, _END),
}
#: In COLO the guest waits until it is known who the guest is.
_IN_COLO: _Row = {
    ReplicationEvent.ERROR: (_FAILED, (ReplicationAction.TELL_COLO,)),
    ReplicationEvent.STOP: (_NONE, _END),
}

PRIMARY_REPLICATION: ReplicationTable = {
    _NONE: {
        ReplicationEvent.START: (ReplicationState.COPYING, (ReplicationAction.FORWARD_WRITES,)),
        ReplicationEvent.ERROR: (_NONE, ()),
        ReplicationEvent.STOP: (_NONE, ()),
    },
    ReplicationState.COPYING: {
        ReplicationEvent.COPIED: (ReplicationState.COPIED, ()),
        **_BEFORE_COLO,
    },
    ReplicationState.COPIED: {
        ReplicationEvent.LEAD: (ReplicationState.SWITCHING, ()),
        **_BEFORE_COLO,
    },
    ReplicationState.SWITCHING: {
        ReplicationEvent.SEAL: (
            ReplicationState.RUNNING,
            (ReplicationAction.BEGIN_NO_WRITE, ReplicationAction.COUNT_CLUSTERS),
        ),
        **_IN_COLO,
    },
    ReplicationState.RUNNING: {
        ReplicationEvent.SEAL: (
            ReplicationState.SEALED,
            (ReplicationAction.BEGIN_NO_WRITE, ReplicationAction.HOLD_WRITES),
        ),
        **_IN_COLO,
    },
    ReplicationState.SEALED: {
        ReplicationEvent.SEAL: (
            ReplicationState.SEALED_TWICE,
            (ReplicationAction.BEGIN_NO_WRITE, ReplicationAction.HOLD_WRITES),
        ),
        ReplicationEvent.CHECKPOINT: (
            ReplicationState.RUNNING,
            (ReplicationAction.RELEASE_WRITES,),
        ),
        **_IN_COLO,
    },
    ReplicationState.SEALED_TWICE: {
        ReplicationEvent.CHECKPOINT: (
            ReplicationState.SEALED,
            (ReplicationAction.RELEASE_WRITES,),
        ),
        **_IN_COLO,
    },
    _FAILED: {
        # The COLO thread may be in the middle of a checkpoint.
        ReplicationEvent.SEAL: (_FAILED, ()),
        ReplicationEvent.CHECKPOINT: (_FAILED, ()),
        ReplicationEvent.ERROR: (_FAILED, ()),
        ReplicationEvent.STOP: (_NONE, _END),
    },
}

_END_PROCESS = (_FAILED, (ReplicationAction.END_PROCESS,))
SECONDARY_REPLICATION: ReplicationTable = {
    _NONE: {
        ReplicationEvent.START: (ReplicationState.COPYING, (ReplicationAction.SERVE,)),
    },
    ReplicationState.COPYING: {
        ReplicationEvent.LOADED: (ReplicationState.RUNNING, (ReplicationAction.START_LAYERS,)),
        ReplicationEvent.ERROR: _END_PROCESS,
    },
    ReplicationState.RUNNING: {
        ReplicationEvent.CHECKPOINT: (ReplicationState.RUNNING, (ReplicationAction.EMPTY_LAYERS,)),
        ReplicationEvent.LOADED: (ReplicationState.RUNNING, ()),
        ReplicationEvent.ERROR: _END_PROCESS,
        ReplicationEvent.STOP: (
            _NONE,
            (ReplicationAction.STOP_SERVING, ReplicationAction.MERGE_LAYERS),
        ),
    },
    _FAILED: {
        ReplicationEvent.ERROR: (_FAILED, ()),
        ReplicationEvent.CHECKPOINT: (_FAILED, ()),
        ReplicationEvent.LOADED: (_FAILED, ()),
        ReplicationEvent.STOP: _END_PROCESS,
    },
}


class Replication(StateMachine[ReplicationState, ReplicationEvent, ReplicationAction]):
    """One side's block replication.

    Parameters
    ----------
    role
        Side of this node.
    """

    def __init__(self, role: Role) -> None:
        table = PRIMARY_REPLICATION if role is Role.PRIMARY else SECONDARY_REPLICATION
        super().__init__(table, ReplicationState.NONE)
