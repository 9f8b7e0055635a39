"""``colobench status``: state of each running session, protected or not."""

from __future__ import annotations

import argparse
import json
import sys

#: Exit statuses, as `systemctl status` has them for what is not active, and not there.
_UNPROTECTED, _NO_SESSION = 3, 4


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    words = "session's directory, or the pid of its process [all sessions of this user]"
    parser.add_argument("sessions", nargs="*", metavar="SESSION", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "Exit status: 0 if all sessions are protected, 3 if one is not, 4 if there is none."
    )


def run(options: argparse.Namespace) -> int:
    """Print the sessions' states; the exit status says whether all are protected."""
    from colobench.lab.session.status import PairState, examine, find, render

    statuses = [status for path in find(options.sessions) if (status := examine(path)) is not None]
    if options.json:
        print(json.dumps({"sessions": [status.as_json() for status in statuses]}))
    for status in [] if options.json else statuses:
        print(render(status))
    if not statuses:
        print("colobench status: no session runs", file=sys.stderr)
        return _NO_SESSION
    protected = all(status.state is PairState.PROTECTED for status in statuses)
    return 0 if protected else _UNPROTECTED
