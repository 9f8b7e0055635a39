"""Common arguments of the programs that write RAM.

They are the arguments of `colobench.guest.numba.cpu`, and ``distribution``, which only
`colobench.guest.programs.hotcold` uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from colobench.guest.numba.machine import Machine

#: control, cpu, timer, serial, scrollback, nic; in_ends, in_lengths, in_frames, out_ends,
#: out_lengths, out_frames; words, memory, bitmap.
SIGNATURE = (
    "i8(u8[::1], u8[::1], u8[::1], u8[::1], u1[::1], u8[::1],"
    " u8[::1], u8[::1], u1[::1], u8[::1], u8[::1], u1[::1],"
    " u8[::1], u1[::1], u8[::1])"
)


def arguments(machine: Machine) -> tuple[Any, ...]:
    """Return a machine's arrays in the order of SIGNATURE."""
    return (
        machine.control,
        machine.cpu.registers,
        machine.timer.registers,
        machine.serial.registers,
        machine.serial.scrollback,
        machine.nic.registers,
        *machine.nic.arrays(),
        machine.ram.array.view(np.uint64),
        machine.ram.array,
        machine.tracker.marks,
    )
