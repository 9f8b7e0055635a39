"""Whether one key's operations can be put in an order that explains every answer.

The search is Wing and Gong's ("Testing and verifying concurrent objects", J. Parallel Distrib.
Comput. 17, 1993) with Lowe's improvements ("Testing for linearizability", Concurrency Comput.
Pract. Exp. 29(4), 2017): operations in a linked list out of which they are lifted, and a memory of
the configurations, which are the set of operations that are done and the value, where the search
was before. Porcupine and Knossos do the same. A key is searched by itself (Horn and Kroening 2015,
arXiv:1504.00204). Two things are known of a key's values, and save most of the search:

* An operation that can be next and changes no value at all, as a read, is next: whatever order
  explains the rest, with this operation moved to the front it still does.
* A value that an operation still has to find, and that nobody can write again, is not replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from colobench.errors import LocalError
from colobench.lab.history import Operation
from colobench.lab.resp import Scalar
from colobench.lab.store_model import (
    ARITHMETIC,
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

#: How many configurations are kept in mind before the search gives up; about 300 bytes each.
CONFIGURATIONS_LIMIT = 1_000_000

_NEVER = 2**63
#: A step's index and the state after it. Steps that were not answered count from -1 downwards.
_Choice = tuple[int, State]


class Undecided(LocalError):
    """The operations on one key overlap so much that looking at all orders takes too long."""


def relevant(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Leave out what says nothing: unanswered reads, and what the store had no room for.

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
    """The search for an order.

    Parameters
    ----------
    operations
        Of one key, those that `relevant` gives.
    start
        The key's value before them.
    limit
        How many configurations it may keep in mind.

    Attributes
    ----------
    blocked_at
        After an unsuccessful search: no order was found that comes past this answer, ns. A history
        that ends before it has one.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        *,
        start: State = None,
        limit: int = CONFIGURATIONS_LIMIT,
    ) -> None:
        ordered = sorted(operations, key=lambda each: each.call)
        self._steps = [each for each in ordered if each.returned is not None]
        self._optional = [each for each in ordered if each.returned is None]
        self._state = start
        self._limit = limit
        self.blocked_at = 0
        count = len(self._steps)
        self._calls = [each.call for each in self._steps]
        self._returns = [each.returned or 0 for each in self._steps]
        # The linked list of steps that are not done; the index behind the last is its root.
        self._after = [*range(1, count + 1), 0]
        self._before = [count, *range(count)]
        # What is done: all steps before the first of the list, and these bits from there on.
        self._done = 0
        self._optional_done = 0
        self._twins = _twins(self._optional)
        self._idle = [_is_idle(each) for each in self._steps]
        self._required = [required(each) for each in self._steps]
        self._needs = Counter(self._required)
        self._sources = Counter(map(literal_product, ordered))
        self._irreplaceable = _values_come_once(ordered)
        self._seen: set[tuple[int, int, int, State]] = set()

    def run(self) -> bool:
        """Search, and say whether there is an order.

        Raises
        ------
        Undecided
            If `limit` is reached.
        """
        root = len(self._steps)
        # For each step that is done: it, what was before it, and what else could be tried there.
        path: list[tuple[int, int, State, list[_Choice]]] = []
        choices = self._choices()
        while self._after[root] != root:
            while choices:
                step, state = choices.pop()
                if self._is_new(step, state):
                    path.append((step, self._done, self._state, choices))
                    self._do(step, state)
                    choices = self._choices()
                    break
            else:
                if not path:
                    return False
                step, done, before, choices = path.pop()
                self._undo(step, done, before)
        return True

    def _choices(self) -> list[_Choice]:
        """Give the steps that can be next, the best last."""
        calls, returns, after, state = self._calls, self._returns, self._after, self._state
        steps, root = self._steps, len(self._steps)
        bound = _NEVER
        found: list[_Choice] = []
        index = after[root]
        while index != root and calls[index] <= bound:
            new = follow(steps[index], state)
            if not isinstance(new, Refused):
                if new == state and self._idle[index]:
                    return [(index, new)]
                found.append((index, new))
            if returns[index] < bound:
                bound = returns[index]
            index = after[index]
        self.blocked_at = max(self.blocked_at, bound)
        if self._needs[state] and self._must_stay():
            # One that needs the value itself may replace it, if it is the last that does.
            alone = self._needs[state] == 1
            return [each for each in found if alone and self._required[each[0]] == state]
        return [*self._optional_choices(bound), *reversed(found)]

    def _must_stay(self) -> bool:
        state = self._state
        return self._irreplaceable and not isinstance(state, Unknown) and not self._sources[state]

    def _optional_choices(self, bound: int) -> Iterator[_Choice]:
        for number, operation in enumerate(self._optional):
            if self._may_do(number, bound):
                new = outcome(operation, self._state)
                if not isinstance(new, Refused) and new != self._state:
                    yield -1 - number, new

    def _may_do(self, number: int, bound: int) -> bool:
        done, twin = self._optional_done, self._twins[number]
        return (
            self._optional[number].call <= bound
            and not done >> number & 1
            and (twin is None or bool(done >> twin & 1))
        )

    def _is_new(self, step: int, state: State) -> bool:
        """Keep in mind where a step leads to, and say whether nothing else has led there."""
        first, done = self._advanced(step)
        optional = self._optional_done if step >= 0 else self._optional_done | 1 << (-1 - step)
        configuration = first, done, optional, state
        if configuration in self._seen:
            return False
        self._seen.add(configuration)
        if len(self._seen) > self._limit:
            key = self._steps[0].key.decode("latin-1")
            raise Undecided(
                f"key {key}: expected an order, or that there is none, within {self._limit} "
                f"configurations, found neither: too many of its {len(self._steps)} answered and "
                f"{len(self._optional)} unanswered operations overlap"
            )
        return True

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
        self._state = state

    def _undo(self, step: int, done: int, state: State) -> None:
        self._done = done
        if step < 0:
            operation = self._optional[-1 - step]
            self._optional_done &= ~(1 << (-1 - step))
        else:
            operation = self._steps[step]
            self._after[self._before[step]] = self._before[self._after[step]] = step
            self._needs[self._required[step]] += 1
        self._sources[literal_product(operation)] += 1
        self._state = state


def _is_idle(operation: Operation) -> bool:
    """Say whether an operation leaves every value that it can meet as it is.

    What adds nothing does, but for a key that is not there: that it makes, as 0 or empty.
    """
    return changes_nothing(operation) or (adds(operation) == 0 and operation.answer != 0)


def _twins(optional: Sequence[Operation]) -> list[int | None]:
    """Find, for each unanswered operation, one that does the same and was called before.

    Whatever the later of them explains, the earlier explains as well, so it goes first.
    """
    latest: dict[tuple[str, tuple[bytes, ...], Scalar], int] = {}
    twins = []
    for number, operation in enumerate(optional):
        what = operation.command, operation.arguments, operation.answer
        twins.append(latest.get(what))
        latest[what] = number
    return twins


def _values_come_once(operations: Sequence[Operation]) -> bool:
    """Say whether only SET, MSET and DEL bring back a value that was replaced.

    So it is without arithmetic and APPEND, and where a value only grows.
    """
    changing = [each for each in operations if not changes_nothing(each)]
    commands = {each.command for each in changing}
    if not commands & (ARITHMETIC | {"APPEND"}):
        return True
    if commands == {"APPEND"}:
        return all(each.arguments[0] for each in changing)
    return commands <= ARITHMETIC and all((increment(each) or 0) > 0 for each in changing)


def is_linearizable(
    operations: Iterable[Operation], *, start: State = None, limit: int = CONFIGURATIONS_LIMIT
) -> bool:
    """Say whether one key's operations can be put in an order that explains every answer.

    Parameters
    ----------
    operations
        Of one key.
    start
        The key's value before them.
    limit
        How many configurations the search may keep in mind.

    Raises
    ------
    LocalError
        If there is an operation that the model does not know.
    Undecided
        If `limit` is reached.
    """
    return Search(list(relevant(operations)), start=start, limit=limit).run()
