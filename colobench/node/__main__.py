"""``python -m colobench.node ROLE …``: be a node, or a switch, arbiter or link."""

from __future__ import annotations

import gc
import signal
import sys
from types import ModuleType
from typing import Protocol, cast

from colobench.errors import ColobenchError
from colobench.node.parent import die_with, on_end_of_input

#: GIL switch interval, seconds; Python's default of 5 ms is longer than a checkpoint's pause.
_SWITCH_INTERVAL = 0.0002


class Process(Protocol):
    """Process of a role, which runs until it is told to quit."""

    def quit(self) -> None:
        """Request an orderly end, from any thread."""

    def run(self) -> int:
        """Serve until told to quit; returns the exit code."""


# Import only the role that is played: a switch starts without a node's slow imports.


def _make_node(arguments: list[str]) -> tuple[Process, int]:
    # Searches for garbage among what is imported take a tenth of a node's start.
    gc.disable()
    # numba imports coverage where it is installed, which takes a tenth of a node's start.
    sys.modules.setdefault("coverage", cast(ModuleType, None))
    from colobench.node.options import parse_options
    from colobench.node.primary import Primary
    from colobench.node.runtime import NodeRuntime
    from colobench.node.secondary import Secondary
    from colobench.protocol.colo import Role

    options = parse_options(arguments)
    if options.parent:
        die_with(options.parent)
    first = Primary if options.role is Role.PRIMARY else Secondary
    return NodeRuntime(options, first), options.parent


def _make_switch(arguments: list[str]) -> tuple[Process, int]:
    from colobench.node.switch import SwitchProcess, parse_switch_options

    options = parse_switch_options(arguments[1:])
    if options.parent:
        die_with(options.parent)
    return SwitchProcess(options), options.parent


def _make_arbiter(arguments: list[str]) -> tuple[Process, int]:
    from colobench.node.arbiter import ArbiterProcess, parse_options

    options = parse_options(arguments[1:])
    if options.parent:
        die_with(options.parent)
    return ArbiterProcess(options), options.parent


def _make_link(arguments: list[str]) -> tuple[Process, int]:
    from colobench.node.link_relay import LinkProcess, parse_options

    options = parse_options(arguments[1:])
    if options.parent:
        die_with(options.parent)
    return LinkProcess(options), options.parent


_LIGHT_ROLES = {"switch": _make_switch, "arbiter": _make_arbiter, "link": _make_link}


def main(arguments: list[str]) -> int:
    """Run a role until told to quit."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    role = arguments[0] if arguments else ""
    try:
        process, parent = _LIGHT_ROLES.get(role, _make_node)(arguments)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: process.quit())
        if parent:
            on_end_of_input(process.quit)
        return process.run()
    except (ColobenchError, OSError, MemoryError) as error:
        print(f"colobench.node: {error or 'out of memory'}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
