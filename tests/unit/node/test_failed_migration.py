"""A migration that fails keeps no memory for copies, so that any number of secondaries may join."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from colobench.errors import RemoteError
from colobench.memory.ram import RAM, lay_out
from colobench.memory.tracker import watch
from colobench.node.breakpoints import Breakpoints
from colobench.node.migration import copy_on_write, transports
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.primary import Primary
from colobench.node.workers import Workers
from colobench.settings.settings import Settings

NAME = "colobench-ram-copy"


def copies() -> int:
    """Count the memories for copies that are open."""
    found = 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += NAME in os.readlink(f"/proc/self/fd/{each}")
    return found


def fail(*_: object, **__: object) -> Any:
    raise RemoteError("on purpose")


@pytest.fixture
def end() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def primary_with(capture: str, end: ExitStack) -> Primary:
    """Give a primary of which nothing works but what the begin of a migration needs."""
    settings = Settings().override(capture=capture, transport="multifd", multifd_channels=1)
    ram = end.enter_context(closing(RAM("ram", lay_out({"ram": 64 * 4096}))))
    tracker = watch("marked", ram)
    tracker.make_freezable()
    machine = SimpleNamespace(ram=ram, tracker=tracker, machine_type="test", devices=())
    made: Any = object.__new__(Primary)
    checkpoint = settings.checkpoint
    made.settings, made.lock, made.quitting = settings, threading.RLock(), threading.Event()
    made.guest = SimpleNamespace(machine=machine)
    made.workers = end.enter_context(closing(Workers(1)))
    made.runtime = SimpleNamespace(disks=SimpleNamespace(abandon=lambda: None))
    made.colo = SimpleNamespace(channel=None)
    made.colo.close = lambda: made.colo.channel.close()
    made.monitor = SimpleNamespace(emit=lambda event, data: None)
    made.breakpoints = Breakpoints(
        made.role, checkpoint.layout, checkpoint.capture, checkpoint.encoding, lambda point: None
    )
    made._trigger = SimpleNamespace(wake_fd=-1)
    made._dirty_pages = DirtyPages(tracker)
    made.compares_pages, made._participant_error, made._sender = False, None, None
    return made


def migrate(primary: Primary, end: ExitStack) -> str:
    """Migrate to a secondary that takes the main connection alone; give the status."""
    ours, _ = (end.enter_context(each) for each in socket.socketpair())
    connections = iter([ours])

    def connect(wait: object) -> socket.socket:
        return next(connections, None) or fail()

    address: Any = SimpleNamespace(connect_while=connect)
    primary._lead(address, None, None, None)
    return primary._status


CAPTURES = ["copy-then-send", "copy-on-write", "copy-on-write-2"]


@pytest.mark.parametrize("capture", CAPTURES)
def test_a_secondary_that_takes_no_pages_costs_no_memory(capture, end):
    primary = primary_with(capture, end)
    for _ in range(2):
        assert migrate(primary, end) == "failed"
        assert copies() == 0


@pytest.mark.parametrize("capture", CAPTURES)
def test_a_sender_that_cannot_be_made_costs_no_memory(capture, end, monkeypatch):
    primary = primary_with(capture, end)
    monkeypatch.setitem(transports._CHANNEL_SENDERS, transports.PageTransport.MULTIFD, fail)
    assert migrate(primary, end) == "failed"
    assert copies() == 0


def test_epochs_for_whose_second_copy_there_is_no_memory_keep_none(end, monkeypatch):
    primary = primary_with("copy-on-write-2", end)
    monkeypatch.setattr(copy_on_write, "PageMemory", fail)
    assert migrate(primary, end) == "failed"
    assert copies() == 0


def test_memory_that_cannot_be_mapped_leaves_no_descriptor(monkeypatch):
    monkeypatch.setattr("colobench.memory.ram.mmap.mmap", fail)
    with pytest.raises(RemoteError):
        RAM(NAME, lay_out({"ram": 4096}))
    assert copies() == 0


def test_memory_that_is_closed_twice_closes_no_other_file():
    memory = RAM("ram", lay_out({"ram": 4096}))
    number = memory.fd
    memory.close()
    with open("/dev/null") as other:
        os.dup2(other.fileno(), number)
        memory.close()
        os.fstat(number)
        if number != other.fileno():
            os.close(number)
