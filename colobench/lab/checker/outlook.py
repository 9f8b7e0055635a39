"""Later answers of a key, seen from a value that the search for an order has reached.

Two values that no later answer tells apart are one, and a value from which no later answer can come
is a dead end. Both are about APPEND, whose values only grow: without this, unanswered APPENDs are
tried in all orders of all their subsets.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable

from colobench.lab.checker.store_model import ARITHMETIC, State, Unknown, changes_nothing, required
from colobench.lab.clients.history import Operation


class Outlook:
    """The answers of one key's operations, for looking ahead.

    Parameters
    ----------
    operations
        All operations of the key, answered or not.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        every = list(operations)
        counts = any(each.command in ARITHMETIC for each in every)
        reads = {
            each.answer
            for each in every
            if each.command in ("GET", "MGET") and isinstance(each.answer, bytes)
        }
        self._reads = sorted(reads)
        first_bytes = {each[0] for each in reads if each}
        unused = next((byte for byte in range(256) if byte not in first_bytes), None)
        # A number has to stay a number for all of its readers.
        self._filler = None if counts or unused is None else bytes([unused])

    def seen(self, state: State) -> State:
        """Give a value's stand-in, which is the same for all that no answer tells apart.

        A value that is not the beginning of anything that was read is known by its length alone.
        """
        if self._filler is None or not isinstance(state, bytes) or self._begins_a_read(state):
            return state
        return self._filler * len(state)

    def _begins_a_read(self, value: bytes) -> bool:
        at = bisect.bisect_left(self._reads, value)
        return at < len(self._reads) and self._reads[at].startswith(value)

    def arguments(self, operation: Operation) -> tuple[bytes, ...]:
        """Give arguments which are the same for all operations that no answer tells apart."""
        if self._filler is None or not operation.arguments:
            return operation.arguments
        value, *options = operation.arguments
        if operation.command in ("SET", "MSET"):
            seen = self.seen(value)
            assert isinstance(seen, bytes)
            return (seen, *options)
        if operation.command == "APPEND" and not any(value in read for read in self._longest()):
            return (self._filler * len(value),)
        return operation.arguments

    def _longest(self) -> Iterable[bytes]:
        """Give what was read, without the beginnings of what was read, too."""
        for read, following in itertools.pairwise(self._reads):
            if not following.startswith(read):
                yield read
        yield from self._reads[-1:]


def may_come(operation: Operation, state: State) -> bool:
    """Say whether a value may come to explain an answer while nothing but APPEND changes it."""
    if isinstance(state, Unknown):
        return True
    needed, answer = required(operation), operation.answer
    if needed is None:
        return state is None
    if isinstance(needed, bytes):
        return state is None or needed.startswith(state)
    length = len(state or b"")
    if operation.command == "APPEND":
        return isinstance(answer, int) and length + len(operation.arguments[0]) <= answer
    if operation.command == "STRLEN":
        return isinstance(answer, int) and length <= answer
    return True


def does_not_reset(operation: Operation) -> bool:
    """Say whether a value stays as it is, or becomes one that begins with it."""
    return operation.command == "APPEND" or changes_nothing(operation) or _is_nx(operation)


def blocks_are_appends(optional: Iterable[Operation]) -> bool:
    """Say whether those of some unanswered operations that keep a part of the value are APPENDs."""
    return all(
        each.command not in ARITHMETIC and (len(each.arguments) < 2 or _is_nx(each))
        for each in optional
    )


def _is_nx(operation: Operation) -> bool:
    """Say whether an operation is SET NX, which replaces no value."""
    options = operation.arguments[1:]
    return operation.command == "SET" and [each.upper() for each in options] == [b"NX"]
