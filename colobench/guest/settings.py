"""Settings of a guest: its RAM, its program, its workload. This module does not import numba."""

from __future__ import annotations

import re
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.fields.checks import check_integer, show
from colobench.fields.kinds import Choice, File, Integer, Size, Written
from colobench.fields.part import Part, part, setting
from colobench.guest.disk_queue import DISK_BLOCK_BYTES
from colobench.guest.disk_settings import DiskImages, DiskSettings, check_disks
from colobench.guest.programs import Program

PAGE_SIZE = 4096
#: Limit of RAM, bytes; the memory of this machine is checked where processes are started.
RAM_LIMIT = 2**52
SEED_LIMIT = 2**64
WRITES_LIMIT = 1_000_000
#: Limit of RAM of a guest of KVM: its program has addresses of 32 bits, and its screen is there.
KVM_RAM_LIMIT = 0xE0000000
#: Time between two ticks of the guest's timer.
TICK_NS = 1_000_000
SCREEN_BYTES = 256 * 1024


def block_sizes(ram_bytes: int, disks: int = 0) -> dict[str, int]:
    """Return the RAM blocks of a machine with that number of disks: sizes in bytes by name."""
    of_disks = {f"disk{number}": DISK_BLOCK_BYTES for number in range(disks)}
    return {"pc.ram": ram_bytes, "vga.vram": SCREEN_BYTES} | of_disks


@dataclass(frozen=True, slots=True)
class NondeterminismSettings(Part):
    """Nondeterminism of the program ``kv``; it is smallest if all settings are 0."""

    title = "nondeterminism of the guest program kv"

    clock_us: int = setting(
        Integer(0, 10**9, "µs"),
        0,
        "step of the guest's clock, which TIME and INFO read; 0: the host's clock",
    )
    jitter_us: int = setting(
        Integer(0, 10**6, "µs"), 0, "longest random wait of a received request"
    )
    shuffle: int = setting(
        Integer(0, 1000, "‰"), 0, "turns in a thousand in which connections are served out of order"
    )


DETERMINISTIC = NondeterminismSettings()


def check_sha256(text: object) -> str:
    """Check a SHA-256 in hexadecimal, with LocalError."""
    if isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text):
        return text
    raise LocalError(f"trace_sha256: expected 64 hexadecimal digits, found {show(text)}")


@dataclass(frozen=True, slots=True)
class GuestSettings(Part):
    """Settings of a guest.

    Attributes
    ----------
    ram_bytes
        Size of pc.ram in bytes, a positive multiple of 4096.
    program
        The `Program` that it runs. RAM is a function of program, seed and number of steps done.
    """

    title = "guest"

    ram_bytes: int = setting(
        Size(PAGE_SIZE, RAM_LIMIT), 64 << 20, "size of the guest's RAM", name="ram", agreed=True
    )
    program: Program = setting(
        Choice({each.label: each for each in Program}, aliases={"kvm": Program.KVM_BOOT}),
        Program.UNIFORM,
        "program that the guest runs",
        name="guest",
    )
    seed: int = setting(
        Integer(0, SEED_LIMIT - 1, expected="0 to 2**64 - 1"),
        0,
        "seed of the program; with the work done, it determines the contents of RAM",
    )
    writes_per_tick: int = setting(
        Integer(1, WRITES_LIMIT),
        4,
        "words that the program writes in each millisecond; of sectors, requests of 16 KiB",
    )
    working_set: int = setting(
        Integer(0, RAM_LIMIT // PAGE_SIZE, "pages"),
        0,
        "first pages of RAM, to which the program confines its writes; 0: all pages",
    )
    trace: str | None = setting(File(), None, "trace that the program replay replays")
    trace_sha256: str | None = setting(
        Written(str, check_sha256, placeholder="HEX", or_none=True),
        None,
        "SHA-256 that the trace's file must have; a session finds it out",
        agreed=True,
    )
    disks: tuple[str, ...] = setting(
        DiskImages(),
        (),
        "raw image that is a disk of the guest; made, sparse, if it is missing and a size is given",
        name="disks",
        option="--disk",
        agreed=True,
    )
    appendonly: str = setting(
        Choice({"yes": "yes", "no": "no"}),
        "yes",
        "whether the program kv logs its writes on the guest's first disk, and loads them at start",
    )
    appendfsync: str = setting(
        Choice({"always": "always", "everysec": "everysec", "no": "no"}),
        "everysec",
        "flush of that log: before each write is answered, every second, or never",
    )
    nondeterminism: NondeterminismSettings = part(NondeterminismSettings, by_name=True)

    def complete(self) -> None:
        """Check that RAM is enough, and that a program that replays a trace has one."""
        self._complete_trace()
        self._complete_append_only_file()
        check_disks(self.disk_settings())
        if self.program.needs_kvm:
            self._complete_kvm()
        if self.program.needs_disk and not self.disks:
            raise LocalError(
                f"disks: expected at least one for the program {self.program.label}, found none"
            )
        if self.ram_bytes % PAGE_SIZE:
            raise LocalError(
                f"ram: expected a positive multiple of {PAGE_SIZE} bytes, found {self.ram_bytes}"
            )
        if self.ram_bytes < self.program.minimum_bytes:
            raise LocalError(
                f"ram: expected at least {self.program.minimum_bytes >> 20} MiB for the program "
                f"{self.program.label}, found {self.ram_bytes} bytes"
            )
        check_integer("working_set", self.working_set, 0, self.ram_bytes // PAGE_SIZE, unit="pages")

    def disk_settings(self) -> tuple[DiskSettings, ...]:
        """Return the settings of the disks."""
        return tuple(map(DiskSettings.parse, self.disks))

    def disk_sizes(self) -> list[int]:
        """Return the sizes of the disks in bytes.

        Raises
        ------
        LocalError
            If one is not known: a session finds it out.
        """
        return [each.known_size() for each in self.disk_settings()]

    def block_sizes(self) -> dict[str, int]:
        """Return the machine's RAM blocks: sizes in bytes by name."""
        return block_sizes(self.ram_bytes, len(self.disks))

    def _complete_kvm(self) -> None:
        if self.disks:
            raise LocalError(
                f"disks: expected none for the guest {self.program.label}, found {len(self.disks)}"
            )
        if self.ram_bytes > KVM_RAM_LIMIT:
            raise LocalError(
                f"ram: expected at most {KVM_RAM_LIMIT >> 20} MiB for the guest "
                f"{self.program.label}, found {self.ram_bytes} bytes"
            )

    def _complete_append_only_file(self) -> None:
        changed = (self.appendonly, self.appendfsync) != ("yes", "everysec")
        if changed and not (self.disks and self.program is Program.KV):
            raise LocalError(
                "appendonly, appendfsync: expected the program kv and a disk, found the program "
                f"{self.program.label} and {len(self.disks)} disks"
            )

    def _complete_trace(self) -> None:
        if self.program.takes_trace and self.trace is None:
            raise LocalError(
                f"trace: expected a file for the program {self.program.label}, found none"
            )
        if self.trace is not None and not self.program.takes_trace:
            raise LocalError(
                f"trace: expected none for the program {self.program.label}, found {self.trace}"
            )
        if self.trace is None and self.trace_sha256 is not None:
            raise LocalError("trace_sha256: expected a trace, found none")
        if self.trace_sha256 is not None:
            check_sha256(self.trace_sha256)
