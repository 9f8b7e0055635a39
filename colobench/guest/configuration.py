"""What a guest is to be: its RAM, its program, how hard it works. Needs no numba."""

from __future__ import annotations

import re
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.guest.checks import check_integer, show
from colobench.guest.programs import Program

PAGE_SIZE = 4096
#: No machine has more (bytes); what this one has is looked at where processes are started.
RAM_LIMIT = 2**52
SEED_LIMIT = 2**64
WRITES_LIMIT = 1_000_000
SCREEN_BYTES = 256 * 1024
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def block_sizes(ram_bytes: int) -> dict[str, int]:
    """Name the machine's RAM blocks and their sizes in bytes."""
    return {"pc.ram": ram_bytes, "vga.vram": SCREEN_BYTES}


def parse_size(text: str) -> int:
    """Read a size such as ``64M``, in bytes.

    Parameters
    ----------
    text
        A whole number, and behind it nothing or K, M or G. ``64M``, ``64MB``, ``64 MiB`` and
        ``64m`` are the same: as QEMU has it, a unit is 1024 of the one before.

    Raises
    ------
    LocalError
        If it is anything else.
    """
    found = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:([KMG])(?:I?B)?|B)?\s*", text, re.I | re.ASCII)
    if found is None:
        raise LocalError(f"size: expected a number such as 64M, found {show(text)}")
    return int(found[1]) * _UNITS[(found[2] or "").upper()]


@dataclass(frozen=True, slots=True)
class Nondeterminism:
    """How much the program ``kv`` leaves to chance; all zero is as little as it can.

    Parameters
    ----------
    clock_us
        Its clock advances in steps of so many microseconds; 0 is the host's clock as it is. TIME
        and INFO read it.
    jitter_us
        Received requests may wait up to so long before they are served.
    shuffle
        In so many of a thousand turns, connections that have requests are served in any order.

    Raises
    ------
    LocalError
        If one of them is out of range.
    """

    clock_us: int = 0
    jitter_us: int = 0
    shuffle: int = 0

    def __post_init__(self) -> None:
        limits = {"clock_us": 10**9, "jitter_us": 10**6, "shuffle": 1000}
        for name, limit in limits.items():
            check_integer(name, getattr(self, name), 0, limit)


DETERMINISTIC = Nondeterminism()


@dataclass(frozen=True, slots=True)
class Configuration:
    """A guest, before there is one.

    Parameters
    ----------
    ram_bytes
        Size of pc.ram, a positive multiple of 4096.
    program
        Which of `Program` it runs.
    seed
        Together with the amount of work done it decides what is in RAM.
    writes_per_tick
        Words that the program writes at each tick of the 1 ms timer.
    working_set
        How many pages of pc.ram, from its first, the program writes; 0 for all of them.
    nondeterminism
        The dials of the program ``kv``.

    Raises
    ------
    LocalError
        If one of them is out of range.
    """

    ram_bytes: int
    program: Program = Program.UNIFORM
    seed: int = 0
    writes_per_tick: int = 4
    working_set: int = 0
    nondeterminism: Nondeterminism = DETERMINISTIC

    def __post_init__(self) -> None:
        check_integer("ram", self.ram_bytes, PAGE_SIZE, RAM_LIMIT, unit="bytes")
        if self.ram_bytes % PAGE_SIZE:
            raise LocalError(
                f"ram: expected a positive multiple of {PAGE_SIZE} bytes, found {self.ram_bytes}"
            )
        if self.ram_bytes < self.program.minimum_bytes:
            raise LocalError(
                f"ram: expected at least {self.program.minimum_bytes >> 20} MiB for the program "
                f"{self.program.label}, found {self.ram_bytes} bytes"
            )
        check_integer("seed", self.seed, 0, SEED_LIMIT - 1, expected="0 to 2**64 - 1")
        check_integer("writes_per_tick", self.writes_per_tick, 1, WRITES_LIMIT)
        check_integer("working_set", self.working_set, 0, self.ram_bytes // PAGE_SIZE, unit="pages")
