"""The program ``kv``: a network stack (`colobench.guest.tcp`) and a store (`colobench.guest.kv`).

On the guest's first disk it keeps an append-only file (`colobench.guest.append_only_disk`).

The number of keys is in a register of the CPU, as programs keep counters in registers. So DBSIZE
shows whether RAM and devices are of the same moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colobench.guest import append_only_disk, keyspace, kv, tcp
from colobench.guest.append_only_file import POLICIES, area_bytes, area_of, place_log
from colobench.guest.bugs import DOUBLE_EXECUTION
from colobench.guest.disk import kick
from colobench.guest.numba import cpu as parts
from colobench.guest.numba.cpu import (
    BUGS,
    CLOCK_US,
    COALESCED_TICKS,
    ENTROPY,
    JITTER_US,
    KEYS,
    KICK_FD,
    NANOSECONDS,
    PENDING_WRITES,
    PERIOD,
    RAM_PAGE,
    RAM_PAGES,
    RECEIVED,
    SECONDS,
    SENT,
    SHUFFLE,
    TICKS,
    WORK,
)
from colobench.guest.rings import EXECUTE, HOST_SLOTS, MINIMUM_BYTES, store_begin
from colobench.guest.store import get_word, put_word
from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Words, by_address, entry_address, inlined, kernel
from colobench.kernels.libc import clock_gettime
from colobench.memory.ram import PAGE_SIZE

if TYPE_CHECKING:
    from colobench.guest.numba.machine import Machine

_U0, _U1, _THOUSAND = np.uint64(0), np.uint64(1), np.uint64(1000)
_SECOND, _MILLISECOND = np.uint64(1_000_000_000), np.uint64(1_000_000)
_call_serve = by_address(tcp.serve)
_call_drive = by_address(append_only_disk.drive)


@inlined
def host_clock_us(control: Words, step: np.uint64) -> np.uint64:
    """Read CLOCK_REALTIME in microseconds, a multiple of `step` unless that is 0."""
    clock_gettime(0, address(control) + SECONDS * 8)
    now = (control[SECONDS] * _SECOND + control[NANOSECONDS]) // _THOUSAND
    return now if step == _U0 else now - now % step


@inlined
def serve_clients(
    control: Words,
    cpu: Words,
    timer: Words,
    nic: Words,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    memory: Bytes,
    bitmap: Words,
    serve: np.uint64,
    service: Words,
    serial: Words,
    scrollback: Bytes,
    disks: Words,
    disk_data: Bytes,
    drive: np.uint64,
) -> bool:
    """Run the network stack and the store once; return True if more is to do at once.

    The arguments are those of `serve_until_told`. The stack's clock is the timer's.
    """
    log, size = np.int64(control[RAM_PAGE]) << 12, np.int64(control[RAM_PAGES]) << 12
    area = area_of(size) if len(disks) and size >= MINIMUM_BYTES else np.int64(0)
    ram, size = log + area, size - area
    if size < MINIMUM_BYTES:
        # The program's number is in a register, which may come from a peer with more RAM.
        return False
    control[ENTROPY] = parts.splitmix64(control[ENTROPY])
    store = store_begin(ram, size)
    place_log(memory, bitmap, log, area, store)
    keys_at = store + keyspace.KEYS
    if get_word(memory, keys_at) != cpu[KEYS]:
        put_word(memory, bitmap, keys_at, cpu[KEYS])
    now_us = host_clock_us(control, cpu[CLOCK_US])
    _call_serve(
        serve, memory, bitmap, ram, size, in_ends, in_lengths, in_frames, out_ends, out_lengths,
        out_frames, (timer[TICKS] + timer[COALESCED_TICKS]) * timer[PERIOD] // _MILLISECOND,
        now_us, control[ENTROPY], cpu[JITTER_US], cpu[SHUFFLE], control[BUGS], service,
    )  # fmt: skip
    received, sent, more = service[0], service[1], service[2] != _U0
    if area:
        driven = _call_drive(
            drive, memory, bitmap, log, ram, size, disks, disk_data, now_us, service[EXECUTE],
            service, serial, scrollback,
        )  # fmt: skip
        if driven & 1:
            kick(control, disks, 0)
        more = more or driven & 2 != 0
    cpu[KEYS] = get_word(memory, keys_at)
    # The bug occurs only once.
    control[BUGS] &= ~np.uint64(DOUBLE_EXECUTION)
    nic[RECEIVED] += received
    nic[SENT] += sent
    if received != _U0 or sent != _U0:
        parts.notify(control, control[KICK_FD])
    return more


@kernel(
    "i8(u8[::1], u8[::1], u8[::1], u8[::1], u8[::1], u8[::1], u1[::1], u8[::1], u8[::1], u1[::1],"
    " u1[::1], u8[::1], u8, u8[::1], u8[::1], u1[::1], u8[::1], u1[::1], u8)"
)
def serve_until_told(
    control: Words,
    cpu: Words,
    timer: Words,
    nic: Words,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    memory: Bytes,
    bitmap: Words,
    serve: np.uint64,
    service: Words,
    serial: Words,
    scrollback: Bytes,
    disks: Words,
    disk_data: Bytes,
    drive: np.uint64,
) -> int:
    """Run the CPU, with the arguments of `colobench.guest.numba.cpu` and five more.

    ``serve`` is the address of `colobench.guest.tcp.serve`, ``service`` that kernel's argument
    `host`, uint64[HOST_SLOTS]. ``disks`` and ``disk_data`` are those of `colobench.guest.disk`;
    ``drive`` is the address of `colobench.guest.append_only_disk.drive`, or 0 without disks.
    """
    while parts.wait_for_host(control, cpu, timer):
        while parts.is_running(control, cpu):
            if cpu[PENDING_WRITES] != _U0:
                cpu[WORK] += _U1
                cpu[PENDING_WRITES] -= _U1
            elif not serve_clients(
                control, cpu, timer, nic, in_ends, in_lengths, in_frames, out_ends, out_lengths,
                out_frames, memory, bitmap, serve, service, serial, scrollback, disks, disk_data,
                drive,
            ) and parts.wait_for_tick(control, timer):  # fmt: skip
                cpu[PENDING_WRITES] = _U1
    return 0


def initialize(machine: Machine) -> None:
    """Make a network stack without connections, and an empty store, to be loaded from a disk."""
    ram = machine.block("pc.ram")
    begin, size = ram.first_page * PAGE_SIZE, ram.pages * PAGE_SIZE
    memory, marks, settings = machine.ram.array, machine.tracker.marks, machine.settings
    area = area_bytes(size) if settings.disks else 0
    tcp.initialize(memory, marks, begin + area, size - area)
    if area:
        policy, wanted = POLICIES.index(settings.appendfsync), settings.appendonly == "yes"
        append_only_disk.initialize(memory, marks, begin, size, policy, int(wanted))


def service_words() -> Words:
    """Make the argument `host` of `colobench.guest.tcp.serve`."""
    service = np.zeros(HOST_SLOTS, dtype=np.uint64)
    service[EXECUTE] = entry_address(kv.execute)
    return service


def run(machine: Machine) -> int:
    """Run the machine's CPU."""
    devices = (machine.cpu, machine.timer, machine.nic)
    disks, disk_data = machine.disk_arrays
    drive = entry_address(append_only_disk.drive) if len(disks) else 0
    return int(
        serve_until_told(
            machine.control,
            *(device.registers for device in devices),
            *machine.nic.arrays(),
            machine.ram.array,
            machine.tracker.marks,
            np.uint64(entry_address(tcp.serve)),
            service_words(),
            machine.serial.registers,
            machine.serial.scrollback,
            disks,
            disk_data,
            np.uint64(drive),
        )
    )
