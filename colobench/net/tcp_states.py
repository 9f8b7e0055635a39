"""The states of a TCP connection as a table (RFC 9293, figure 5 and section 3.10).

The table has the form of `colobench.protocol.table`, which prints it. What is left out: LISTEN,
since whoever listens is not yet a connection, and both sides opening at the same time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """States of a connection."""

    CLOSED = "closed"
    SYN_SENT = "syn-sent"
    SYN_RECEIVED = "syn-received"
    ESTABLISHED = "established"
    FIN_WAIT_1 = "fin-wait-1"
    FIN_WAIT_2 = "fin-wait-2"
    CLOSE_WAIT = "close-wait"
    CLOSING = "closing"
    LAST_ACK = "last-ack"
    TIME_WAIT = "time-wait"


class Event(enum.Enum):
    """What the user does, what segments bring, and what time brings."""

    OPEN = "our user opens"
    CLOSE = "our user has no more to send"
    ABORT = "our user wants no more of it"
    SYN = "SYN"
    SYN_ACK = "SYN and ACK of our SYN"
    ACK_OF_SYN = "ACK of our SYN"
    FIN = "FIN, behind all data"
    ACK_OF_FIN = "ACK of our FIN"
    RST = "RST"
    SILENCE = "no answer for too long"
    TWICE_MSL = "nothing of it is on its way any more"


class Action(enum.Enum):
    """What is done on the way from one state to the next."""

    SEND_SYN = "send SYN, with ACK if one came"
    SEND_ACK = "send ACK"
    SEND_FIN = "send FIN behind all data"
    SEND_RST = "send RST"
    CLOSE_LATER = "close as soon as it is established"
    CONNECTED = "the user may be told, and data be sent"
    END_OF_DATA = "the user gets no more data"
    FAILED = "the user is told that it broke"
    WAIT_TWICE_MSL = "wait for twice the life of a segment"


_ABORT = (State.CLOSED, (Action.SEND_RST,))
_SILENCE = (State.CLOSED, (Action.SEND_RST, Action.FAILED))
_RST = (State.CLOSED, (Action.FAILED,))
_LAST = (Action.SEND_ACK, Action.END_OF_DATA)
_BROKEN = {Event.RST: _RST, Event.ABORT: _ABORT, Event.SILENCE: _SILENCE}

TABLE: Mapping[State, Mapping[Event, tuple[State, tuple[Action, ...]]]] = {
    State.CLOSED: {
        Event.OPEN: (State.SYN_SENT, (Action.SEND_SYN,)),
        Event.SYN: (State.SYN_RECEIVED, (Action.SEND_SYN,)),
    },
    State.SYN_SENT: {
        Event.SYN_ACK: (State.ESTABLISHED, (Action.SEND_ACK, Action.CONNECTED)),
        Event.CLOSE: (State.SYN_SENT, (Action.CLOSE_LATER,)),
        Event.RST: _RST,
        Event.ABORT: (State.CLOSED, ()),
        Event.SILENCE: _RST,
    },
    State.SYN_RECEIVED: {
        Event.ACK_OF_SYN: (State.ESTABLISHED, (Action.CONNECTED,)),
        Event.CLOSE: (State.SYN_RECEIVED, (Action.CLOSE_LATER,)),
        **_BROKEN,
    },
    State.ESTABLISHED: {
        Event.CLOSE: (State.FIN_WAIT_1, (Action.SEND_FIN,)),
        Event.FIN: (State.CLOSE_WAIT, _LAST),
        **_BROKEN,
    },
    State.FIN_WAIT_1: {
        Event.ACK_OF_FIN: (State.FIN_WAIT_2, ()),
        Event.FIN: (State.CLOSING, _LAST),
        **_BROKEN,
    },
    State.FIN_WAIT_2: {
        Event.FIN: (State.TIME_WAIT, (*_LAST, Action.WAIT_TWICE_MSL)),
        **_BROKEN,
    },
    State.CLOSE_WAIT: {Event.CLOSE: (State.LAST_ACK, (Action.SEND_FIN,)), **_BROKEN},
    State.CLOSING: {
        Event.ACK_OF_FIN: (State.TIME_WAIT, (Action.WAIT_TWICE_MSL,)),
        **_BROKEN,
    },
    State.LAST_ACK: {Event.ACK_OF_FIN: (State.CLOSED, ()), **_BROKEN},
    State.TIME_WAIT: {
        Event.FIN: (State.TIME_WAIT, (Action.SEND_ACK, Action.WAIT_TWICE_MSL)),
        Event.TWICE_MSL: (State.CLOSED, ()),
        Event.RST: (State.CLOSED, ()),
        Event.ABORT: (State.CLOSED, ()),
    },
}
