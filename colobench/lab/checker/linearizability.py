"""Search for an order of one key's operations that explains every answer.

The search is Wing and Gong's ("Testing and verifying concurrent objects", J. Parallel Distrib.
Comput. 17, 1993) with Lowe's improvements ("Testing for linearizability", Concurrency Comput.
Pract. Exp. 29(4), 2017): operations in a linked list out of which they are lifted, and a memory of
the configurations, which are the set of operations that are done and the value, where the search
was before. Porcupine and Knossos do the same. A key is searched by itself (Horn and Kroening 2015,
arXiv:1504.00204). Some things are known of a key's values, and save most of the search:

* An operation that can be next and changes no value, such as a read, is next: any order that
  explains the rest still does so with this operation moved to the front.
* A value that an operation still has to find, and that nobody can write again, is not replaced.
* Of all orders there is one with the fewest unanswered operations. In it each unanswered operation
  is done for the sake of the next answered one, which could not have been answered so without it.
* `colobench.lab.checker.outlook` tells which values no later answer tells apart, and which are dead
  ends.

The rest can still take exponential time, so the search is bounded, see `Effort`.
"""

from __future__ import annotations

import bisect
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from colobench.errors import LocalError
from colobench.lab.checker.outlook import Outlook, blocks_are_appends, does_not_reset, may_come
from colobench.lab.checker.store_model import (
    ARITHMETIC,
    LITERAL,
    READS,
    Refused,
    State,
    Unknown,
    adds,
    changes_nothing,
    check_operation,
    follow,
    increment,
    is_out_of_memory,
    literal_product,
    outcome,
    required,
)
from colobench.lab.clients.history import Operation
from colobench.lab.clients.resp import Scalar

_NEVER = 2**63
#: Answers that are looked ahead at, and configurations between two looks at the clock.
_AHEAD = 8
_CLOCK_EVERY = 64
#: Bytes that a configuration takes beside its bits and its value: a tuple, integers, its place.
_CONFIGURATION_BYTES = 300
#: A step's index and the state after it. Steps that were not answered count from -1 downwards.
_Choice = tuple[int, State]
#: Operations done, the state, whether an unanswered operation was last, and the state before it.
_Before = tuple[int, State, bool, State]


@dataclass(frozen=True, slots=True)
class Effort:
    """Limits of a search.

    Parameters
    ----------
    seconds
        Seconds for all keys of a history together, whose hard ones share them. As many are added
        for the search of the shortest counter-example.
    bytes
        Memory, in bytes, for the configurations of one key; estimated, not measured.
    configurations
        Number of configurations of one key that are remembered.
    deadline
        Monotonic time at which the seconds are over; None before the search has begun.
    """

    seconds: float = 60.0
    bytes: int = 512 * 2**20
    configurations: int = 10_000_000
    deadline: float | None = None

    def __post_init__(self) -> None:
        """Check that all limits are above 0.

        Raises
        ------
        LocalError
            If one is not above 0.
        """
        for name in ("seconds", "bytes", "configurations"):
            if not getattr(self, name) > 0:
                raise LocalError(
                    f"{name} of a search: expected more than 0, found {getattr(self, name)}"
                )

    def begun(self) -> Effort:
        """Give the same limits with a deadline, which is counted from now unless there is one."""
        if self.deadline is not None:
            return self
        return replace(self, deadline=time.monotonic() + self.seconds)

    def share(self, of: int) -> Effort:
        """Give limits with one of `of` equal parts of the time that is left."""
        now = time.monotonic()
        left = max(0.0, (self.deadline or now) - now)
        return replace(self, deadline=now + left / of)


USUAL_EFFORT = Effort()


class Undecided(LocalError):
    """A search that was given up before it found an order, or that there is none.

    Parameters
    ----------
    key
        The key.
    answered, unanswered
        Numbers of its operations.
    tried
        Configurations, memory and time that the search took.
    limit
        Description of the limit of `Effort` that was reached.
    """

    def __init__(
        self, key: bytes, answered: int, unanswered: int, tried: Effort, limit: str
    ) -> None:
        self.key, self.answered, self.unanswered = key, answered, unanswered
        self.tried = tried
        super().__init__(
            f"key {key.decode('latin-1')}: expected an order of its {answered:,} answered and "
            f"{unanswered:,} unanswered operations, or that there is none; found neither with "
            f"{tried.configurations:,} configurations tried in {tried.seconds:.2f} s and "
            f"{tried.bytes / 1e6:,.1f} MB; the limit is {limit}"
        )


def relevant(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Leave out operations without information: unanswered reads, and those refused for memory.

    Raises
    ------
    LocalError
        If there is an operation that the model does not know.
    """
    for operation in operations:
        check_operation(operation)
        unanswered_read = operation.returned is None and operation.command in READS
        if not unanswered_read and not is_out_of_memory(operation):
            yield operation


class Search:
    """Search for an order.

    Parameters
    ----------
    operations
        Operations of one key, as `relevant` gives them.
    start
        The key's value before them.
    effort
        Limits of the search.

    Attributes
    ----------
    blocked_at
        After an unsuccessful search, the time (ns) of the answer that no order gets past. The
        history up to that time has an order.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        *,
        start: State = None,
        effort: Effort = USUAL_EFFORT,
    ) -> None:
        ordered = sorted(operations, key=lambda each: each.call)
        self._steps = [each for each in ordered if each.returned is not None]
        self._optional = [each for each in ordered if each.returned is None]
        self._outlook = Outlook(ordered)
        self._state = self._outlook.seen(start)
        #: The value before the last unanswered operation; only meant right behind one.
        self._state_before = self._state
        self._effort = effort
        self.blocked_at = 0
        count = len(self._steps)
        self._calls = [each.call for each in self._steps]
        self._returns = [each.returned or 0 for each in self._steps]
        # The linked list of steps that are not done; the index behind the last is its root.
        self._after = [*range(1, count + 1), 0]
        self._before = [count, *range(count)]
        # Steps done: all before the first of the list, and those of these bits from there on.
        self._done = 0
        self._optional_done = 0
        #: Whether the last operation that was done is an unanswered one.
        self._in_block = False
        self._twins = _twins(self._optional, self._outlook)
        self._blocks_are_appends = blocks_are_appends(self._optional)
        self._resets = [at for at, each in enumerate(self._steps) if not does_not_reset(each)]
        self._optional_resets = [
            at for at, each in enumerate(self._optional) if not does_not_reset(each)
        ]
        self._telling = [at for at, each in enumerate(self._steps) if _tells(each)]
        self._idle = [_is_idle(each) for each in self._steps]
        self._required = [required(each) for each in self._steps]
        self._needs = Counter(self._required)
        self._sources = Counter(map(literal_product, ordered))
        self._irreplaceable = _values_come_once(ordered)
        self._seen: set[tuple[int, int, int, bool, State]] = set()
        self._seen_bytes = 0

    def run(self) -> bool:
        """Search, and say whether there is an order.

        Raises
        ------
        Undecided
            If it would take more than `effort`.
        """
        self._began, self._effort = time.monotonic(), self._effort.begun()
        root = len(self._steps)
        # For each step that is done: it, what was before it, and what else could be tried there.
        path: list[tuple[int, _Before, list[_Choice]]] = []
        choices = self._choices()
        while self._after[root] != root:
            while choices:
                step, state = choices.pop()
                if self._is_new(step, state):
                    path.append((step, self._before_next(), choices))
                    self._do(step, state)
                    choices = self._choices()
                    break
            else:
                if not path:
                    return False
                step, before, choices = path.pop()
                self._undo(step, before)
        return True

    def _before_next(self) -> _Before:
        return self._done, self._state, self._in_block, self._state_before

    def _choices(self) -> list[_Choice]:
        """Give the steps that can be next, the best last."""
        calls, returns, after, state = self._calls, self._returns, self._after, self._state
        steps, root = self._steps, len(self._steps)
        bound = _NEVER
        found: list[_Choice] = []
        leads_on = not self._in_block
        index = after[root]
        while index != root and calls[index] <= bound:
            new = follow(steps[index], state)
            if not isinstance(new, Refused):
                if new == state and self._idle[index]:
                    return [(index, new)]
                found.append((index, self._outlook.seen(new)))
            leads_on = leads_on or self._is_what_for(steps[index], new)
            if returns[index] < bound:
                bound = returns[index]
            index = after[index]
        self.blocked_at = max(self.blocked_at, bound)
        if self._needs[state] and self._must_stay():
            # One that needs the value itself may replace it, if it is the last that does.
            alone = self._needs[state] == 1
            return [each for each in found if alone and self._required[each[0]] == state]
        if not leads_on or ((self._optional or len(found) > 1) and self._is_dead_end()):
            return []
        if self._in_block:
            found = [each for each in found if not _overwrites(steps[each[0]])]
        return [*self._optional_choices(bound), *reversed(found)]

    def _is_what_for(self, step: Operation, new: State | Refused) -> bool:
        """Say whether the unanswered operations just done may be there for the sake of a step.

        Parameters
        ----------
        step
            One that can be next.
        new
            Where it leads to.
        """
        if not self._blocks_are_appends:
            return True
        if step.command in ARITHMETIC:
            return True
        if _overwrites(step):
            return False
        if _tells(step):
            return may_come(step, self._state)
        # Whether the key is there is all that it depends on: the last one has made it so.
        return not isinstance(new, Refused) and isinstance(
            follow(step, self._state_before), Refused
        )

    def _is_dead_end(self) -> bool:
        """Say whether the value can never grow into one that explains what is to come.

        Only answers are looked at that came before anybody can have replaced the value.
        """
        until = min(
            (self._optional[at].call for at in self._optional_resets if not self._was_done(at)),
            default=_NEVER,
        )
        for at in self._not_done(self._resets):
            until = min(until, self._calls[at])
            break
        return any(
            self._returns[at] < until and not may_come(self._steps[at], self._state)
            for at in itertools.islice(self._not_done(self._telling), _AHEAD)
        )

    def _was_done(self, number: int) -> bool:
        return bool(self._optional_done >> number & 1)

    def _not_done(self, steps: list[int]) -> Iterator[int]:
        """Give those of some steps, in order, that are not done."""
        first = self._after[len(self._steps)]
        for place in range(bisect.bisect_left(steps, first), len(steps)):
            if not self._done >> (steps[place] - first) & 1:
                yield steps[place]

    def _must_stay(self) -> bool:
        state = self._state
        return self._irreplaceable and not isinstance(state, Unknown) and not self._sources[state]

    def _optional_choices(self, bound: int) -> Iterator[_Choice]:
        for number, operation in enumerate(self._optional):
            if self._may_do(number, bound):
                new = outcome(operation, self._state)
                if (
                    not isinstance(new, Refused)
                    and (seen := self._outlook.seen(new)) != self._state
                ):
                    yield -1 - number, seen

    def _may_do(self, number: int, bound: int) -> bool:
        twin, operation = self._twins[number], self._optional[number]
        return (
            operation.call <= bound
            and not self._was_done(number)
            and (twin is None or self._was_done(twin))
            # Effects of the unanswered operations before it would be of no use.
            and not (self._in_block and _replaces(operation))
        )

    def _is_new(self, step: int, state: State) -> bool:
        """Keep in mind where a step leads to, and say whether nothing else has led there."""
        first, done = self._advanced(step)
        optional = self._optional_done if step >= 0 else self._optional_done | 1 << (-1 - step)
        configuration = first, done, optional, step < 0, state
        if configuration in self._seen:
            return False
        self._seen.add(configuration)
        self._seen_bytes += _CONFIGURATION_BYTES + (done.bit_length() + optional.bit_length()) // 8
        self._seen_bytes += len(state) if isinstance(state, bytes) else 0
        self._check_effort()
        return True

    def _check_effort(self) -> None:
        effort, count = self._effort, len(self._seen)
        if count > effort.configurations:
            limit = f"{effort.configurations:,} configurations"
        elif self._seen_bytes > effort.bytes:
            limit = f"{effort.bytes / 1e6:,.1f} MB"
        elif count % _CLOCK_EVERY == 0 and time.monotonic() > (effort.deadline or 0):
            limit = f"{effort.seconds:g} s"
        else:
            return
        seconds = time.monotonic() - self._began
        tried = replace(effort, configurations=count, bytes=self._seen_bytes, seconds=seconds)
        key, unanswered = self._steps[0].key, len(self._optional)
        raise Undecided(key, len(self._steps), unanswered, tried, limit)

    def _advanced(self, step: int) -> tuple[int, int]:
        """Give the first step that is not done after `step`, and the bits from there on."""
        first = self._after[len(self._steps)]
        if step < 0:
            return first, self._done
        if step > first:
            return first, self._done | 1 << (step - first)
        following = self._after[first]
        return following, (self._done | 1) >> (following - first)

    def _do(self, step: int, state: State) -> None:
        _, self._done = self._advanced(step)
        if step < 0:
            operation = self._optional[-1 - step]
            self._optional_done |= 1 << (-1 - step)
        else:
            operation = self._steps[step]
            before, after = self._before[step], self._after[step]
            self._after[before], self._before[after] = after, before
            self._needs[self._required[step]] -= 1
        self._sources[literal_product(operation)] -= 1
        self._in_block, self._state_before = step < 0, self._state
        self._state = state

    def _undo(self, step: int, before: _Before) -> None:
        if step < 0:
            operation = self._optional[-1 - step]
            self._optional_done &= ~(1 << (-1 - step))
        else:
            operation = self._steps[step]
            self._after[self._before[step]] = self._before[self._after[step]] = step
            self._needs[self._required[step]] += 1
        self._sources[literal_product(operation)] += 1
        self._done, self._state, self._in_block, self._state_before = before


def _is_idle(operation: Operation) -> bool:
    """Say whether an operation leaves every value that it can meet as it is.

    An operation that adds nothing does, but makes a key that is not there, as 0 or empty.
    """
    return changes_nothing(operation) or (adds(operation) == 0 and operation.answer != 0)


def _replaces(operation: Operation) -> bool:
    """Say whether an operation is SET or DEL without a condition."""
    return operation.command in LITERAL and len(operation.arguments) < 2


def _overwrites(step: Operation) -> bool:
    """Say whether an answered operation fits every value, and leaves nothing of it."""
    return _replaces(step) and step.command != "DEL"


def _tells(step: Operation) -> bool:
    """Say whether an answer tells a value, a length, or that the key was not there."""
    return step.command in ("APPEND", "STRLEN") or not isinstance(required(step), Unknown)


def _twins(optional: Sequence[Operation], outlook: Outlook) -> list[int | None]:
    """Find, for each unanswered operation, one that does the same and was called before.

    The earlier one explains everything that the later one does, so it goes first.
    """
    latest: dict[tuple[str, tuple[bytes, ...], Scalar], int] = {}
    twins = []
    for number, operation in enumerate(optional):
        what = operation.command, outlook.arguments(operation), operation.answer
        twins.append(latest.get(what))
        latest[what] = number
    return twins


def _values_come_once(operations: Sequence[Operation]) -> bool:
    """Say whether only SET, MSET and DEL bring back a value that was replaced.

    This holds without arithmetic and APPEND, and where a value only grows.
    """
    changing = [each for each in operations if not changes_nothing(each)]
    commands = {each.command for each in changing}
    if not commands & (ARITHMETIC | {"APPEND"}):
        return True
    if commands == {"APPEND"}:
        return all(each.arguments[0] for each in changing)
    return commands <= ARITHMETIC and all((increment(each) or 0) > 0 for each in changing)
