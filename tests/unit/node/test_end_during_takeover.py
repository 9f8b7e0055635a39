"""A process that ends during a takeover releases each side once, and all that outlives a side."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from colobench.errors import RemoteError
from colobench.node.node import Node
from colobench.node.primary import Primary
from colobench.node.runtime import NodeRuntime

WAIT = 60.0


class Process:
    """A process of which nothing works but its end, with a side that can take over.

    Its attribute `calls` has what was released, and in which order; `events` those of the monitor.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.events: list[str] = []
        self.taking_over, self.ending = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=lambda: self.side.run_alone())
        self.runtime: Any = object.__new__(NodeRuntime)
        self.runtime.quitting = threading.Event()
        self.runtime.monitor = SimpleNamespace(
            set_commands=lambda commands: None,
            emit=lambda event, data: self.events.append(event),
            close=lambda flush: self.calls.append("monitor"),
        )
        self.runtime.guest = SimpleNamespace(
            close=lambda: self.calls.append("guest"),
            cut_off=self.ending.set,
            take_over=self.take_over,
            machine=SimpleNamespace(close=lambda: self.calls.append("machine")),
        )
        self.runtime.workers = SimpleNamespace(close=lambda: self.calls.append("workers"))
        self.side: Any = object.__new__(Primary)
        self.side.runtime, self.side.guest = self.runtime, self.runtime.guest
        self.side.monitor, self.side.quitting = self.runtime.monitor, self.runtime.quitting
        self.side.lock = threading.RLock()
        self.side.takeover = SimpleNamespace(stop=lambda: None)
        self.side.breakpoints = SimpleNamespace(go_on=lambda: None)
        self.side.colo = SimpleNamespace(shut_down=lambda: None, join=lambda: None)
        self.successor = SimpleNamespace(commands=dict, end=lambda: self.calls.append("successor"))
        self.runtime.side = self.side
        monkeypatch.setattr(Node, "_begin_to_run_alone", lambda side: None)
        monkeypatch.setattr(Primary, "wake", lambda side: None)
        monkeypatch.setattr(Primary, "retire", lambda side: self.calls.append("side"))
        monkeypatch.setattr(Primary, "successor", lambda side: self.successor)

    def take_over(self) -> None:
        self.taking_over.set()
        assert self.ending.wait(WAIT)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


@pytest.mark.parametrize("by_heartbeat", [True, False])
def test_the_end_waits_for_a_takeover_and_ends_the_successor(process, by_heartbeat):
    if by_heartbeat:
        process.side.takeover.stop = process.thread.join
    process.thread.start()
    assert process.taking_over.wait(WAIT)
    process.runtime._end()
    process.thread.join()
    assert process.calls.count("side") == 1
    process.calls.remove("side")
    assert process.calls == ["successor", "guest", "workers", "monitor", "machine"]
    assert process.events == ["RESUME", "MIGRATION"]


def test_a_takeover_does_not_begin_when_the_process_ends(process):
    process.runtime._end()
    process.side.run_alone()
    assert not process.taking_over.is_set()
    assert process.calls == ["side", "guest", "workers", "monitor", "machine"]
    assert process.events == []


def test_a_takeover_that_fails_completes_no_migration(process, monkeypatch):
    def fail() -> None:
        raise RemoteError("on purpose")

    died: list[BaseException] = []
    monkeypatch.setattr(process.runtime.guest, "take_over", fail)
    monkeypatch.setattr(process.runtime, "died", lambda who, error: died.append(error))
    process.side.run_alone()
    assert len(died) == 1
    assert process.events == []


def test_an_error_of_one_part_keeps_no_other_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)

    def end() -> None:
        raise OSError("no side any more")

    process.runtime.side = SimpleNamespace(end=end)
    with pytest.raises(OSError, match="no side"):
        process.runtime._end()
    assert process.calls == ["guest", "workers", "monitor", "machine"]
