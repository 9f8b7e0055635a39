"""A trial of KVM by its effect: a small guest boots, prints and counts."""

from __future__ import annotations

import time

from colobench.guest.kvm.boot import BANNER
from colobench.guest.kvm.machine import KVMMachine
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.memory.kvm import KVMUnavailable

_RAM_BYTES = 1 << 20
#: Seconds that the guest may take to boot, and between two looks at it.
_PATIENCE, _PAUSE = 10.0, 0.001


def try_guest() -> str:
    """Boot a guest, and wait until it has printed its line and counted a tick.

    Returns
    -------
    str
        One line that says what works.

    Raises
    ------
    KVMUnavailable
        If this machine cannot run it; one line.
    """
    errors: list[Exception] = []
    machine = KVMMachine(GuestSettings(_RAM_BYTES, Program.KVM_BOOT), failed=errors.append)
    try:
        machine.start()
        until = time.monotonic() + _PATIENCE
        while not machine.work and not errors and time.monotonic() < until:
            time.sleep(_PAUSE)
        if not errors:
            machine.stop()
        if errors or not machine.work or not machine.console().startswith(BANNER.decode()):
            raise KVMUnavailable(
                f"kvm: expected a guest that boots and counts ticks within {_PATIENCE:g} s, "
                f"found {errors[0] if errors else machine.describe()}"
            )
    finally:
        machine.close()
    return "a guest booted, printed a line and counted ticks"
