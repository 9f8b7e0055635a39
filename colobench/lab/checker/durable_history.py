"""Check of a store that was started on the disk that was left when all hosts had died.

The clients' history ends with the store; its log on the disk, and the keys with which another guest
starts from there, must be explained by it. With ``appendfsync always`` every answered write is
there. Else a write may be lost, but then each that was begun after its answer is lost, too: the log
has the first writes, up to one of them. With ``everysec`` those are there that were answered a
second before the end, and the time that a write and a flush take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from colobench.lab.checker.append_only_log import replay, since_emptied
from colobench.lab.checker.linearizability import USUAL_EFFORT, Effort
from colobench.lab.checker.verdict import Verdict, check_linearizability
from colobench.lab.clients.history import History, Operation, operations_of
from colobench.lab.clients.resp import ErrorReply

#: Commands of which each has a first argument that no other has.
UNIQUE = frozenset(("SET", "MSET", "APPEND"))
#: Period of the flush of ``everysec``; time that a write and its flush may take, as in Redis, which
#: lets no more than two seconds pass.
PERIOD_NS = FLUSH_NS = 1_000_000_000
_SHOWN = 3
#: Later than any answer: one may have been on its way to a client at the end.
_NEVER = 2**63


@dataclass(frozen=True, slots=True)
class DurableVerdict:
    """Result of `check_durable`.

    Attributes
    ----------
    commands
        Number of commands in the log.
    lost
        Number of answered writes that are not in the log.
    lost_ms
        Milliseconds before the end at which the first of them was answered; 0 without one.
    linearizable
        Whether one order of all requests explains all answers, and the keys that are there
        afterwards; None if the search gave up.
    violations
        Sentences about violations.
    operations
        Number of operations that were looked at.
    undecided
        A sentence about the search for each key that the checker gave up.
    """

    commands: int
    lost: int
    lost_ms: float
    linearizable: bool | None
    violations: tuple[str, ...]
    operations: int
    undecided: tuple[str, ...]


def check_durable(
    history: History,
    finals: Sequence[Operation],
    commands: list[list[bytes]],
    policy: str,
    end_ns: int,
    *,
    effort: Effort = USUAL_EFFORT,
) -> DurableVerdict:
    """Check what is left of a store against the history of its clients.

    Parameters
    ----------
    history
        History until the end, of clients whose values are unique (`closed_loop.requests`).
    finals
        Reads of all keys of the history, answered by the guest that has started on the disk.
    commands
        Commands of the log on the disk, as `read_commands` gives them.
    policy
        Value of ``appendfsync``.
    end_ns
        CLOCK_MONOTONIC in ns, at which the guest died that kept the log.
    effort
        Limits of the search.
    """
    there = {
        mark
        for words in since_emptied(commands)
        for mark in _marks(operations_of(0, words, 0, None, None))
    }
    lost, newest = [], 0
    for operation in history.operations:
        if operation.command not in UNIQUE:
            continue
        if _mark(operation) in there:
            newest = max(newest, operation.call)
        elif _was_done(operation):
            lost.append(operation)
    lost.sort(key=lambda each: each.returned or 0)
    required = _required(policy, history, newest, end_ns)
    violations = [
        f"lost: {_shown(each)}, answered {(end_ns - (each.returned or 0)) / 1e6:.0f} ms before "
        f"the end, with appendfsync {policy}"
        for each in lost
        if (each.returned or 0) < required
    ][:_SHOWN]
    violations += _differences(replay(commands), finals)
    verdicts = [check_linearizability(_after_loss(history, required, finals), effort=effort)]
    if required < _NEVER:
        # What was lost has been answered, too.
        verdicts.append(check_linearizability(history, effort=effort))
    violations += [str(each) for each in verdicts if each.linearizable is False]
    return DurableVerdict(
        commands=len(commands),
        lost=len(lost),
        lost_ms=(end_ns - (lost[0].returned or 0)) / 1e6 if lost else 0.0,
        linearizable=_all(verdicts),
        violations=tuple(violations),
        operations=verdicts[0].operations,
        undecided=tuple(str(each) for verdict in verdicts for each in verdict.undecided),
    )


def _all(verdicts: Iterable[Verdict]) -> bool | None:
    found = {each.linearizable for each in verdicts}
    return False if False in found else None if None in found else True


def _required(policy: str, history: History, newest: int, end_ns: int) -> int:
    """Return the time in ns before which every answered write must be there.

    Parameters
    ----------
    policy, history, end_ns
        As in `check_durable`.
    newest
        Time at which the last write began that is there.
    """
    if policy == "always":
        return _NEVER
    if policy == "no":
        return newest
    waits = max(min(each.returned or end_ns, end_ns) - each.call for each in history.operations)
    return max(newest, end_ns - PERIOD_NS - FLUSH_NS - waits)


def _after_loss(history: History, required: int, finals: Sequence[Operation]) -> History:
    """Give the history with the last answers taken back: their effects may be there, or not."""
    found = [
        replace(each, returned=None, answer=None)
        if each.returned is not None and each.returned >= required
        else each
        for each in history.operations
    ]
    return History(operations=[*found, *finals])


def _differences(logged: Mapping[bytes, bytes], finals: Sequence[Operation]) -> list[str]:
    """Compare what the log gives with what the guest answers that has started from it."""
    wrong = [each.key for each in finals if logged.get(each.key) != each.answer]
    if not wrong:
        return []
    first = wrong[0].decode("latin-1")
    return [f"the started guest has {len(wrong)} keys other than the log says, first {first}"]


def _was_done(operation: Operation) -> bool:
    answer = operation.answer
    return operation.returned is not None and not (answer is None or isinstance(answer, ErrorReply))


def _mark(operation: Operation) -> tuple[bytes, bytes]:
    return operation.key, operation.arguments[0]


def _marks(operations: Iterable[Operation]) -> list[tuple[bytes, bytes]]:
    return [_mark(each) for each in operations if each.command in UNIQUE]


def _shown(operation: Operation) -> str:
    words = [operation.command, operation.key.decode("latin-1")]
    return " ".join([*words, operation.arguments[0].decode("latin-1")])[:60]
