"""Making of the guest that settings describe, and of what its RAM must be."""

from __future__ import annotations

from collections.abc import Callable

from colobench.guest.interface import Guest
from colobench.guest.settings import GuestSettings
from colobench.wire.vmstate import Device


def make_guest(
    settings: GuestSettings, tracker: str, freezable: bool, failed: Callable[[Exception], None]
) -> Guest:
    """Make the guest that settings describe.

    Parameters
    ----------
    settings, tracker, freezable
        Its settings, the name of its tracker, and whether pages can be frozen.
    failed
        Function that is called, in a thread of the guest's, if it cannot run any longer.

    Raises
    ------
    LocalError
        If this machine cannot run it.
    """
    if settings.program.needs_kvm:
        from colobench.guest.kvm.machine import KVMMachine

        return KVMMachine(settings, tracker, failed)
    from colobench.guest.numba.machine import Machine  # It takes numba.

    return Machine(settings, tracker, freezable)


def known_devices(settings: GuestSettings) -> tuple[Device, ...]:
    """Make the devices of a guest without disks for a reader of their states."""
    from colobench.guest.numba.devices import Serial, standard_devices

    if settings.program.needs_kvm:
        from colobench.guest.kvm.devices import held_states

        return (*held_states(), Serial())
    return standard_devices()


def follows_from_seed(settings: GuestSettings, work: int, ram_digest: int) -> bool:
    """Say whether RAM with this digest is that of a guest that has done this work in one go."""
    if settings.program.needs_kvm:
        from colobench.guest.kvm.expected import expected_digests

        return ram_digest in expected_digests(settings, work)
    from colobench.guest.numba.machine import Machine  # It takes numba.

    machine = Machine(settings)
    try:
        machine.run_until(work)
        return machine.ram_digest() == ram_digest
    finally:
        machine.close()


def check_guest(settings: GuestSettings) -> None:
    """Check that this machine can run a guest.

    Raises
    ------
    LocalError
        If it cannot; one line.
    """
    if settings.program.needs_kvm:
        from colobench.memory.kvm import require_kvm

        require_kvm()
