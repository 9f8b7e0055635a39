"""End of a process together with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable

from colobench.errors import LocalError

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG).

    Raises
    ------
    LocalError
        If the parent has ended already.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise LocalError(f"parent: expected process {parent}, found {os.getppid()}")


def on_end_of_input(act: Callable[[], None]) -> None:
    """Call `act` when the other end of standard input is closed, by its owner or its death."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=wait, name="end of input", daemon=True).start()
