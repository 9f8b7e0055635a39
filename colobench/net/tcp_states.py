"""The states of a TCP connection as a table (RFC 9293, figure 5 and section 3.10).

The table has the form of `colobench.protocol.table`, which prints it. It lacks LISTEN, because a
listener is not a connection yet, and the simultaneous open of both sides.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class TCPState(enum.Enum):
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


class TCPEvent(enum.Enum):
    """Events: calls of the user, received segments, and timeouts."""

    OPEN = "our user opens"
    CLOSE = "our user closes"
    ABORT = "our user aborts"
    SYN = "SYN"
    SYN_ACK = "SYN and ACK of our SYN"
    ACK_OF_SYN = "ACK of our SYN"
    FIN = "FIN, after all data"
    ACK_OF_FIN = "ACK of our FIN"
    RST = "RST"
    SILENCE = "no answer for too long"
    TWICE_MSL = "twice the maximum segment lifetime has passed"


class TCPAction(enum.Enum):
    """Actions between one state and the next."""

    SEND_SYN = "send SYN, with ACK if one came"
    SEND_ACK = "send ACK"
    SEND_FIN = "send FIN after all data"
    SEND_RST = "send RST"
    CLOSE_LATER = "close as soon as it is established"
    CONNECTED = "report the connection to the user, and send data"
    END_OF_DATA = "report the end of data to the user"
    FAILED = "report the failure to the user"
    WAIT_TWICE_MSL = "wait for twice the maximum segment lifetime"


_ABORT = (TCPState.CLOSED, (TCPAction.SEND_RST,))
_SILENCE = (TCPState.CLOSED, (TCPAction.SEND_RST, TCPAction.FAILED))
_RST = (TCPState.CLOSED, (TCPAction.FAILED,))
_LAST = (TCPAction.SEND_ACK, TCPAction.END_OF_DATA)
_BROKEN = {TCPEvent.RST: _RST, TCPEvent.ABORT: _ABORT, TCPEvent.SILENCE: _SILENCE}

TABLE: Mapping[TCPState, Mapping[TCPEvent, tuple[TCPState, tuple[TCPAction, ...]]]] = {
    TCPState.CLOSED: {
        TCPEvent.OPEN: (TCPState.SYN_SENT, (TCPAction.SEND_SYN,)),
        TCPEvent.SYN: (TCPState.SYN_RECEIVED, (TCPAction.SEND_SYN,)),
    },
    TCPState.SYN_SENT: {
        TCPEvent.SYN_ACK: (TCPState.ESTABLISHED, (TCPAction.SEND_ACK, TCPAction.CONNECTED)),
        TCPEvent.CLOSE: (TCPState.SYN_SENT, (TCPAction.CLOSE_LATER,)),
        TCPEvent.RST: _RST,
        TCPEvent.ABORT: (TCPState.CLOSED, ()),
        TCPEvent.SILENCE: _RST,
    },
    TCPState.SYN_RECEIVED: {
        TCPEvent.ACK_OF_SYN: (TCPState.ESTABLISHED, (TCPAction.CONNECTED,)),
        TCPEvent.CLOSE: (TCPState.SYN_RECEIVED, (TCPAction.CLOSE_LATER,)),
        **_BROKEN,
    },
    TCPState.ESTABLISHED: {
        TCPEvent.CLOSE: (TCPState.FIN_WAIT_1, (TCPAction.SEND_FIN,)),
        TCPEvent.FIN: (TCPState.CLOSE_WAIT, _LAST),
        **_BROKEN,
    },
    TCPState.FIN_WAIT_1: {
        TCPEvent.ACK_OF_FIN: (TCPState.FIN_WAIT_2, ()),
        TCPEvent.FIN: (TCPState.CLOSING, _LAST),
        **_BROKEN,
    },
    TCPState.FIN_WAIT_2: {
        TCPEvent.FIN: (TCPState.TIME_WAIT, (*_LAST, TCPAction.WAIT_TWICE_MSL)),
        **_BROKEN,
    },
    TCPState.CLOSE_WAIT: {TCPEvent.CLOSE: (TCPState.LAST_ACK, (TCPAction.SEND_FIN,)), **_BROKEN},
    TCPState.CLOSING: {
        TCPEvent.ACK_OF_FIN: (TCPState.TIME_WAIT, (TCPAction.WAIT_TWICE_MSL,)),
        **_BROKEN,
    },
    TCPState.LAST_ACK: {TCPEvent.ACK_OF_FIN: (TCPState.CLOSED, ()), **_BROKEN},
    TCPState.TIME_WAIT: {
        TCPEvent.FIN: (TCPState.TIME_WAIT, (TCPAction.SEND_ACK, TCPAction.WAIT_TWICE_MSL)),
        TCPEvent.TWICE_MSL: (TCPState.CLOSED, ()),
        TCPEvent.RST: (TCPState.CLOSED, ()),
        TCPEvent.ABORT: (TCPState.CLOSED, ()),
    },
}
