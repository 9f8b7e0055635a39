"""Verdicts about histories: linearizable key by key, or a counter-example.

A history that was meant to cross a failover says nothing about it unless something did cross:
a key crosses a failover if a change of it was answered before, and it was asked for after, with an
answer. Without such a key the verdict is unknown, however well the answers go together.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from colobench.lab.checker.counterexample import Counterexample, find_counterexample, find_window
from colobench.lab.checker.linearizability import USUAL_EFFORT, Effort, Search, Undecided, relevant
from colobench.lab.checker.store_model import changes_nothing
from colobench.lab.clients.history import History, Operation
from colobench.lab.interrupt import interruptible

#: Configurations beyond the number of operations that a search may take before windows are tried.
QUICK_CONFIGURATIONS = 20_000
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class NothingCrossed:
    """Reason why a history says nothing about its failover.

    Attributes
    ----------
    changed
        Number of keys with a change that was answered before the failover.
    asked
        Number of keys that were asked for after it, with an answer.
    """

    changed: int
    asked: int

    def __str__(self) -> str:
        return (
            "nothing crossed the failover: expected a key that was changed before it and asked for "
            f"after it, both with an answer; found {self.changed:,} keys changed before it and "
            f"{self.asked:,} others asked for after it"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict of the checker about a history.

    Attributes
    ----------
    linearizable
        Whether each key's operations have an order that explains all answers. None if no key is
        known to be without one, and either the search was given up for some of them (undecided), or
        no key crossed the failover (unknown).
    key
        The key whose contradiction came first; None if there is none.
    counterexample
        Counter-example for that key; None if there is none.
    keys
        All keys that have no order, sorted.
    operations
        Number of operations checked.
    seconds
        Duration of the check.
    undecided
        Searches that were given up, one for each undecided key; and `NothingCrossed`.
    crossed
        Number of keys that crossed the failover; None if the history has none.
    """

    linearizable: bool | None
    key: bytes | None
    counterexample: Counterexample | None
    keys: tuple[bytes, ...]
    operations: int
    seconds: float
    undecided: tuple[Undecided | NothingCrossed, ...] = ()
    crossed: int | None = None

    def __str__(self) -> str:
        checked = f"{self.operations:,} operations checked in {self.seconds:.2f} s"
        if self.counterexample is not None:
            return f"not linearizable: {checked}\n{self.counterexample}"
        return "\n".join([f"{self.in_words}: {checked}", *map(str, self.undecided)])

    @property
    def in_words(self) -> str:
        """Linearizable, not linearizable, undecided or unknown."""
        neither = "unknown" if self.crossed == 0 else "undecided"
        words = {True: "linearizable", False: "not linearizable", None: neither}
        return words[self.linearizable]


@interruptible("nothing is decided")
def check_linearizability(
    history: History, *, effort: Effort = USUAL_EFFORT, failover: int | None = None
) -> Verdict:
    """Decide whether a history is linearizable.

    Lost connections are not looked at: they are in ``history.lost``.

    Parameters
    ----------
    history
        History of clients that started with none of its keys in the store.
    effort
        Limits of the search. Keys that need more are undecided.
    failover
        Time of the kill, CLOCK_MONOTONIC in ns, of a history that is to say something about a
        failover; None if there was none.

    Raises
    ------
    LocalError
        If there is an operation that the model does not know.
    """
    started = time.perf_counter()
    every = {key: list(relevant(of_key)) for key, of_key in history.by_key().items()}
    failed, searches = _failed(every, effort.begun())
    undecided: list[Undecided | NothingCrossed] = [*searches]
    crossed = None
    if failover is not None:
        changed, asked = _around(every, failover)
        crossed = len(changed & asked)
        if not crossed:
            undecided.insert(0, NothingCrossed(len(changed), len(asked)))
    found = None
    if failed:
        blocked_at, _, operations = min(failed, key=lambda each: each[:2])
        found = find_counterexample(
            operations, blocked_at=blocked_at, zero=history.start, effort=effort
        )
    return Verdict(
        linearizable=False if failed else None if undecided else True,
        key=None if found is None else found.key,
        counterexample=found,
        keys=tuple(sorted(key for _, key, _ in failed)),
        operations=sum(map(len, every.values())),
        seconds=time.perf_counter() - started,
        undecided=tuple(undecided),
        crossed=crossed,
    )


def _around(every: dict[bytes, list[Operation]], failover: int) -> tuple[set[bytes], set[bytes]]:
    """Find the keys that a change was answered of before a failover, and those asked for after."""
    changed, asked = set(), set()
    for key, operations in every.items():
        for each in operations:
            if each.returned is None:
                continue
            if each.returned <= failover and not changes_nothing(each):
                changed.add(key)
            if each.call > failover:
                asked.add(key)
    return changed, asked


_Failed = tuple[int, bytes, list[Operation]]


def _failed(
    every: dict[bytes, list[Operation]], effort: Effort
) -> tuple[list[_Failed], list[Undecided]]:
    """Find the keys that have no order, each with the time (ns) that no order gets past, and the
    undecided keys.

    Easy keys are decided first, however long the others take.
    """
    failed, hard, undecided = [], [], []
    for key, operations in every.items():
        quick = min(effort.configurations, QUICK_CONFIGURATIONS + len(operations))
        search = Search(operations, effort=replace(effort, configurations=quick, deadline=_NEVER))
        try:
            if not search.run():
                failed.append((search.blocked_at, key, operations))
        except Undecided:
            hard.append((search.blocked_at, key, operations))
    for number, (blocked_at, key, operations) in enumerate(hard):
        part = effort.share(len(hard) - number)
        # A window without an order is found sooner, if there is one.
        if find_window(operations, blocked_at, part.share(4)) is not None:
            failed.append((blocked_at, key, operations))
            continue
        search = Search(operations, effort=part)
        try:
            if not search.run():
                failed.append((search.blocked_at, key, operations))
        except Undecided as error:
            undecided.append(error)
    return failed, undecided
