"""Diagnosis of operations that no order explains, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from colobench.lab.checker.store_model import (
    ARITHMETIC,
    State,
    Unknown,
    adds,
    changes_nothing,
    literal_product,
    parse_integer,
)
from colobench.lab.clients.history import Operation
from colobench.lab.clients.resp import ErrorReply, Scalar

#: Bytes above which only the ends of a value are shown.
SHOWN_BYTES = 32

Finding = tuple[str, str]


def show_value(value: bytes) -> str:
    """Write a value, a long one by its ends."""
    text = value.decode("latin-1")
    text = "".join(each if each.isprintable() else "·" for each in text)
    if len(text) > SHOWN_BYTES:
        half = SHOWN_BYTES // 2 - 1
        text = f"{text[:half]}…{text[-half:]}"
    return text or "''"


def show(operation: Operation) -> str:
    """Write a command with its key and arguments."""
    parts = [operation.key, *operation.arguments]
    return " ".join([operation.command, *map(show_value, parts)])


def show_answer(operation: Operation) -> str:
    """Write an answer; a question mark if there is none."""
    answer = operation.answer
    if operation.returned is None:
        return "?"
    match answer:
        case None:
            return "nil"
        case bytes():
            return show_value(answer)
        case ErrorReply(message):
            return f"({message})"
    return str(answer)


def diagnose(operations: Sequence[Operation], every: Sequence[Operation], zero: int) -> Finding:
    """Find the kind of a contradiction, and describe it.

    Parameters
    ----------
    operations
        A counter-example.
    every
        All operations of the key, among them those that saw other values.
    zero
        The history's start in ns.

    Returns
    -------
    tuple
        Kind, as in `Counterexample`, and a sentence.
    """
    last = max(operations, key=lambda each: each.returned or -1)
    case = _Case(last, operations, every, zero)
    finding = None
    if last.command in ("GET", "MGET") and isinstance(last.answer, bytes):
        finding = case.log() or case.unwritten() or case.amounts() or case.replaced(last.answer)
    elif last.answer and _count(last) is not None:
        finding = case.amounts()
    elif changes_nothing(last) or last.command == "DEL":
        finding = case.replaced(None) if last.answer in (None, 0) else None
    return finding or case.anything()


@dataclass(frozen=True, slots=True)
class _Case:
    """A counter-example and the operation whose answer completes it."""

    last: Operation
    operations: Sequence[Operation]
    every: Sequence[Operation]
    zero: int

    def _at(self, time: int | None) -> str:
        return "never" if time is None else f"at {(time - self.zero) / 1e9:.6f} s"

    def _said(self, operation: Operation) -> str:
        """Name an operation with its answer."""
        return (
            f"client {operation.client}'s {show(operation)} was answered "
            f"{show_answer(operation)} {self._at(operation.returned)}"
        )

    def _before(self) -> list[Operation]:
        """Give the operations of the counter-example that were over before the last one began."""
        return _over(self.operations, self.last)

    def log(self) -> Finding | None:
        """Compare a value with what was appended."""
        value = self.last.answer
        appends = [each for each in self.every if each.command == "APPEND"]
        if not appends or not isinstance(value, bytes):
            return None
        tokens = [each.arguments[0] for each in appends]
        for each in appends:
            token = each.arguments[0]
            if token and value.count(token) > tokens.count(token):
                return "executed twice", (
                    f"client {each.client}'s {show(each)} was sent once, and is "
                    f"{value.count(token)} times in what client {self.last.client} read "
                    f"{self._at(self.last.returned)}"
                )
        for each in reversed(appends):
            over = each.returned is not None and each.returned < self.last.call
            if over and each.arguments[0] not in value and not self._was_reset():
                return "lost write", (
                    f"{self._said(each)}, and is not in what client {self.last.client} read "
                    f"{self._at(self.last.returned)}"
                )
        for each in reversed(self._before()):
            read = each.answer
            if each.command not in ("GET", "MGET") or not isinstance(read, bytes):
                continue
            if not value.startswith(read):
                return "reordered", (
                    f"client {each.client} read {show_value(read)} "
                    f"{self._at(each.returned)}, and client {self.last.client} then read "
                    f"{show_value(value)} {self._at(self.last.returned)}, which does not "
                    f"begin with it"
                )
        return None

    def _was_reset(self) -> bool:
        return any(not isinstance(literal_product(each), Unknown) for each in self.every)

    def unwritten(self) -> Finding | None:
        """Look for who wrote the value that was read."""
        value = self.last.answer
        assert isinstance(value, bytes)
        writes = [each for each in self.every if not changes_nothing(each)]
        if any(isinstance(literal_product(each), Unknown) for each in writes):
            return None
        writers = [each for each in writes if literal_product(each) == value]
        read = (
            f"client {self.last.client} read {show_value(self.last.key)} = {show_value(value)} "
            f"{self._at(self.last.returned)}"
        )
        if not writers:
            return "value never written", f"{read}, which nobody wrote"
        first = min(writers, key=lambda each: each.call)
        if first.call > (self.last.returned or 0):
            return "value never written", (
                f"{read}, before client {first.client} sent {show(first)} {self._at(first.call)}"
            )
        return None

    def replaced(self, value: bytes | None) -> Finding | None:
        """Find what was done, or seen, before a read that does not show it."""
        for each in reversed(self._before()):
            left = _left(each)
            if isinstance(left, Unknown) or left == value:
                continue
            seen = changes_nothing(each) or any(
                _shows(other, left) for other in self.every if other is not each
            )
            found = "nothing" if value is None else show_value(value)
            text = (
                f"client {self.last.client}'s {show(self.last)} found {found} "
                f"{self._at(self.last.returned)}, after {self._said(each)}"
            )
            if seen:
                return "stale read", text
            return "lost write", f"{text}; nobody ever saw that it was done"
        return None

    def amounts(self) -> Finding | None:
        """Compare a count with what was added to it: a number, or the length of a log."""
        return (
            self._amounts(self.every) or self._amounts(self.operations) or self._added_to_the_same()
        )

    def _added_to_the_same(self) -> Finding | None:
        found: dict[int, Operation] = {}
        for each in self.operations:
            count, added = _count(each), adds(each)
            if count is None or not added:
                continue
            other = found.setdefault(count - added, each)
            if other is not each:
                return "lost write", (
                    f"{self._said(each)}, and {self._said(other)}: both were added to "
                    f"{count - added}, so one is lost"
                )
        return None

    def _amounts(self, operations: Sequence[Operation]) -> Finding | None:
        last, count = self.last, _count(self.last)
        counted = [each for each in _over(operations, last) if _count(each) is not None]
        before = counted[-1] if counted else None
        adding = [
            each
            for each in operations
            if adds(each)
            and each not in (last, before)
            and each.call <= (last.returned or 0)
            and (before is None or each.returned is None or each.returned > before.call)
        ]
        if count is None or self._was_reset() or not any(map(adds, self.operations)):
            return None
        if before is None and operations is not self.every:
            return None
        base = 0 if before is None else _count(before) or 0
        amounts = [
            adds(each) or 0
            for each in adding
            if (found := _count(each)) is None or base < found < count
        ]
        own = adds(last) or 0
        most = base + own + sum(each for each in amounts if each > 0)
        least = base + own + sum(min(adds(each) or 0, 0) for each in adding)
        since = "" if before is None else f", after {self._said(before)}"
        if count > most:
            return "executed twice", (
                f"{self._said(last)}{since}: {count - most} more than what was sent adds up to"
            )
        if count < least:
            return "lost write", (
                f"{self._said(last)}{since}: {least - count} less than what was answered adds up to"
            )
        return None

    def anything(self) -> Finding:
        """Say that there is no order."""
        return "no order", (
            f"no order of these {len(self.operations)} operations explains that "
            f"{self._said(self.last)}"
        )


def _over(operations: Sequence[Operation], other: Operation) -> list[Operation]:
    """Give the operations that were over before another began, by their ends."""
    found = [
        each for each in operations if each.returned is not None and each.returned < other.call
    ]
    return sorted(found, key=lambda each: each.returned or 0)


def _left(operation: Operation) -> State:
    """Give the value that an answered operation left or saw; `Unknown` if it does not tell."""
    if operation.command in ("GET", "MGET"):
        answer = operation.answer
        return answer if answer is None or isinstance(answer, bytes) else Unknown()
    if operation.command in ARITHMETIC and type(operation.answer) is int:
        return b"%d" % operation.answer
    if changes_nothing(operation):
        return Unknown()
    return literal_product(operation)


def _shows(operation: Operation, value: bytes | None) -> bool:
    """Say whether an operation's answer shows a value, or for a number one that came after it."""
    if value is None:
        return operation.answer is None or operation.answer == 0
    answer: Scalar = operation.answer
    if answer == value:
        return True
    number = parse_integer(value)
    shown = parse_integer(answer) if isinstance(answer, bytes) else answer
    counts = operation.command in ARITHMETIC or operation.command == "GET"
    return counts and number is not None and isinstance(shown, int) and shown > number


def _count(operation: Operation) -> int | None:
    """Give the count that an answered operation leaves, if it tells."""
    answer = operation.answer
    if isinstance(answer, int) and (adds(operation) is not None or operation.command == "STRLEN"):
        return answer
    if operation.command in ("GET", "MGET") and isinstance(answer, bytes):
        number = parse_integer(answer)
        return len(answer) if number is None else number
    return None
