"""The fewest operations of a key that no order explains, as a drawing and in a sentence.

Shortest is meant step by step, each of which keeps what is left impossible to explain and makes
nothing impossible that was not (a history with an order still has one after each):

1. *The end.* The history is cut at the first answer that, with those before it, has no order: a
   beginning of a linearizable history is linearizable. What had no answer by then may have been
   executed or not.
2. *The start.* As many operations as can be are left out that were over before all others began.
   The value that they left is taken as unknown: any will do. What was going on at the cut may have
   been executed after it or not.
3. *Each operation* that can be missed is left out, by delta debugging (Zeller and Hildebrandt, IEEE
   Trans. Software Eng. 28(2), 2002) until no single one can be. A read can always be left out. A
   write can if no operation that stays could have met its value, `may_leave_out`; answered INCR
   and APPEND stay, because a count says little without the one before it.

So the result is the shortest of those that leave out single operations, not the smallest of all.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from colobench.lab.checker.diagnosis import diagnose, show, show_answer
from colobench.lab.checker.linearizability import USUAL_EFFORT, Effort, Search, Undecided
from colobench.lab.checker.store_model import (
    LITERAL,
    REFUSED,
    State,
    Unknown,
    adds,
    changes_nothing,
    follow,
    product,
)
from colobench.lab.clients.history import Operation

#: Limit of the operations in a drawing.
DRAWN = 12
#: Windows that are tried first: numbers of answers, numbers of those after the point where the
#: the search is stuck, and the configurations that each may take.
WINDOW_ANSWERS = (8, 64, 512)
WINDOW_AHEAD = (0, 2, 8, 32)
WINDOW_CONFIGURATIONS = 50_000

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Operations of one key that no order explains.

    Attributes
    ----------
    key
        The key.
    operations
        Ordered by call. One without a return was not answered, or not within the time looked at,
        or began before it: whether it was executed is left open, with the answer if it is known.
    start
        The key's value before them: None if the key was not there, `Unknown` if operations before
        them were left out.
    kind
        ``stale read``, ``lost write``, ``value never written``, ``executed twice``, ``reordered``
        or ``no order``.
    sentence
        Description of the contradiction.
    zero
        Start of the history in ns; times are relative to it.
    """

    key: bytes
    operations: tuple[Operation, ...]
    start: State
    kind: str
    sentence: str
    zero: int

    def rows(self) -> list[dict[str, object]]:
        """Give a table's rows: client, operation, answer, and seconds of call and answer."""
        return [
            {
                "client": each.client,
                "operation": show(each),
                "answer": show_answer(each),
                "called_s": (each.call - self.zero) / 1e9,
                "answered_s": None if each.returned is None else (each.returned - self.zero) / 1e9,
            }
            for each in self.operations
        ]

    def diagram(self) -> str:
        """Draw time lines of the clients, without a scale; of many operations the last few."""
        drawing = _draw(self.operations[-DRAWN:])
        more = len(self.operations) - DRAWN
        return f"… {more} operations before\n{drawing}" if more > 0 else drawing

    def __str__(self) -> str:
        start = (
            "the value before is not known: operations before these are left out"
            if isinstance(self.start, Unknown)
            else "the key is not there before"
        )
        return f"{self.kind}: {self.sentence}\n({start})\n{self.diagram()}"


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a history that has no order by itself.

    Attributes
    ----------
    start
        Time (ns) after which its operations began, with an unknown value before; None if it begins
        with the history.
    end
        Time (ns) at which it ends: answers after it are unknown.
    """

    start: int | None
    end: int

    def of(self, operations: Sequence[Operation]) -> list[Operation]:
        """Give its operations."""
        left = until(operations, self.end)
        return left if self.start is None else since(left, self.start)

    def is_impossible(self, operations: Sequence[Operation], effort: Effort) -> bool:
        """Say whether it has no order; False if that takes more than `effort`."""
        start = None if self.start is None else Unknown()
        return _is_impossible(self.of(operations), start, effort)


def _is_impossible(operations: Sequence[Operation], start: State, effort: Effort) -> bool:
    try:
        return not Search(operations, start=start, effort=effort).run()
    except Undecided:
        return False


def find_window(
    operations: Sequence[Operation], blocked_at: int, effort: Effort = USUAL_EFFORT
) -> Window | None:
    """Look for a short window without an order, around the point where a search is stuck.

    A failing search tries everything before that point; that of a window is over at once.

    Parameters
    ----------
    operations
        Operations of one key, as `linearizability.relevant` gives them.
    blocked_at
        Attribute of a search of all of them, finished or not.
    effort
        Limits of all searches together.

    Returns
    -------
    Window or None
        None if none was found; there may be one nevertheless.
    """
    configurations = min(effort.configurations, WINDOW_CONFIGURATIONS)
    effort = replace(effort.begun(), configurations=configurations)
    returns = _returns(operations)
    first = bisect.bisect_left(returns, blocked_at)
    for size in WINDOW_ANSWERS:
        for ahead in WINDOW_AHEAD:
            end = min(first + ahead, len(returns) - 1)
            window = Window(returns[end - size] if end >= size else None, returns[end])
            if window.is_impossible(operations, effort):
                return window
    return None


def find_counterexample(
    operations: Sequence[Operation],
    *,
    blocked_at: int,
    zero: int = 0,
    effort: Effort = USUAL_EFFORT,
) -> Counterexample:
    """Shrink a key's operations that have no order.

    Parameters
    ----------
    operations
        Those that `linearizability.relevant` gives.
    blocked_at
        Attribute of a search of all of them, finished or not.
    zero
        The history's start in ns.
    effort
        Limits of all searches together. Where they are too tight, operations that could have been
        left out stays.
    """
    effort = effort.begun()
    found = find_window(operations, blocked_at, effort) or Window(None, max(_returns(operations)))
    found = _cut_end(operations, found, blocked_at, effort)
    found = _cut_start(operations, found, effort)
    start = None if found.start is None else Unknown()
    left = _leave_out(found.of(operations), lambda some: _is_impossible(some, start, effort))
    kind, sentence = diagnose(left, operations, zero)
    return Counterexample(operations[0].key, tuple(left), start, kind, sentence, zero)


def _optional(operation: Operation) -> Operation:
    """Leave open whether an operation was executed; its answer is kept in case it was."""
    return replace(operation, returned=None)


def until(operations: Iterable[Operation], end: int) -> list[Operation]:
    """Give a history's beginning as it is known right after an answer at `end`, in ns."""
    found = []
    for each in operations:
        if each.call <= end:
            if each.returned is not None and each.returned <= end:
                found.append(each)
            elif not changes_nothing(each):
                found.append(_optional(each))
    return found


def since(operations: Iterable[Operation], start: int) -> list[Operation]:
    """Give the operations that began after `start`, in ns, with an unknown value before them.

    Those that were going on then may have been done before, or not.
    """
    found = []
    for each in operations:
        if each.call > start:
            found.append(each)
        elif (each.returned is None or each.returned > start) and not changes_nothing(each):
            found.append(_optional(each))
    return found


def _returns(operations: Iterable[Operation]) -> list[int]:
    return sorted({each.returned for each in operations if each.returned is not None})


def _cut_end(
    operations: Sequence[Operation], window: Window, blocked_at: int, effort: Effort
) -> Window:
    """Find the first answer that no order explains; all before `blocked_at` have one."""

    def until_end(end: int) -> Window:
        return replace(window, end=end)

    ends = [end for end in _returns(operations) if blocked_at <= end <= window.end]
    return until_end(_first(ends, lambda end: until_end(end).is_impossible(operations, effort)))


def _cut_start(operations: Sequence[Operation], window: Window, effort: Effort) -> Window:
    """Leave out as many operations at the start as possible; none if their effect matters."""

    def from_start(start: int | None) -> Window:
        return replace(window, start=start)

    known = -1 if window.start is None else window.start
    starts: list[int | None] = [each for each in _returns(operations) if known < each < window.end]
    starts = [window.start, *starts]
    starts.reverse()
    return from_start(
        _first(starts, lambda start: from_start(start).is_impossible(operations, effort))
    )


def _first(values: Sequence[_Value], fits: Callable[[_Value], bool]) -> _Value:
    """Find the first value that fits, if all after it fit, and the last does; try early ones first.

    Early cuts are cheap, so steps grow from one to the next.
    """
    low, high, step = 0, 0, 1
    while high < len(values) - 1 and not fits(values[high]):
        low, high, step = high + 1, min(high + step, len(values) - 1), step * 2
    while low < high:
        middle = (low + high) // 2
        if fits(values[middle]):
            high = middle
        else:
            low = middle + 1
    return values[high]


def _leave_out(
    operations: list[Operation], impossible: Callable[[Sequence[Operation]], bool]
) -> list[Operation]:
    """Leave out operations until each single one is needed."""
    left = sorted(operations, key=lambda each: each.call)
    size = max(1, len(left) // 2)
    while True:
        at, changed = 0, False
        while at < len(left):
            kept, dropped = left[:at] + left[at + size :], left[at : at + size]
            if kept and _may_miss(kept, dropped) and impossible(kept):
                left, changed = kept, True
            else:
                at += size
        if size == 1 and not changed:
            return left
        size = max(1, size // 2)


def _may_miss(kept: Sequence[Operation], dropped: Sequence[Operation]) -> bool:
    """Say whether operations may be left out without making another answer inexplicable.

    INCR and APPEND that were answered stay: a count that is too high says little without the one
    before it.
    """
    counted = any(each.returned is not None and adds(each) for each in dropped)
    return not counted and may_leave_out(kept, dropped)


def may_leave_out(kept: Sequence[Operation], dropped: Sequence[Operation]) -> bool:
    """Say whether a history that has an order still has one without some of its operations.

    In an order of all of them, take `dropped` away. A kept operation then meets what another
    operation left than before only if it met one of `dropped`. That is possible only if its answer
    fits that value, and if none is kept that by its times lies between the two and writes.

    Parameters
    ----------
    kept, dropped
        Operations of one key.
    """
    writes = [each for each in dropped if not changes_nothing(each)]
    return not any(
        _could_meet(reader, write, covered)
        for reader in kept
        if writes and _cares(reader)
        for covered in [_covered_until(reader, kept)]
        for write in writes
    )


def _cares(operation: Operation) -> bool:
    """Say whether an operation's answer or effect depends on the value before it."""
    if operation.command in ("SET", "MSET"):
        return len(operation.arguments) > 1
    return operation.command != "DEL" or operation.answer is not None


def _covered_until(reader: Operation, kept: Sequence[Operation]) -> int:
    """Give the time, in ns, before which writes are certainly replaced when `reader` begins."""
    return max((each.call for each in kept if _over(each, reader) and _writes(each)), default=-1)


def _over(one: Operation, other: Operation) -> bool:
    return one.returned is not None and one.returned < other.call


def _writes(operation: Operation) -> bool:
    """Say whether an answered operation certainly wrote, be it the value that was there."""
    if changes_nothing(operation):
        return False
    # An empty APPEND and INCRBY 0 pass on the value that they meet.
    return operation.command in LITERAL or bool(adds(operation))


def _could_meet(reader: Operation, write: Operation, covered: int) -> bool:
    if reader.returned is not None and write.call > reader.returned:
        return False
    if write.returned is not None and write.returned < covered:
        return False
    if reader.returned is None and reader.answer is None:
        return True
    return follow(reader, product(write)) is not REFUSED


def _draw(operations: Sequence[Operation]) -> str:
    """Draw time lines: one for each client, or more if its operations overlap."""
    events = sorted({each.call for each in operations} | set(_returns(operations)))
    labels = [_label(each) for each in operations]
    columns = _columns(events, operations, labels)
    width = max(
        (columns[each.call] + len(label) for each, label in zip(operations, labels, strict=True)),
        default=0,
    )
    width = max(width, *columns.values()) if columns else width
    lanes: dict[tuple[int, int], str] = {}
    for each, label in zip(operations, labels, strict=True):
        start = columns[each.call]
        end = width if each.returned is None else columns[each.returned]
        tail = "··>" if each.returned is None else "|"
        bar = "|" + label.center(end - start - len(tail), "·" if tail != "|" else "-") + tail
        lane = 0
        while len(lanes.get((each.client, lane), "")) > start:
            lane += 1
        lanes[each.client, lane] = lanes.get((each.client, lane), "").ljust(start) + bar
    names = {lane: f"client {lane[0]}" if lane[1] == 0 else "" for lane in lanes}
    margin = max((len(name) for name in names.values()), default=0) + 2
    return "\n".join(names[lane].ljust(margin) + lanes[lane] for lane in sorted(lanes))


def _label(operation: Operation) -> str:
    return f" {show(operation)} → {show_answer(operation)} "


def _columns(
    events: list[int], operations: Sequence[Operation], labels: Sequence[str]
) -> dict[int, int]:
    """Place each time far enough to the right for all labels to fit between their ends."""
    columns: dict[int, int] = {}
    at = 0
    for event in events:
        for each, label in zip(operations, labels, strict=True):
            if each.returned == event:
                at = max(at, columns.get(each.call, at) + len(label) + 3)
        columns[event] = at
        at += 2
    return columns
