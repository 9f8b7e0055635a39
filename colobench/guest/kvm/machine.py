"""The KVM guest: RAM blocks, devices, and the thread that runs its virtual CPU."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from colobench.errors import LocalError
from colobench.guest.interface import GuestDisk, NoNetwork
from colobench.guest.kvm.boot import (
    BOOT_SECTOR,
    PROGRAM,
    SERIAL_PORT,
    WORDS_AT,
    WORK,
    WRITES,
    initial_ram,
)
from colobench.guest.kvm.devices import CPUDevice, cpu_devices
from colobench.guest.kvm.structures import Regs, Sregs
from colobench.guest.kvm.vcpu import GuestCPU
from colobench.guest.numba.devices import Serial
from colobench.guest.programs import Program, program_of
from colobench.guest.settings import GuestSettings
from colobench.kernels.digest import digest
from colobench.memory.kvm import KVMError, VirtualMachine, require_kvm
from colobench.memory.kvm_cpu import EXIT_INTR, EXIT_IO
from colobench.memory.kvm_log import KVMLog
from colobench.memory.ram import RAM, lay_out
from colobench.memory.tracker import watch
from colobench.wire.vmstate import Device, State

#: The machine type's name in the stream's configuration section.
MACHINE_TYPE = "colobench-kvm-1"
#: Ports of the serial port, its line status register, and that register's bits for an empty
#: transmitter: all that there is of a 16550.
_SERIAL_PORTS = range(SERIAL_PORT, SERIAL_PORT + 8)
_LINE_STATUS, _TRANSMITTER_EMPTY = SERIAL_PORT + 5, 0x60
_FIXED_FLAG = 2


class KVMMachine:
    """A guest with a virtual CPU of KVM, two RAM blocks, a local APIC and a serial port.

    Parameters
    ----------
    settings
        Settings of the guest, whose program is boot code.
    tracker
        Name of the tracker that watches its RAM: kvm, userfault or shadow.
    failed
        Function that is called, in the CPU's thread, if KVM cannot run the guest any longer.

    Attributes
    ----------
    settings
        The settings with which it was made.
    ram, tracker, network, disks, devices, running
        See `colobench.guest.interface.Guest`.
    serial
        The serial port, a device.

    Raises
    ------
    KVMUnavailable
        If this machine has no KVM that can be used.
    """

    machine_type = MACHINE_TYPE

    def __init__(
        self,
        settings: GuestSettings,
        tracker: str = "kvm",
        failed: Callable[[Exception], None] = lambda error: print(error, file=sys.stderr),
    ) -> None:
        require_kvm()
        self.settings, self._failed = settings, failed
        self.running = False
        self.disks: tuple[GuestDisk, ...] = ()
        self.serial = Serial()
        with ExitStack() as stack:
            self.ram = RAM("colobench-ram", lay_out(settings.block_sizes()))
            stack.callback(self.ram.close)
            self._write_ram()
            self.tracker = watch(tracker, self.ram)
            stack.callback(lambda: self.tracker.close())
            if isinstance(self.tracker, KVMLog):
                self._vm = self.tracker.vm
            else:
                self._vm = VirtualMachine(self.ram)
                stack.callback(self._vm.close)
            self._vm.enable_local_apics()
            self._cpu = GuestCPU(self._vm)
            stack.callback(self._cpu.close)
            self._reset_cpu()
            self._spare: GuestCPU | None = None
            self._cpu_devices: tuple[CPUDevice, ...] = cpu_devices(self._cpu, self._spare_cpu)
            self.devices: tuple[Device, ...] = (*self._cpu_devices, self.serial)
            self.network = NoNetwork()
            stack.callback(self.network.close)
            self._resources = stack.pop_all()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._closing = False
        # The host's orders to run, which the CPU takes back itself, so that it misses none, and to
        # stand still, and the CPU's word that it does.
        self._go, self._stopped = threading.Event(), threading.Event()
        self._halting = False

    def _write_ram(self) -> None:
        block = self.ram.blocks[0]
        memory = self.ram.block_bytes(block)
        for address, data in initial_ram(self.settings).items():
            memory[address : address + len(data)] = np.frombuffer(data, np.uint8)
        #: uint64[1], the number of steps that the guest has done.
        self._work = memory[WORDS_AT + WORK :][:8].view(np.uint64)
        #: uint32[8], the guest's words, see `colobench.guest.kvm.boot`.
        self._words = memory[WORDS_AT:][:32].view(np.uint32)

    def _reset_cpu(self) -> None:
        """Let the CPU begin in real mode at the boot sector."""
        special = self._cpu.get("KVM_GET_SREGS", Sregs())
        special.cs.base = special.cs.selector = 0
        self._cpu.put("KVM_SET_SREGS", special)
        self._cpu.put("KVM_SET_REGS", Regs(rip=BOOT_SECTOR, rflags=_FIXED_FLAG))

    def _spare_cpu(self) -> GuestCPU:
        """Return a CPU of a machine without memory, on which states are tried."""
        if self._spare is None:
            vm = VirtualMachine(None)
            self._resources.callback(vm.close)
            vm.enable_local_apics()
            self._spare = GuestCPU(vm)
            self._resources.callback(self._spare.close)
        return self._spare

    @property
    def work(self) -> int:
        """Number of steps that the guest has done."""
        return int(self._work[0])

    def start(self) -> None:
        """Start the CPU, unless it runs.

        Raises
        ------
        KVMError
            If KVM could not run the guest any longer.
        """
        if self.running:
            return
        self._check()
        self._halting = False
        self._stopped.clear()
        self._cpu.go_on()
        self._go.set()
        if self._thread is None:
            thread = threading.Thread(target=self._be_the_cpu, name="CPU", daemon=True)
            thread.start()
            self._thread = thread
        self.running = True

    def stop(self) -> None:
        """Stop the CPU between two instructions, and take its state.

        Raises
        ------
        KVMError
            If KVM could not run the guest any longer.
        """
        if not self.running:
            return
        self._halting = True
        self._cpu.kick()
        self._stopped.wait()
        self.running = False
        self._check()
        for device in self._cpu_devices:
            device.fetch()

    def _check(self) -> None:
        """Raise KVMError if KVM could not run the guest any longer."""
        if self._error is not None:
            raise KVMError(str(self._error)) from self._error

    def plant(self, bug: int) -> None:
        """Leave the bug: this guest has no place for it."""

    def load(self, states: Sequence[tuple[Device, State]]) -> None:
        """Apply device states that were parsed and checked; the machine must be stopped."""
        for device, state in states:
            device.apply(state)
        for each in self._cpu_devices:
            each.fetch_loaded()

    def describe(self) -> dict[str, Any]:
        """Return the program's name, counters, and the CPU's thread as QEMU does."""
        return {
            "thread-id": None if self._thread is None else self._thread.native_id,
            "program": self._label(),
            "work": self.work,
            "ticks": -(-self.work // max(1, int(self._words[WRITES // 4]))),
        }

    def _label(self) -> str:
        # A guest that has not arrived yet has no program.
        try:
            program = program_of(int(self._words[PROGRAM // 4]))
        except LocalError:
            program = Program.IDLE
        return program.label if program.needs_kvm else "none"

    def console(self) -> str:
        """Return the last output of the serial port."""
        return self.serial.text()

    def ram_digest(self) -> int:
        """Digest all of RAM, 64 bits; the machine must be stopped."""
        return int(digest(self.ram.array, 0))

    def close(self) -> None:
        """End the CPU's thread, and release the machine."""
        self._closing = True
        self._go.set()
        if self._thread is not None:
            self._cpu.kick()
            self._thread.join()
            self._thread = None
        self.running = False
        # Views would keep the memory.
        self._work, self._words = np.zeros(1, np.uint64), np.zeros(8, np.uint32)
        self._resources.close()

    # In the CPU's thread.

    def _be_the_cpu(self) -> None:
        try:
            self._cpu.enter_thread()
            while not self._closing:
                self._run()
        except Exception as error:
            # Whatever it is, the guest is lost.
            self._error = error
            self._failed(error)
        finally:
            self._cpu.leave_thread()
            self._stopped.set()

    def _run(self) -> None:
        """Wait for the host's order to run, and run until it is to stand still."""
        self._go.wait()
        while not self._closing:
            reason = self._cpu.run()
            if reason == EXIT_IO:
                self._access_port()
            elif reason != EXIT_INTR:
                raise KVMError(
                    f"kvm: expected a guest that runs, found {self._cpu.describe_exit(reason)}"
                )
            elif self._halting:
                # Before the word, as the next order may come at once.
                self._go.clear()
                self._stopped.set()
                return

    def _access_port(self) -> None:
        """Do what the guest asks of a port."""
        access = self._cpu.port_access()
        if access.port not in _SERIAL_PORTS or access.size != 1:
            raise KVMError(
                f"kvm: expected a byte of a serial port's registers, found {access.size} bytes at "
                f"port {access.port:#x}"
            )
        if not access.writes:
            ready = access.port == _LINE_STATUS
            self._cpu.answer(access, _TRANSMITTER_EMPTY if ready else 0)
        elif access.port == SERIAL_PORT:
            self.serial.put(access.data)
