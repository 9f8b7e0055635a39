"""Every tracker names exactly the pages that were written, and leaves the process as it was."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.errors import LocalError
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import REPRODUCIBLE, Program
from colobench.guest.programs.hotcold import zipf_distribution
from colobench.guest.settings import SCREEN_BYTES, GuestSettings
from colobench.kernels import bitmap, tracking
from colobench.kernels import pages as page_kernels
from colobench.kernels.atomics import store_release
from colobench.memory import mprotect, userfault
from colobench.memory.marked import Marked
from colobench.memory.ram import PAGE_SIZE, RAM, lay_out
from colobench.memory.tracker import Tracker, TrackerUnavailable, tracker_class, watch
from colobench.memory.tracker_names import ALL_TRACKERS, TRACKERS

#: Not a multiple of 64: padding follows, and behind it the screen.
PAGES = 70
#: Those that see what anybody in the process writes, without a word from who writes it.
UNASKED = [name for name in TRACKERS if name != "marked"]


@functools.cache
def reason_to_skip(name: str) -> str | None:
    """Say why this machine cannot run a tracker."""
    try:
        tracker_class(name).try_effect()
    except TrackerUnavailable as error:
        return str(error)
    return None


@pytest.fixture(autouse=True)
def available(request: pytest.FixtureRequest) -> None:
    """Skip tests of a tracker that cannot run here."""
    names = [request.node.callspec.params.get("name")] if hasattr(request.node, "callspec") else []
    for name in filter(None, names):
        if reason := reason_to_skip(name):
            pytest.skip(reason)


every_tracker = pytest.mark.parametrize("name", TRACKERS)
every_unasked_tracker = pytest.mark.parametrize("name", UNASKED)


@contextlib.contextmanager
def guest(
    name: str, program: Program, seed: int = 1, writes_per_tick: int = 4
) -> Iterator[Machine]:
    settings = GuestSettings(PAGES * PAGE_SIZE, program, seed, writes_per_tick)
    with contextlib.closing(Machine(settings, name)) as machine:
        yield machine


@contextlib.contextmanager
def watched_ram(name: str, pages: int = PAGES) -> Iterator[tuple[RAM, Tracker]]:
    """Watch RAM of two blocks, the first one followed by padding."""
    blocks = lay_out({"first": pages * PAGE_SIZE, "last": 64 * PAGE_SIZE})
    with (
        contextlib.closing(RAM("test", blocks)) as ram,
        contextlib.closing(watch(name, ram)) as tracker,
    ):
        yield ram, tracker


def collected(tracker: Tracker, *already: int) -> set[int]:
    words = len(tracker.ram.bitmap)
    into = np.array(naive.bitmap_of(already, words), dtype=np.uint64)
    tracker.collect(into)
    return set(naive.pages_of(into))


# -- Exactness -----------------------------------------------------------------------------------


@every_tracker
@given(
    st.sampled_from(REPRODUCIBLE),
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 130), min_size=1, max_size=8),
)
@settings(max_examples=40)
def test_each_epoch_names_what_the_naive_guest_writes(
    name: str, program: Program, seed: int, epochs: list[int]
) -> None:
    ram, screen = bytearray(PAGES * PAGE_SIZE), bytearray(SCREEN_BYTES)
    table = zipf_distribution(PAGES).tolist()
    work = 0
    with guest(name, program, seed) as machine:
        screen_page = machine.ram.blocks[1].first_page
        machine.tracker.arm()
        for steps in epochs:
            written = set()
            for step in range(work, work + steps):
                written |= naive.guest_step(program.label, seed, step, ram, screen, table)
            work += steps
            machine.run_until(work)
            assert collected(machine.tracker) == {
                page if page >= 0 else screen_page - 1 - page for page in written
            }


@every_unasked_tracker
@pytest.mark.parametrize("program", REPRODUCIBLE)
@pytest.mark.parametrize("seed", [1, 2, 2**64 - 1])
def test_each_of_many_epochs_names_what_the_guest_marks(
    name: str, program: Program, seed: int
) -> None:
    with guest(name, program, seed) as machine, guest("marked", program, seed) as marking:
        for each in (machine, marking):
            each.run_until(77)
            each.tracker.arm()
        lengths = np.random.default_rng(seed).integers(0, 400, 50).tolist()
        for work in np.cumsum([77, *lengths])[1:].tolist():
            for each in (machine, marking):
                each.run_until(work)
            assert collected(machine.tracker) == collected(marking.tracker)


@every_unasked_tracker
@given(pages=st.lists(st.sets(st.integers(0, 128 + 63)), max_size=4))
@settings(max_examples=40)
def test_what_the_host_writes_is_named_and_nothing_else(name: str, pages: list[set[int]]) -> None:
    with watched_ram(name) as (ram, tracker):
        tracker.arm()
        for epoch in pages:
            for page in epoch:
                ram.array[page * PAGE_SIZE + page] += np.uint8(1)
            assert collected(tracker) == epoch


@every_unasked_tracker
def test_what_a_kernel_of_the_host_writes_is_named(name: str) -> None:
    with watched_ram(name) as (ram, tracker):
        cache = np.full(len(ram.array), 5, dtype=np.uint8)
        tracker.arm()
        written = {0, 1, 2, 63, 64, 130, ram.pages - 1}
        page_kernels.flush(
            ram.array, cache, np.array(naive.bitmap_of(written, ram.pages // 64), dtype=np.uint64)
        )
        assert collected(tracker) == written


@every_tracker
def test_first_and_last_page_are_watched(name: str) -> None:
    with watched_ram(name) as (ram, tracker):
        tracker.arm()
        for page in (0, ram.pages - 1):
            tracker._touch(page)
            assert collected(tracker) == {page}


@every_unasked_tracker
@pytest.mark.parametrize("byte", [0, 1, 1023, 1024, 4095])
def test_a_write_to_any_byte_is_a_write_to_its_page(name: str, byte: int) -> None:
    with watched_ram(name) as (ram, tracker):
        tracker.arm()
        ram.array[3 * PAGE_SIZE + byte] = 1
        assert collected(tracker) == {3}


@every_tracker
def test_bits_that_are_set_stay(name: str) -> None:
    with watched_ram(name) as (_, tracker):
        tracker.arm()
        tracker._touch(7)
        assert collected(tracker, 3, 7, 64) == {3, 7, 64}
        assert collected(tracker, 8) == {8}


@every_tracker
def test_reading_is_not_writing(name: str) -> None:
    with watched_ram(name) as (ram, tracker):
        tracker.arm()
        assert not ram.array.any()
        assert collected(tracker) == set()


@every_tracker
def test_nothing_is_seen_but_between_arm_and_disarm(name: str) -> None:
    with watched_ram(name) as (_, tracker):
        tracker._touch(1)
        assert collected(tracker) == set()
        for _ in range(3):
            tracker._touch(2)
            tracker.arm()
            assert tracker.armed
            assert collected(tracker) == set()
            tracker._touch(4)
            tracker.disarm()
            tracker._touch(5)
            assert not tracker.armed
            assert collected(tracker) == set()


@every_tracker
def test_arming_again_begins_a_new_epoch(name: str) -> None:
    with watched_ram(name) as (_, tracker):
        tracker.arm()
        tracker._touch(1)
        tracker.arm()
        tracker._touch(2)
        assert collected(tracker) == {2}


@every_tracker
def test_two_rams_are_watched_side_by_side(name: str) -> None:
    with watched_ram(name) as (_, one), watched_ram(name) as (_, other):
        one.arm()
        other.arm()
        one._touch(1)
        other._touch(2)
        assert (collected(one), collected(other)) == ({1}, {2})
        one.close()
        other._touch(3)
        assert collected(other) == {3}


@contextlib.contextmanager
def ram_of_huge_pages(length: int = 8 << 20) -> Iterator[RAM]:
    """Make RAM as it is where shmem_enabled is `always`; skip where a kernel cannot be made to."""
    huge, madv_collapse = 2 << 20, 25
    libc = ctypes.CDLL(None, use_errno=True)
    room = mmap.mmap(-1, length + huge)
    base = ctypes.addressof(ctypes.c_char.from_buffer(room))
    place = -(-base // huge) * huge
    with contextlib.closing(RAM("test", lay_out({"ram": length}))) as ram:
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        map_fixed = 0x10
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE | map_fixed
        assert libc.mmap(place, length, protection, flags, ram.fd, 0) == place
        ram.array = np.frombuffer(room, dtype=np.uint8)[place - base :][:length]
        if libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(length), madv_collapse):
            pytest.skip("MADV_COLLAPSE: " + os.strerror(ctypes.get_errno()))
        assert huge_bytes(ram.array) == length
        yield ram


def huge_bytes(array: np.ndarray) -> int:
    """Say how much of a memory is mapped by huge pages."""
    text = Path("/proc/self/smaps").read_text()
    begin = f"{array.ctypes.data:x}"
    match = re.search(rf"^{begin}-.*?ShmemPmdMapped: *(\d+) kB", text, re.M | re.S)
    assert match is not None
    return int(match[1]) << 10


@every_unasked_tracker
def test_small_pages_are_named_also_where_they_are_parts_of_huge_ones(name: str) -> None:
    with ram_of_huge_pages() as ram, contextlib.closing(watch(name, ram)) as tracker:
        for written in ({700, 1300}, {700}, set(range(ram.pages)), {5, 2047}):
            tracker.disarm()
            tracker.arm()
            for page in written:
                ram.array[page * PAGE_SIZE] += np.uint8(1)
            assert collected(tracker) == written
            assert collected(tracker) == set()


# -- Beside a running guest ----------------------------------------------------------------------


@every_tracker
@pytest.mark.parametrize("program", [Program.UNIFORM, Program.HOTCOLD, Program.SEQUENTIAL])
def test_no_page_is_lost_beside_a_running_guest(name: str, program: Program) -> None:
    with guest(name, program, writes_per_tick=1000) as machine:
        ram = machine.ram
        machine.tracker.arm()
        replica = ram.array.copy()
        named: set[int] = set()
        machine.start()
        turns = 0
        while machine.running:
            turns += 1
            if turns >= 300 and machine.work > 1000:
                machine.stop()
            pages = collected(machine.tracker)
            named |= pages
            for page in pages:
                at = slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
                replica[at] = ram.array[at]
        assert np.array_equal(replica, ram.array)
        with guest("marked", program) as undisturbed:
            undisturbed.tracker.arm()
            undisturbed.run_until(machine.work)
            assert named == collected(undisturbed.tracker)


@numba.njit(nogil=True)
def count_in_pages(words: np.ndarray, first: int, stores: int) -> None:
    """Store 1, 2, … to one word of each page in turn, up to `stores` of them or many fewer."""
    for page in range(len(words) // 512):
        for number in range(stores >> (page % 8)):
            store_release(words, 512 * page + first, np.uint64(number + 1))


@every_unasked_tracker
@pytest.mark.parametrize("writers", [1, 3])
def test_each_last_write_is_followed_by_an_epoch_that_names_its_page(
    name: str, writers: int
) -> None:
    with watched_ram(name) as (ram, tracker):
        words = ram.array.view(np.uint64)
        into = np.zeros_like(ram.bitmap)
        pages = np.zeros(ram.pages, dtype=np.int32)
        replica = ram.array.copy()

        def replicate() -> None:
            bitmap.clear(into)
            tracker.collect(into)
            for page in pages[: bitmap.list_pages(into, pages)].tolist():
                at = slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
                replica[at] = ram.array[at]

        tracker.arm()
        for turn in range(20):
            threads = [
                threading.Thread(target=count_in_pages, args=(words, 64 * writer, 100_000 + turn))
                for writer in range(writers)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                replicate()
            replicate()
            different = (replica != ram.array).reshape(-1, PAGE_SIZE).any(axis=1)
            assert np.flatnonzero(different).tolist() == []


# -- What is left behind -------------------------------------------------------------------------


class Mapping:
    """What Linux says of the mappings that a memory begins with."""

    def __init__(self, array: np.ndarray) -> None:
        begin = f"{array.ctypes.data:x}"
        text = Path("/proc/self/smaps").read_text()
        match = re.search(rf"^{begin}-(\w+) (\S+).*?^VmFlags: ([^\n]*)", text, re.M | re.S)
        assert match is not None
        self.length = int(match[1], 16) - array.ctypes.data
        self.permissions, self.flags = match[2], match[3].split()


def action() -> tuple[int, int, int]:
    """Give this process's action for SIGSEGV: handler, blocked signals, flags."""
    now = mprotect._Action()
    mprotect._faults._sigaction(None, now)
    return now.handler, now.mask[0], now.flags


@every_tracker
def test_closing_leaves_no_descriptor_no_protection_and_no_handler(name: str) -> None:
    with contextlib.closing(RAM("test", lay_out({"ram": 128 * PAGE_SIZE}))) as ram:
        before = (os.listdir("/proc/self/fd"), action(), vars(Mapping(ram.array)))
        for touch in (False, True):
            tracker = watch(name, ram)
            tracker.arm()
            if touch:
                for page in range(0, 128, 2):
                    tracker._touch(page)
            tracker.close()
            assert (os.listdir("/proc/self/fd"), action(), vars(Mapping(ram.array))) == before
            ram.array[:] += np.uint8(1)
        tracker.close()
        assert before[2]["permissions"] == "rw-s"


@every_tracker
def test_machine_that_was_never_armed_is_closed(name: str) -> None:
    before = action()
    with guest(name, Program.UNIFORM) as machine:
        machine.run_until(10)
    assert action() == before


def test_machine_without_its_tracker_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_TRACKERS, "deaf", f"{__name__}.Deaf")
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(TrackerUnavailable), guest("deaf", Program.IDLE):
        pass
    assert os.listdir("/proc/self/fd") == descriptors


def test_protections_are_real() -> None:
    for name, expected in (("mprotect", "permissions"), ("userfault", "flags")):
        if reason := reason_to_skip(name):
            pytest.skip(reason)
        with watched_ram(name) as (ram, tracker):
            tracker.arm()
            found = getattr(Mapping(ram.array), expected)
            assert found == "r--s" if expected == "permissions" else "uw" in found
            tracker.disarm()
            assert Mapping(ram.array).permissions == "rw-s"


# -- Machines that cannot ------------------------------------------------------------------------


class Deaf(Marked):
    """A tracker whose calls succeed and do nothing, as those of soft-dirty may."""

    name = "deaf"

    def _collect(self, into: np.ndarray) -> None:
        """Say nothing."""


class Late(Marked):
    """A tracker that does not forget."""

    name = "late"

    def _arm(self) -> None:
        """Keep what was written before."""


@pytest.mark.parametrize("broken", [Deaf, Late])
def test_tracker_that_names_other_pages_is_not_available(broken: type[Tracker]) -> None:
    with pytest.raises(TrackerUnavailable, match=rf"{broken.name}: expected .* found \[\["):
        broken.try_effect()


def test_effect_is_tried_before_a_tracker_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_TRACKERS, "deaf", f"{__name__}.Deaf")
    with pytest.raises(TrackerUnavailable), watched_ram("deaf"):
        pass


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({}, "no system call number known"),
        (dict.fromkeys(userfault.SYS_USERFAULTFD, 100_000), os.strerror(errno.ENOSYS)),
    ],
)
def test_missing_userfaultfd_is_said(
    monkeypatch: pytest.MonkeyPatch, numbers: dict[str, int], reason: str
) -> None:
    monkeypatch.setattr(userfault, "SYS_USERFAULTFD", numbers)
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(TrackerUnavailable, match=reason):
        userfault.UserFault.try_effect()
    assert os.listdir("/proc/self/fd") == descriptors


def test_scan_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := reason_to_skip("userfault"):
        pytest.skip(reason)
    monkeypatch.setattr(userfault, "_open_pagemap", lambda: os.open("/dev/null", os.O_RDONLY))
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(TrackerUnavailable, match="PAGEMAP_SCAN: Inappropriate ioctl for device"):
        userfault.UserFault.try_effect()
    assert os.listdir("/proc/self/fd") == descriptors


def test_scan_goes_on_where_its_list_was_full(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := reason_to_skip("userfault"):
        pytest.skip(reason)
    monkeypatch.setattr(userfault, "REGIONS", 3)
    written = {*range(0, 70, 2), *range(100, 130)}
    with watched_ram("userfault") as (_, tracker):
        for _ in range(2):
            tracker.arm()
            for page in written:
                tracker._touch(page)
            assert collected(tracker) == written
            assert collected(tracker) == set()


def test_pages_of_another_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colobench.memory.tracker.mmap.PAGESIZE", 16384)
    for name in ("userfault", "mprotect"):
        expected = "pages of 4096 bytes, found 16384"
        with pytest.raises(TrackerUnavailable, match=expected), watched_ram(name):
            pass


def test_ram_of_more_pages_than_mappings_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "max_map_count"
    monkeypatch.setattr(mprotect, "MAX_MAP_COUNT", limit)
    limit.write_text("20000\n")
    with watched_ram("mprotect"):
        pass
    limit.write_text("2100\n")
    before = action()
    refusal = r"vm\.max_map_count is 2100.*found 0 MiB"
    with pytest.raises(TrackerUnavailable, match=refusal), watched_ram("mprotect"):
        pass
    assert action() == before


# -- The handler of faults -----------------------------------------------------------------------


def test_protected_ram_is_not_written_by_system_calls() -> None:
    with watched_ram("mprotect") as (ram, tracker):
        tracker.arm()
        with (
            open("/dev/zero", "rb", buffering=0) as zeros,
            pytest.raises(OSError, match=os.strerror(errno.EFAULT)),
        ):
            zeros.readinto(ram.array)
        assert collected(tracker) == set()


def test_more_trackers_than_the_handler_has_slots_are_refused() -> None:
    with contextlib.ExitStack() as stack:
        # Trying the effect takes a slot for a moment.
        for _ in range(16):
            ram = stack.enter_context(contextlib.closing(RAM("test", lay_out({"ram": PAGE_SIZE}))))
            tracker = stack.enter_context(contextlib.closing(mprotect.MProtect(ram)))
            tracker.arm()
        with pytest.raises(LocalError, match="at most 16 trackers"):
            mprotect.MProtect(ram)
        tracker._touch(0)
        assert collected(tracker) == {0}


CRASH = """
import contextlib, ctypes, faulthandler, os, signal, sys, threading
from colobench.memory.ram import RAM, lay_out
from colobench.memory.tracker import watch
if "before" in sys.argv:
    faulthandler.enable()
ram = RAM("test", lay_out({"ram": 128 * 4096}))
tracker = watch("mprotect", ram)
if "after" in sys.argv:
    faulthandler.enable()
else:
    tracker.arm()
    ram.array[5 * 4096] = 1
if "closed" in sys.argv:
    tracker.close()
print("alive", flush=True)
if "sent" in sys.argv:
    os.kill(os.getpid(), signal.SIGSEGV)
elif "thread" in sys.argv:
    thread = threading.Thread(target=ctypes.string_at, args=(8,))
    thread.start()
    thread.join()
elif "ram" in sys.argv:
    place = ram.array.ctypes.data + len(ram.array)
    ctypes.CDLL(None).munmap(ctypes.c_void_p(place - 4096), ctypes.c_size_t(4096))
    ram.array[-1] = 1
else:
    ctypes.string_at(8)
print("survived")
"""


@pytest.mark.parametrize(
    ("cause", "handler", "closed"),
    [
        ("fault", "before", "open"),
        ("fault", "after", "open"),
        ("fault", "none", "open"),
        ("sent", "before", "open"),
        ("sent", "none", "open"),
        ("thread", "before", "open"),
        ("ram", "before", "open"),
        ("ram", "none", "open"),
        ("fault", "before", "closed"),
        ("fault", "after", "closed"),
    ],
)
def test_real_crash_still_crashes_and_is_reported(cause: str, handler: str, closed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CRASH, cause, handler, closed],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "alive\n"
    assert done.returncode == -signal.SIGSEGV
    reports = done.stderr.count("Fatal Python error: Segmentation fault")
    assert reports == (handler != "none")


def test_foreign_handler_of_faults_is_noticed() -> None:
    with watched_ram("mprotect") as (_, tracker):
        ours = mprotect._Action()
        mprotect._faults._sigaction(mprotect._Action(), ours)
        try:
            with pytest.raises(LocalError, match="found another one"):
                tracker.arm()
        finally:
            mprotect._faults._sigaction(ours, None)
        tracker.arm()


def test_page_written_in_the_midst_of_a_collection_stays_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with watched_ram("mprotect") as (_, tracker):
        tracker.arm()
        protect = mprotect._faults.protect

        def interfere(begin: int, length: int, protection: int) -> None:
            tracker._touch(1)
            protect(begin, length, protection)
            tracker._touch(2)

        with monkeypatch.context() as patch:
            patch.setattr(mprotect._faults, "protect", interfere)
            collected(tracker)
        for page in (1, 2):
            tracker._touch(page)
        assert collected(tracker) == {1, 2}


@pytest.mark.parametrize("mapped", [True, False])
def test_page_is_marked_only_once_it_is_writable(mapped: bool) -> None:
    # Were it marked first, a collector could take the mark and protect the page before that.
    with watched_ram("mprotect") as (ram, _):
        table, marks = np.zeros(tracking.TABLE_WORDS, dtype=np.int64), np.zeros(1, dtype=np.uint64)
        now, default = mprotect._Action(), mprotect._Action()
        mprotect._faults._sigaction(None, now)
        table[tracking.PREVIOUS] = ctypes.addressof(now)
        table[tracking.DEFAULT] = ctypes.addressof(default)
        # Nothing is ever mapped at the first page.
        begin = ram.array.ctypes.data if mapped else 0
        tracking.watch_range(table, 3, begin, begin + 64 * PAGE_SIZE, marks.ctypes.data)
        fault = np.array([0, 1, begin + 2 * PAGE_SIZE + 17], dtype=np.int64)
        handle = tracking.fault_handler(table.ctypes.data).ctypes
        handle(tracking.SIGSEGV, fault.ctypes.data, 0)
        assert naive.pages_of(marks) == ([2] if mapped else [])
        # Whoever leads a fault back here after the previous action shall not do so for ever.
        gone = table[tracking.PREVIOUS] == table[tracking.DEFAULT]
        assert gone == (not mapped)


def test_handler_knows_nothing_of_python() -> None:
    with watched_ram("mprotect"):
        text = mprotect._faults._code.inspect_llvm()
    functions = [part.partition("\n}")[0] for part in text.split("\ndefine ")[1:]]
    # numba's wrapper reports exceptions to Python; in these bodies none is raised.
    bodies = [body for body in functions if "@cfunc." not in body.partition("\n")[0]]
    called = {name for body in bodies for name in re.findall(r"call .*?@(\w+)\(", body)}
    assert {each for each in called if "tracking" not in each} == {"mprotect", "raise", "sigaction"}
    assert "atomicrmw or" in "".join(bodies)
