"""The program ``idle``: it counts the timer's ticks, and echoes frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colobench.guest.numba import cpu as parts
from colobench.guest.numba.cpu import PENDING_WRITES, WORK
from colobench.kernels.jit import Bytes, Words, kernel

if TYPE_CHECKING:
    from colobench.guest.numba.machine import Machine

_U0, _U1 = np.uint64(0), np.uint64(1)


@kernel(
    "i8(u8[::1], u8[::1], u8[::1], u8[::1], u8[::1], u8[::1], u1[::1], u8[::1], u8[::1], u1[::1])"
)
def idle(
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
) -> int:
    """Run the CPU, with the arguments of `colobench.guest.numba.cpu`."""
    while parts.wait_for_host(control, cpu, timer):
        while parts.is_running(control, cpu):
            if cpu[PENDING_WRITES] == _U0:
                parts.rest(
                    control, cpu, timer, nic, in_ends, in_lengths, in_frames, out_ends,
                    out_lengths, out_frames, _U1,
                )  # fmt: skip
                continue
            cpu[WORK] += _U1
            cpu[PENDING_WRITES] -= _U1
    return 0


def initialize(machine: Machine) -> None:
    """Leave RAM as it is: zero."""


def run(machine: Machine) -> int:
    """Run the machine's CPU."""
    devices = (machine.cpu, machine.timer, machine.nic)
    registers = (device.registers for device in devices)
    return int(idle(machine.control, *registers, *machine.nic.arrays()))
