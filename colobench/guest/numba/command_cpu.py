"""The host's commands to the guest's CPU; `colobench.guest.numba.cpu` is the other side."""

from __future__ import annotations

import numpy as np

from colobench.guest.numba.cpu import (
    ACKNOWLEDGE,
    COMMAND,
    DEADLINE,
    HOST_SECONDS,
    STATE,
    Command,
    CPUState,
    monotonic_ns,
    stop_timer,
)
from colobench.kernels.atomics import compare_exchange, exchange, fetch_or
from colobench.kernels.jit import Words, kernel

_U0, _U1 = np.uint64(0), np.uint64(1)
_STOP, _START = np.uint64(Command.STOP), np.uint64(Command.START)
_ASLEEP, _HELD = np.uint64(CPUState.ASLEEP), np.uint64(CPUState.HELD)
_PARKED = np.uint64(CPUState.PARKED)


@kernel("i8(u8[::1])")
def start_cpu(control: Words) -> int:
    """Start a stopped CPU, with the argument of `colobench.guest.numba.cpu`.

    Returns
    -------
    int
        1 if the host must wake the CPU by its eventfd; 0 if the CPU sleeps on until its next tick.
    """
    exchange(control, COMMAND, _START)
    # After a load the timer begins anew, so the CPU must not sleep until its old tick.
    loaded = control[DEADLINE] == _U0
    return int(loaded or compare_exchange(control, STATE, _HELD, _ASLEEP) != _HELD)


@kernel("i8(u8[::1], u8[::1], u8)")
def stop_cpu(control: Words, timer: Words, spin_ns: np.uint64) -> int:
    """Stop a running CPU.

    Parameters
    ----------
    control, timer
        Arguments of `colobench.guest.numba.cpu`.
    spin_ns
        Nanoseconds that this call may wait for a CPU that is awake to find the command.

    Returns
    -------
    int
        1 if the CPU is about to acknowledge the stop on its eventfd; 0 if it has stopped.
    """
    exchange(control, COMMAND, _STOP)
    if compare_exchange(control, STATE, _ASLEEP, _HELD) != _ASLEEP:
        exchange(control, ACKNOWLEDGE, _U1)
        until = monotonic_ns(control, HOST_SECONDS) + spin_ns
        while fetch_or(control, STATE, _U0) != _PARKED:
            if monotonic_ns(control, HOST_SECONDS) >= until:
                return 1
        if exchange(control, ACKNOWLEDGE, _U0) == _U0:
            return 1
    stop_timer(control, timer, HOST_SECONDS)
    return 0
