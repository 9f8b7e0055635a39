"""Failover: from the command x-colo-lost-heartbeat to a guest that runs without a peer.

The states are QEMU's (``FailoverStatus``). A request that comes while a committed checkpoint is
being loaded does not tear it: the load is finished first, and the request made again (relaunch).
"""

from __future__ import annotations

import enum

from colobench.protocol.table import StateMachine, Table


class FailoverState(enum.Enum):
    """How far a failover has come."""

    NONE = "none"
    REQUIRE = "require"
    ACTIVE = "active"
    COMPLETED = "completed"
    RELAUNCH = "relaunch"


class FailoverEvent(enum.Enum):
    """What moves it on."""

    #: x-colo-lost-heartbeat was said.
    LOST_HEARTBEAT = enum.auto()
    #: No checkpoint is being loaded: it can begin.
    BEGIN = enum.auto()
    #: A committed checkpoint is being loaded: it has to wait.
    LOADING = enum.auto()
    #: That load is finished.
    LOADED = enum.auto()
    #: The guest runs without a peer.
    TAKEN_OVER = enum.auto()


class FailoverAction(enum.Enum):
    """What has to be done."""

    #: Shut the sockets down, so that nobody waits for the peer any more.
    CUT_OFF = enum.auto()
    #: Say COLO_EXIT and let the guest run.
    RUN_ALONE = enum.auto()
    #: Ask for the failover again.
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
