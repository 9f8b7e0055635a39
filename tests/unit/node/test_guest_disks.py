"""The guest's disks in a node: each request is done and answered, and done again after a load."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from colobench.block.backend import BlockError
from colobench.block.request import BlockRequest, RequestKind
from colobench.guest.disk_queue import DISK_SLOTS, SlotState
from colobench.node.connection import PeerLost
from colobench.node.disk.forward_gate import ForwardGate
from colobench.node.disk.forwarding import ForwardingBackend
from colobench.node.disk.guest_disks import POOL_THREADS, GuestDisks
from colobench.node.disk.nbd_client import OnDone
from disk_guest import DiskGuest, MemoryBackend
from memory_disk import MemoryDisk


@pytest.fixture
def guest() -> Iterator[DiskGuest]:
    with DiskGuest(["/disk0,size=64K", "/disk1,size=8K"]) as guest:
        yield guest


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def host(guest: DiskGuest, failures: list[BaseException]) -> Iterator[GuestDisks]:
    host = GuestDisks(guest.machine.disks, failures.append)
    host.begin()
    yield host
    host.close()
    assert not failures


def wait_for(guest: DiskGuest, slot: int, disk: int = 0) -> int:
    """Take completions until a slot is done; give its status."""
    while guest.state(slot, disk) != SlotState.DONE:
        guest.take_completions(disk)
    return guest.status(slot, disk)


def test_requests_of_all_disks_are_done_on_their_backends(
    guest: DiskGuest, host: GuestDisks
) -> None:
    backends = [MemoryBackend(disk.size) for disk in guest.machine.disks]
    host.start()
    guest.submit(5, BlockRequest(RequestKind.WRITE, 4096, 512, b"a" * 512))
    guest.submit(9, BlockRequest(RequestKind.WRITE, 512, 1024, b"b" * 1024), disk=1)
    for number, backend in enumerate(backends):
        host.set_backend(number, backend)
    assert wait_for(guest, 5) == wait_for(guest, 9, disk=1) == 0
    assert backends[0].contents[4096:4608] == b"a" * 512
    assert backends[1].contents[512:1536] == b"b" * 1024
    guest.release(5)
    guest.submit(5, BlockRequest(RequestKind.READ, 4096, 512))
    assert wait_for(guest, 5) == 0
    assert guest.buffer(5)[:512] == b"a" * 512


@pytest.mark.parametrize(
    ("raised", "status"), [(errno.ENOSPC, errno.ENOSPC), (errno.ENODEV, errno.EIO)]
)
def test_errors_of_a_disk_are_the_guests(
    guest: DiskGuest, host: GuestDisks, raised: int, status: int
) -> None:
    backend = MemoryBackend(guest.machine.disks[0].size)
    backend.error = BlockError(raised, "injected")
    host.set_backend(0, backend)
    host.start()
    guest.submit(0, BlockRequest(RequestKind.WRITE, 0, 512, bytes(512)))
    assert wait_for(guest, 0) == status
    assert guest.registers()["errors"] == 1
    assert guest.registers()["writes"] == 1


def test_requests_pass_one_that_waits(guest: DiskGuest, host: GuestDisks) -> None:
    backend = MemoryBackend(guest.machine.disks[0].size)
    backend.gates[0] = threading.Event()
    host.set_backend(0, backend)
    host.start()
    guest.submit(0, BlockRequest(RequestKind.WRITE, 0, 512, b"x" * 512))
    guest.submit(1, BlockRequest(RequestKind.WRITE, 512, 512, b"y" * 512))
    guest.submit(2, BlockRequest(RequestKind.FLUSH))
    assert wait_for(guest, 1) == wait_for(guest, 2) == 0
    assert guest.state(0) == SlotState.SUBMITTED
    backend.gates[0].set()
    assert wait_for(guest, 0) == 0


def test_stopped_guests_requests_wait_for_the_start(guest: DiskGuest, host: GuestDisks) -> None:
    backend = MemoryBackend(guest.machine.disks[0].size)
    host.set_backend(0, backend)
    host.start()
    host.stop()
    guest.submit(0, BlockRequest(RequestKind.WRITE, 0, 512, b"x" * 512))
    host.drain()
    assert not backend.done
    host.start()
    assert wait_for(guest, 0) == 0


def test_no_request_begins_while_the_disks_rest_and_all_are_done_afterwards(
    guest: DiskGuest, host: GuestDisks
) -> None:
    backend = MemoryBackend(guest.machine.disks[0].size)
    gate = backend.gates[0] = threading.Event()
    host.set_backend(0, backend)
    host.start()
    guest.submit(0, BlockRequest(RequestKind.WRITE, 0, 512, b"x" * 512))
    assert backend.begun.wait(60)
    host.rest()
    guest.submit(1, BlockRequest(RequestKind.WRITE, 512, 512, b"y" * 512))
    # Its end is not waited for without limit.
    host.rested()
    gate.set()
    assert wait_for(guest, 0) == 0
    host.rested()
    host.drain()
    host.stop()
    assert guest.state(1) == SlotState.SUBMITTED
    assert len(backend.done) == 1
    host.start()
    assert wait_for(guest, 1) == 0


def test_more_requests_than_threads_are_done_although_the_disks_come_to_rest_meanwhile(
    guest: DiskGuest, host: GuestDisks
) -> None:
    backend = MemoryBackend(guest.machine.disks[0].size)
    host.set_backend(0, backend)
    host.start()
    for slot in range(DISK_SLOTS):
        guest.submit(slot, BlockRequest(RequestKind.WRITE, 512 * slot, 512, bytes([slot]) * 512))
        if slot % 8 == 7:
            host.rest()
            host.rested()
            host.stop()
            host.start()
    assert {wait_for(guest, slot) for slot in range(DISK_SLOTS)} == {0}
    expected = b"".join(bytes([slot]) * 512 for slot in range(DISK_SLOTS))
    assert backend.contents[: len(expected)] == expected


class UnansweringDisk(MemoryDisk):
    """Disk of a secondary that takes one write, which it answers when the test does."""

    def __init__(self, size: int) -> None:
        super().__init__(bytes(size))
        self.answers: SimpleQueue[OnDone] = SimpleQueue()
        self.is_lost = False

    def submit(
        self, request: BlockRequest, on_done: OnDone, into: memoryview | None = None
    ) -> None:
        if self.is_lost:
            raise PeerLost("the secondary")
        self.is_lost = True
        self.answers.put(on_done)


@pytest.mark.parametrize(("end", "status"), [("leave", 0), ("close", errno.EIO)])
def test_a_write_that_fails_on_its_way_ends_although_all_threads_wait_for_its_range(
    guest: DiskGuest, host: GuestDisks, end: str, status: int
) -> None:
    size, gate = guest.machine.disks[0].size, ForwardGate(1000)
    remote, disk = UnansweringDisk(size), ForwardingBackend(0, MemoryDisk(bytes(size)), gate)
    gate.on_error = lambda error: getattr(gate, end)()
    disk.connect(remote)
    gate.open()
    host.set_backend(0, disk)
    host.start()
    slots = range(2 * POOL_THREADS)
    guest.submit(0, BlockRequest(RequestKind.WRITE, 0, 512, bytes(512)))
    answer = remote.answers.get(timeout=60)
    for slot in slots[1:]:
        guest.submit(slot, BlockRequest(RequestKind.WRITE, 0, 512, bytes(512)))
    while len(disk._locks._claims) <= POOL_THREADS:
        pass
    answer(memoryview(b""), PeerLost("the secondary"))
    assert {wait_for(guest, slot) for slot in slots if end == "leave" or slot == 0} == {status}


def test_an_unexpected_error_of_an_answer_is_told_to_the_node(
    guest: DiskGuest, host: GuestDisks, failures: list[BaseException], capfd, monkeypatch
) -> None:
    size, gate = guest.machine.disks[0].size, ForwardGate(1000)
    remote, disk = UnansweringDisk(size), ForwardingBackend(0, MemoryDisk(bytes(size)), gate)
    disk.connect(remote)
    gate.open()
    host.set_backend(0, disk)
    host.start()
    guest.submit(0, BlockRequest(RequestKind.WRITE, 0, 512, bytes(512)))
    answer = remote.answers.get(timeout=60)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(guest.machine.disks[0], "complete", broken)
    answer(memoryview(b""), None)
    assert isinstance(failures.pop(), ZeroDivisionError)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_request_that_waits_for_a_thread_does_not_begin_while_the_guest_stands(
    guest: DiskGuest, host: GuestDisks
) -> None:
    backend = MemoryBackend(guest.machine.disks[0].size)
    gate = threading.Event()
    slots = range(POOL_THREADS + 1)
    backend.gates = dict.fromkeys((512 * slot for slot in slots[:-1]), gate)
    host.set_backend(0, backend)
    host.start()
    for slot in slots:
        guest.submit(slot, BlockRequest(RequestKind.WRITE, 512 * slot, 512, bytes(512)))
    while host._under_way < len(slots) or host._begun < POOL_THREADS:
        pass
    host.stop()
    gate.set()
    host.drain()
    assert len(backend.done) == POOL_THREADS
    # Of a state that is replaced it does not begin at all: the new state has it.
    guest.machine.load([(each, each.state()) for each in guest.machine.devices])
    host.loaded()
    host.start()
    assert {wait_for(guest, slot) for slot in slots} == {0}
    host.drain()
    assert len(backend.done) == POOL_THREADS + len(slots)
    assert host._under_way == 0


def test_request_under_way_at_a_load_is_done_again_and_its_old_completion_is_dropped(
    guest: DiskGuest, host: GuestDisks
) -> None:
    backend = MemoryBackend(guest.machine.disks[0].size)
    gate = backend.gates[0] = threading.Event()
    host.set_backend(0, backend)
    host.start()
    guest.submit(0, BlockRequest(RequestKind.WRITE, 0, 512, b"x" * 512))
    assert backend.begun.wait(60)
    host.stop()
    guest.machine.load([(each, each.state()) for each in guest.machine.devices])
    del backend.gates[0]
    host.start()
    assert wait_for(guest, 0) == 0
    gate.set()
    host.drain()
    assert guest.take_completions() == 0
    assert len(backend.done) == 2


def test_unexpected_error_is_told_to_the_node(
    guest: DiskGuest, host: GuestDisks, failures: list[BaseException], capfd
) -> None:
    class Broken(MemoryBackend):
        def flush(self) -> None:
            raise ZeroDivisionError

    host.set_backend(0, Broken(guest.machine.disks[0].size))
    host.start()
    guest.submit(0, BlockRequest(RequestKind.FLUSH))
    while not failures:
        pass
    assert isinstance(failures.pop(), ZeroDivisionError)
    assert "ZeroDivisionError" in capfd.readouterr().err
