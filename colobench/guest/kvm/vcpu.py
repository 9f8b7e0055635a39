"""The guest's virtual CPU as parts of its state, which KVM gives and takes as structures."""

from __future__ import annotations

import ctypes
from typing import Any

from colobench.guest.kvm.structures import CPUIDEntry, MSREntry, counted
from colobench.memory.kvm import KVMError, VirtualMachine, call
from colobench.memory.kvm_cpu import VirtualCPU

_CPUID_ENTRIES = 256
TSC = 0x10
#: Model-specific registers that are saved, if the KVM has them.
MSRS = {
    "IA32_TSC_ADJUST": 0x3B,
    "IA32_TSC": TSC,
    "IA32_SYSENTER_CS": 0x174,
    "IA32_SYSENTER_ESP": 0x175,
    "IA32_SYSENTER_EIP": 0x176,
    "IA32_MISC_ENABLE": 0x1A0,
    "IA32_PAT": 0x277,
    "IA32_TSC_DEADLINE": 0x6E0,
    "STAR": 0xC0000081,
    "LSTAR": 0xC0000082,
    "CSTAR": 0xC0000083,
    "SYSCALL_MASK": 0xC0000084,
    "KERNEL_GS_BASE": 0xC0000102,
    "TSC_AUX": 0xC0000103,
}


class GuestCPU(VirtualCPU):
    """A virtual CPU with all features that KVM supports here.

    Attributes
    ----------
    msrs
        Numbers of the model-specific registers of `MSRS` that it has.
    """

    def __init__(self, vm: VirtualMachine) -> None:
        super().__init__(vm)
        try:
            features = counted(CPUIDEntry, _CPUID_ENTRIES)
            call(vm.kvm, "KVM_GET_SUPPORTED_CPUID", features)
            call(self.descriptor, "KVM_SET_CPUID2", features)
            self.msrs = tuple(filter(self._has_msr, MSRS.values()))
        except BaseException:
            self.close()
            raise

    def put(self, name: str, structure: ctypes.Structure) -> None:
        """Set a part of the state by a call, such as KVM_SET_REGS."""
        call(self.descriptor, name, structure)

    def get_msrs(self) -> list[int]:
        """Return the values of `msrs`."""
        entries = self._msr_entries(self.msrs)
        call(self.descriptor, "KVM_GET_MSRS", entries)
        return [entry.data for entry in entries.entries]

    def put_msrs(self, values: list[int]) -> None:
        """Set the values of `msrs`.

        Raises
        ------
        KVMError
            If KVM refuses one; the error names the first that it refuses.
        """
        entries = self._msr_entries(self.msrs)
        for entry, value in zip(entries.entries, values, strict=True):
            entry.data = value
        done = call(self.descriptor, "KVM_SET_MSRS", entries)
        if done < len(values):
            raise KVMError(
                f"kvm: KVM_SET_MSRS: expected a value for register {self.msrs[done]:#x} that is "
                f"allowed, found {values[done]:#x}"
            )

    def _has_msr(self, number: int) -> bool:
        return call(self.descriptor, "KVM_GET_MSRS", self._msr_entries([number])) == 1

    @staticmethod
    def _msr_entries(numbers: Any) -> Any:
        entries = counted(MSREntry, len(numbers))
        for entry, number in zip(entries.entries, numbers, strict=True):
            entry.index = number
        return entries
