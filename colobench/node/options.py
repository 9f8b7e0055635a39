"""The command line of a node."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from colobench.guest.configuration import (
    Configuration,
    Nondeterminism,
    parse_size,
)
from colobench.guest.programs import Program, parse_program
from colobench.memory.tracker import TRACKERS
from colobench.net.compare_settings import CompareSettings
from colobench.net.output import Output, check_output
from colobench.node.address import Address
from colobench.node.bugs import Bug, check_bug
from colobench.node.compare_options import add_compare_options, compare_settings
from colobench.node.stall import check_stall_timeout
from colobench.node.transport import (
    Encoding,
    PageTransport,
    check_channels,
    check_encoding,
    check_layout,
    check_socket,
)
from colobench.protocol.colo import VARIANTS, Layout, Role, Variant


@dataclass(frozen=True, slots=True)
class Options:
    """What a node is told when it is started; what can change later comes over QMP.

    Attributes
    ----------
    role
        Primary or secondary.
    qmp
        Path of the monitor's UNIX socket.
    guest
        The guest; a secondary's is empty, but for the size of its RAM, until the primary's comes.
    programs
        Those that it may be, whose kernels are to be ready.
    variant, layout
        The form of the conversation, the same on both sides.
    stall_timeout
        Seconds, see `colobench.node.channel.Channel`.
    verify
        Whether to digest RAM and devices at each checkpoint.
    incoming
        Where a secondary waits for its primary.
    transport
        What brings the pages.
    encoding
        What is sent of a page.
    channels
        How many connections it has for that, beside the main one.
    mirror
        Where a secondary waits for its primary's frames, or None.
    output
        What holds the guest's output back until the secondary has caught up with it.
    compare
        How it is compared, if it is.
    bug
        A planted one, or None.
    tracker
        How the guest's writes are learnt, see `colobench.memory.tracker`.
    parent
        The process whose death ends this one, or 0.
    """

    role: Role
    qmp: str
    guest: Configuration
    programs: tuple[Program, ...]
    variant: Variant
    layout: Layout
    stall_timeout: float
    verify: bool
    incoming: Address | None
    transport: PageTransport
    encoding: Encoding
    channels: int
    mirror: Address | None
    output: Output
    compare: CompareSettings
    bug: Bug | None
    tracker: str
    parent: int


def parse_options(arguments: list[str] | None = None) -> Options:
    """Read the command line.

    Raises
    ------
    LocalError
        If a value is out of range.
    SystemExit
        If argparse does not understand it; it has printed why.
    """
    parser = argparse.ArgumentParser(
        prog="colobench.node",
        description=__doc__,
        epilog="The role switch, between clients and nodes, has options of its own: switch --help.",
    )
    roles = parser.add_subparsers(dest="role", required=True)
    for role in Role:
        of_role = roles.add_parser(role.value, help=f"be the {role.value}")
        add = of_role.add_argument
        add("--qmp", required=True, metavar="PATH", help="UNIX socket of the monitor")
        add("--ram", default="64M", metavar="SIZE", help="guest RAM [64M]")
        add("--variant", choices=list(VARIANTS), default="v12", help="form of COLO [v12]")
        add("--layout", choices=[layout.value for layout in Layout], default="separated")
        add("--transport", choices=[each.value for each in PageTransport], default="stream")
        add("--encoding", choices=[each.value for each in Encoding], default="none")
        add("--multifd-channels", type=int, metavar="N", help="of multifd or memfd")
        add("--stall-timeout", type=float, default=10.0, metavar="SECONDS")
        add("--no-verify", action="store_true", help="do not digest RAM and devices")
        add("--bug", metavar="NAME", help="a planted bug; only with --experiment")
        add("--experiment", action="store_true", help="what the guest holds may be lost")
        add("--output", choices=[each.value for each in Output], default="buffer")
        add_compare_options(of_role)
        add("--tracker", choices=list(TRACKERS), default="marked", help="how writes are learnt")
        add("--parent", type=int, default=0, metavar="PID", help="die with this process")
        add("--guest", default="uniform" if role is Role.PRIMARY else None, metavar="PROGRAM")
        if role is Role.PRIMARY:
            add("--seed", type=int, default=0)
            add("--writes-per-tick", type=int, default=4, metavar="N")
            add("--working-set", type=int, default=0, metavar="PAGES", help="0 for all of RAM [0]")
            add("--clock-us", type=int, default=0, metavar="N", help="kv: step of its clock")
            add("--jitter-us", type=int, default=0, metavar="N", help="kv: delays at random")
            add("--shuffle", type=int, default=0, metavar="N", help="kv: turns out of order, ‰")
        else:
            add("--incoming", required=True, metavar="URI", help="unix:PATH or tcp:HOST:PORT")
            add("--mirror", metavar="URI", help="where to wait for the primary's frames")
    found = parser.parse_args(arguments)
    role = Role(found.role)
    ram_bytes = parse_size(found.ram)
    programs = tuple(Program) if found.guest is None else (parse_program(found.guest),)
    if role is Role.PRIMARY:
        [program] = programs
        guest = Configuration(
            ram_bytes,
            program,
            found.seed,
            found.writes_per_tick,
            found.working_set,
            Nondeterminism(found.clock_us, found.jitter_us, found.shuffle),
        )
        incoming = None
    else:
        guest = Configuration(ram_bytes, Program.IDLE)
        incoming = Address.parse(found.incoming)
        check_socket(PageTransport(found.transport), found.incoming)
    check_stall_timeout(found.stall_timeout)
    transport, layout = PageTransport(found.transport), Layout(found.layout)
    check_layout(transport, found.layout)
    check_encoding(transport, found.encoding)
    return Options(
        role=role,
        qmp=found.qmp,
        guest=guest,
        programs=programs,
        variant=VARIANTS[found.variant],
        layout=layout,
        stall_timeout=found.stall_timeout,
        verify=not found.no_verify,
        incoming=incoming,
        transport=transport,
        encoding=Encoding(found.encoding),
        channels=check_channels(transport, found.multifd_channels),
        mirror=_address(getattr(found, "mirror", None)),
        output=check_output(Output(found.output), VARIANTS[found.variant].secondary_runs),
        compare=compare_settings(found),
        bug=check_bug(found.bug, found.experiment),
        tracker=found.tracker,
        parent=found.parent,
    )


def _address(uri: str | None) -> Address | None:
    return None if uri is None else Address.parse(uri)
