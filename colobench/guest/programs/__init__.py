"""Table of the programs that run in a guest; each is a module of this package."""

from __future__ import annotations

import enum
import importlib
from typing import Any, Protocol, cast

from colobench.errors import LocalError


class _Module(Protocol):
    """Interface of a program's module; a machine is a `colobench.guest.numba.machine.Machine`."""

    def initialize(self, machine: Any) -> None:
        """Prepare the RAM of a new machine."""

    def run(self, machine: Any) -> int:
        """Run a machine's CPU in this thread, until its host or its state ends the kernel."""


def _on_disks(number: int, description: str) -> tuple[Any, ...]:
    """Give the row of a program that writes to disks; which moment they have depends on them."""
    return (number, description, True, False, 64 << 10, (), False, True, "sectors")


def _of_kvm(number: int, description: str, writes_ram: bool = True) -> tuple[Any, ...]:
    """Give the row of a program that a virtual CPU of KVM runs."""
    return (number, description, writes_ram, True, 1 << 20, (), False, False, "", True)


class Program(enum.Enum):
    """The programs, each with its number, its needs, and its modules of kernels.

    Parameters
    ----------
    number
        Number of the program in the CPU's register ``program``.
    description
        Half a sentence for a list of programs.
    writes_ram
        True if the program writes RAM at each tick.
    is_reproducible
        True if RAM is a function of the seed and the steps done, so that a survivor's RAM can be
        compared with that of a guest that was never migrated.
    minimum_bytes
        Least size of pc.ram, bytes.
    kernels
        Modules with kernels, in addition to the program's own.
    takes_trace
        True if the program replays a trace, which must be named then.
    needs_disk
        True if the program writes to disks, of which the guest needs one then.
    module_name
        Name of its module in this package, if it is not the program's label.
    needs_kvm
        True if it is boot code of `colobench.guest.kvm`, and no module of this package.
    """

    UNIFORM = (1, "writes pages at random", True)
    HOTCOLD = (2, "writes few pages often, and many seldom (Zipf)", True)
    SEQUENTIAL = (3, "writes one page after the other", True)
    IDLE = (0, "counts ticks", False)
    KV = (
        4,
        "serves Redis's protocol on TCP port 6379, and echoes on port 7 (RFC 862)",
        False,
        False,
        # The network stack and a store of useful size need this.
        4 << 20,
        ("colobench.guest.kv", "colobench.guest.tcp", "colobench.guest.append_only_disk"),
    )
    REPLAY = (5, "writes the pages of a trace that was recorded", True, True, 64 << 10, (), True)
    SECTORS = _on_disks(6, "writes sectors that say which write they are, at random")
    SECTORS_HOTCOLD = _on_disks(7, "the same, few sectors often, and many seldom (Zipf)")
    SECTORS_SEQUENTIAL = _on_disks(8, "the same, one sector after the other")
    PAGES_AND_SECTORS = _on_disks(
        9, "writes one page after the other, and sectors at random, four requests a millisecond"
    )
    KVM_BOOT = _of_kvm(10, "a virtual CPU of KVM that boots and counts ticks", False)
    KVM_UNIFORM = _of_kvm(11, "a virtual CPU of KVM that writes pages at random")
    KVM_HOTCOLD = _of_kvm(12, "likewise, few pages often, and many seldom (Zipf)")
    KVM_SEQUENTIAL = _of_kvm(13, "likewise, one page after the other")

    def __init__(
        self,
        number: int,
        description: str,
        writes_ram: bool,
        is_reproducible: bool = True,
        minimum_bytes: int = 0,
        kernels: tuple[str, ...] = (),
        takes_trace: bool = False,
        needs_disk: bool = False,
        module_name: str = "",
        needs_kvm: bool = False,
    ) -> None:
        self.number = number
        self.description = description
        self.writes_ram = writes_ram
        self.is_reproducible = is_reproducible
        self.minimum_bytes = minimum_bytes
        self.takes_trace = takes_trace
        self.needs_disk = needs_disk
        self.needs_kvm = needs_kvm
        of_itself = () if needs_kvm else (f"{__name__}.{module_name or self.label}",)
        self.modules = (*kernels, *of_itself)

    @property
    def label(self) -> str:
        """Name of the program in settings."""
        name = self.name.lower()
        return name.replace("_", ":", 1) if self.needs_kvm else name

    def module(self) -> _Module:
        """Import the program, and with it numba."""
        return cast(_Module, importlib.import_module(self.modules[-1]))


#: The programs whose RAM is a function of their seed and the work done, and of nothing else, and
#: that any machine can run.
REPRODUCIBLE = tuple(
    program
    for program in Program
    if program.is_reproducible and not program.takes_trace and not program.needs_kvm
)


def program_named(label: str) -> Program:
    """Find a program by its name in settings.

    Raises
    ------
    LocalError
        If there is no such program.
    """
    for program in Program:
        if program.label == label:
            return program
    known = ", ".join(program.label for program in Program)
    raise LocalError(f"guest: expected one of {known}, found {label}")


def program_of(number: int) -> Program:
    """Find a program by the number in the CPU's register.

    Raises
    ------
    LocalError
        If there is no such program.
    """
    for program in Program:
        if program.number == number:
            return program
    raise LocalError(f"program: expected 0 to {len(Program) - 1}, found {number}")
