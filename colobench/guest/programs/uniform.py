"""The program ``uniform``: each step writes a word of a random page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colobench.guest.numba import cpu as parts
from colobench.guest.numba.cpu import PENDING_WRITES, WRITES_PER_TICK
from colobench.guest.programs import writer
from colobench.kernels.jit import Bytes, Words, kernel

if TYPE_CHECKING:
    from colobench.guest.numba.machine import Machine

_U0 = np.uint64(0)


@kernel(writer.SIGNATURE)
def uniform(
    control: Words,
    cpu: Words,
    timer: Words,
    serial: Words,
    scrollback: Bytes,
    nic: Words,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    words: Words,
    memory: Bytes,
    bitmap: Words,
) -> int:
    """Run the CPU, with the arguments of `colobench.guest.numba.cpu`."""
    while parts.wait_for_host(control, cpu, timer):
        while parts.is_running(control, cpu):
            if cpu[PENDING_WRITES] == _U0:
                parts.rest(
                    control, cpu, timer, nic, in_ends, in_lengths, in_frames, out_ends,
                    out_lengths, out_frames, cpu[WRITES_PER_TICK],
                )  # fmt: skip
                continue
            random = parts.random_bits(cpu)
            page = random % parts.pages_to_write(control, cpu)
            parts.write_word(control, cpu, words, bitmap, page, random)
            if parts.is_to_be_seen(cpu):
                parts.show_work(
                    control, cpu, serial, scrollback, nic, out_ends, out_lengths, out_frames,
                    memory, bitmap, random,
                )  # fmt: skip
    return 0


def initialize(machine: Machine) -> None:
    """Leave RAM as it is: zero."""


def run(machine: Machine) -> int:
    """Run the machine's CPU."""
    return int(uniform(*writer.arguments(machine)))
