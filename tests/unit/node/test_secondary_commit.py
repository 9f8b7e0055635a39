"""A secondary's commit: RAM and disks of a guest that may serve are of one checkpoint."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from colobench.block.backend import BlockError
from colobench.node.node import Node
from colobench.node.secondary import Secondary

ERROR = BlockError(5, "on purpose")


def fail():
    raise ERROR


@pytest.fixture
def secondary(monkeypatch):
    """Give a secondary in COLO, of which nothing works but what a commit needs."""
    made = object.__new__(Secondary)
    made.ended, made.survived = [], []
    values = {
        "lock": threading.RLock(),
        "takeover": SimpleNamespace(begun=False, load_finished=lambda: False),
        "runtime": SimpleNamespace(died=lambda role, error: made.ended.append(error)),
        "guest": SimpleNamespace(received=fail, machine=SimpleNamespace(disks=[object()])),
        "_applying": False,
        "in_colo": lambda: True,
    }
    for name, value in values.items():
        monkeypatch.setattr(made, name, value, raising=False)
    monkeypatch.setattr(Node, "colo_failed", lambda side, error: side.survived.append(error))
    return made


def test_a_commit_that_fails_with_disks_ends_the_process(secondary):
    """Layers may be empty by then, and RAM is the one of the checkpoint before."""
    with pytest.raises(BlockError) as failed:
        secondary._commit()
    secondary.colo_failed(failed.value)
    assert (secondary.ended, secondary.survived) == ([ERROR], [])


def test_a_commit_that_fails_without_disks_leaves_the_checkpoint_before(secondary):
    secondary.guest.machine.disks = []
    with pytest.raises(BlockError) as failed:
        secondary._commit()
    secondary.colo_failed(failed.value)
    assert (secondary.ended, secondary.survived) == ([], [ERROR])
    assert not secondary.loading()
