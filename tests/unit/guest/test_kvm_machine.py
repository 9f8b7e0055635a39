"""The KVM guest: RAM that follows from its seed, state that moves whole, what is refused."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.guest.kvm import vcpu
from colobench.guest.kvm.assembler import Jump, Label, LabelAddress, assemble
from colobench.guest.kvm.boot import BANNER, CODE_AT, alias_table, data_pages
from colobench.guest.kvm.devices import CPURegisters, ModelSpecificRegisters
from colobench.guest.kvm.machine import KVMMachine
from colobench.guest.making import check_guest, follows_from_seed, known_devices
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.memory import kvm, kvm_cpu, kvm_trial
from colobench.memory.kvm import KVMError
from colobench.wire.vmstate import Device, State, VMStateError
from kvm_guests import KVM_PROGRAMS, needs_kvm
from share import SEED, amount, some

RAM_BYTES = 2 << 20
ALL_KVM_PROGRAMS = (Program.KVM_BOOT, *KVM_PROGRAMS)


@contextlib.contextmanager
def machine(program: Program = Program.KVM_BOOT, **options: Any) -> Iterator[KVMMachine]:
    failed = options.pop("failed", lambda error: None)
    guest = GuestSettings(RAM_BYTES, program, **options)
    with contextlib.closing(KVMMachine(guest, failed=failed)) as made:
        yield made


def run_for_steps(guest: KVMMachine, steps: int) -> None:
    goal, until = guest.work + steps, time.monotonic() + 60
    guest.start()
    while guest.work < goal:
        assert time.monotonic() < until
        time.sleep(0.0005)
    guest.stop()


def parse(device: Device, data: bytes) -> State:
    """Feed a state to a device's parser, as the stream's reader does."""
    parser = device.parse(device.version_id)
    at, size = 0, next(parser)
    while True:
        part, at = data[at : at + size], at + size
        try:
            size = parser.send(part)
        except StopIteration as done:
            assert at == len(data)
            state: State = done.value
            return state


def saved(guest: KVMMachine) -> list[bytes]:
    return [device.save() for device in guest.devices]


# -- RAM -----------------------------------------------------------------------------------------


@needs_kvm
@pytest.mark.parametrize("program", ALL_KVM_PROGRAMS)
def test_ram_follows_from_seed_and_work_wherever_the_guest_is_stopped(program: Program) -> None:
    dice = random.Random(SEED)
    seed = dice.randrange(2**64)
    with machine(program, seed=seed, writes_per_tick=9, working_set=dice.choice([0, 7])) as guest:
        assert follows_from_seed(guest.settings, 0, guest.ram_digest())
        for _ in range(amount(3, 50)):
            run_for_steps(guest, dice.randrange(1, 40))
            work, found = guest.work, guest.ram_digest()
            assert follows_from_seed(guest.settings, work, found)
            # A step more or less has another RAM.
            assert not follows_from_seed(guest.settings, work + 2, found)
        other = GuestSettings(RAM_BYTES, program, seed ^ 1, 9, guest.settings.working_set)
        assert not follows_from_seed(other, work, found)


@pytest.mark.parametrize("pages", [1, 2, 3, 64, 1000])
def test_the_alias_table_draws_each_page_with_its_share_by_zipfs_law(pages: int) -> None:
    table = alias_table(pages).astype(np.float64)
    kept = table[:, 0] / 2.0**32
    shares = kept.copy()
    np.add.at(shares, table[:, 1].astype(int), 1.0 - kept)
    expected = 1.0 / np.arange(1, pages + 1)
    expected *= pages / expected.sum()
    assert np.allclose(np.sort(shares)[::-1], expected, atol=1e-6)


@pytest.mark.parametrize("program", KVM_PROGRAMS)
@pytest.mark.parametrize("ram_bytes", [1 << 20, (1 << 20) + 4096, 64 << 20])
def test_what_a_program_writes_is_in_ram_and_behind_its_table(
    program: Program, ram_bytes: int
) -> None:
    first, pages = data_pages(GuestSettings(ram_bytes, program))
    assert (first + pages) * 4096 <= ram_bytes
    assert pages > 0
    table = 8 * pages if program is Program.KVM_HOTCOLD else 0
    assert first * 4096 >= CODE_AT + 4096 + table


def test_jumps_and_addresses_are_those_of_labels() -> None:
    code = (b"\x90", Label("a"), Jump(b"\xe9", "b"), LabelAddress(b"\xbe", "a"), Label("b"))
    assembled, labels = assemble(0x1000, code)
    assert labels == {"a": 0x1001, "b": 0x100B}
    assert assembled == bytes.fromhex("90 e905000000 be01100000")


# -- State ---------------------------------------------------------------------------------------


@needs_kvm
@pytest.mark.parametrize("program", some(ALL_KVM_PROGRAMS, 2))
def test_state_moves_whole_and_the_guest_goes_on_from_it(program: Program) -> None:
    with machine(program, writes_per_tick=30, seed=5) as first, machine() as second:
        for _ in range(amount(3, 50)):
            run_for_steps(first, 20)
            devices = saved(first)
            states = [
                (device, parse(device, data))
                for device, data in zip(second.devices, devices, strict=True)
            ]
            second.ram.array[:] = first.ram.array
            second.load(states)
            assert saved(second) == devices
            assert second.describe()["program"] == program.label
            assert second.console() == first.console()
            work = second.work
            run_for_steps(second, 20)
            assert second.work >= work + 20
            assert follows_from_seed(first.settings, second.work, second.ram_digest())


@needs_kvm
def test_the_console_shows_the_banner_and_lines_with_the_work_done() -> None:
    with machine() as guest:
        run_for_steps(guest, 1)
        assert guest.console().startswith(BANNER.decode())
    with machine(Program.KVM_SEQUENTIAL, writes_per_tick=200) as guest:
        run_for_steps(guest, 1100)
        # The first line may have been cut, and the last one may be under way.
        lines = guest.console().split("\n")[1:-1]
        last = int(lines[-1].removeprefix("work "), 16) // 1024
        assert guest.work // 1024 - last in (0, 1)
        numbers = range(last - len(lines) + 1, last + 1)
        assert lines == [f"work {1024 * number:016x}" for number in numbers]


def altered(device: Device, **fields: int) -> bytes:
    """Save a device with other values in the first elements of some fields."""
    state = device.state()  # type: ignore[attr-defined]
    for name, value in fields.items():
        state[name] = state[name].copy()
        state[name][0] = value
    return bytes(device.vmstate.save(state))  # type: ignore[attr-defined]


@needs_kvm
@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        # Paging without protection, a selector of 17 bits, a state of halting that there is not.
        (CPURegisters, {"cr0": 0x80000000}, "KVM_SET_SREGS"),
        (CPURegisters, {"cs_selector": 0x10000}, "'cs_selector': expected 16 bits"),
        (CPURegisters, {"mp_state": 77}, "KVM_SET_MP_STATE"),
        (CPURegisters, {"xcr_xcrs0_value": 0}, "KVM_SET_XCRS"),
        (ModelSpecificRegisters, {"numbers": 0x9999}, "field 'numbers': expected"),
        (ModelSpecificRegisters, {"values": 0, "count": 65}, "expected at most 64, found 65"),
    ],
)
def test_a_state_that_kvm_refuses_is_refused_before_the_guest_has_it(
    kind: type, fields: dict[str, int], words: str
) -> None:
    with machine() as guest:
        device = next(each for each in guest.devices if isinstance(each, kind))
        data = altered(device, **{k: v for k, v in fields.items() if k != "count"})
        if "count" in fields:
            data = fields["count"].to_bytes(4, "big") + data[4:]
        before = saved(guest)
        with pytest.raises(VMStateError, match=words):
            parse(device, data)
        assert saved(guest) == before
        device.fetch()  # type: ignore[attr-defined]
        run_for_steps(guest, 2)


@needs_kvm
def test_a_reader_without_kvm_reads_the_same_state_and_describes_it() -> None:
    with machine() as guest:
        run_for_steps(guest, 2)
        for device, reader in zip(guest.devices, known_devices(guest.settings), strict=True):
            data = device.save()
            reader.apply(parse(reader, data))
            assert reader.save() == data
            assert reader.describe() == device.describe()


@needs_kvm
def test_another_version_is_refused() -> None:
    with machine() as guest:
        for device in guest.devices[:-1]:
            with pytest.raises(VMStateError, match="expected version 1 to 1, found 2"):
                next(device.parse(2))


@needs_kvm
def test_whatever_is_in_a_state_it_is_accepted_whole_or_refused_in_one_sentence() -> None:
    with machine() as guest:
        run_for_steps(guest, 2)
        before, refusals = saved(guest), list[str]()

        @given(
            st.integers(0, 3),
            st.lists(st.tuples(st.integers(0, 8191), st.integers(1, 255)), min_size=1, max_size=4),
        )
        # Another list of MSRs is refused in any case.
        @example(number=3, changes=[(8, 255)])
        @settings(max_examples=amount(20, 2000))
        def check(number: int, changes: list[tuple[int, int]]) -> None:
            device, data = guest.devices[number], bytearray(before[number])
            for at, bits in changes:
                data[at % len(data)] ^= bits
            parser = device.parse(device.version_id)
            at, size = 0, next(parser)
            try:
                while at + size <= len(data):
                    part, at = bytes(data[at : at + size]), at + size
                    size = parser.send(part)
            except StopIteration:
                assert at == len(data)
            except VMStateError as error:
                refusals.append(str(error))
            assert saved(guest) == before

        check()
        assert refusals
        assert all("\n" not in each for each in refusals)
        run_for_steps(guest, 2)


# -- Ends ----------------------------------------------------------------------------------------


@needs_kvm
def test_a_guest_that_cannot_go_on_is_one_error_for_its_node() -> None:
    errors: list[Exception] = []
    failed = threading.Event()

    def note(error: Exception) -> None:
        errors.append(error)
        failed.set()

    with machine(failed=note) as guest:
        # out 0x80, al: there is no such port.
        guest.ram.array[CODE_AT : CODE_AT + 2] = [0xE6, 0x80]
        guest.start()
        assert failed.wait(60)
        with pytest.raises(KVMError, match="a serial port's registers, found 1 bytes at port 0x80"):
            guest.stop()
        # It has no thread any longer that could stop.
        with pytest.raises(KVMError, match="at port 0x80"):
            guest.start()
    assert len(errors) == 1


@needs_kvm
def test_a_stop_that_comes_before_the_cpu_has_begun_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with machine() as guest:
        kicked = threading.Event()
        enter_thread, kick = guest._cpu.enter_thread, guest._cpu.kick

        def enter_late() -> None:
            assert kicked.wait(60)
            enter_thread()

        def kick_and_tell() -> None:
            kick()
            kicked.set()

        monkeypatch.setattr(guest._cpu, "enter_thread", enter_late)
        monkeypatch.setattr(guest._cpu, "kick", kick_and_tell)
        guest.start()
        guest.stop()
        assert not guest.running
        run_for_steps(guest, 2)


@needs_kvm
def test_a_guest_is_started_and_stopped_at_once_and_leaves_nothing() -> None:
    descriptors, threads = os.listdir("/proc/self/fd"), threading.active_count()
    with machine(Program.KVM_UNIFORM) as guest:
        for _ in range(amount(50, 2000)):
            guest.start()
            guest.stop()
        assert follows_from_seed(guest.settings, guest.work, guest.ram_digest())
    with machine():
        pass
    assert os.listdir("/proc/self/fd") == descriptors
    assert threading.active_count() == threads


@needs_kvm
def test_whichever_call_of_kvm_fails_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    done, failing, real = 0, 0, kvm.call

    def call(*arguments: Any) -> int:
        nonlocal done
        done += 1
        if done == failing:
            raise KVMError(f"the call {arguments[1]} failed")
        return real(*arguments)

    for module in (kvm, kvm_cpu, kvm_trial, vcpu):
        monkeypatch.setattr(module, "call", call)
    # Those of earlier tests may be collected in between.
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    with machine():
        number = done
    for failing in some(range(1, number + 1), 15):  # noqa: B007 - `call` reads it
        done = 0
        with pytest.raises(LocalError, match=r"the call \w+ failed"), machine():
            pass
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@needs_kvm
def test_the_doctors_trial_runs() -> None:
    from colobench.guest.kvm.trial import try_guest

    assert try_guest().startswith("a guest booted")
    check_guest(GuestSettings(RAM_BYTES, Program.KVM_BOOT))
