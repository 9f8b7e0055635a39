"""``python -m colobench.node primary|secondary|arbiter …``: be one node, or help nodes."""

from __future__ import annotations

import importlib
import signal
import sys

from colobench.errors import ColobenchError

#: A thread that holds the GIL is asked for it after so many seconds: a pause is shorter than 5 ms.
_SWITCH_INTERVAL = 0.0002
#: Roles without a guest, and the module whose `main` they are. They start at once, as they import
#: no numba; so nothing that does may be imported here before.
LIGHT_ROLES = {"arbiter": "colobench.node.arbiter"}


def main() -> int:
    """Run a node until it is told to quit."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role in LIGHT_ROLES:
        status: int = importlib.import_module(LIGHT_ROLES[role]).main(sys.argv[2:])
        return status
    try:
        return _be_node()
    except ColobenchError as error:
        print(f"colobench.node: {error}", file=sys.stderr)
        return 1


def _be_node() -> int:
    from colobench.node.host import Host
    from colobench.node.options import parse_options
    from colobench.node.parent import die_with, on_end_of_input
    from colobench.node.primary import Primary
    from colobench.node.secondary import Secondary
    from colobench.protocol.colo import Role

    options = parse_options()
    if options.parent:
        die_with(options.parent)
    host = Host(options, Primary if options.role is Role.PRIMARY else Secondary)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: host.quit())
    if options.parent:
        on_end_of_input(host.quit)
    return host.run()


if __name__ == "__main__":
    sys.exit(main())
