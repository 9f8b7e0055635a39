"""The command line of a node."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.guest.machine import Program
from colobench.node.address import Address
from colobench.protocol.colo import VARIANTS, Layout, Role, Variant

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Read a size such as ``64M``, in bytes.

    Raises
    ------
    LocalError
        If it is not a number with K, M, G or nothing behind it.
    """
    number = text.rstrip("KMGkmg")
    unit = text[len(number) :].upper()
    if unit not in _UNITS or not number.isdigit():
        raise LocalError(f"size: expected a number such as 64M, found {text!r}")
    return int(number) * _UNITS[unit]


@dataclass(frozen=True, slots=True)
class Options:
    """What a node is told when it is started; what can change later comes over QMP.

    Attributes
    ----------
    role
        Primary or secondary.
    qmp
        Path of the monitor's UNIX socket.
    ram_bytes, program, seed, writes_per_tick
        The guest, see `colobench.guest.machine.Machine`; a secondary's comes from its primary.
    variant, layout
        The form of the conversation, the same on both sides.
    stall_timeout
        Seconds, see `colobench.node.channel.Channel`.
    verify
        Whether to digest RAM and devices at each checkpoint.
    incoming
        Where a secondary waits for its primary.
    parent
        The process whose death ends this one, or 0.
    """

    role: Role
    qmp: str
    ram_bytes: int
    program: Program
    seed: int
    writes_per_tick: int
    variant: Variant
    layout: Layout
    stall_timeout: float
    verify: bool
    incoming: Address | None
    parent: int


def parse_options(arguments: list[str] | None = None) -> Options:
    """Read the command line; as argparse does, a wrong one ends the process with a message."""
    parser = argparse.ArgumentParser(prog="colobench.node", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    for role in Role:
        of_role = roles.add_parser(role.value, help=f"be the {role.value}")
        add = of_role.add_argument
        add("--qmp", required=True, metavar="PATH", help="UNIX socket of the monitor")
        add("--ram", type=parse_size, default="64M", metavar="SIZE", help="guest RAM [64M]")
        add("--variant", choices=list(VARIANTS), default="v12", help="form of COLO [v12]")
        add("--layout", type=Layout, choices=list(Layout), default=Layout.SEPARATED)
        add("--stall-timeout", type=float, default=10.0, metavar="SECONDS")
        add("--no-verify", action="store_true", help="do not digest RAM and devices")
        add("--parent", type=int, default=0, metavar="PID", help="die with this process")
        if role is Role.PRIMARY:
            add("--guest", choices=[program.name.lower() for program in Program], default="uniform")
            add("--seed", type=int, default=0)
            add("--writes-per-tick", type=int, default=4, metavar="N")
        else:
            add("--incoming", required=True, metavar="URI", help="unix:PATH or tcp:HOST:PORT")
    try:
        found = parser.parse_args(arguments)
        role = Role(found.role)
        secondary = role is Role.SECONDARY
        if found.stall_timeout <= 0:
            raise LocalError(
                f"stall timeout: expected more than 0 s, found {found.stall_timeout:g}"
            )
        return Options(
            role=role,
            qmp=found.qmp,
            ram_bytes=found.ram,
            program=Program.IDLE if secondary else Program[found.guest.upper()],
            seed=0 if secondary else found.seed,
            writes_per_tick=0 if secondary else found.writes_per_tick,
            variant=VARIANTS[found.variant],
            layout=found.layout,
            stall_timeout=found.stall_timeout,
            verify=not found.no_verify,
            incoming=Address.parse(found.incoming) if secondary else None,
            parent=found.parent,
        )
    except LocalError as error:
        parser.error(str(error))
