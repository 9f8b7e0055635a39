"""A limit of a thread's processor time, at which this process ends.

Code that keeps Python's lock, as one long call of C does, cannot be interrupted from Python: no
other thread of Python runs. The kernel's timer of a thread needs no lock, nor does the handler that
writes the thread's lines to standard error.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import threading

#: The signal that ends the process; nothing else uses it.
ALARM = signal.SIGVTALRM
#: Of timer_create(2) and sigevent(3type).
_CLOCK_THREAD_CPUTIME_ID, _SIGEV_THREAD_ID = 3, 4


class _Event(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_int * 11),
    )


class _Times(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in ("interval_seconds", "interval_ns", "seconds", "nanoseconds")
    )


class ThreadAlarm:
    """Alarm of the thread that makes it; it is not set at first.

    Raises
    ------
    OSError
        If the kernel has no timer for it.
    """

    def __init__(self) -> None:
        faulthandler.register(ALARM, file=2, all_threads=False, chain=True)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Event(None, ALARM, _SIGEV_THREAD_ID, threading.get_native_id())
        self._call(
            "timer_create", _CLOCK_THREAD_CPUTIME_ID, ctypes.byref(event), ctypes.byref(self._timer)
        )

    def set(self, seconds: float) -> None:
        """End the process once the thread has had so many seconds more; 0: never."""
        whole = int(seconds)
        times = _Times(0, 0, whole, int((seconds - whole) * 1e9))
        self._call("timer_settime", self._timer, 0, ctypes.byref(times), None)

    def close(self) -> None:
        """Release the timer; call it once."""
        self._call("timer_delete", self._timer)

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._libc, name)(*arguments):
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
