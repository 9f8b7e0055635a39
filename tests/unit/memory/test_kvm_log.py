"""KVM's log names the pages that a virtual CPU writes: the same as other trackers do."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

import naive
from colobench.errors import LocalError
from colobench.guest.kvm.machine import KVMMachine
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.memory import kvm
from colobench.memory.kvm import KVMError, KVMUnavailable, VirtualMachine, place, require_kvm
from colobench.memory.kvm_log import KVMLog
from colobench.memory.ram import PAGE_SIZE, RAM, lay_out
from colobench.memory.shadow import Shadow
from colobench.memory.tracker import Tracker, TrackerUnavailable
from colobench.memory.userfault import UserFault
from colobench.settings.settings import Settings
from kvm_guests import KVM_PROGRAMS, needs_kvm
from share import amount, some

RAM_BYTES = 4 << 20


def collected(tracker: Tracker) -> set[int]:
    into = np.zeros_like(tracker.ram.bitmap)
    tracker.collect(into)
    return set(naive.pages_of(into))


@contextlib.contextmanager
def running(program: Program, **settings: int) -> Iterator[KVMMachine]:
    guest = GuestSettings(RAM_BYTES, program, **settings)
    with contextlib.closing(KVMMachine(guest)) as machine:
        yield machine


def run_for_steps(machine: KVMMachine, steps: int) -> None:
    """Let a guest run until it has done so many more steps."""
    goal, until = machine.work + steps, time.monotonic() + 60
    machine.start()
    while machine.work < goal:
        assert time.monotonic() < until
        time.sleep(0.0005)
    machine.stop()


@needs_kvm
@pytest.mark.parametrize("program", some(KVM_PROGRAMS, 1))
def test_kvm_and_userfault_name_the_same_pages_of_the_same_memory(program: Program) -> None:
    try:
        UserFault.try_effect()
    except TrackerUnavailable as error:
        pytest.skip(str(error))
    seen = 0
    with (
        running(program, writes_per_tick=6) as machine,
        contextlib.closing(UserFault(machine.ram)) as userfault,
        contextlib.closing(Shadow(machine.ram)) as shadow,
    ):
        for tracker in (machine.tracker, userfault, shadow):
            tracker.arm()
        for _ in range(amount(20, 1000)):
            run_for_steps(machine, 3)
            found = collected(machine.tracker)
            assert collected(userfault) == found
            # A page may be written with the bytes that it had.
            assert collected(shadow) <= found
            assert found
            seen += len(found)
    assert seen > 0


@needs_kvm
def test_both_blocks_are_watched_and_pages_are_those_that_the_program_writes() -> None:
    with running(Program.KVM_UNIFORM, writes_per_tick=40) as machine:
        machine.tracker.arm()
        run_for_steps(machine, 200)
        found = collected(machine.tracker)
        screen = machine.ram.blocks[1].first_page
        assert screen in found
        # The page of the words, and that of the stack.
        assert {1, 2} <= found
        data = {page for page in found if page < screen}
        assert all(page in (1, 2) or page >= 9 for page in data)
        assert collected(machine.tracker) == set()


@needs_kvm
def test_a_page_that_is_written_while_the_log_is_taken_is_in_no_epoch_less_than_once() -> None:
    with running(Program.KVM_SEQUENTIAL, writes_per_tick=100) as machine:
        machine.tracker.arm()
        shadow = machine.ram.array.copy()
        machine.start()
        found: set[int] = set()
        rounds, until = 0, time.monotonic() + 60
        while rounds < amount(50, 1000) or machine.work < 500:
            assert time.monotonic() < until
            found |= collected(machine.tracker)
            rounds += 1
        machine.stop()
        found |= collected(machine.tracker)
        pages = (machine.ram.array != shadow).reshape(-1, PAGE_SIZE).any(axis=1)
        assert pages.any()
        assert set(np.flatnonzero(pages).tolist()) <= found


@needs_kvm
def test_the_log_has_no_writes_of_the_host_and_a_probe_says_so() -> None:
    blocks = lay_out({"first": 70 * PAGE_SIZE, "last": 64 * PAGE_SIZE})
    with (
        contextlib.closing(RAM("test", blocks)) as ram,
        contextlib.closing(KVMLog(ram)) as tracker,
    ):
        tracker.arm()
        ram.array[3 * PAGE_SIZE] = 1
        assert collected(tracker) == set()
        tracker._touch(69)
        assert collected(tracker) == {69}
        tracker.disarm()
        tracker._touch(5)
        assert collected(tracker) == set()
        tracker.arm()
        assert collected(tracker) == set()
    assert "virtual CPU" in KVMLog.try_effect()


@needs_kvm
def test_what_is_closed_leaves_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    KVMLog.try_effect()
    assert os.listdir("/proc/self/fd") == before


def test_the_first_block_ends_where_the_others_begin() -> None:
    with contextlib.closing(RAM("test", lay_out({"a": 4096, "b": 8192, "c": 4096}))) as ram:
        assert [address for _, address in place(ram)] == [0, 0xE0000000, 0xE0002000]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"guest": "kvm", "tracker": "mprotect"}, "guest kvm: expected tracker kvm or userfault"),
        ({"guest": "uniform", "tracker": "kvm"}, "tracker kvm: expected guest kvm, whose writes"),
        (
            {"guest": "kvm", "capture": "copy-on-write"},
            "guest kvm: expected capture stop-and-send",
        ),
        ({"tracker": "kvm", "capture": "copy-on-write"}, "copy-on-write: expected tracker marked"),
        ({"guest": "kvm", "disks": ["a.img:1M"]}, "disks: expected none for the guest kvm:boot"),
        ({"guest": "kvm", "ram": "3585M"}, "ram: expected at most 3584 MiB for the guest kvm:boot"),
    ],
)
def test_what_does_not_go_with_a_guest_of_kvm_is_refused_by_name(
    settings: dict[str, object], words: str
) -> None:
    with pytest.raises(LocalError, match=words):
        Settings().override(**settings)


def test_a_guest_of_kvm_has_kvms_log_unless_another_tracker_is_named() -> None:
    assert Settings().override(guest="kvm").checkpoint.tracker == "kvm"
    assert Settings().override(guest="kvm").guest.program is Program.KVM_BOOT
    assert Settings().override(guest="kvm").as_json()["guest"] == "kvm:boot"
    named = Settings().override(guest="kvm:hotcold", tracker="userfault")
    assert named.checkpoint.tracker == "userfault"
    written = Settings().override(guest="kvm:uniform").as_json()
    assert Settings.from_json(written).as_json() == written
    assert Settings.from_json(written).override(guest="idle").checkpoint.tracker == "marked"
    assert Settings.from_json(written).override(guest="kvm").checkpoint.tracker == "kvm"
    divergent = Settings().override(guest="kvm", encoding="divergent", variant="upstream")
    assert divergent.checkpoint.variant == "upstream"


def test_missing_kvm_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "DEVICE", "/dev/there-is-no-kvm")
    descriptors = os.listdir("/proc/self/fd")
    require_kvm.cache_clear()
    try:
        with pytest.raises(KVMUnavailable, match=r"^kvm: /dev/there-is-no-kvm: No such file"):
            require_kvm()
        with pytest.raises(TrackerUnavailable, match="/dev/there-is-no-kvm"):
            KVMLog.try_effect()
    finally:
        require_kvm.cache_clear()
    assert os.listdir("/proc/self/fd") == descriptors


@needs_kvm
def test_a_call_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kvm.CAPABILITIES, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", 1 << 20)
    with pytest.raises((KVMError, KVMUnavailable), match="KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"):
        VirtualMachine(None)
