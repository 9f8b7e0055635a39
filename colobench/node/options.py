"""The command line of a node: the settings of its session, as JSON, and what is its alone."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.node.address import Address
from colobench.protocol.colo import VARIANTS, Role, Variant
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Layout, Output
from colobench.settings.compare import CompareSettings
from colobench.settings.settings import Settings
from colobench.settings.transport import Encoding, PageTransport, check_socket


@dataclass(frozen=True, slots=True)
class Options:
    """What a node is told when it is started; what can change later comes over QMP.

    Attributes
    ----------
    role
        Primary or secondary.
    qmp
        Path of the monitor's UNIX socket.
    settings
        Those of the session, which are the same on both sides.
    incoming
        Where a secondary waits for its primary.
    mirror
        Where a secondary waits for its primary's frames, or None.
    parent
        The process whose death ends this one, or 0.
    """

    role: Role
    qmp: str
    settings: Settings
    incoming: Address | None
    mirror: Address | None
    parent: int

    @property
    def guest(self) -> GuestSettings:
        """The guest; a secondary's is empty, but for the size of its RAM, until migration."""
        guest = self.settings.guest
        if self.role is Role.PRIMARY:
            return guest
        return GuestSettings(guest.ram_bytes, Program.IDLE)

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs that the guest may run, whose kernels are to be ready."""
        return (self.settings.guest.program,)

    @property
    def variant(self) -> Variant:
        """The variant of the conversation."""
        return VARIANTS[self.settings.checkpoint.variant]

    @property
    def layout(self) -> Layout:
        """How a checkpoint is laid out."""
        return self.settings.checkpoint.layout

    @property
    def stall_timeout(self) -> float:
        """Seconds, see `colobench.node.channel.Channel`."""
        return self.settings.checkpoint.stall_timeout

    @property
    def verify(self) -> bool:
        """Whether to digest RAM and devices at each checkpoint."""
        return self.settings.checkpoint.verify

    @property
    def transport(self) -> PageTransport:
        """What brings the pages."""
        return self.settings.checkpoint.transport.pages

    @property
    def encoding(self) -> Encoding:
        """What is sent of a page."""
        return self.settings.checkpoint.encoding

    @property
    def channels(self) -> int:
        """Number of connections for pages alone."""
        return self.settings.checkpoint.multifd_channels

    @property
    def output(self) -> Output:
        """What the guest's output waits for."""
        return self.settings.checkpoint.output

    @property
    def compare(self) -> CompareSettings:
        """How output is compared, if it is."""
        return self.settings.network.compare

    @property
    def bug(self) -> Bug | None:
        """A planted one, or None."""
        return self.settings.experiment.bug

    @property
    def tracker(self) -> str:
        """How the guest's writes are learnt, see `colobench.memory.tracker`."""
        return self.settings.checkpoint.tracker


def parse_options(arguments: list[str] | None = None) -> Options:
    """Read the command line.

    Raises
    ------
    LocalError
        If the settings, or an address, are not what is expected.
    SystemExit
        If argparse does not understand it; it has printed why.
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
    found = parser.parse_args(arguments)
    role = Role(found.role)
    settings = _parse_settings(found.settings)
    incoming = mirror = None
    if role is Role.SECONDARY:
        incoming = Address.parse(found.incoming)
        check_socket(settings.checkpoint.transport.pages, found.incoming)
        mirror = None if found.mirror is None else Address.parse(found.mirror)
    return Options(role, found.qmp, settings, incoming, mirror, found.parent)


def _parse_settings(text: str) -> Settings:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise LocalError(f"settings: expected JSON, found {text[:80]!r}: {error}") from error
    return Settings.from_json(found)
