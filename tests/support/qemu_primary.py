"""A real QEMU as COLO's primary, and fresh QEMUs that resume what was saved of it."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.peers.firmware import FIRST_BYTE, guest_image
from colobench.peers.qemu import TIMEOUT, QEMUProcess, QEMUUnavailable, find_program
from colobench.processes.errors import NodeGone
from colobench.processes.session_directory import qemu_directory

#: Name of the block of guest RAM, which other processes can look at.
BLOCK = "ram"


class QEMUPrimary(contextlib.AbstractContextManager["QEMUPrimary"]):
    """A QEMU with our guest, whose RAM is shared memory; it is killed at the end.

    Parameters
    ----------
    pages
        Pages that the guest writes again and again.
    machine
        QEMU's machine type.
    sleep_ns
        See `guest_image`; 0 for a guest that never sleeps long.
    options
        More options of QEMU.
    more
        More instructions of a round, see `guest_image`.
    """

    def __init__(
        self,
        pages: int = 24,
        machine: str = "pc",
        ram_mib: int = 32,
        sleep_ns: int = 50_000_000,
        options: tuple[str, ...] = (),
        more: bytes = b"",
    ) -> None:
        self.directory = Path()
        self._pages, self._machine, self._ram_mib = pages, machine, ram_mib
        self._sleep_ns, self._more, self.options = sleep_ns, more, options
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> QEMUPrimary:
        program = find_program()
        self.directory = qemu_directory(self._closing)
        image = guest_image(self._pages, self._sleep_ns, self._more)
        (self.directory / "bios").write_bytes(image)
        self.process = self._start(program, "primary", self.directory / "ram", ())
        with open(self.directory / "ram", "r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._ram_mib << 20)
        self.ram: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    def _start(self, program: str, role: str, ram: Path, more: tuple[str, ...]) -> QEMUProcess:
        backend = f"memory-backend-file,id={BLOCK},size={self._ram_mib}M,share=on,mem-path={ram}"
        arguments = [program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        arguments += ["-object", backend, "-m", str(self._ram_mib), *self.options]
        arguments += ["-machine", f"{self._machine},accel=kvm,memory-backend={BLOCK}"]
        arguments += ["-bios", str(self.directory / "bios"), *more]
        process = QEMUProcess(role, self.directory, arguments, lambda *_: None)
        self._closing.callback(process.end)
        try:
            process.connect(TIMEOUT)
        except NodeGone as error:
            raise QEMUUnavailable(f"QEMU does not start under KVM: {error}") from error
        return process

    def counter(self) -> int:
        """Give the guest's count of rounds, as its RAM has it."""
        return count_in(self.ram)

    def wait_until_it_counts(self, beyond: int = 0) -> int:
        """Wait until the guest has counted further, and give its count."""
        deadline = time.monotonic() + TIMEOUT
        while (count := self.counter()) <= beyond:
            assert time.monotonic() < deadline, f"expected a count above {beyond}, found {count}"
            assert self.process.alive()
        return count

    def migrate(self, address: str, delay_ms: int, xbzrle: bool = False) -> None:
        """Enter COLO with the secondary at an address."""
        names = ["x-colo", "events", *["xbzrle"] * xbzrle]
        states = [{"capability": name, "state": True} for name in names]
        self.process.execute("migrate-set-capabilities", capabilities=states)
        self.process.execute(
            "migrate-set-parameters",
            x_checkpoint_delay=delay_ms,
            max_bandwidth=1 << 40,
            downtime_limit=2_000_000,
        )
        self.process.execute("migrate", uri=address)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()

    def resumed_count(self, file: Path) -> tuple[int, int]:
        """Resume a file in a fresh QEMU: give the count in the file, and a later one."""
        program, ram = find_program(), self.directory / "resumed"
        first = count_in(np.frombuffer(ram_of(file, self._ram_mib << 20), dtype=np.uint8))
        more = ("-incoming", f"exec: cat {file}")
        process = self._start(program, "resumed", ram, more)
        try:
            with open(ram, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
                deadline = time.monotonic() + TIMEOUT
                while (count := _word(memory)) <= first:
                    # One that stood still when it was migrated does not run by itself.
                    if process.execute("query-status")["status"] == "paused":
                        process.execute("cont")
                    assert process.alive(), process.last_words()
                    assert time.monotonic() < deadline, f"resumed at {first}, stays at {count}"
        finally:
            process.end()
            ram.unlink()
        return first, count


def _word(memory: Any) -> int:
    return int.from_bytes(bytes(memory[FIRST_BYTE : FIRST_BYTE + 4]), "little")


def count_in(ram: npt.NDArray[np.uint8]) -> int:
    """Give the guest's count of rounds in its RAM."""
    return _word(ram)


def ram_of(file: Path, length: int) -> bytes:
    """Give guest RAM as a migration file has it."""
    from colobench.lab.decode.decode import decode
    from colobench.lab.decode.kept_pages import KeptPages

    out = Path(f"{file}.ram")
    try:
        found = decode(str(file), keeper=KeptPages(BLOCK, file=out))
        assert not found.problems
        data = out.read_bytes()
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(out)
    assert len(data) == length
    return data
