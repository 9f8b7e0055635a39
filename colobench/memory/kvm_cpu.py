"""A virtual CPU of KVM: its run, its exits, and how another thread makes it leave."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

from colobench.memory.kvm import CALLS, KVMError, VirtualMachine, call

#: Signal that ends KVM_RUN. It is blocked in the CPU's thread except during KVM_RUN, so that it is
#: never delivered, and needs no handler.
KICK = signal.SIGUSR1
EXIT_REASONS = {
    0: "KVM_EXIT_UNKNOWN",
    1: "KVM_EXIT_EXCEPTION",
    2: "KVM_EXIT_IO",
    5: "KVM_EXIT_HLT",
    6: "KVM_EXIT_MMIO",
    8: "KVM_EXIT_SHUTDOWN",
    9: "KVM_EXIT_FAIL_ENTRY",
    10: "KVM_EXIT_INTR",
    17: "KVM_EXIT_INTERNAL_ERROR",
}
EXIT_IO, EXIT_HLT, EXIT_INTR = 2, 5, 10
# Offsets in struct kvm_run.
_IMMEDIATE_EXIT, _EXIT_REASON, _IO = 1, 8, 32

_libc = ctypes.CDLL(None, use_errno=True)


class _SignalMask(ctypes.Structure):
    """struct kvm_signal_mask."""

    _fields_ = (("len", ctypes.c_uint32), ("sigset", ctypes.c_uint8 * 8))


class _IOExit(ctypes.Structure):
    """The exit KVM_EXIT_IO in struct kvm_run."""

    _fields_ = (
        ("direction", ctypes.c_uint8),
        ("size", ctypes.c_uint8),
        ("port", ctypes.c_uint16),
        ("count", ctypes.c_uint32),
        ("data_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class PortAccess:
    """Access of a guest to a port.

    Attributes
    ----------
    port
        Number of the port.
    writes
        Whether the guest writes.
    size, count
        Bytes of an access, and number of accesses.
    at
        Offset of the ``size * count`` bytes in what KVM shares with its user.
    data
        The bytes that the guest writes.
    """

    port: int
    writes: bool
    size: int
    count: int
    at: int
    data: bytes


class VirtualCPU:
    """A virtual CPU.

    Parameters
    ----------
    vm
        Its virtual machine, which must outlive it.

    Attributes
    ----------
    descriptor
        Its descriptor.
    """

    def __init__(self, vm: VirtualMachine, number: int = 0) -> None:
        self.descriptor = call(vm.descriptor, "KVM_CREATE_VCPU", number)
        try:
            size = call(vm.kvm, "KVM_GET_VCPU_MMAP_SIZE")
            self._run = mmap.mmap(self.descriptor, size)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._thread = 0
        # Held while the thread is sent a signal: an identifier of one that has ended is anybody's.
        self._kicking = threading.Lock()

    def close(self) -> None:
        """Release it; it must not run."""
        self._run.close()
        os.close(self.descriptor)

    def enter_thread(self) -> None:
        """Make the calling thread the one that runs this CPU."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [KICK]) | {KICK}
        mask = sum(1 << number - 1 for number in blocked if number != KICK)
        argument = _SignalMask(8, (ctypes.c_uint8 * 8)(*mask.to_bytes(8, "little")))
        call(self.descriptor, "KVM_SET_SIGNAL_MASK", argument)
        with self._kicking:
            self._thread = threading.get_ident()

    def leave_thread(self) -> None:
        """Note that the calling thread, which ran this CPU, is about to end."""
        with self._kicking:
            self._thread = 0

    def run(self) -> int:
        """Run until the guest needs its host, or `kick`; return the reason of the exit.

        `EXIT_INTR` stands for a kick: what the guest had asked of its host is done then, and its
        state is whole.

        Raises
        ------
        KVMError
            If KVM cannot run it.
        """
        if _libc.ioctl(self.descriptor, CALLS["KVM_RUN"], 0) == 0:
            return int.from_bytes(self._run[_EXIT_REASON : _EXIT_REASON + 4], "little")
        number = ctypes.get_errno()
        if number in (errno.EINTR, errno.EAGAIN):
            # A kick that has come is none of the next run.
            signal.sigtimedwait([KICK], 0)
            return EXIT_INTR
        raise KVMError(f"kvm: KVM_RUN: {os.strerror(number)}")

    def kick(self) -> None:
        """Make `run` return as soon as the guest's state is whole, now or at its next call."""
        self._run[_IMMEDIATE_EXIT] = 1
        with self._kicking:
            if self._thread:
                signal.pthread_kill(self._thread, KICK)

    def go_on(self) -> None:
        """Take a kick back, so that `run` runs again."""
        self._run[_IMMEDIATE_EXIT] = 0

    def port_access(self) -> PortAccess:
        """Give the access that caused an `EXIT_IO`."""
        found = _IOExit.from_buffer_copy(self._run, _IO)
        begin, size = int(found.data_offset), found.size * found.count
        if begin + size > len(self._run):
            raise KVMError(f"kvm: expected {size} bytes of a port's data, found none at {begin}")
        data = self._run[begin : begin + size]
        return PortAccess(found.port, found.direction == 1, found.size, found.count, begin, data)

    def answer(self, access: PortAccess, value: int) -> None:
        """Let the guest read the byte `value` from a port."""
        length = access.size * access.count
        self._run[access.at : access.at + length] = bytes([value]) * length

    def describe_exit(self, reason: int) -> str:
        """Describe an exit that nobody expects, with its first details."""
        name = EXIT_REASONS.get(reason, f"exit {reason}")
        return f"{name} (details {self._run[_IO : _IO + 16].hex()})"

    def get(self, name: str, structure: Any) -> Any:
        """Fill a structure by a call, such as KVM_GET_REGS, and return it."""
        call(self.descriptor, name, structure)
        return structure
