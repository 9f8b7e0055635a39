"""Requests for checkpoints: one settles all, or with a semaphore each causes one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from colobench.node.own_trigger import OwnTriggerRunner
from colobench.node.trigger import MOST_COUNTED, CheckpointCause, CheckpointTrigger
from colobench.strategy.own import OwnTrigger
from colobench.strategy.trigger import Situation
from colobench.strategy.triggers import FixedDelay, OnMiscompare

WANTED = [CheckpointCause("miscompare", f"connection {number}", number) for number in range(3)]


def checkpoints_of(counts_requests: bool, requests: list[CheckpointCause]) -> int:
    """Count the checkpoints that follow at once from some requests."""
    trigger = CheckpointTrigger(lambda: 0, lambda: 0, counts_requests)
    with contextlib.closing(trigger):
        trigger.set(OnMiscompare(10_000))
        trigger.begin()
        for cause in requests:
            trigger.want(cause)
        taken = 0
        while isinstance(trigger.due(), CheckpointCause):
            trigger.satisfy()
            taken += 1
        return taken


@pytest.mark.parametrize("requests", [0, 1, 3])
def test_one_checkpoint_settles_all_requests_unless_they_are_counted(requests: int) -> None:
    assert checkpoints_of(False, WANTED[:requests]) == min(requests, 1)
    assert checkpoints_of(True, WANTED[:requests]) == requests


def test_counted_requests_are_limited() -> None:
    assert checkpoints_of(True, WANTED[:1] * (MOST_COUNTED + 5)) == MOST_COUNTED


class Replaced(OwnTriggerRunner):
    """A user's trigger that a client of the monitor replaces when the COLO thread has taken it."""

    def __init__(self, node: CheckpointTrigger, at: str) -> None:
        source = "class Own:\n    def ask(self, seen): return 5\n    def learn(self, seen): pass\n"
        super().__init__(OwnTrigger(name="Own", code=source))
        self._node, self._at = node, at

    def ask(self, seen: Situation, memory: Any) -> Any:
        if self._at == "ask":
            self._node.set(FixedDelay(1000))
        return super().ask(seen, memory)

    def learn(self, seen: Situation, memory: Any) -> None:
        if self._at == "learn":
            self._node.set(FixedDelay(1000))
        super().learn(seen, memory)


@pytest.mark.parametrize("at", ["ask", "learn", "never"])
def test_a_trigger_that_is_replaced_while_it_is_asked_still_answers(at: str) -> None:
    node = CheckpointTrigger(lambda: 0, lambda: 0)
    with contextlib.closing(node):
        node.begin()
        trigger = Replaced(node, at)
        node.set(trigger)
        assert node.due() == 0.005
        node.taken(1, 0)
        assert (node.trigger is trigger) == (at == "never")
        if at == "never":
            node.set(FixedDelay(1000))
        # It has no other end: its thread is told that the trigger is closed.
        trigger._thread.join()


def test_a_trigger_that_is_set_after_the_end_is_closed_at_once() -> None:
    node = CheckpointTrigger(lambda: 0, lambda: 0)
    node.close()
    late = Replaced(node, "never")
    node.set(late)
    assert node.trigger is not late
    late._thread.join()
