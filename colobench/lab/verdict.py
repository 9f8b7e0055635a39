"""Whether a history is linearizable, key by key, and if not, why."""

from __future__ import annotations

import time
from dataclasses import dataclass

from colobench.lab.counterexample import Counterexample, find_counterexample, find_window
from colobench.lab.history import History, Operation
from colobench.lab.linearizability import CONFIGURATIONS_LIMIT, Search, Undecided, relevant

#: A search that takes so many configurations more than operations is helped by looking at windows.
QUICK_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker says of a history.

    Attributes
    ----------
    linearizable
        Whether each key's operations have an order that explains all answers.
    key
        The key whose contradiction came first; None if there is none.
    counterexample
        Of that key; None if there is none.
    keys
        All keys that have no order, sorted.
    operations
        How many were checked.
    seconds
        How long it took.
    """

    linearizable: bool
    key: bytes | None
    counterexample: Counterexample | None
    keys: tuple[bytes, ...]
    operations: int
    seconds: float

    def __str__(self) -> str:
        checked = f"{self.operations:,} operations checked in {self.seconds:.2f} s"
        if self.counterexample is None:
            return f"linearizable: {checked}"
        return f"not linearizable: {checked}\n{self.counterexample}"


def check(history: History, *, limit: int = CONFIGURATIONS_LIMIT) -> Verdict:
    """Decide whether a history is linearizable.

    Lost connections are not looked at: they are in ``history.lost``.

    Parameters
    ----------
    history
        Of clients that began with none of its keys in the store.
    limit
        How many configurations the search may keep in mind for a key.

    Raises
    ------
    LocalError
        If there is an operation that the model does not know.
    Undecided
        If a key's operations overlap too much for `limit`.
    """
    started = time.perf_counter()
    count = 0
    failed = []
    for key, of_key in history.by_key().items():
        operations = list(relevant(of_key))
        count += len(operations)
        blocked_at = _blocked_at(operations, limit)
        if blocked_at is not None:
            failed.append((blocked_at, key, operations))
    found = None
    if failed:
        blocked_at, _, operations = min(failed, key=lambda each: each[:2])
        found = find_counterexample(
            operations, blocked_at=blocked_at, zero=history.start, limit=limit
        )
    return Verdict(
        linearizable=not failed,
        key=None if found is None else found.key,
        counterexample=found,
        keys=tuple(sorted(key for _, key, _ in failed)),
        operations=count,
        seconds=time.perf_counter() - started,
    )


def _blocked_at(operations: list[Operation], limit: int) -> int | None:
    """Give where no order of a key's operations gets past, in ns; None if one does."""
    search = Search(operations, limit=min(limit, QUICK_LIMIT + len(operations)))
    try:
        return None if search.run() else search.blocked_at
    except Undecided:
        if find_window(operations, search.blocked_at) is not None:
            return search.blocked_at
    search = Search(operations, limit=limit)
    return None if search.run() else search.blocked_at
