"""The guest machine: RAM blocks, devices, and the thread that is its CPU."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.guest.numba import cpu
from colobench.guest.numba.command_cpu import start_cpu, stop_cpu
from colobench.guest.numba.cpu import Command
from colobench.guest.numba.devices import CPU, NIC, Serial, Timer
from colobench.guest.numba.disks import Disk, Disks
from colobench.guest.programs import program_of
from colobench.guest.settings import SCREEN_BYTES, TICK_NS, GuestSettings
from colobench.kernels.digest import digest
from colobench.memory.ram import RAM, RAMBlock, lay_out
from colobench.memory.tracker import watch
from colobench.wire.vmstate import Device, State

#: The machine type's name in the stream's configuration section.
MACHINE_TYPE = "colobench-1"
#: Nanoseconds that a stop spins for a CPU that is awake: a wake-up takes longer.
STOP_SPIN_NS = 20_000


class Card:
    """The machine's NIC, seen from its host.

    Attributes
    ----------
    kick_fd
        Descriptor that becomes readable when the guest took or put frames (an eventfd).
    """

    def __init__(self, nic: NIC, wake_fd: int) -> None:
        self._received, self._sent = nic.queues["receive"], nic.queues["transmit"]
        self._wake_fd = wake_fd
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def put(self, frame: bytes) -> bool:
        """Put a frame into the receive queue; return False if the queue is full."""
        return self._received.put(frame)

    def take_all(self) -> list[bytes]:
        """Take all frames out of the transmit queue."""
        return self._sent.take_all()

    def wake(self) -> None:
        """Wake a sleeping CPU, so that it reads the receive queue."""
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.kick_fd)


class Machine:
    """A guest with two RAM blocks and four devices, and one of each for a disk, stopped at first.

    Parameters
    ----------
    settings
        Settings of the guest.
    tracker
        Name of the tracker that watches its RAM, see `colobench.memory.tracker`.
    freezable
        Whether its pages can be frozen, see `colobench.memory.frozen`.

    Attributes
    ----------
    settings
        The settings with which it was made.
    ram
        The guest's RAM.
    tracker
        The tracker, which finds the pages that the guest wrote.
    network
        The NIC, as a `colobench.guest.interface.GuestNetwork`.
    disk_arrays
        The arguments `disks` and `disk_data` of `colobench.guest.disk`.
    cpu, timer, serial, nic
        The devices; `devices` lists them in the order in which they are saved.
    """

    machine_type = MACHINE_TYPE

    def __init__(
        self, settings: GuestSettings, tracker: str = "marked", freezable: bool = False
    ) -> None:
        self.settings = settings
        self.ram = RAM("colobench-ram", lay_out(settings.block_sizes()))
        try:
            sizes = settings.disk_sizes()
            self.tracker = watch(tracker, self.ram)
            if freezable:
                self.tracker.make_freezable()
        except BaseException:
            self.ram.close()
            raise
        self.cpu, self.timer, self.serial, self.nic = CPU(), Timer(), Serial(), NIC()
        self.cpu["program"], self.cpu["seed"] = settings.program.number, settings.seed
        self.cpu["writes_per_tick"] = settings.writes_per_tick
        self.cpu["working_set"] = settings.working_set
        dials = settings.nondeterminism
        self.cpu["clock_us"], self.cpu["jitter_us"] = dials.clock_us, dials.jitter_us
        self.cpu["shuffle"] = dials.shuffle
        self.timer["period_ns"] = self.timer["remaining_ns"] = TICK_NS
        settings.program.module().initialize(self)
        self.running = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._acknowledge_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.network = Card(self.nic, self._wake_fd)
        self._disks = Disks(sizes, self.ram, self._wake_fd)
        self.disk_arrays = self._disks.arrays
        disks = self._disks.devices()
        self.devices: tuple[Device, ...] = (self.cpu, self.timer, self.serial, self.nic, *disks)
        self._thread: threading.Thread | None = None
        #: uint64[CONTROL_SLOTS], see `colobench.guest.numba.cpu`.
        self.control = self._new_control()
        # On one processor, the CPU can only go on when this thread does not run.
        # Of the type that the kernel is compiled for: another one would compile it again.
        self._spin_ns = np.uint64(STOP_SPIN_NS if len(os.sched_getaffinity(0)) > 1 else 0)

    def _new_control(self) -> npt.NDArray[np.uint64]:
        control = np.zeros(cpu.CONTROL_SLOTS, dtype=np.uint64)
        ram, screen = self.block("pc.ram"), self.block("vga.vram")
        control[cpu.ENTROPY] = int.from_bytes(os.urandom(8), "little")
        control[cpu.WAKE_FD], control[cpu.ACKNOWLEDGE_FD] = self._wake_fd, self._acknowledge_fd
        control[cpu.KICK_FD] = self.network.kick_fd
        control[cpu.RAM_PAGE], control[cpu.RAM_PAGES] = ram.first_page, ram.pages
        control[cpu.SCREEN_PAGE], control[cpu.SCREEN_SIZE] = screen.first_page, SCREEN_BYTES
        return control

    @property
    def disks(self) -> Sequence[Disk]:
        """The disks, as `colobench.guest.interface.GuestDisk`."""
        return self._disks.all

    @property
    def work(self) -> int:
        """Number of steps that the program has done."""
        return self.cpu["work"]

    def start(self) -> None:
        """Start the CPU, unless it runs."""
        if self.running:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._be_the_cpu, name="CPU", daemon=True)
            self._thread.start()
        self.running = True
        if start_cpu(self.control):
            os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        """Stop the CPU before its next write, and wait until it has stopped."""
        if not self.running:
            return
        if stop_cpu(self.control, self.timer.registers, self._spin_ns):
            os.eventfd_read(self._acknowledge_fd)
        self.running = False

    def plant(self, bug: int) -> None:
        """Put a bug of `colobench.guest.bugs` into the guest."""
        self.control[cpu.BUGS] |= np.uint64(bug)

    def run_until(self, work: int) -> int:
        """Run without a clock, in this thread, until the program has done `work` steps.

        RAM then equals that of any guest with the same size, program, seed and number of steps. The
        devices' state is not comparable, because it depends on time.

        Returns
        -------
        int
            Nanoseconds of processor time in the kernel, page faults included. If all steps had been
            done before, this is the time of the call alone.
        """
        if self._thread is not None:
            raise LocalError("run_until: expected a machine that was never started")
        if work == 0 or work < self.work:
            return 0
        self.control[cpu.COMMAND] = Command.RUN
        self.control[cpu.UNTIL] = work
        taken = self._be_the_cpu()
        self.control[cpu.COMMAND] = Command.STOP
        self.control[cpu.UNTIL] = 0
        return taken

    def load(self, states: Sequence[tuple[Device, State]]) -> None:
        """Apply device states that were parsed and checked; the machine must be stopped."""
        for device, state in states:
            device.apply(state)
        self._disks.reset()
        self.control[cpu.DEADLINE] = 0

    def describe(self) -> dict[str, Any]:
        """Return the program's name, the devices' counters, and the CPU's thread as QEMU does."""
        return {
            "thread-id": None if self._thread is None else self._thread.native_id,
            "program": program_of(self.cpu["program"]).label,
            "work": self.work,
            "ticks": self.timer["ticks"],
            "coalesced-ticks": self.timer["coalesced_ticks"],
            "frames-received": self.nic["received"],
            "frames-dropped": self.nic["dropped"],
            "disks": {disk.name: disk.describe() for disk in self.disks},
        }

    def console(self) -> str:
        """Return the last output of the serial console."""
        return self.serial.text()

    def ram_digest(self) -> int:
        """Digest all of RAM, 64 bits; the machine must be stopped."""
        return int(digest(self.ram.array, 0))

    def close(self) -> None:
        """End the CPU's thread, and release the memory."""
        self.stop()
        if self._thread is not None:
            self.control[cpu.COMMAND] = Command.EXIT
            os.eventfd_write(self._wake_fd, 1)
            self._thread.join()
            self._thread = None
        os.close(self._wake_fd)
        os.close(self._acknowledge_fd)
        self.network.close()
        self._disks.close()
        self.tracker.close()
        self.ram.close()

    def block(self, name: str) -> RAMBlock:
        """Return one of the RAM blocks."""
        return next(block for block in self.ram.blocks if block.name == name)

    def _be_the_cpu(self) -> int:
        """Run the program's kernel until it exits; return the time like `run_until`.

        A kernel ends when device states of another program were loaded.
        """
        # Processor time of this thread: wall time would include other programs.
        began = time.thread_time_ns()
        while self.control[cpu.COMMAND] != Command.EXIT:
            self.control[cpu.KERNEL_PROGRAM] = self.cpu["program"]
            program_of(self.cpu["program"]).module().run(self)
            if self.control[cpu.UNTIL]:
                break
        return time.thread_time_ns() - began
