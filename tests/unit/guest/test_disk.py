"""The guest's disk: what a guest submits is taken once and answered, whatever is in its RAM."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.block.request import GUEST_LENGTH_MAX, BlockRequest, RequestKind
from colobench.errors import LocalError
from colobench.guest.disk_queue import (
    BUFFERS_AT,
    DISK_BLOCK_BYTES,
    DISK_BUFFER_BYTES,
    DISK_SLOTS,
    KIND,
    LENGTH,
    OFFSET,
    SLOT_BYTES,
    STATE,
    SlotState,
)
from colobench.guest.numba.machine import Machine
from colobench.guest.settings import GuestSettings
from colobench.memory.ram import PAGE_SIZE, RAM
from colobench.memory.tracker_names import TRACKERS
from colobench.wire.vmstate import VMStateError
from disk_guest import DiskGuest

SIZE = 1 << 20
DISK = f"/disk,size={SIZE}"
WRITE = BlockRequest(RequestKind.WRITE, 8192, 1024, b"w" * 1024)
READ = BlockRequest(RequestKind.READ, 512, 1536)


@pytest.fixture(scope="module")
def used() -> Iterator[DiskGuest]:
    with DiskGuest([DISK]) as guest:
        yield guest


@pytest.fixture
def guest(used: DiskGuest) -> DiskGuest:
    """Give a guest with an empty queue."""
    used.block()[:] = 0
    load_itself(used)
    return used


def load_itself(guest: DiskGuest) -> None:
    guest.machine.load([(each, each.state()) for each in guest.machine.devices])


WORDS = st.one_of(
    st.integers(0, 5),
    st.integers(0, 2**64 - 1),
    st.sampled_from([512, SIZE, SIZE - 512, DISK_BUFFER_BYTES, 2**63, 2**64 - 512]),
)
SLOTS = st.lists(st.lists(WORDS, min_size=7, max_size=7), max_size=DISK_SLOTS)


@given(SLOTS)
def test_any_ram_is_answered_or_refused_and_nothing_else_happens(
    used: DiskGuest, slots: list[list[int]]
) -> None:
    block, disk = used.block(), used.machine.disks[0]
    block[:BUFFERS_AT] = 0
    load_itself(used)
    words = block[:BUFFERS_AT].view(np.uint64).reshape(DISK_SLOTS, SLOT_BYTES // 8)
    for slot, values in enumerate(slots):
        words[slot, : len(values)] = np.array(values, np.uint64)
    submitted = {n for n in range(DISK_SLOTS) if used.state(n) == SlotState.SUBMITTED}
    before = words.copy()
    taken = disk.take()
    assert np.array_equal(words, before)
    for each in taken:
        each.request.check(SIZE)
        assert each.request.kind not in (RequestKind.READ, RequestKind.WRITE) or (
            each.request.length <= DISK_BUFFER_BYTES
        )
    refused = submitted - {each.slot for each in taken}
    assert used.take_completions() == len(refused)
    for slot in refused:
        assert used.state(slot) == SlotState.DONE
        assert used.status(slot) in (errno.EINVAL, errno.ENOSPC)
    for each in taken:
        disk.complete(each, 0, bytes(each.request.length) if each.request.kind == 0 else b"")
    assert used.take_completions() == len(taken)
    assert all(used.state(slot) == SlotState.DONE for slot in submitted)
    assert disk.take() == []


@pytest.mark.parametrize(
    ("word", "value", "status"),
    [
        (KIND, 5, errno.EINVAL),
        (KIND, 2**64 - 1, errno.EINVAL),
        (OFFSET, 100, errno.EINVAL),
        (OFFSET, SIZE, errno.ENOSPC),
        (OFFSET, 2**64 - 512, errno.ENOSPC),
        (LENGTH, 0, errno.EINVAL),
        (LENGTH, 100, errno.EINVAL),
        (LENGTH, DISK_BUFFER_BYTES + 512, errno.EINVAL),
        (LENGTH, 2**64 - 512, errno.EINVAL),
    ],
)
def test_malformed_request_is_refused_and_counted(
    guest: DiskGuest, word: int, value: int, status: int
) -> None:
    before = guest.registers()
    guest.submit(7, WRITE)
    guest.block()[7 * SLOT_BYTES + word :][:8] = np.array([value], np.uint64).view(np.uint8)
    assert guest.machine.disks[0].take() == []
    assert guest.take_completions() == 1
    assert (guest.state(7), guest.status(7)) == (SlotState.DONE, status)
    after = guest.registers()
    assert after["refused"] == before["refused"] + 1
    assert after["errors"] == before["errors"] + 1
    assert after["writes"] == before["writes"]


def test_request_without_data_may_be_longer_than_a_buffer(guest: DiskGuest) -> None:
    request = BlockRequest(RequestKind.DISCARD, 0, GUEST_LENGTH_MAX)
    guest.submit(0, request)
    (taken,) = guest.machine.disks[0].take()
    assert taken.request == request


@pytest.mark.parametrize("kind", RequestKind)
@pytest.mark.parametrize("status", [0, errno.EIO])
def test_completed_request_has_its_status_and_data_and_is_counted(
    guest: DiskGuest, kind: RequestKind, status: int
) -> None:
    disk, before = guest.machine.disks[0], guest.registers()
    data = b"d" * 512 if kind is RequestKind.WRITE else b""
    flush = kind is RequestKind.FLUSH
    guest.submit(63, BlockRequest(kind, 0 if flush else 512, 0 if flush else 512, data))
    (taken,) = disk.take()
    assert taken.request.data == data
    disk.complete(taken, status, b"r" * 512 if kind is RequestKind.READ and not status else b"")
    assert guest.state(63) == SlotState.SUBMITTED
    assert guest.take_completions() == 1
    assert (guest.state(63), guest.status(63)) == (SlotState.DONE, status)
    if kind is RequestKind.READ and not status:
        assert guest.buffer(63)[:513] == b"r" * 512 + b"\0"
    counter = {RequestKind.FLUSH: "flushes", RequestKind.WRITE_ZEROES: "writes_of_zeroes"}
    name = counter.get(kind, f"{kind.name.lower()}s")
    after = guest.registers()
    assert {key: after[key] - before[key] for key in after if after[key] != before[key]} == (
        {name: 1, "errors": 1} if status else {name: 1}
    )


def test_completion_with_data_of_another_length_is_refused(guest: DiskGuest) -> None:
    guest.submit(0, READ)
    (taken,) = guest.machine.disks[0].take()
    with pytest.raises(LocalError, match="expected 1536 bytes of data, found 3"):
        guest.machine.disks[0].complete(taken, 0, b"abc")


def test_slots_are_used_again_thousands_of_times(guest: DiskGuest) -> None:
    disk = guest.machine.disks[0]
    for turn in range(1000):
        slots = [turn % DISK_SLOTS, (turn * 7 + 3) % DISK_SLOTS]
        for slot in dict.fromkeys(slots):
            guest.submit(slot, BlockRequest(RequestKind.FLUSH))
        taken = disk.take()
        assert {each.slot for each in taken} == set(slots)
        for each in reversed(taken):
            disk.complete(each, 0)
        assert disk.take() == []
        assert guest.take_completions() == len(taken)
        for slot in dict.fromkeys(slots):
            guest.release(slot)


def submitted(guest: DiskGuest) -> None:
    guest.submit(3, WRITE)


def taken(guest: DiskGuest) -> None:
    submitted(guest)
    assert len(guest.machine.disks[0].take()) == 1


def completed(guest: DiskGuest) -> None:
    submitted(guest)
    (each,) = guest.machine.disks[0].take()
    guest.machine.disks[0].complete(each, 0)


def done(guest: DiskGuest) -> None:
    completed(guest)
    assert guest.take_completions() == 1


def freed(guest: DiskGuest) -> None:
    done(guest)
    guest.release(3)


@pytest.mark.parametrize("step", [submitted, taken, completed, done, freed])
def test_state_that_is_saved_at_any_step_is_gone_on_from_elsewhere(
    guest: DiskGuest, step: Callable[[DiskGuest], None]
) -> None:
    step(guest)
    with DiskGuest([DISK]) as other:
        # The other guest has a request of its own under way, which the load ends.
        other.submit(9, READ)
        (old,) = other.machine.disks[0].take()
        other.machine.ram.array[:] = guest.machine.ram.array
        other.machine.load(
            [
                (theirs, ours.state())
                for theirs, ours in zip(other.machine.devices, guest.machine.devices, strict=True)
            ]
        )
        assert other.registers() == guest.registers()
        other.machine.disks[0].complete(old, 0, bytes(1536))
        again = other.machine.disks[0].take()
        if step in (done, freed):
            assert again == []
        else:
            assert [(each.slot, each.request) for each in again] == [(3, WRITE)]
            other.machine.disks[0].complete(again[0], 0)
            assert other.take_completions() == 1
            assert other.state(3) == SlotState.DONE
        assert other.take_completions() == 0


def test_guest_that_goes_on_here_gets_the_completion_of_before_the_stop(guest: DiskGuest) -> None:
    completed(guest)
    assert guest.machine.disks[0].take() == []
    assert guest.take_completions() == 1
    assert guest.state(3) == SlotState.DONE


@pytest.mark.parametrize("tracker", TRACKERS)
def test_every_tracker_sees_what_a_disk_changes(tracker: str) -> None:
    with DiskGuest([DISK], tracker) as guest:
        machine, first = guest.machine, guest.machine.block("disk0").first_page
        machine.tracker.arm()
        guest.submit(2, READ)
        (each,) = machine.disks[0].take()
        machine.disks[0].complete(each, 0, b"r" * READ.length)
        dirty = np.zeros_like(machine.ram.bitmap)
        machine.tracker.collect(dirty)
        assert pages_of(dirty) == {first}
        assert guest.take_completions() == 1
        dirty[:] = 0
        machine.tracker.collect(dirty)
        buffer = first + (BUFFERS_AT + 2 * DISK_BUFFER_BYTES) // PAGE_SIZE
        assert pages_of(dirty) == {first, buffer}


def pages_of(bitmap: np.ndarray) -> set[int]:
    bits = np.unpackbits(bitmap.view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def test_state_of_a_disk_of_another_size_is_refused(guest: DiskGuest) -> None:
    with DiskGuest([f"/disk,size={2 * SIZE}"]) as other:
        device = guest.machine.disks[0].device
        parser = other.machine.disks[0].device.parse(1)
        wanted = next(parser)
        with pytest.raises(
            VMStateError,
            match=f"device 'disk' 0, field 'size': expected {2 * SIZE} bytes, found {SIZE}",
        ):
            parser.send(device.save()[:wanted])


def test_machine_without_disks_is_as_it_was() -> None:
    machine = Machine(GuestSettings(PAGE_SIZE))
    assert [block.name for block in machine.ram.blocks] == ["pc.ram", "vga.vram"]
    assert [device.idstr for device in machine.devices] == ["cpu", "timer", "serial", "nic"]
    assert machine.settings.agreed() == {"ram": "4K", "trace_sha256": None}
    machine.close()


def test_each_disk_has_a_block_and_a_device(guest: DiskGuest) -> None:
    machine = Machine(GuestSettings(PAGE_SIZE, disks=["/a,size=4K", "/b,size=8K"]))
    assert [block.used_length for block in machine.ram.blocks[2:]] == [DISK_BLOCK_BYTES] * 2
    assert [(each.idstr, each.instance_id) for each in machine.devices[4:]] == [
        ("disk", 0),
        ("disk", 1),
    ]
    assert machine.settings.agreed()["disks"] == [4096, 8192]
    machine.close()


def test_completion_for_a_slot_that_the_guest_has_changed_is_dropped(guest: DiskGuest) -> None:
    guest.submit(1, WRITE)
    (each,) = guest.machine.disks[0].take()
    guest.block()[SLOT_BYTES + STATE] = 77
    guest.machine.disks[0].complete(each, 0)
    assert guest.take_completions() == 0
    assert guest.state(1) == 77


def test_completion_keeps_what_a_frozen_page_held() -> None:
    with DiskGuest([DISK], freezable=True) as guest:
        machine, first = guest.machine, guest.machine.block("disk0").first_page
        guest.submit(0, READ)
        (each,) = machine.disks[0].take()
        before, frozen = guest.block().copy(), machine.tracker.frozen
        assert frozen is not None
        # The slots, and the first buffer.
        pages = np.zeros_like(machine.ram.bitmap)
        pages[first // 64] = 3
        frozen.freeze(pages)
        machine.disks[0].complete(each, 0, b"r" * READ.length)
        assert guest.take_completions() == 1
        copy = RAM("copy", machine.ram.blocks)
        assert frozen.copy(copy, pages, 0, len(pages)) == 2
        held = copy.block_bytes(machine.block("disk0"))[: 2 * PAGE_SIZE]
        assert np.array_equal(held, before[: 2 * PAGE_SIZE])
        assert guest.buffer(0)[: READ.length] == b"r" * READ.length
        copy.close()
