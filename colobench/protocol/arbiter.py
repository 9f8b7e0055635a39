"""The arbiter, which lets one of two nodes that lost each other serve alone.

The arbiter is a test-and-set for each pairing, decided once and for ever. VMware FT uses one on
shared storage when a VM "goes live" (D. J. Scales, M. Nelson and G. Venkitachalam, *The Design of a
Practical System for Fault-Tolerant Virtual Machines*, ACM SIGOPS Operating Systems Review 44(4),
2010, section 2.3). ``docs/split-brain.md`` describes its use.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from colobench.errors import LocalError, RemoteError
from colobench.protocol.table import StateMachine, Table

#: Limit of an arbiter's pairings. It never forgets one, lest it grant it a second time.
GRANTS_LIMIT: Final = 65536
#: Limit of a pairing's id and of a node's name, characters.
NAME_LIMIT: Final = 200
#: Limit of a question or an answer with its newline, bytes. JSON may need 12 bytes a character.
LINE_LIMIT: Final = 8192


class ArbiterFull(LocalError):
    """A new pairing for which the arbiter has no room left."""


class InvalidLine(RemoteError):
    """A line that is not a question to an arbiter, or not an arbiter's answer."""


class ArbiterRefusal(RemoteError):
    """An arbiter's error message instead of an answer."""


@dataclass(frozen=True, slots=True)
class ArbiterAnswer:
    """An arbiter's answer to a node.

    Attributes
    ----------
    granted
        True if this node may serve alone.
    holder
        Name of the node that may serve alone.
    first
        True if this question decided the pairing, False if it was decided before.
    """

    granted: bool
    holder: str
    first: bool = False


class Arbiter:
    """Arbiter that grants each pairing to the node that asks first, and never to another one.

    Parameters
    ----------
    grants
        Earlier grants: names of nodes by pairing.
    limit
        Limit of the number of pairings.
    """

    def __init__(
        self, grants: Mapping[str, str] | None = None, *, limit: int = GRANTS_LIMIT
    ) -> None:
        self._grants = dict(grants or {})
        self._limit = limit

    @property
    def grants(self) -> dict[str, str]:
        """Copy of the grants, names of nodes by pairing, oldest first."""
        return dict(self._grants)

    def ask(self, pairing: str, node: str) -> ArbiterAnswer:
        """Decide whether `node` may serve alone; the same node always gets the same answer.

        Parameters
        ----------
        pairing
            Unique id of the pairing.
        node
            Name of the node, different from the other node's.

        Raises
        ------
        ArbiterFull
            If the pairing is new and there is no room for it. It is then granted to no node.
        """
        holder = self._grants.get(pairing)
        if holder is not None:
            return ArbiterAnswer(holder == node, holder)
        if len(self._grants) >= self._limit:
            raise ArbiterFull(f"arbiter: expected at most {self._limit} pairings, found one more")
        self._grants[pairing] = node
        return ArbiterAnswer(True, node, first=True)


class Standing(enum.Enum):
    """A node's standing towards its peer."""

    #: The node releases only output that the other node's state contains, too.
    PAIRED = enum.auto()
    #: The node has lost its peer and waits for a verdict. Until then the conversation goes on as
    #: far as it can, by its rules: the peer may or may not have lost this node as well.
    ASKING = enum.auto()
    #: The node serves without a peer.
    ALONE = enum.auto()
    #: The guest is stopped, and the process ends.
    OUT = enum.auto()


class StandingEvent(enum.Enum):
    """Event that changes a node's standing."""

    #: The failure detector suspects the peer.
    PEER_LOST = enum.auto()
    #: The arbiter's verdict.
    GRANTED = enum.auto()
    REFUSED = enum.auto()
    #: x-colo-lost-heartbeat: an operator who knows it says that the peer does not serve.
    TOLD = enum.auto()


class StandingAction(enum.Enum):
    """Action on a change of standing."""

    #: Ask the arbiter until there is a verdict, also after an answer that is an error.
    ASK = enum.auto()
    #: Begin the failover, see `colobench.protocol.failover`.
    TAKE_OVER = enum.auto()
    #: Stop the guest, release no more output, end the process.
    STOP = enum.auto()


#: Table of a node with an arbiter. A node without one stays PAIRED until TOLD.
STANDING: Table[Standing, StandingEvent, StandingAction] = {
    Standing.PAIRED: {
        StandingEvent.PEER_LOST: (Standing.ASKING, (StandingAction.ASK,)),
        StandingEvent.TOLD: (Standing.ALONE, (StandingAction.TAKE_OVER,)),
    },
    Standing.ASKING: {
        StandingEvent.GRANTED: (Standing.ALONE, (StandingAction.TAKE_OVER,)),
        StandingEvent.REFUSED: (Standing.OUT, (StandingAction.STOP,)),
        StandingEvent.TOLD: (Standing.ALONE, (StandingAction.TAKE_OVER,)),
    },
    Standing.ALONE: {},
    Standing.OUT: {},
}


class NodeStanding(StateMachine[Standing, StandingEvent, StandingAction]):
    """One node's standing in one pairing."""

    def __init__(self) -> None:
        super().__init__(STANDING, Standing.PAIRED)


def check_name(what: str, name: object) -> str:
    """Check a pairing's id or a node's name.

    Raises
    ------
    LocalError
        If it is not a string of 1 to `NAME_LIMIT` characters, or UTF-8 cannot encode it.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_LIMIT:
        found = f"{len(name)} characters" if isinstance(name, str) else repr(name)
        raise LocalError(f"{what}: expected 1 to {NAME_LIMIT} characters, found {found}")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise LocalError(f"{what}: expected Unicode characters, found a surrogate in {name!r}")
    return name


def encode_line(members: Mapping[str, object]) -> bytes:
    """Encode a question or an answer as one line with a JSON object."""
    return json.dumps(members).encode() + b"\n"


def encode_question(pairing: str, node: str) -> bytes:
    """Encode ``{"ask": pairing, "node": node}``.

    Raises
    ------
    LocalError
        If `check_name` refuses one of them.
    """
    return encode_line({"ask": check_name("pairing", pairing), "node": check_name("node", node)})


def parse_question(line: bytes) -> tuple[str, str]:
    """Parse a question; return its pairing and node.

    Raises
    ------
    InvalidLine
        If `line` is not a question.
    """
    members = _parse_object("question", line)
    if members.keys() != {"ask", "node"}:
        raise InvalidLine(f"question: expected the members ask and node, found {sorted(members)}")
    try:
        return check_name("pairing", members["ask"]), check_name("node", members["node"])
    except LocalError as error:
        raise InvalidLine(f"question: {error}") from error


def encode_answer(verdict: ArbiterAnswer) -> bytes:
    """Encode ``{"granted": bool, "holder": node}``."""
    return encode_line({"granted": verdict.granted, "holder": verdict.holder})


def parse_answer(line: bytes) -> ArbiterAnswer:
    """Parse an answer.

    Raises
    ------
    ArbiterRefusal
        If `line` is an error message.
    InvalidLine
        If `line` is neither an answer nor an error message.
    """
    members = _parse_object("answer", line)
    if members.keys() == {"error"}:
        raise ArbiterRefusal(f"arbiter: {members['error']}")
    granted, holder = members.get("granted"), members.get("holder")
    if members.keys() != {"granted", "holder"} or type(granted) is not bool:
        raise InvalidLine(f"answer: expected granted and holder, found {members}")
    try:
        return ArbiterAnswer(granted, check_name("holder", holder))
    except LocalError as error:
        raise InvalidLine(f"answer: {error}") from error


def _parse_object(what: str, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidLine(
            f"{what}: expected a JSON object, found {line[:80]!r}: {error}"
        ) from error
    if not isinstance(found, dict):
        raise InvalidLine(f"{what}: expected a JSON object, found {line[:80]!r}")
    return found
