"""Writes to RAM by a virtual CPU that does nothing else, to try a tracker's effect."""

from __future__ import annotations

import ctypes

from colobench.memory.kvm import KVMError, VirtualMachine, call
from colobench.memory.kvm_cpu import EXIT_HLT, EXIT_INTR, VirtualCPU
from colobench.memory.ram import PAGE_SIZE, RAM

#: inc byte [es:0]; hlt, in real mode.
_CODE = bytes.fromhex("26fe060000 f4")
_PARAGRAPH = 16
# Places in struct kvm_regs.
_RIP, _FLAGS = 16, 17
# Offsets of a segment's base and selector in struct kvm_sregs: cs is the first, es the third.
_SEGMENT, _SELECTOR = 24, 12
_CS, _ES = 0, 2 * _SEGMENT


class WritingCPU:
    """A virtual CPU that changes the first byte of a page below 640 KiB; its code is in page 0.

    Parameters
    ----------
    vm, ram
        The virtual machine, which has no other CPU, and its RAM.
    """

    def __init__(self, vm: VirtualMachine, ram: RAM) -> None:
        self._ram, self._cpu = ram, VirtualCPU(vm)

    def close(self) -> None:
        """Release the CPU."""
        self._cpu.close()

    def write(self, page: int) -> None:
        """Change the page's first byte.

        Raises
        ------
        KVMError
            If the CPU does not halt then.
        """
        self._ram.array[PAGE_SIZE - len(_CODE) : PAGE_SIZE] = bytearray(_CODE)
        special = self._cpu.get("KVM_GET_SREGS", (ctypes.c_uint8 * 312)())
        for segment, base in ((_CS, 0), (_ES, page * PAGE_SIZE)):
            special[segment : segment + 8] = list(base.to_bytes(8, "little"))
            selector = (base // _PARAGRAPH).to_bytes(2, "little")
            special[segment + _SELECTOR : segment + _SELECTOR + 2] = list(selector)
        call(self._cpu.descriptor, "KVM_SET_SREGS", special)
        registers = (ctypes.c_uint64 * 18)()
        registers[_RIP], registers[_FLAGS] = PAGE_SIZE - len(_CODE), 2
        call(self._cpu.descriptor, "KVM_SET_REGS", registers)
        reason = EXIT_INTR
        while reason == EXIT_INTR:
            # A signal of the process may come, whose handler in Python runs here.
            reason = self._cpu.run()
        if reason != EXIT_HLT:
            raise KVMError(
                f"kvm: expected a CPU that halts, found {self._cpu.describe_exit(reason)}"
            )
