"""The program ``hotcold``: each step writes a word of a page that is drawn by Zipf's law."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from colobench.guest.numba import cpu as parts
from colobench.guest.numba.cpu import PENDING_WRITES, WRITES_PER_TICK
from colobench.guest.programs import writer
from colobench.kernels.jit import Bytes, Words, inlined, kernel

if TYPE_CHECKING:
    from colobench.guest.numba.machine import Machine

_U0 = np.uint64(0)


def zipf_distribution(pages: int, exponent: float = 1.0) -> Words:
    """Make the table from which pages are drawn: uint64[pages + 1], see `draw_page`.

    Rank r is drawn with a probability proportional to 1 / (r + 1) ** exponent.
    """
    weights = 1.0 / np.arange(1, pages + 1, dtype=np.float64) ** exponent
    shares = np.cumsum(weights) / weights.sum()
    table = np.empty(pages + 1, dtype=np.uint64)
    table[:pages] = np.minimum(shares * 2.0**53, 2.0**53 - 1).astype(np.uint64) << np.uint64(11)
    multiplier = int(pages * 0.6180339887) | 1
    while gcd(multiplier, pages) != 1:
        multiplier += 2
    table[pages] = multiplier
    return table


@inlined
def draw_page(distribution: Words, random: np.uint64) -> np.uint64:
    """Draw one of n pages with 64 random bits.

    Parameters
    ----------
    distribution
        uint64[n + 1]. Entries 0 to ``n - 1`` ascend: entry r is 2**64 times the probability of a
        rank up to r. The last entry is coprime to n; ranks are multiplied by it, so that hot pages
        are scattered over RAM.
    random
        The 64 random bits.
    """
    pages = len(distribution) - 1
    low, high = 0, pages - 1
    while low < high:
        middle = (low + high) // 2
        if distribution[middle] > random:
            high = middle
        else:
            low = middle + 1
    return (np.uint64(low) * distribution[pages]) % np.uint64(pages)


@kernel(writer.SIGNATURE.replace(")", ", u8[::1])"))
def hotcold(
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
    distribution: Words,
) -> int:
    """Run the CPU, with the arguments of `colobench.guest.numba.cpu`, and `draw_page`'s table."""
    while parts.wait_for_host(control, cpu, timer):
        while parts.is_running(control, cpu):
            if cpu[PENDING_WRITES] == _U0:
                parts.rest(
                    control, cpu, timer, nic, in_ends, in_lengths, in_frames, out_ends,
                    out_lengths, out_frames, cpu[WRITES_PER_TICK],
                )  # fmt: skip
                continue
            random = parts.random_bits(cpu)
            page = draw_page(distribution, random)
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
    pages = machine.block("pc.ram").pages
    table = zipf_distribution(min(machine.cpu["working_set"] or pages, pages))
    return int(hotcold(*writer.arguments(machine), table))
