"""Requests for checkpoints: one settles all, or with a semaphore each causes one."""

from __future__ import annotations

import contextlib

import pytest

from colobench.node.trigger import MOST_COUNTED, CheckpointCause, CheckpointTrigger
from colobench.strategy.triggers import OnMiscompare

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
