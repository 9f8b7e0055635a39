"""Structures in which KVM gives and takes a virtual CPU's state, those of linux/kvm.h for x86."""

from __future__ import annotations

import ctypes
from typing import Any

_U8, _U16, _U32, _U64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64
GENERAL_REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *(f"r{number}" for number in range(8, 16)),
    *("rip", "rflags"),
)
#: Bytes of the structures of the local APIC and of the extended state.
LAPIC_BYTES, XSAVE_BYTES = 1024, 4096


class Regs(ctypes.Structure):
    """struct kvm_regs."""

    _fields_ = tuple((name, _U64) for name in GENERAL_REGISTERS)


class SegmentRegister(ctypes.Structure):
    """struct kvm_segment."""

    _fields_ = (
        ("base", _U64),
        ("limit", _U32),
        ("selector", _U16),
        *((name, _U8) for name in ("type", "present", "dpl", "db", "s", "l", "g", "avl")),
        ("unusable", _U8),
        ("padding", _U8),
    )


class DescriptorTable(ctypes.Structure):
    """struct kvm_dtable."""

    _fields_ = (("base", _U64), ("limit", _U16), ("padding", _U16 * 3))


class Sregs(ctypes.Structure):
    """struct kvm_sregs."""

    _fields_ = (
        *((name, SegmentRegister) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        ("gdt", DescriptorTable),
        ("idt", DescriptorTable),
        *((name, _U64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", _U64 * 4),
    )


class DebugRegs(ctypes.Structure):
    """struct kvm_debugregs."""

    _fields_ = (
        ("db", _U64 * 4),
        ("dr6", _U64),
        ("dr7", _U64),
        ("flags", _U64),
        ("reserved", _U64 * 9),
    )


class XCR(ctypes.Structure):
    """struct kvm_xcr."""

    _fields_ = (("xcr", _U32), ("reserved", _U32), ("value", _U64))


class XCRs(ctypes.Structure):
    """struct kvm_xcrs."""

    _fields_ = (
        ("nr_xcrs", _U32),
        ("flags", _U32),
        ("xcrs", XCR * 16),
        ("padding", _U64 * 16),
    )


class _Exception(ctypes.Structure):
    _fields_ = (
        *((name, _U8) for name in ("injected", "nr", "has_error_code", "pending")),
        ("error_code", _U32),
    )


class _Interrupt(ctypes.Structure):
    _fields_ = tuple((name, _U8) for name in ("injected", "nr", "soft", "shadow"))


class _NMI(ctypes.Structure):
    _fields_ = tuple((name, _U8) for name in ("injected", "pending", "masked", "padding"))


class _SMI(ctypes.Structure):
    _fields_ = tuple((name, _U8) for name in ("smm", "pending", "smm_inside_nmi", "latched_init"))


class VCPUEvents(ctypes.Structure):
    """struct kvm_vcpu_events."""

    _fields_ = (
        ("exception", _Exception),
        ("interrupt", _Interrupt),
        ("nmi", _NMI),
        ("sipi_vector", _U32),
        ("flags", _U32),
        ("smi", _SMI),
        ("triple_fault_pending", _U8),
        ("reserved", _U8 * 26),
        ("exception_has_payload", _U8),
        ("exception_payload", _U64),
    )


class MPState(ctypes.Structure):
    """struct kvm_mp_state."""

    _fields_ = (("mp_state", _U32),)


class XSave(ctypes.Structure):
    """struct kvm_xsave."""

    _fields_ = (("region", _U32 * (XSAVE_BYTES // 4)),)


class LAPIC(ctypes.Structure):
    """struct kvm_lapic_state: a register of 32 bits in each 16 bytes."""

    _fields_ = (("regs", _U32 * (LAPIC_BYTES // 4)),)


class CPUIDEntry(ctypes.Structure):
    """struct kvm_cpuid_entry2."""

    _fields_ = (
        *((name, _U32) for name in ("function", "index", "flags", "eax", "ebx", "ecx", "edx")),
        ("padding", _U32 * 3),
    )


class MSREntry(ctypes.Structure):
    """struct kvm_msr_entry."""

    _fields_ = (("index", _U32), ("reserved", _U32), ("data", _U64))


def counted(entry: type[ctypes.Structure], length: int) -> Any:
    """Make an array of that many entries behind their number and padding, as KVM takes it."""
    fields = (("count", _U32), ("padding", _U32), ("entries", entry * length))
    kind = type(f"{entry.__name__}s", (ctypes.Structure,), {"_fields_": fields})
    made: Any = kind()
    made.count = length
    return made
