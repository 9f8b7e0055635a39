"""Table of the recordings of a real QEMU: the machine, the devices and the way of migrating."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: RAM of a recorded guest, MiB, and the pages that it writes again and again.
RAM_MIB = 32
PAGES = 24
#: Milliseconds between two checkpoints, and the number of them that are recorded.
DELAY_MS = 500
CHECKPOINTS = 6
#: Channels of multifd.
CHANNELS = 2

#: Bytes a second of a migration whose passes take so long that the guest writes meanwhile.
_SLOW = 300_000
_MANY_DEVICES = (
    *("-device", "VGA,romfile="),
    *("-device", "virtio-net-pci,romfile=", "-device", "e1000,romfile="),
    *("-device", "virtio-rng-pci", "-device", "virtio-balloon-pci"),
    *("-device", "virtio-scsi-pci", "-device", "ahci"),
    *("-device", "qemu-xhci", "-device", "usb-tablet", "-device", "usb-kbd"),
    *("-blockdev", "null-co,node-name=disk,size=1048576", "-device", "virtio-blk-pci,drive=disk"),
    *("-device", "virtio-serial-pci", "-smp", "2"),
)


@dataclass(frozen=True, slots=True)
class RecordingPlan:
    """One recording.

    Attributes
    ----------
    name
        Name of its file.
    machine
        QEMU's machine type, with options.
    summary
        What is in it.
    options
        More options of QEMU.
    capabilities
        Migration capabilities of both sides, besides ``events``.
    parameters
        Migration parameters of the source.
    commands
        Monitor commands before the migration, with their arguments.
    way
        ``file`` for an ordinary migration, ``colo`` for a session, ``postcopy``, ``multifd``.
    """

    name: str
    machine: str
    summary: str
    options: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    commands: tuple[tuple[str, dict[str, Any]], ...] = ()
    way: str = "file"


PLANS = (
    RecordingPlan("pc", "pc", "ordinary migration"),
    RecordingPlan("q35", "q35", "ordinary migration"),
    RecordingPlan("pc-no-description", "pc,suppress-vmdesc=on", "without a vmdescription"),
    RecordingPlan("pc-2.3", "pc-i440fx-2.3", "without configuration section and footers"),
    RecordingPlan("many-devices", "pc", "many devices, two processors", _MANY_DEVICES),
    RecordingPlan(
        "configuration",
        "pc",
        "subsections of the configuration section; block addresses (x-ignore-shared)",
        ("-uuid", "6f6f6c6f-6e63-4000-8000-0000636f6c6f"),
        ("validate-uuid", "x-ignore-shared"),
    ),
    RecordingPlan(
        "xbzrle",
        "pc",
        "several passes with XBZRLE",
        capabilities=("xbzrle",),
        parameters={"max_bandwidth": _SLOW, "downtime_limit": 1},
    ),
    RecordingPlan("compress", "pc", "compressed pages", capabilities=("compress",)),
    RecordingPlan(
        "dirty-bitmaps",
        "pc",
        "a disk's dirty bitmap as a second iterable section",
        ("-blockdev", "null-co,node-name=disk,size=67108864"),
        ("dirty-bitmaps",),
        commands=(("block-dirty-bitmap-add", {"node": "disk", "name": "bitmap"}),),
    ),
    RecordingPlan(
        "postcopy",
        "pc",
        "return path, postcopy, devices in a package",
        capabilities=("postcopy-ram",),
        parameters={"max_bandwidth": _SLOW, "downtime_limit": 1},
        way="postcopy",
    ),
    RecordingPlan(
        "multifd",
        "pc",
        "pages on two multifd channels",
        capabilities=("multifd",),
        parameters={"multifd_channels": CHANNELS},
        way="multifd",
    ),
    RecordingPlan("colo-pc", "pc", "a COLO session", way="colo"),
    RecordingPlan(
        "colo-q35-xbzrle", "q35", "a COLO session with XBZRLE", capabilities=("xbzrle",), way="colo"
    ),
    RecordingPlan(
        "colo-many-devices", "pc", "a COLO session with many devices", _MANY_DEVICES, way="colo"
    ),
)
