"""The tracker `mprotect`: RAM is read-only, and a signal handler admits the first write to a page.

It is the oldest technique (Appel and Li: Virtual Memory Primitives for User Programs, 1991), and
here for teaching. The handler of SIGSEGV runs on the writing thread and interrupts its code.

A page whose protection differs from its neighbours' is a mapping of its own, and Linux limits the
number of mappings in a process. A system call that should write to a read-only page fails with
EFAULT.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np

from colobench.errors import LocalError
from colobench.kernels import bitmap, tracking
from colobench.kernels.jit import Integers
from colobench.memory.ram import PAGE_SIZE, RAM
from colobench.memory.tracker import Tracker, TrackerUnavailable, Words, require_small_pages

MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")
#: Mappings left to the rest of the process: threads, libraries, later arrays.
SPARE_MAPPINGS = 2048

# asm-generic/signal.h
SA_SIGINFO, SA_ONSTACK = 0x4, 0x08000000
#: Machines on which struct sigaction and siginfo_t have the layout that is assumed here.
_MACHINES = ("x86_64", "aarch64", "riscv64")


class _Action(ctypes.Structure):
    """The C library's struct sigaction."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Faults:
    """The process's handler of SIGSEGV, installed while there is at least one tracker.

    Its table and its code are kept until the process ends, because a fault may come at any time.

    Notes
    -----
    SA_SIGINFO is set because the handler needs the address of the fault. SA_NODEFER is not set, so
    SIGSEGV is blocked in the handler: if the handler itself faults, the process ends at once
    instead of calling the handler until the stack overflows. SA_ONSTACK is set so that a real stack
    overflow can be passed on to faulthandler, which provides an alternate stack.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._table: Integers = np.zeros(tracking.TABLE_WORDS, dtype=np.int64)
        self._default, self._previous, self._ours = _Action(), _Action(), _Action()
        self._table[tracking.DEFAULT] = ctypes.addressof(self._default)
        self._code: Any = None
        self._used: dict[int, Words] = {}

    def renew_lock(self) -> None:
        """Make a new lock in a forked child: another thread may have held the old one."""
        self._lock = threading.Lock()

    def watch(self, begin: int, length: int, marks: Words) -> int:
        """Let the handler admit and mark writes to a read-only range; return the range's slot."""
        with self._lock:
            free = set(range(tracking.SLOTS)) - set(self._used)
            if not free:
                raise LocalError(
                    f"mprotect: expected at most {tracking.SLOTS} trackers in a process, found more"
                )
            if not self._used:
                self._install()
            slot = min(free)
            tracking.watch_range(self._table, slot, begin, begin + length, marks.ctypes.data)
            self._used[slot] = marks
            return slot

    def forget(self, slot: int) -> None:
        """Undo `watch`; remove the handler with the last range, unless it was replaced."""
        with self._lock:
            tracking.watch_range(self._table, slot, 0, 0, 0)
            del self._used[slot]
            if not self._used and self.installed():
                self._sigaction(self._previous, None)

    def installed(self) -> bool:
        """Say whether our handler is the one that is installed."""
        now = _Action()
        self._sigaction(None, now)
        return bool(now.handler == self._ours.handler)

    def _install(self) -> None:
        if self._code is None:
            self._code = tracking.fault_handler(self._table.ctypes.data)
            self._ours.handler = self._code.address
            self._ours.flags = SA_SIGINFO | SA_ONSTACK
        self._sigaction(None, self._previous)
        self._table[tracking.PREVIOUS] = ctypes.addressof(self._previous)
        self._sigaction(self._ours, None)

    def _sigaction(self, action: _Action | None, old: _Action | None) -> None:
        pointers = [None if each is None else ctypes.byref(each) for each in (action, old)]
        if self._libc.sigaction(tracking.SIGSEGV, *pointers):
            raise TrackerUnavailable(f"mprotect: sigaction: {os.strerror(ctypes.get_errno())}")

    def protect(self, begin: int, length: int, protection: int) -> None:
        """Set the protection of whole pages."""
        place, size = ctypes.c_void_p(begin), ctypes.c_size_t(length)
        if self._libc.mprotect(place, size, protection):
            raise TrackerUnavailable(f"mprotect: {os.strerror(ctypes.get_errno())}")


_faults = _Faults()
os.register_at_fork(after_in_child=_faults.renew_lock)


class MProtect(Tracker):
    """Tracker that makes RAM read-only and handles SIGSEGV."""

    name = "mprotect"

    def __init__(self, ram: RAM) -> None:
        super().__init__(ram)
        require_small_pages(self.name)
        if platform.machine() not in _MACHINES:
            raise TrackerUnavailable(
                f"mprotect: expected one of {', '.join(_MACHINES)}, found {platform.machine()}"
            )
        _check_mappings(ram.pages)
        self._begin = ram.array.ctypes.data
        self._length = len(ram.array)
        self._written: Words = np.zeros(ram.pages // 64, dtype=np.uint64)
        self._slot: int | None = _faults.watch(self._begin, self._length, self._written)

    def close(self) -> None:
        """Make RAM writable; the last tracker restores the previous action of SIGSEGV."""
        super().close()
        if self._slot is not None:
            _faults.forget(self._slot)
            self._slot = None

    def _arm(self) -> None:
        if not _faults.installed():
            raise LocalError("mprotect: expected its own handler of SIGSEGV, found another one")
        bitmap.clear(self._written)
        self._protect(mmap.PROT_READ)

    def _collect(self, into: Words) -> None:
        # In this order, a page written in between is in this epoch, in the next one, or in both.
        bitmap.sync(self._written, into)
        self._protect(mmap.PROT_READ)

    def _disarm(self) -> None:
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)

    def _protect(self, protection: int) -> None:
        # One call for all of RAM also merges its mappings again.
        _faults.protect(self._begin, self._length, protection)


def _check_mappings(pages: int) -> None:
    """Refuse RAM that needs more mappings than allowed if every other page is written."""
    limit = int(MAX_MAP_COUNT.read_text())
    used = len(Path("/proc/self/maps").read_text().splitlines())
    room = limit - used - SPARE_MAPPINGS
    if pages > room:
        raise TrackerUnavailable(
            f"mprotect: expected RAM of at most {max(0, room) * PAGE_SIZE >> 20} MiB, since sysctl "
            f"vm.max_map_count is {limit}, of which {used + SPARE_MAPPINGS} are used or spared; "
            f"found {pages * PAGE_SIZE >> 20} MiB, which may need {pages} mappings"
        )
