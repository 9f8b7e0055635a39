"""A guest of our own for a real QEMU under KVM: no operating system, a counter in its RAM."""

from __future__ import annotations

from colobench.peers.firmware import FIRST_BYTE, guest_image
from colobench.peers.protected_qemu import ProtectedQEMU
from colobench.peers.qemu import find_program
from colobench.peers.recordings import PAGES, RAM_MIB

#: Firmware of the guest: all that runs in it.
IMAGE = guest_image(PAGES)


def example_command() -> list[str]:
    """Give the command of its QEMU, without its firmware.

    Raises
    ------
    QEMUUnavailable
        If this machine has no QEMU, or no KVM.
    """
    machine = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    return [find_program(), *machine, "-machine", "pc,accel=kvm", "-m", str(RAM_MIB)]


def read_counter(vm: ProtectedQEMU) -> int:
    """Read the number of the guest's rounds over its pages."""
    return int.from_bytes(vm.memory(FIRST_BYTE, 4), "little")
