"""KVM of Linux: its calls, and a virtual machine whose memory is a guest's RAM.

The calls are those of Linux's Documentation/virt/kvm/api.rst; numbers and structures are those of
linux/kvm.h for x86.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE, RAM, WORD_BITS, RAMBlock

DEVICE = "/dev/kvm"
API_VERSION = 12
#: Guest-physical address of the second block, behind which the others follow. The first block is at
#: 0, and must end below it.
OTHER_BLOCKS_AT = 0xE0000000
#: Pages that Intel's processors need below 4 GiB, see KVM_SET_TSS_ADDR: one, then three.
_IDENTITY_MAP_AT, _TSS_AT = 0xFFFBC000, 0xFFFBD000

_NONE, _WRITE, _READ = 0, 1, 2


def _number(direction: int, sequence: int, size: int = 0) -> int:
    """Give the number of an ioctl, as the macros _IO, _IOR, _IOW and _IOWR do."""
    return direction << 30 | size << 16 | 0xAE << 8 | sequence


#: Numbers of the calls: (direction, sequence number, bytes of the argument).
CALLS = {
    name: _number(*of)
    for name, of in {
        "KVM_GET_API_VERSION": (_NONE, 0x00),
        "KVM_CREATE_VM": (_NONE, 0x01),
        "KVM_GET_MSR_INDEX_LIST": (_READ | _WRITE, 0x02, 4),
        "KVM_CHECK_EXTENSION": (_NONE, 0x03),
        "KVM_GET_VCPU_MMAP_SIZE": (_NONE, 0x04),
        "KVM_GET_SUPPORTED_CPUID": (_READ | _WRITE, 0x05, 8),
        "KVM_CREATE_VCPU": (_NONE, 0x41),
        "KVM_GET_DIRTY_LOG": (_WRITE, 0x42, 16),
        "KVM_SET_USER_MEMORY_REGION": (_WRITE, 0x46, 32),
        "KVM_SET_TSS_ADDR": (_NONE, 0x47),
        "KVM_SET_IDENTITY_MAP_ADDR": (_WRITE, 0x48, 8),
        "KVM_RUN": (_NONE, 0x80),
        "KVM_GET_REGS": (_READ, 0x81, 144),
        "KVM_SET_REGS": (_WRITE, 0x82, 144),
        "KVM_GET_SREGS": (_READ, 0x83, 312),
        "KVM_SET_SREGS": (_WRITE, 0x84, 312),
        "KVM_GET_MSRS": (_READ | _WRITE, 0x88, 8),
        "KVM_SET_MSRS": (_WRITE, 0x89, 8),
        "KVM_SET_SIGNAL_MASK": (_WRITE, 0x8B, 4),
        "KVM_GET_LAPIC": (_READ, 0x8E, 1024),
        "KVM_SET_LAPIC": (_WRITE, 0x8F, 1024),
        "KVM_SET_CPUID2": (_WRITE, 0x90, 8),
        "KVM_GET_MP_STATE": (_READ, 0x98, 4),
        "KVM_SET_MP_STATE": (_WRITE, 0x99, 4),
        "KVM_GET_VCPU_EVENTS": (_READ, 0x9F, 64),
        "KVM_SET_VCPU_EVENTS": (_WRITE, 0xA0, 64),
        "KVM_GET_DEBUGREGS": (_READ, 0xA1, 128),
        "KVM_SET_DEBUGREGS": (_WRITE, 0xA2, 128),
        "KVM_ENABLE_CAP": (_WRITE, 0xA3, 104),
        "KVM_GET_XSAVE": (_READ, 0xA4, 4096),
        "KVM_SET_XSAVE": (_WRITE, 0xA5, 4096),
        "KVM_GET_XCRS": (_READ, 0xA6, 392),
        "KVM_SET_XCRS": (_WRITE, 0xA7, 392),
        "KVM_CLEAR_DIRTY_LOG": (_READ | _WRITE, 0xC0, 24),
    }.items()
}
#: Capabilities that are required, with their numbers.
CAPABILITIES = {
    "KVM_CAP_USER_MEMORY": 3,
    "KVM_CAP_MP_STATE": 14,
    "KVM_CAP_VCPU_EVENTS": 41,
    "KVM_CAP_DEBUGREGS": 50,
    "KVM_CAP_XSAVE": 55,
    "KVM_CAP_XCRS": 56,
    "KVM_CAP_SPLIT_IRQCHIP": 121,
    "KVM_CAP_IMMEDIATE_EXIT": 136,
    "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2": 168,
}
_LOG_DIRTY_PAGES = 1
_MANUAL_PROTECT = 1
_IRQ_LINES = 24

_libc = ctypes.CDLL(None, use_errno=True)

Words = npt.NDArray[np.uint64]


class KVMError(LocalError):
    """A call of KVM that failed, or a guest that KVM cannot run."""


class KVMUnavailable(LocalError):
    """KVM is missing on this machine, or lacks a capability."""


class _MemoryRegion(ctypes.Structure):
    """struct kvm_userspace_memory_region."""

    _fields_ = (
        ("slot", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("guest_phys_addr", ctypes.c_uint64),
        ("memory_size", ctypes.c_uint64),
        ("userspace_addr", ctypes.c_uint64),
    )


class _EnableCapability(ctypes.Structure):
    """struct kvm_enable_cap."""

    _fields_ = (
        ("cap", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("args", ctypes.c_uint64 * 4),
        ("pad", ctypes.c_uint8 * 64),
    )


class _DirtyLog(ctypes.Structure):
    """struct kvm_dirty_log."""

    _fields_ = (
        ("slot", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("dirty_bitmap", ctypes.c_uint64),
    )


class _ClearDirtyLog(ctypes.Structure):
    """struct kvm_clear_dirty_log."""

    _fields_ = (
        ("slot", ctypes.c_uint32),
        ("num_pages", ctypes.c_uint32),
        ("first_page", ctypes.c_uint64),
        ("dirty_bitmap", ctypes.c_uint64),
    )


def call(descriptor: int, name: str, argument: Any = 0) -> int:
    """Do a call of KVM.

    Parameters
    ----------
    descriptor
        /dev/kvm, a virtual machine or a virtual CPU.
    name
        Name of the call, a key of `CALLS`.
    argument
        An integer, or an object of ctypes, which the call may change.

    Returns
    -------
    int
        What the call returns, at least 0.

    Raises
    ------
    KVMError
        If it fails; the error names the call.
    """
    value = ctypes.c_ulong(argument) if isinstance(argument, int) else ctypes.byref(argument)
    while True:
        # Not fcntl.ioctl, whose integers are those of int.
        result = int(_libc.ioctl(descriptor, ctypes.c_ulong(CALLS[name]), value))
        if result >= 0:
            return result
        # A signal interrupts KVM_CREATE_VM; its handler in Python runs here.
        if ctypes.get_errno() != errno.EINTR:
            raise KVMError(f"kvm: {name}: {os.strerror(ctypes.get_errno())}")


def open_kvm(capabilities: Iterable[str] = CAPABILITIES) -> int:
    """Open /dev/kvm.

    Parameters
    ----------
    capabilities
        Names of the capabilities that it must have, keys of `CAPABILITIES`.

    Raises
    ------
    KVMUnavailable
        If it cannot be opened, is of another version, or lacks a capability; one line.
    """
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise KVMUnavailable(f"kvm: {DEVICE}: {error.strerror}") from error
    try:
        _check(descriptor, capabilities)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, KVMError):
            raise KVMUnavailable(str(error)) from error
        raise
    return descriptor


def _check(descriptor: int, capabilities: Iterable[str]) -> None:
    if platform.machine() != "x86_64":
        raise KVMUnavailable(f"kvm: expected an x86-64 processor, found {platform.machine()}")
    version = call(descriptor, "KVM_GET_API_VERSION")
    if version != API_VERSION:
        raise KVMUnavailable(f"kvm: expected API version {API_VERSION}, found {version}")
    for name in capabilities:
        if not call(descriptor, "KVM_CHECK_EXTENSION", CAPABILITIES[name]):
            raise KVMUnavailable(f"kvm: expected the capability {name}, found none")


@functools.cache
def require_kvm(capabilities: tuple[str, ...] = tuple(CAPABILITIES)) -> None:
    """Create a virtual machine on trial.

    Parameters
    ----------
    capabilities
        See `open_kvm`; none for a QEMU.

    Raises
    ------
    KVMUnavailable
        If this machine cannot; one line.
    """
    descriptor = open_kvm(capabilities)
    try:
        os.close(call(descriptor, "KVM_CREATE_VM"))
    except KVMError as error:
        raise KVMUnavailable(str(error)) from error
    finally:
        os.close(descriptor)


class VirtualMachine:
    """A virtual machine whose memory is the blocks of a RAM, or nothing.

    Parameters
    ----------
    ram
        The guest's RAM, which must outlive the machine; None for a machine without memory.

    Attributes
    ----------
    kvm, descriptor
        /dev/kvm, and the machine's descriptor.

    Raises
    ------
    KVMUnavailable
        If there is no KVM that can be used.
    KVMError
        If a call fails.
    """

    def __init__(self, ram: RAM | None) -> None:
        self._ram = ram
        self._logging = False
        with ExitStack() as stack:
            self.kvm = open_kvm()
            stack.callback(os.close, self.kvm)
            self.descriptor = call(self.kvm, "KVM_CREATE_VM")
            stack.callback(os.close, self.descriptor)
            call(self.descriptor, "KVM_SET_IDENTITY_MAP_ADDR", ctypes.c_uint64(_IDENTITY_MAP_AT))
            call(self.descriptor, "KVM_SET_TSS_ADDR", _TSS_AT)
            self._enable("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", _MANUAL_PROTECT)
            #: The blocks, each with its guest-physical address; the number of each is its slot's.
            self._slots = list(place(ram)) if ram is not None else []
            self._map(0)
            self._descriptors = stack.pop_all()

    def close(self) -> None:
        """Release the machine; its virtual CPUs must be closed before."""
        self._descriptors.close()

    def enable_local_apics(self) -> None:
        """Give virtual CPUs that are made later a local APIC in the kernel, and no other chip."""
        self._enable("KVM_CAP_SPLIT_IRQCHIP", _IRQ_LINES)

    def log_dirty_pages(self, on: bool) -> None:
        """Begin or end the log of written pages; it is empty at its beginning."""
        if on != self._logging:
            self._map(_LOG_DIRTY_PAGES if on else 0)
            self._logging = on

    def take_log(self, into: Words) -> None:
        """Set the bits of the pages that virtual CPUs wrote, and protect those pages again.

        A page that is written during the call is found now, the next time, or both.

        Parameters
        ----------
        into
            uint64[pages / 64] of the whole RAM; bits that are set stay.
        """
        for slot, (block, _) in enumerate(self._slots):
            words = np.zeros(-(-block.pages // WORD_BITS), np.uint64)
            place_of_words = words.ctypes.data
            call(self.descriptor, "KVM_GET_DIRTY_LOG", _DirtyLog(slot, 0, place_of_words))
            if words.any():
                clear = _ClearDirtyLog(slot, block.pages, 0, place_of_words)
                call(self.descriptor, "KVM_CLEAR_DIRTY_LOG", clear)
                begin = block.first_page // WORD_BITS
                into[begin : begin + len(words)] |= words

    def _enable(self, capability: str, argument: int) -> None:
        enabled = _EnableCapability(CAPABILITIES[capability])
        enabled.args[0] = argument
        try:
            call(self.descriptor, "KVM_ENABLE_CAP", enabled)
        except KVMError as error:
            raise KVMError(f"{error} ({capability})") from error

    def _map(self, flags: int) -> None:
        """Give the machine its memory, or change the memory's flags."""
        for slot, (block, address) in enumerate(self._slots):
            assert self._ram is not None
            host = self._ram.array.ctypes.data + block.first_page * PAGE_SIZE
            region = _MemoryRegion(slot, flags, address, block.used_length, host)
            call(self.descriptor, "KVM_SET_USER_MEMORY_REGION", region)


def place(ram: RAM) -> list[tuple[RAMBlock, int]]:
    """Give each block of RAM its guest-physical address.

    Raises
    ------
    KVMError
        If the first block is too large.
    """
    first, *others = ram.blocks
    if first.used_length > OTHER_BLOCKS_AT:
        raise KVMError(
            f"kvm: expected at most {OTHER_BLOCKS_AT} bytes in block {first.name!r}, "
            f"found {first.used_length}"
        )
    placed, at = [(first, 0)], OTHER_BLOCKS_AT
    for block in others:
        placed.append((block, at))
        at += block.used_length
    return placed
