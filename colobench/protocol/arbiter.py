"""Which of two nodes that lost each other may serve alone: an arbiter's word, and what follows.

The arbiter is a test-and-set, once for each pairing and for good, as the one on shared storage by
which a VM of VMware FT "goes live" (D. J. Scales, M. Nelson and G. Venkitachalam, *The Design of a
Practical System for Fault-Tolerant Virtual Machines*, ACM SIGOPS Operating Systems Review 44(4),
2010, section 2.3). ``docs/split-brain.md`` says what follows from it.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from colobench.errors import LocalError, RemoteError
from colobench.protocol.table import StateMachine, Table

#: Pairings that an arbiter remembers. It never forgets one: the next to ask would be granted, too.
GRANTS_LIMIT: Final = 65536
#: Characters of a pairing's id and of a node's name.
NAME_LIMIT: Final = 200
#: Bytes of a question or an answer, with its newline. JSON may write a character as 12 bytes.
LINE_LIMIT: Final = 8192


class ArbiterFull(LocalError):
    """A new pairing for which the arbiter has no room left."""


class InvalidLine(RemoteError):
    """A line that is no question to an arbiter, or no answer of one."""


class ArbiterRefusal(RemoteError):
    """The arbiter did not answer the question but said what is wrong with it, or with itself."""


@dataclass(frozen=True, slots=True)
class ArbiterAnswer:
    """What the arbiter says to a node.

    Attributes
    ----------
    granted
        Whether this node may serve alone.
    holder
        The node that may.
    first
        Whether this very question decided it.
    """

    granted: bool
    holder: str
    first: bool = False


class Arbiter:
    """Grants each pairing to the node that asks first, and to no other, ever.

    Parameters
    ----------
    grants
        What was granted before: nodes by pairing.
    limit
        How many pairings there may be.
    """

    def __init__(
        self, grants: Mapping[str, str] | None = None, *, limit: int = GRANTS_LIMIT
    ) -> None:
        self._grants = dict(grants or {})
        self._limit = limit

    @property
    def grants(self) -> dict[str, str]:
        """Nodes by pairing, oldest grant first; a copy."""
        return dict(self._grants)

    def ask(self, pairing: str, node: str) -> ArbiterAnswer:
        """Decide whether `node` may serve alone; the same node is always told the same.

        Parameters
        ----------
        pairing
            An id that is new for each pairing, chosen by whoever forms it.
        node
            A name that the other node of the pairing does not have.

        Raises
        ------
        ArbiterFull
            If the pairing is new and there is no room for it. Nobody is granted it.
        """
        holder = self._grants.get(pairing)
        if holder is not None:
            return ArbiterAnswer(holder == node, holder)
        if len(self._grants) >= self._limit:
            raise ArbiterFull(f"arbiter: expected at most {self._limit} pairings, found one more")
        self._grants[pairing] = node
        return ArbiterAnswer(True, node, first=True)


class Standing(enum.Enum):
    """How a node stands towards its peer."""

    #: It lets out only what the other node's state contains, too.
    PAIRED = enum.auto()
    #: It has lost the other and waits for a verdict. Until then the conversation goes on as far as
    #: it can, and its rules hold: the peer may have the same doubt, or none.
    ASKING = enum.auto()
    #: It serves without a peer.
    ALONE = enum.auto()
    #: Its guest stands, its process ends.
    OUT = enum.auto()


class StandingEvent(enum.Enum):
    """What changes it."""

    #: The failure detector suspects the peer.
    PEER_LOST = enum.auto()
    #: The arbiter's verdict.
    GRANTED = enum.auto()
    REFUSED = enum.auto()
    #: x-colo-lost-heartbeat: somebody who knows says that the peer does not serve.
    TOLD = enum.auto()


class StandingAction(enum.Enum):
    """What has to be done."""

    #: Ask, again and again, until there is a verdict.
    ASK = enum.auto()
    #: Begin the failover, see `colobench.protocol.failover`.
    TAKE_OVER = enum.auto()
    #: Stop the guest, let nothing more out, end.
    STOP = enum.auto()


#: What a node does that was given an arbiter. One without stays PAIRED until it is TOLD.
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
        If it is no string of 1 to `NAME_LIMIT` characters that UTF-8 can write.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_LIMIT:
        found = f"{len(name)} characters" if isinstance(name, str) else repr(name)
        raise LocalError(f"{what}: expected 1 to {NAME_LIMIT} characters, found {found}")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise LocalError(f"{what}: expected Unicode characters, found a surrogate in {name!r}")
    return name


def encode_line(members: Mapping[str, object]) -> bytes:
    """Encode a question or an answer: a JSON object in one line."""
    return json.dumps(members).encode() + b"\n"


def encode_question(pairing: str, node: str) -> bytes:
    """Encode ``{"ask": pairing, "node": node}``.

    Raises
    ------
    LocalError
        If one of them is not what `check_name` expects.
    """
    return encode_line({"ask": check_name("pairing", pairing), "node": check_name("node", node)})


def parse_question(line: bytes) -> tuple[str, str]:
    """Read a question's pairing and node.

    Raises
    ------
    InvalidLine
        If it is none.
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
    """Read an answer.

    Raises
    ------
    ArbiterRefusal
        If it is an error.
    InvalidLine
        If it is neither.
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
