"""``python -m colobench.node primary|secondary|switch …``: be one node, or the switch."""

from __future__ import annotations

import signal
import sys
from typing import Protocol

from colobench.errors import ColobenchError
from colobench.node.parent import die_with, on_end_of_input

#: A thread that holds the GIL is asked for it after so many seconds: a pause is shorter than 5 ms.
_SWITCH_INTERVAL = 0.0002


class Process(Protocol):
    """What runs until it is told to quit."""

    def quit(self) -> None:
        """End it in order, from any thread."""

    def run(self) -> int:
        """Serve until told to quit; returns the exit code."""


# Each role is imported when it is played: a switch needs nothing of what makes a node start slowly.


def _make_node() -> tuple[Process, int]:
    from colobench.node.options import parse_options
    from colobench.protocol.colo import Role

    options = parse_options()
    if options.parent:
        die_with(options.parent)
    if options.role is Role.PRIMARY:
        from colobench.node.primary import Primary

        return Primary(options), options.parent
    from colobench.node.secondary import Secondary

    return Secondary(options), options.parent


def _make_switch() -> tuple[Process, int]:
    from colobench.node.switch import SwitchProcess, parse_switch_options

    options = parse_switch_options(sys.argv[2:])
    if options.parent:
        die_with(options.parent)
    return SwitchProcess(options), options.parent


def main() -> int:
    """Run a node, or the switch, until it is told to quit."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        process, parent = _make_switch() if sys.argv[1:2] == ["switch"] else _make_node()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: process.quit())
        if parent:
            on_end_of_input(process.quit)
        return process.run()
    except ColobenchError as error:
        print(f"colobench.node: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
