"""The tracker `mprotect`: RAM is read-only, and a signal handler admits the first write to a page.

For teaching, and the oldest way of all (Appel and Li: Virtual Memory Primitives for User Programs,
1991). The handler of SIGSEGV runs on the thread that writes, inside of whatever it is doing.

Each page whose neighbours differ from it in protection is a mapping of its own, and Linux limits
how many a process may have. A system call that is to write to a read-only page fails with EFAULT.
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
#: Mappings that are left to the rest of the process: threads, libraries, arrays that come later.
SPARE_MAPPINGS = 2048

# asm-generic/signal.h
SA_SIGINFO, SA_ONSTACK = 0x4, 0x08000000
#: Where the C library's struct sigaction and Linux's siginfo_t are as they are written down here.
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
    """The process's one handler of SIGSEGV, installed while there is a tracker.

    Its table and its code are kept until the process ends, for a fault may come at any time.

    Notes
    -----
    SA_SIGINFO, since the handler needs the address. Without SA_NODEFER SIGSEGV is blocked in the
    handler: a fault of its own, which would be a mistake in it, ends the process at once instead of
    calling it again and again until the stack is full. SA_ONSTACK, so that a real crash by a full
    stack can still be passed on to faulthandler, which gives its thread a stack for that.
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
        """Take a new lock, in a child whose fork found the old one held by another thread."""
        self._lock = threading.Lock()

    def watch(self, begin: int, length: int, marks: Words) -> int:
        """Let writes to read-only pages of a range be admitted and marked; give its slot."""
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
        """Undo `watch`; with the last range the handler goes, unless somebody replaced it."""
        with self._lock:
            tracking.watch_range(self._table, slot, 0, 0, 0)
            del self._used[slot]
            if not self._used and self.installed():
                self._sigaction(self._previous, None)

    def installed(self) -> bool:
        """Say whether a fault would come to our handler."""
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
    """Read-only RAM, and a handler of SIGSEGV."""

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
        # In this order: a page that is written in between is in this epoch or, again, in the next.
        bitmap.sync(self._written, into)
        self._protect(mmap.PROT_READ)

    def _disarm(self) -> None:
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)

    def _protect(self, protection: int) -> None:
        # All of RAM in one call, which also joins its mappings again.
        _faults.protect(self._begin, self._length, protection)


def _check_mappings(pages: int) -> None:
    """Refuse RAM whose pages, every other one written, could need more mappings than allowed."""
    limit = int(MAX_MAP_COUNT.read_text())
    used = len(Path("/proc/self/maps").read_text().splitlines())
    room = limit - used - SPARE_MAPPINGS
    if pages > room:
        raise TrackerUnavailable(
            f"mprotect: expected RAM of at most {max(0, room) * PAGE_SIZE >> 20} MiB, since sysctl "
            f"vm.max_map_count is {limit}, of which {used + SPARE_MAPPINGS} are used or spared; "
            f"found {pages * PAGE_SIZE >> 20} MiB, which may need {pages} mappings"
        )
