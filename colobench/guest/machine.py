"""The guest machine: RAM blocks, devices, and the thread that is its CPU."""

from __future__ import annotations

import os
import threading
import time
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.guest import programs
from colobench.guest.configuration import (
    PAGE_SIZE,
    SCREEN_BYTES,
    Configuration,
    Program,
    block_sizes,
)
from colobench.guest.devices import CPU, NIC, Device, Serial, Timer
from colobench.guest.programs import Command
from colobench.guest.rings import HOST_SLOTS
from colobench.guest.tcp import initialize
from colobench.guest.vmstate import State
from colobench.kernels.digest import digest
from colobench.memory.ram import RAM, RAMBlock, lay_out
from colobench.memory.tracker import watch

#: The machine type's name in the stream's configuration section.
MACHINE_TYPE = "colobench-1"
TICK_NS = 1_000_000
_HEADER = bytes.fromhex("ffffffffffff525400c01001") + programs.ETHERTYPE.to_bytes(2, "big")


def zipf_distribution(pages: int, exponent: float = 1.0) -> npt.NDArray[np.uint64]:
    """Give the table that HOTCOLD draws from: uint64[pages + 1], see `programs.choose_page`.

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


class Machine:
    """A guest with two RAM blocks and four devices, stopped when it is made.

    Parameters
    ----------
    configuration
        What it is to be.
    tracker
        Name of the tracker that watches its RAM, see `colobench.memory.tracker`.

    Attributes
    ----------
    ram
        Its RAM.
    tracker
        Knows which pages of it the guest wrote.
    kick_fd
        Descriptor that becomes readable when the guest took or put frames (an eventfd).
    cpu, timer, serial, nic
        Its devices; `devices` lists them in the order in which they are saved.
    """

    def __init__(self, configuration: Configuration, tracker: str = "marked") -> None:
        self.ram = RAM("colobench-ram", lay_out(block_sizes(configuration.ram_bytes)))
        try:
            self.tracker = watch(tracker, self.ram)
        except BaseException:
            self.ram.close()
            raise
        self.cpu, self.timer, self.serial, self.nic = CPU(), Timer(), Serial(), NIC()
        self.devices: tuple[Device, ...] = (self.cpu, self.timer, self.serial, self.nic)
        self.cpu["program"], self.cpu["seed"] = configuration.program, configuration.seed
        self.cpu["writes_per_tick"] = configuration.writes_per_tick
        self.cpu["working_set"] = configuration.working_set
        dials = configuration.nondeterminism
        self.cpu["clock_us"], self.cpu["jitter_us"] = dials.clock_us, dials.jitter_us
        self.cpu["shuffle"] = dials.shuffle
        self.timer["period_ns"] = self.timer["remaining_ns"] = TICK_NS
        if configuration.program is Program.KV:
            ram = self._block("pc.ram")
            initialize(
                self.ram.array,
                self.tracker.marks,
                ram.first_page * PAGE_SIZE,
                ram.pages * PAGE_SIZE,
            )
        self.running = False
        self._control = np.zeros(programs.CONTROL_SLOTS, dtype=np.uint64)
        self._control[programs.ENTROPY] = int.from_bytes(os.urandom(8), "little")
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._acknowledge_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: threading.Thread | None = None
        self._distribution = np.zeros(1, dtype=np.uint64)

    @property
    def work(self) -> int:
        """How many steps the program has done."""
        return self.cpu["work"]

    def start(self) -> None:
        """Let the CPU run; nothing happens if it does."""
        if self.running:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._be_the_cpu, name="CPU", daemon=True)
            self._thread.start()
        self.running = True
        self._tell(Command.RUN)

    def stop(self) -> None:
        """Stop the CPU before its next write; returns when it has stopped."""
        if not self.running:
            return
        self._control[programs.STOPS] += np.uint64(1)
        self._tell(Command.STOP)
        os.eventfd_read(self._acknowledge_fd)
        self.running = False

    def plant(self, bug: int) -> None:
        """Put a bug of `colobench.guest.tcp` into the guest."""
        self._control[programs.BUGS] |= np.uint64(bug)

    def wake(self) -> None:
        """Have a sleeping CPU look at the NIC's receive queue."""
        os.eventfd_write(self._wake_fd, 1)

    def run_until(self, work: int) -> int:
        """Run without a clock, in this thread, until the program has done so many steps.

        RAM is then what it is in any guest with the same size, program and seed that has done as
        many steps. The devices' state is not comparable, it depends on time.

        Returns
        -------
        int
            Nanoseconds of processor time that the kernel took, faults included; also where all of
            the steps had been done before: so much it takes to call it.
        """
        if self._thread is not None:
            raise LocalError("run_until: expected a machine that was never started")
        if work == 0 or work < self.work:
            return 0
        self._control[programs.COMMAND] = Command.RUN
        self._control[programs.UNTIL] = work
        taken = self._be_the_cpu()
        self._control[programs.COMMAND] = Command.STOP
        self._control[programs.UNTIL] = 0
        return taken

    def load(self, states: list[tuple[Device, State]]) -> None:
        """Take over device states that were parsed and checked; the machine must be stopped."""
        for device, state in states:
            device.apply(state)
        self._control[programs.DEADLINE] = 0

    def ram_digest(self) -> int:
        """Digest all of RAM, 64 bits; the machine must be stopped."""
        return int(digest(self.ram.array, 0))

    def close(self) -> None:
        """End the CPU's thread and give the memory back."""
        self.stop()
        if self._thread is not None:
            self._tell(Command.EXIT)
            self._thread.join()
            self._thread = None
        os.close(self._wake_fd)
        os.close(self._acknowledge_fd)
        os.close(self.kick_fd)
        self.tracker.close()
        self.ram.close()

    def _tell(self, command: Command) -> None:
        self._control[programs.COMMAND] = command
        os.eventfd_write(self._wake_fd, 1)

    def _block(self, name: str) -> RAMBlock:
        return next(block for block in self.ram.blocks if block.name == name)

    def _be_the_cpu(self) -> int:
        """Be the CPU until it is told to stop being it; gives the time as `run_until` does."""
        ram, screen = self._block("pc.ram"), self._block("vga.vram")
        self._distribution = zipf_distribution(min(self.cpu["working_set"] or ram.pages, ram.pages))
        announcement = np.zeros(programs.ANNOUNCEMENT_SIZE, dtype=np.uint8)
        announcement[: len(_HEADER)] = np.frombuffer(_HEADER, np.uint8)
        queues: list[npt.NDArray[Any]] = []
        for queue in self.nic.queues.values():
            queues += [queue.ends, queue.lengths, queue.frames]
        scratch = np.zeros(programs.SCRATCH_SLOTS, dtype=np.uint64)
        service = np.zeros(HOST_SLOTS, dtype=np.uint64)
        # Of this thread alone: on a busy machine the time on the wall is that of others.
        began = time.thread_time_ns()
        programs.cpu_loop(
            self._control,
            scratch,
            self.cpu.registers,
            self.timer.registers,
            self.serial.registers,
            self.serial.scrollback,
            self.nic.registers,
            announcement,
            *queues,
            self.ram.array.view(np.uint64),
            self.ram.array,
            self.tracker.marks,
            self._distribution,
            ram.first_page,
            np.uint64(ram.pages),
            screen.first_page,
            np.uint64(SCREEN_BYTES),
            self._wake_fd,
            self._acknowledge_fd,
            self.kick_fd,
            service,
        )
        return time.thread_time_ns() - began
