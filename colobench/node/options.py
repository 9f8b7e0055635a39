"""Command line of a node: the settings of its session, as JSON, and its own options."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.node.address import Address
from colobench.protocol.colo import Role
from colobench.settings.settings import Settings
from colobench.settings.transport import check_socket


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a node's process; values that can change later come over QMP.

    Attributes
    ----------
    role
        Role: primary or secondary.
    qmp
        Path of the monitor's UNIX socket.
    settings
        Settings of the session, which are the same on both sides.
    incoming
        Address at which a secondary waits for its primary.
    mirror
        Address at which a secondary waits for its primary's frames, or None.
    images
        Paths of a primary's images, in the order of the guest's disks.
    disks
        Address at which a secondary serves its images to its primary, or None.
    parent
        Process id of the parent, whose death ends this process, or 0.
    """

    role: Role
    qmp: str
    settings: Settings
    incoming: Address | None
    mirror: Address | None
    parent: int
    images: tuple[str, ...] = ()
    disks: Address | None = None

    @property
    def guest(self) -> GuestSettings:
        """Settings of the guest; a secondary's guest is idle until migration."""
        guest = self.settings.guest
        if self.role is Role.PRIMARY:
            return guest
        idle = Program.KVM_BOOT if guest.program.needs_kvm else Program.IDLE
        return GuestSettings(guest.ram_bytes, idle, disks=guest.disks)


def parse_options(arguments: list[str] | None = None) -> Options:
    """Read the command line.

    Raises
    ------
    LocalError
        If the settings or an address are invalid.
    SystemExit
        If the arguments are invalid; argparse has printed the reason.
    """
    parser = argparse.ArgumentParser(
        prog="colobench.node",
        description=__doc__,
        epilog="The roles switch and arbiter have options of their own: switch --help.",
    )
    roles = parser.add_subparsers(dest="role", required=True)
    for role in Role:
        of_role = roles.add_parser(role.value, help=f"be the {role.value}")
        add = of_role.add_argument
        add("--qmp", required=True, metavar="PATH", help="UNIX socket of the monitor")
        add(
            "--settings", default="{}", metavar="JSON", help="the session's; usual ones if left out"
        )
        add("--parent", type=int, default=0, metavar="PID", help="die with this process")
        if role is Role.SECONDARY:
            add("--incoming", required=True, metavar="URI", help="unix:PATH or tcp:HOST:PORT")
            add("--mirror", metavar="URI", help="where to wait for the primary's frames")
            add("--disks", metavar="URI", help="where to serve the images of disks to the primary")
        else:
            add(
                "--image",
                action="append",
                default=[],
                metavar="FILE",
                help="image of the guest's next disk; by default those of the settings",
            )
    found = parser.parse_args(arguments)
    role = Role(found.role)
    settings = _parse_settings(found.settings)
    if role is Role.PRIMARY:
        images = tuple(found.image) or tuple(disk.image for disk in settings.guest.disk_settings())
        return Options(role, found.qmp, settings, None, None, found.parent, images)
    check_socket(settings.checkpoint.transport.pages, found.incoming)
    return Options(
        role,
        found.qmp,
        settings,
        incoming=Address.parse(found.incoming),
        mirror=None if found.mirror is None else Address.parse(found.mirror),
        parent=found.parent,
        disks=None if found.disks is None else Address.parse(found.disks),
    )


def _parse_settings(text: str) -> Settings:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise LocalError(f"settings: expected JSON, found {text[:80]!r}: {error}") from error
    return Settings.from_json(found)
