"""Failover as a table: from x-colo-lost-heartbeat to a guest that runs without a peer.

The states are QEMU's (``FailoverStatus``). A request during the load of a committed checkpoint does
not interrupt it: the load is finished first, then the request is repeated (relaunch).
"""

from __future__ import annotations

import enum

from colobench.protocol.table import StateMachine, Table


class FailoverState(enum.Enum):
    """State of a failover."""

    NONE = "none"
    REQUIRE = "require"
    ACTIVE = "active"
    COMPLETED = "completed"
    RELAUNCH = "relaunch"


class FailoverEvent(enum.Enum):
    """Event that advances a failover."""

    #: x-colo-lost-heartbeat was executed.
    LOST_HEARTBEAT = enum.auto()
    #: No checkpoint is being loaded, so the failover can begin.
    BEGIN = enum.auto()
    #: A committed checkpoint is being loaded, so the failover has to wait.
    LOADING = enum.auto()
    #: The load is finished.
    LOADED = enum.auto()
    #: The guest runs without a peer.
    TAKEN_OVER = enum.auto()


class FailoverAction(enum.Enum):
    """Action of a failover."""

    #: Shut the sockets down, so that no thread waits for the peer.
    CUT_OFF = enum.auto()
    #: Emit COLO_EXIT and start the guest.
    RUN_ALONE = enum.auto()
    #: Request the failover again.
    REQUEST_AGAIN = enum.auto()


FAILOVER: Table[FailoverState, FailoverEvent, FailoverAction] = {
    FailoverState.NONE: {FailoverEvent.LOST_HEARTBEAT: (FailoverState.REQUIRE, ())},
    FailoverState.REQUIRE: {
        FailoverEvent.BEGIN: (FailoverState.ACTIVE, (FailoverAction.CUT_OFF,)),
        FailoverEvent.LOADING: (FailoverState.RELAUNCH, ()),
    },
    FailoverState.RELAUNCH: {
        FailoverEvent.LOADED: (FailoverState.NONE, (FailoverAction.REQUEST_AGAIN,)),
    },
    FailoverState.ACTIVE: {
        FailoverEvent.TAKEN_OVER: (FailoverState.COMPLETED, (FailoverAction.RUN_ALONE,)),
    },
    FailoverState.COMPLETED: {},
}


class Failover(StateMachine[FailoverState, FailoverEvent, FailoverAction]):
    """One node's failover."""

    def __init__(self) -> None:
        super().__init__(FAILOVER, FailoverState.NONE)
