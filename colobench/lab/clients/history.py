"""Histories of clients: each request and answer, with the times of both."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from colobench.errors import LocalError
from colobench.lab.clients.resp import ErrorReply, Reply, Scalar
from colobench.lab.output_file import write_output_file
from colobench.lab.percentiles import percentiles

#: Commands of one key.
SINGLE = frozenset(
    (b"GET", b"SET", b"DEL", b"EXISTS", b"INCR", b"DECR", b"INCRBY", b"APPEND", b"STRLEN")
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One command on one key, by one client.

    Attributes
    ----------
    client
        Number of the client.
    key
        The key.
    command
        Name in capitals. ``MSET`` and ``MGET`` are one operation for each of their keys.
    arguments
        Arguments behind the key.
    call
        CLOCK_MONOTONIC in ns, read before the request's first byte was sent.
    returned
        The same clock, read after the answer's last byte came; None if it never came: then the
        command may have been executed at any time after `call`, or not at all.
    answer
        Answer as `colobench.lab.clients.resp` reads it; None is Redis's null if `returned` is not
        None.
    """

    client: int
    key: bytes
    command: str
    arguments: tuple[bytes, ...]
    call: int
    returned: int | None
    answer: Scalar


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """A client's connection broke, which COLO's clients must never see.

    Attributes
    ----------
    client
        Number of the client.
    at
        CLOCK_MONOTONIC in ns.
    reason
        Description of the cause.
    """

    client: int
    at: int
    reason: str


def operations_of(
    client: int, request: Sequence[bytes], call: int, returned: int | None, answer: Reply
) -> list[Operation]:
    """Split a request into operations of one key each.

    Linearizability is a property of each object alone (Herlihy and Wing 1990), and a store of keys
    is that many objects as long as no command concerns two of them (P-compositionality: Horn and
    Kroening 2015, arXiv:1504.00204). ``MSET`` and ``MGET`` do. Each is checked for every key by
    itself, between the same call and return; its atomicity is not checked.

    Parameters
    ----------
    client, call, returned
        As in `Operation`.
    request
        The command and its arguments.
    answer
        The whole answer.

    Raises
    ------
    LocalError
        If the request cannot be split, such as ``DEL`` of two keys, whose answer is a sum.
    """
    name, *arguments = request
    command = name.decode("latin-1").upper()
    of_keys: dict[bytes, tuple[tuple[bytes, ...], Reply]] = {}
    if command == "MSET" and arguments and len(arguments) % 2 == 0:
        for key, value in zip(arguments[::2], arguments[1::2], strict=True):
            of_keys[key] = (value,), answer
    elif command == "MGET" and arguments:
        answers = answer if isinstance(answer, list) else [answer] * len(arguments)
        if len(answers) != len(arguments):
            raise LocalError(f"MGET: expected {len(arguments)} answers, found {len(answers)}")
        of_keys = {key: ((), value) for key, value in zip(arguments, answers, strict=True)}
    elif name.upper() in SINGLE and arguments:
        if command in ("DEL", "EXISTS") and len(arguments) > 1:
            raise LocalError(f"{command}: expected one key, found {len(arguments)}")
        of_keys[arguments[0]] = tuple(arguments[1:]), answer
    else:
        raise LocalError(f"request: expected one that can be checked, found {_shown(request)}")
    operations = []
    for key, (rest, part) in of_keys.items():
        if isinstance(part, list):
            raise LocalError(f"{command}: expected no array in its answer, found one")
        operations.append(Operation(client, key, command, rest, call, returned, part))
    return operations


def _shown(request: Iterable[bytes]) -> str:
    return " ".join(each.decode("latin-1") for each in request)[:80]


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without answers.

    Attributes
    ----------
    start, end
        CLOCK_MONOTONIC in ns: the answers before and after it.
    """

    start: int
    end: int

    @property
    def milliseconds(self) -> float:
        """Length in milliseconds."""
        return (self.end - self.start) / 1e6


@dataclass(frozen=True, slots=True)
class Silence:
    """Effect of a kill on the clients.

    Attributes
    ----------
    late
        Number of answers that came after the kill, but before the silence, having been in flight.
    gap
        The longest time without an answer to any client that ended after the kill.
    first_ms
        Milliseconds from the kill to the first answer to any client after the silence.
    every_ms
        Milliseconds from the kill until every client that still waited or asked had an answer; None
        if one never had.
    """

    late: int
    gap: Gap
    first_ms: float
    every_ms: float | None


@dataclass(slots=True)
class History:
    """All operations of a run, in no particular order.

    Attributes
    ----------
    operations
        Requests and answers, one key each. None of the keys was in the store before.
    lost
        Connections that broke.
    """

    operations: list[Operation] = field(default_factory=list)
    lost: list[ConnectionLost] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<history of {len(self.operations)} operations, {len(self.lost)} lost connections>"

    @property
    def start(self) -> int:
        """Time of the first call, in ns; 0 if there is none."""
        return min((each.call for each in self.operations), default=0)

    @property
    def unanswered(self) -> list[Operation]:
        """The operations that never had an answer."""
        return [each for each in self.operations if each.returned is None]

    @property
    def keys(self) -> list[bytes]:
        """All keys that were asked about, sorted."""
        return sorted({each.key for each in self.operations})

    def by_key(self) -> dict[bytes, list[Operation]]:
        """Give the operations of each key by itself, ordered by their calls."""
        found: dict[bytes, list[Operation]] = {}
        for operation in sorted(self.operations, key=lambda each: each.call):
            found.setdefault(operation.key, []).append(operation)
        return found

    def latency_ms(self, *percents: float) -> list[float]:
        """Give percentiles of the latency in milliseconds; NaN without answers."""
        found = (
            (each.returned - each.call) / 1e6
            for each in self.operations
            if each.returned is not None
        )
        return percentiles(found, percents, without=math.nan)

    def longest_gap(self, *, client: int | None = None, ending_after: int = 0) -> Gap | None:
        """Find the longest time between an answer and the next.

        Parameters
        ----------
        client
            Number of the client; None for all clients.
        ending_after
            Time in ns after which a gap has to end.

        Returns
        -------
        Gap or None
            None if there are not two answers.
        """
        times = self._returns(client)
        gaps = (Gap(start, end) for start, end in itertools.pairwise(times) if end > ending_after)
        return max(gaps, key=lambda gap: gap.end - gap.start, default=None)

    def silence(self, kill: int) -> Silence | None:
        """Measure the silence that a kill brought.

        Answers that the killed host had sent already still come after the kill, so the first one
        proves nothing. The answer that ends the longest silence does.

        Parameters
        ----------
        kill
            CLOCK_MONOTONIC in ns.

        Returns
        -------
        Silence or None
            None if no answer came after the kill.
        """
        gap = self.longest_gap(ending_after=kill)
        if gap is None:
            return None
        late = sum(kill < each <= gap.start for each in self._returns(None))
        firsts: dict[int, int | None] = {}
        for each in self.operations:
            if each.returned is None:
                firsts.setdefault(each.client, None)
            elif each.returned >= gap.end:
                before = firsts.get(each.client)
                firsts[each.client] = (
                    each.returned if before is None else min(before, each.returned)
                )
        times = list(firsts.values())
        last = None if None in times else max(each for each in times if each is not None)
        return Silence(
            late=late,
            gap=gap,
            first_ms=(gap.end - kill) / 1e6,
            every_ms=None if last is None else (last - kill) / 1e6,
        )

    def _returns(self, client: int | None) -> list[int]:
        return sorted(
            each.returned
            for each in self.operations
            if each.returned is not None and client in (None, each.client)
        )

    def save(self, path: Path | str) -> None:
        """Write the history as JSON lines, one for each operation and lost connection."""
        lines = io.StringIO()
        self.write(lines)
        write_output_file(path, lines.getvalue())

    def write(self, file: TextIO) -> None:
        """Write the history, as `save` does, to an open file."""
        for operation in self.operations:
            file.write(json.dumps(_row(operation)) + "\n")
        for lost in self.lost:
            row = {"client": lost.client, "lost": lost.reason, "at": lost.at}
            file.write(json.dumps(row) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> History:
        """Read a file of `save`.

        Raises
        ------
        LocalError
            If a line is none of a history.
        """
        with open(path, encoding="ascii") as file:
            return cls.read(file)

    @classmethod
    def read(cls, lines: Iterable[str]) -> History:
        """Read a history out of its lines, as `load` does."""
        history = cls()
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if "lost" in row:
                    lost = ConnectionLost(int(row["client"]), int(row["at"]), str(row["lost"]))
                    history.lost.append(lost)
                else:
                    history.operations.append(_operation(row))
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                ArithmeticError,
                RecursionError,
            ) as error:
                raise LocalError(
                    f"history, line {number}: expected an operation or a lost connection, "
                    f"found {line[:80]!r}"
                ) from error
        return history


def _row(operation: Operation) -> dict[str, Any]:
    return {
        "client": operation.client,
        "key": operation.key.decode("latin-1"),
        "command": operation.command,
        "arguments": [each.decode("latin-1") for each in operation.arguments],
        "call": operation.call,
        "return": operation.returned,
        "answer": _written(operation.answer),
    }


def _operation(row: dict[str, Any]) -> Operation:
    returned = row["return"]
    return Operation(
        client=int(row["client"]),
        key=row["key"].encode("latin-1"),
        command=row["command"],
        arguments=tuple(each.encode("latin-1") for each in row["arguments"]),
        call=int(row["call"]),
        returned=None if returned is None else int(returned),
        answer=_read(row["answer"]),
    )


def _written(answer: Scalar) -> str | None:
    """Write an answer as text: its kind in RESP, then the rest; a byte is a character."""
    match answer:
        case None:
            return None
        case str():
            return "+" + answer
        case bytes():
            return "$" + answer.decode("latin-1")
        case int():
            return f":{answer}"
        case ErrorReply(message):
            return "-" + message


def _read(text: str | None) -> Scalar:
    if text is None:
        return None
    rest = text[1:]
    match text[:1]:
        case "+":
            return rest
        case "$":
            return rest.encode("latin-1")
        case ":":
            return int(rest)
        case "-":
            return ErrorReply(rest)
    raise ValueError(text)
