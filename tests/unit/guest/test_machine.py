"""The guest: what its programs write, what its devices save, how it starts, sleeps and stops."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from colobench.errors import LocalError
from colobench.fields.sizes import parse_size
from colobench.guest.numba import cpu
from colobench.guest.numba.cpu import CPUState
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import REPRODUCIBLE, Program
from colobench.guest.programs.hotcold import zipf_distribution
from colobench.guest.settings import SCREEN_BYTES, GuestSettings
from colobench.memory.ram import PAGE_SIZE

PAGES = 70
PROGRAMS = st.sampled_from(REPRODUCIBLE)
SEEDS = st.integers(0, 2**64 - 1)


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine(GuestSettings(PAGES * PAGE_SIZE, Program.UNIFORM, 3, writes_per_tick=50))
    yield machine
    machine.close()


def guest(program: Program, seed: int, pages: int = PAGES) -> Machine:
    return Machine(GuestSettings(pages * PAGE_SIZE, program, seed))


def dirty_pages(machine: Machine) -> set[int]:
    dirty = np.zeros_like(machine.ram.bitmap)
    machine.tracker.collect(dirty)
    return set(naive.pages_of(dirty))


def wait_for_work(machine: Machine, work: int) -> None:
    while machine.work < work:
        pass


@given(PROGRAMS, SEEDS, st.integers(1, PAGES), st.integers(0, 300))
def test_programs_write_what_their_naive_twin_writes(
    program: Program, seed: int, pages: int, work: int
) -> None:
    machine = guest(program, seed, pages)
    ram, screen = bytearray(pages * PAGE_SIZE), bytearray(SCREEN_BYTES)
    table = zipf_distribution(pages).tolist()
    written = set()
    machine.tracker.arm()
    for step in range(work):
        written |= naive.guest_step(program.label, seed, step, ram, screen, table)
    machine.run_until(work)
    ram_block, screen_block = machine.ram.blocks
    assert machine.ram.block_bytes(ram_block).tobytes() == ram
    assert machine.ram.block_bytes(screen_block).tobytes() == screen
    assert dirty_pages(machine) == {
        page if page >= 0 else screen_block.first_page - 1 - page for page in written
    }
    machine.close()


@given(PROGRAMS, SEEDS, st.lists(st.integers(0, 2000), max_size=5))
def test_ram_does_not_depend_on_where_the_guest_was_stopped(
    program: Program, seed: int, stops: list[int]
) -> None:
    once, often = guest(program, seed), guest(program, seed)
    once.run_until(2000)
    for stop in [*sorted(stops), 2000]:
        often.run_until(stop)
    assert once.ram_digest() == often.ram_digest()
    once.close()
    often.close()


def test_ram_of_a_guest_stopped_a_hundred_times_is_that_of_one_never_stopped(
    machine: Machine,
) -> None:
    for _ in range(100):
        work = machine.work
        machine.start()
        wait_for_work(machine, work + 1)
        machine.stop()
    undisturbed = guest(Program.UNIFORM, 3)
    undisturbed.run_until(machine.work)
    assert machine.work > 100
    assert machine.ram_digest() == undisturbed.ram_digest()
    undisturbed.close()


@pytest.mark.parametrize("loads", [False, True])
def test_guest_is_stopped_and_started_at_any_moment_of_its_sleep_and_its_work(
    machine: Machine, loads: bool
) -> None:
    moments = random.Random(5)
    # Ticks that are this short have the CPU fall asleep and wake all the time.
    machine.timer["period_ns"] = 20_000
    machine.cpu["writes_per_tick"] = 3
    found = set()
    for _ in range(3000):
        machine.start()
        for _ in range(moments.randrange(40)):
            machine.control[cpu.COMMAND]
        machine.stop()
        found.add(CPUState(int(machine.control[cpu.STATE])))
        registers = [device.registers.tolist() for device in (machine.cpu, machine.timer)]
        for _ in range(moments.randrange(40)):
            machine.control[cpu.COMMAND]
        assert [each.registers.tolist() for each in (machine.cpu, machine.timer)] == registers
        if loads:
            machine.load([(each, each.state()) for each in machine.devices])
    assert found == {CPUState.HELD, CPUState.PARKED}
    with pytest.raises(BlockingIOError):
        read_now(int(machine.control[cpu.ACKNOWLEDGE_FD]))
    undisturbed = guest(Program.UNIFORM, 3)
    undisturbed.run_until(machine.work)
    assert machine.ram_digest() == undisturbed.ram_digest()
    undisturbed.close()


def read_now(descriptor: int) -> int:
    os.set_blocking(descriptor, False)
    return os.eventfd_read(descriptor)


def test_guest_that_sleeps_is_stopped_and_started_without_being_woken(machine: Machine) -> None:
    machine.timer["period_ns"] = machine.timer["remaining_ns"] = 3_600_000_000_000
    machine.start()
    while machine.control[cpu.STATE] != CPUState.ASLEEP:
        pass
    for _ in range(100):
        machine.stop()
        assert machine.control[cpu.STATE] == CPUState.HELD
        machine.start()
        assert machine.control[cpu.STATE] == CPUState.ASLEEP
    machine.stop()


def test_guest_goes_on_by_the_clock_after_running_without_it(machine: Machine) -> None:
    machine.run_until(100)
    machine.start()
    wait_for_work(machine, 101)
    machine.stop()


def test_stopped_guest_does_nothing(machine: Machine) -> None:
    machine.start()
    wait_for_work(machine, 10)
    machine.stop()
    state = [device.save() for device in machine.devices]
    digest = machine.ram_digest()
    # A second guest does a lot of work meanwhile, so time has passed.
    other = guest(Program.UNIFORM, 3)
    other.run_until(200_000)
    other.close()
    assert [device.save() for device in machine.devices] == state
    assert machine.ram_digest() == digest


def test_stop_and_start_may_follow_each_other_at_once(machine: Machine) -> None:
    for _ in range(2000):
        machine.start()
        machine.stop()
    machine.start()
    wait_for_work(machine, 1)


def test_guest_sleeps_between_ticks(machine: Machine) -> None:
    machine.timer["period_ns"] = machine.timer["remaining_ns"] = 3600 * 10**9
    machine.start()
    assert machine._thread is not None
    stat = Path(f"/proc/self/task/{machine._thread.native_id}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "S":
        pass
    assert machine.work == 0
    machine.stop()


def test_ticks_missed_in_a_pause_are_one_tick(machine: Machine) -> None:
    machine.start()
    wait_for_work(machine, 1)
    machine.stop()
    done = machine.timer["ticks"] + machine.timer["coalesced_ticks"]
    machine.control[cpu.DEADLINE] -= np.uint64(10 * machine.timer["period_ns"])
    work = machine.work + machine.cpu["pending_writes"]
    machine.start()
    wait_for_work(machine, work + 1)
    machine.stop()
    # The tick that was due next was up to one period away.
    assert machine.timer["coalesced_ticks"] >= 9
    assert machine.timer["ticks"] + machine.timer["coalesced_ticks"] >= done + 10


def test_console_tells_how_far_the_work_is(machine: Machine) -> None:
    machine.run_until(1024 * 25)
    assert machine.serial["transmitted"] == 25 * 26
    assert machine.serial.text().endswith("work 00000000000000024576\nwork 00000000000000025600\n")
    assert len(machine.serial.text()) == 512


def test_frames_stay_in_the_transmit_queue_until_the_host_takes_them(machine: Machine) -> None:
    machine.run_until(256 * 68)
    frames = machine.nic.queues["transmit"].list()
    assert [int.from_bytes(frame[14:22], "big") for frame in frames] == [
        256 * n for n in range(1, 65)
    ]
    assert (machine.nic["sent"], machine.nic["dropped"]) == (64, 4)
    assert os.eventfd_read(machine.network.kick_fd)
    assert machine.nic.queues["transmit"].take_all() == frames
    assert not machine.nic.queues["transmit"].list()


def test_received_frames_are_echoed_to_their_sender(machine: Machine) -> None:
    frame = bytes(range(60))
    assert machine.nic.queues["receive"].put(frame)
    machine.start()
    while not machine.nic["received"]:
        pass
    machine.stop()
    echo = frame[6:12] + frame[:6] + frame[12:]
    assert echo in machine.nic.queues["transmit"].list()


@pytest.mark.parametrize("program", REPRODUCIBLE)
def test_work_goes_on_in_every_program(program: Program) -> None:
    machine = guest(program, 1)
    machine.start()
    wait_for_work(machine, 3)
    machine.close()


@pytest.mark.parametrize(
    "arguments",
    [
        {"ram_bytes": 0},
        {"ram_bytes": 4097},
        {"ram_bytes": 4096, "seed": -1},
        {"ram_bytes": 4096, "seed": 2**64},
        {"ram_bytes": 4096, "writes_per_tick": 0},
    ],
)
def test_impossible_machine_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(LocalError, match=r"expected .* found"):
        GuestSettings(**arguments)


def test_machine_that_ran_cannot_be_run_without_a_clock(machine: Machine) -> None:
    machine.start()
    machine.stop()
    with pytest.raises(LocalError, match="never started"):
        machine.run_until(10)


def test_closed_machine_leaves_no_thread_and_no_descriptor() -> None:
    process = psutil.Process()
    threads, descriptors = process.threads(), process.num_fds()
    for _ in range(20):
        machine = guest(Program.UNIFORM, 0)
        machine.start()
        machine.close()
    assert process.num_fds() == descriptors
    # A thread that was joined may take the kernel a moment to bury.
    deadline = time.monotonic() + 30
    while len(process.threads()) > len(threads) and time.monotonic() < deadline:
        pass
    assert len(process.threads()) <= len(threads)


@given(st.integers(1, 10**6), st.sampled_from(["", "k", "K", "m", "M", "G"]))
def test_sizes_are_read_with_their_units(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number << 10 * " KMG".index(unit.upper() or " ")


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "64 Mbit", "0x10", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(LocalError, match="expected a number such as 64M, found"):
        parse_size(text)
