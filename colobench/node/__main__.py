"""``python -m colobench.node primary|secondary …``: be one node."""

from __future__ import annotations

import signal
import sys

from colobench.errors import ColobenchError
from colobench.node.host import Host
from colobench.node.options import parse_options
from colobench.node.parent import die_with, on_end_of_input
from colobench.node.primary import Primary
from colobench.node.secondary import Secondary
from colobench.protocol.colo import Role

#: A thread that holds the GIL is asked for it after so many seconds: a pause is shorter than 5 ms.
_SWITCH_INTERVAL = 0.0002


def main() -> int:
    """Run a node until it is told to quit."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        options = parse_options()
        if options.parent:
            die_with(options.parent)
        host = Host(options, Primary if options.role is Role.PRIMARY else Secondary)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: host.quit())
        if options.parent:
            on_end_of_input(host.quit)
        return host.run()
    except ColobenchError as error:
        print(f"colobench.node: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
